//! Sessions that were let in by tokens, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use session_core::{Limit, UserId, WallTime};
use shell::clock::Clock;
use shell::store::MemoryStore;
use shell::tokens::{Grant, KeySource, Keys, Rules, Secret, Tokens, Verifier, mint};
use tests::peer::{InProcess, NODE, Raw, Sent, settings};

const SECRET: &[u8] = b"thirty-two bytes of nothing much";

#[test]
fn a_token_is_the_payload_or_is_in_it_and_a_plain_name_lets_nobody_in() {
    let server = server();
    let token = token("ada", 3600, None);
    let mut peer = Raw::open(server.address);
    for (payload, words) in [
        (r#""ada""#.to_owned(), "Token is not a signed JSON Web Token"),
        ("null".into(), r#"AUTHENTICATE needs a token as its payload, a string or {\"token\": a string}"#),
        (r#"{"user":"ada"}"#.into(), r#"AUTHENTICATE needs a token as its payload, a string or {\"token\": a string}"#),
        (format!(r#""{token}x""#), "Token's signature is not valid"),
    ] {
        show(&mut peer, &payload);
        peer.expect_text(&failure(words));
    }
    show(&mut peer, &format!(r#""{token}""#));
    peer.expect_text(&success("ada", 1));
    let mut other = Raw::open(server.address);
    show(&mut other, &format!(r#"{{"token":"{token}","x":1}}"#));
    other.expect_text(&success("ada", 2));
}

#[test]
fn the_limit_that_a_token_claims_goes_before_the_servers() {
    let server = server();
    let mut held = Vec::new();
    for (limit, connections) in [(Some(1), 1), (None, 2), (None, 3), (Some(4), 4)] {
        let mut peer = Raw::open(server.address);
        show(&mut peer, &format!(r#""{}""#, token("ada", 3600, limit)));
        peer.expect_text(&success("ada", connections));
        held.push(peer);
    }
    for limit in [None, Some(1), Some(0), Some(4)] {
        let mut peer = Raw::open(server.address);
        show(&mut peer, &format!(r#""{}""#, token("ada", 3600, limit)));
        peer.expect_text(&failure("User has reached connection limit, no more connections allowed"));
    }
}

#[test]
fn a_session_ends_with_its_token_unless_a_fresh_one_comes() {
    let server = server();
    let [mut brief, mut renewed] = [(); 2].map(|()| Raw::open(server.address));
    let brief_token = token("ada", 2, None);
    let end = now() + Duration::from_secs(2);
    for (peer, connections) in [(&mut brief, 1), (&mut renewed, 2)] {
        show(peer, &format!(r#""{brief_token}""#));
        peer.expect_text(&success("ada", connections));
    }
    for (payload, words) in [
        (token("bob", 3600, None), "This session belongs to another user"),
        (token("ada", 0, None), "Token has expired"),
        ("ada".into(), "Token is not a signed JSON Web Token"),
    ] {
        show(&mut renewed, &format!(r#""{payload}""#));
        renewed.expect_text(&failure(words));
    }
    show(&mut renewed, &format!(r#""{}""#, token("ada", 4, None)));
    renewed.expect_text(&success("ada", 2));
    let renewed_end = now() + Duration::from_secs(4);

    assert_eq!(brief.read(), Sent::Close(4402, "Token has expired".into()));
    let late = |end: Duration| now().checked_sub(end.saturating_sub(Duration::from_secs(1)));
    // Times in tokens are whole seconds, rounded down.
    assert!(late(end).is_some_and(|late| late < Duration::from_secs(3)), "too early, or too late");
    renewed.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    renewed.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1}}"#);
    assert_eq!(renewed.read(), Sent::Close(4402, "Token has expired".into()));
    assert!(late(renewed_end).is_some_and(|late| late < Duration::from_secs(3)), "too early, or too late");
}

#[test]
fn other_keys_are_gone_by_from_when_they_are_set_and_whoever_is_in_stays() {
    let tokens = Arc::new(tokens(SECRET));
    let server = InProcess::serving(
        Arc::new(MemoryStore::new(NODE, Limit::default())),
        Box::new(Arc::clone(&tokens)),
        settings(),
        2,
    );
    let mut peer = Raw::open(server.address);
    show(&mut peer, &format!(r#""{}""#, token("ada", 3600, None)));
    peer.expect_text(&success("ada", 1));
    tokens.set(verifier(b"another thirty-two bytes of that"));
    let mut late = Raw::open(server.address);
    show(&mut late, &format!(r#""{}""#, token("ada", 3600, None)));
    late.expect_text(&failure("Token's signature is not valid"));
    peer.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    peer.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1}}"#);
}

fn server() -> InProcess {
    let store = Arc::new(MemoryStore::new(NODE, Limit::default()));
    InProcess::serving(store, Box::new(tokens(SECRET)), settings(), 2)
}

fn tokens(secret: &[u8]) -> Tokens {
    Tokens::new(verifier(secret), Clock::start())
}

fn verifier(secret: &[u8]) -> Verifier {
    let keys = Keys::load("HS256".parse().unwrap(), &KeySource::Secret(Secret::new(secret))).unwrap();
    Verifier { keys, rules: Rules::default() }
}

fn token(user: &str, seconds: u64, limit: Option<u32>) -> String {
    let grant = Grant {
        user: UserId::parse(user).unwrap(),
        lasts: Duration::from_secs(seconds),
        limit: limit.map(|slots| Limit::new(slots).unwrap()),
        key_id: None,
        private_key: None,
    };
    let source = KeySource::Secret(Secret::new(SECRET));
    let now = WallTime::from_unix_seconds(now().as_secs());
    mint("HS256".parse().unwrap(), &source, &Rules::default(), &grant, now).unwrap()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn show(peer: &mut Raw, payload: &str) {
    peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#));
}

fn success(user: &str, connections: u32) -> String {
    format!(r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"{user}","connections":{connections}}}}}"#)
}

fn failure(words: &str) -> String {
    format!(r#"{{"type":"AUTHENTICATE_FAILURE","payload":"{words}"}}"#)
}
