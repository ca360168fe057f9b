//! Sessions with tokens, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::EncodingKey;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::json;
use session_core::connection_limiter::ConnectionLimits;
use session_core::ledger::SlotLimit;
use session_core::{UnixSeconds, UserId};
use shell::auth::{JwtAuthenticator, KeySource, Keys, Secret, TokenRequest, TokenValidation, Verifier, mint};
use shell::net::settings::ConnectionSettings;
use shell::runtime::clock::Clock;
use shell::server::Settings;
use shell::store::MemoryStore;
use tests::raw_client::{RawClient, Received, upgrade_request};
use tests::test_server::{NODE, TestServer, settings};
use tests::waiting::eventually;

const SECRET: &[u8] = b"thirty-two bytes of nothing much";

#[test]
fn token_is_accepted_as_payload_or_in_object() {
    let server = server();
    let token = token("ada", 3600, None);
    let mut peer = RawClient::open(server.address);
    for (payload, message) in [
        (r#""ada""#.to_owned(), "Token is not a signed JSON Web Token"),
        ("null".into(), r#"AUTHENTICATE needs a token as its payload, a string or {\"token\": a string}"#),
        (format!(r#""{token}x""#), "Token's signature is not valid"),
    ] {
        show(&mut peer, &payload);
        peer.expect_text(&failure(message));
    }
    show(&mut peer, &format!(r#""{token}""#));
    peer.expect_text(&success("ada", 1));
    let mut other = RawClient::open(server.address);
    show(&mut other, &format!(r#"{{"token":"{token}","x":1}}"#));
    // An object gets a detailed answer.
    assert!(
        matches!(other.read(), Received::Text(text) if text.starts_with(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":2,"limit":3,"session":""#))
    );
}

#[test]
fn token_limit_overrides_the_server_limit() {
    let server = server();
    let mut held = Vec::new();
    for (limit, connections) in [(Some(1), 1), (None, 2), (None, 3), (Some(4), 4)] {
        let mut peer = RawClient::open(server.address);
        show(&mut peer, &format!(r#""{}""#, token("ada", 3600, limit)));
        peer.expect_text(&success("ada", connections));
        held.push(peer);
    }
    for limit in [None, Some(1), Some(0), Some(4)] {
        let mut peer = RawClient::open(server.address);
        show(&mut peer, &format!(r#""{}""#, token("ada", 3600, limit)));
        peer.expect_text(&failure("User has reached connection limit, no more connections allowed"));
    }
}

/// All of them are behind one address, which has room for two connections that show no token.
#[test]
fn users_behind_one_address_have_their_own_bounds() {
    let bound = NonZeroUsize::new;
    let limits = ConnectionLimits { per_client: bound(2), per_user: bound(4), ..ConnectionLimits::default() };
    let server = server_with(Settings { connection_limits: limits, ..settings() });
    let connect = |user: &str| {
        let mut peer = RawClient::open(server.address);
        show(&mut peer, &format!(r#""{}""#, token(user, 3600, None)));
        peer
    };
    let full = failure("User has reached connection limit, no more connections allowed");
    let mut held: Vec<_> = ["ada", "bob"]
        .into_iter()
        .flat_map(|user| (1..=3).map(move |connections| (user, connections)))
        .map(|(user, connections)| {
            let mut peer = connect(user);
            peer.expect_text(&success(user, connections));
            peer
        })
        .collect();
    // Without a slot it counts as well.
    let mut denied = connect("ada");
    denied.expect_text(&full);
    let mut refused = connect("ada");
    refused.expect_text(&full);
    refused.expect_goodbye(1013);
    drop(refused);

    // Without a token nobody gets more than the address has left, and a valid token makes room again.
    // The refused connection may count for a moment longer.
    let mut strangers = [(); 2].map(|()| {
        let mut stranger = None;
        eventually("the refused connection makes room", || {
            let peer = stranger.insert(RawClient::connect(server.address));
            peer.write(upgrade_request("").as_bytes());
            peer.try_head().starts_with("HTTP/1.1 101 ")
        });
        let mut stranger = stranger.expect("it is connected");
        stranger.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
        stranger
    });
    let mut locked_out = RawClient::connect(server.address);
    locked_out.write(upgrade_request("").as_bytes());
    assert!(locked_out.try_head().starts_with("HTTP/1.1 503 "));
    show(&mut strangers[0], &format!(r#""{}""#, token("cleo", 3600, None)));
    strangers[0].expect_text(&success("cleo", 1));
    let mut dan = connect("dan");
    dan.expect_text(&success("dan", 1));

    // A renewal counts no second time, and another user's token moves nothing.
    for (user, answer) in [("ada", success("ada", 3)), ("dan", failure("This session belongs to another user"))] {
        show(&mut held[0], &format!(r#""{}""#, token(user, 3600, None)));
        held[0].expect_text(&answer);
    }
    drop(denied);
    eventually("the denied connection makes room", || {
        let mut peer = connect("ada");
        peer.expect_text(&full);
        peer.is_silent_for(Duration::from_millis(50))
    });
}

#[test]
fn session_ends_with_its_token_unless_renewed() {
    let server = server();
    let [mut brief, mut renewed] = [(); 2].map(|()| RawClient::open(server.address));
    let brief_token = token("ada", 2, None);
    let end = now() + Duration::from_secs(2);
    for (peer, connections) in [(&mut brief, 1), (&mut renewed, 2)] {
        show(peer, &format!(r#""{brief_token}""#));
        peer.expect_text(&success("ada", connections));
    }
    for (payload, message) in [
        (token("bob", 3600, None), "This session belongs to another user"),
        (token("ada", 0, None), "Token has expired"),
        ("ada".into(), "Token is not a signed JSON Web Token"),
    ] {
        show(&mut renewed, &format!(r#""{payload}""#));
        renewed.expect_text(&failure(message));
    }
    show(&mut renewed, &format!(r#""{}""#, token("ada", 4, None)));
    renewed.expect_text(&success("ada", 2));
    let renewed_end = now() + Duration::from_secs(4);

    assert_eq!(brief.read(), Received::Close(4402, "Token has expired".into()));
    let late = |end: Duration| now().checked_sub(end.saturating_sub(Duration::from_secs(1)));
    // Times in tokens are whole seconds, rounded down.
    assert!(late(end).is_some_and(|late| late < Duration::from_secs(3)), "too early, or too late");
    renewed.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    renewed.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1}}"#);
    assert_eq!(renewed.read(), Received::Close(4402, "Token has expired".into()));
    assert!(late(renewed_end).is_some_and(|late| late < Duration::from_secs(3)), "too early, or too late");
}

#[test]
fn changed_keys_apply_to_later_sessions() {
    let tokens = Arc::new(tokens(SECRET));
    let server = TestServer::with_authenticator(
        Arc::new(MemoryStore::new(NODE, SlotLimit::default())),
        Box::new(Arc::clone(&tokens)),
        settings(),
        2,
    );
    let mut peer = RawClient::open(server.address);
    show(&mut peer, &format!(r#""{}""#, token("ada", 3600, None)));
    peer.expect_text(&success("ada", 1));
    tokens.set(verifier(b"another thirty-two bytes of that"));
    let mut late = RawClient::open(server.address);
    show(&mut late, &format!(r#""{}""#, token("ada", 3600, None)));
    late.expect_text(&failure("Token's signature is not valid"));
    peer.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    peer.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1}}"#);
}

/// The server accepts RS256 with a key set, for one audience.
#[test]
fn every_forged_token_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let [own, foreign] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    let pem = own.serialize_pem();
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::RS256).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = "ours".into();
    let set = write("keys.json", &json!({ "keys": [jwk] }).to_string());
    let (algorithm, source) = ("RS256".parse().unwrap(), KeySource::KeySetFile(set));
    let rules = TokenValidation { audiences: vec!["chess".into()], ..TokenValidation::default() };
    let verifier = Verifier { keys: Keys::load(&[algorithm], &source).unwrap(), rules: rules.clone() };
    let tokens = JwtAuthenticator::new(verifier, Clock::start());
    let policy = ConnectionSettings { max_message_bytes: 2 << 20, ..ConnectionSettings::default() };
    let store = Arc::new(MemoryStore::new(NODE, SlotLimit::default()));
    let server =
        TestServer::with_authenticator(store, Box::new(tokens), Settings { connection: policy, ..settings() }, 2);

    let (own, foreign) = (write("ours.key", &pem), write("theirs.key", &foreign.serialize_pem()));
    let make = |private_key: &PathBuf, key_id: &str, rules: &TokenValidation, shift: i64| {
        let grant = TokenRequest {
            key_id: Some(key_id.into()),
            private_key: Some(private_key.clone()),
            ..grant("ada", 60, None)
        };
        let now = UnixSeconds::from_unix_seconds(now().as_secs().saturating_add_signed(shift));
        mint(&[algorithm], &source, rules, &grant, now).unwrap()
    };
    let claims = json!({"sub": "ada", "aud": "chess", "exp": now().as_secs() + 60});
    let sign = |claims: &str| {
        let text = format!("{}.{}", BASE64.encode(r#"{"alg":"RS256","kid":"ours"}"#), BASE64.encode(claims));
        let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::RS256).unwrap();
        format!("{text}.{signature}")
    };
    let good = make(&own, "ours", &rules, 0);
    let hmac = {
        let text =
            format!("{}.{}", BASE64.encode(r#"{"alg":"HS256","kid":"ours"}"#), BASE64.encode(claims.to_string()));
        let public = KeyPair::from_pem(&pem).unwrap().public_key_pem();
        let key = EncodingKey::from_secret(public.as_bytes());
        format!("{text}.{}", jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap())
    };
    let not_yet = json!({"sub": "ada", "aud": "chess", "exp": now().as_secs() + 99, "nbf": now().as_secs() + 60});
    let twice = format!(r#"{{"sub":"ada","sub":"eve","aud":"chess","exp":{}}}"#, now().as_secs() + 60);
    let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims.to_string()));
    for (what, token, message) in [
        ("expired", make(&own, "ours", &rules, -61), "Token has expired"),
        ("not yet valid", sign(&not_yet.to_string()), "Token is not valid yet"),
        ("by another key", make(&foreign, "ours", &rules, 0), "Token's signature is not valid"),
        (
            "for others",
            make(&own, "ours", &TokenValidation { audiences: vec!["go".into()], ..TokenValidation::default() }, 0),
            "Token is meant for another audience",
        ),
        ("unsigned", none, "Token is not signed with the algorithm that this server accepts"),
        ("signed with the public key", hmac, "Token is not signed with the algorithm that this server accepts"),
        ("cut off", good[..good.len() - 3].into(), "Token's signature is not valid"),
        ("cut off in its claims", good[..good.rfind('.').unwrap() - 3].into(), "Token is not a signed JSON Web Token"),
        ("a megabyte", format!("{good}{}", "A".repeat(1 << 20)), "Token's signature is not valid"),
        ("a megabyte of nothing", "A".repeat(1 << 20), "Token is not a signed JSON Web Token"),
        (
            "by an unknown key",
            make(&own, "other", &rules, 0),
            "Token was signed with a key that this server does not know",
        ),
        ("with a claim twice", sign(&twice), "Token says the same thing twice"),
        ("for nobody", sign(r#"{"aud":"chess","exp":99999999999}"#), "Token does not say who its user is"),
        ("for ever", sign(r#"{"sub":"ada","aud":"chess"}"#), "Token does not say when it expires (exp)"),
    ] {
        let mut peer = RawClient::open(server.address);
        show(&mut peer, &format!(r#""{token}""#));
        assert_eq!(peer.read(), Received::Text(failure(message)), "{what}");
    }
    let mut peer = RawClient::open(server.address);
    show(&mut peer, &format!(r#""{good}""#));
    peer.expect_text(&success("ada", 1));

    // With the default message size the token is not even read.
    let strict = self::server();
    let mut peer = RawClient::open(strict.address);
    show(&mut peer, &format!(r#""{}""#, "A".repeat(1 << 20)));
    assert!(matches!(peer.read(), Received::Text(message) if message.contains("Message is too big")));
    peer.expect_close(1009);
}

fn server() -> TestServer {
    server_with(settings())
}

fn server_with(settings: Settings) -> TestServer {
    let store = Arc::new(MemoryStore::new(NODE, SlotLimit::default()));
    TestServer::with_authenticator(store, Box::new(tokens(SECRET)), settings, 2)
}

fn tokens(secret: &[u8]) -> JwtAuthenticator {
    JwtAuthenticator::new(verifier(secret), Clock::start())
}

fn verifier(secret: &[u8]) -> Verifier {
    let keys = Keys::load(&["HS256".parse().unwrap()], &KeySource::Secret(Secret::new(secret))).unwrap();
    Verifier { keys, rules: TokenValidation::default() }
}

fn token(user: &str, seconds: u64, limit: Option<u32>) -> String {
    let grant = grant(user, seconds, limit);
    let source = KeySource::Secret(Secret::new(SECRET));
    let now = UnixSeconds::from_unix_seconds(now().as_secs());
    mint(&["HS256".parse().unwrap()], &source, &TokenValidation::default(), &grant, now).unwrap()
}

fn grant(user: &str, seconds: u64, limit: Option<u32>) -> TokenRequest {
    TokenRequest {
        user: UserId::parse(user).unwrap(),
        lifetime: Duration::from_secs(seconds),
        limit: limit.map(|slots| SlotLimit::new(slots).unwrap()),
        device: None,
        key_id: None,
        private_key: None,
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn show(peer: &mut RawClient, payload: &str) {
    peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#));
}

fn success(user: &str, connections: u32) -> String {
    format!(r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"{user}","connections":{connections}}}}}"#)
}

fn failure(message: &str) -> String {
    format!(r#"{{"type":"AUTHENTICATE_FAILURE","payload":"{message}"}}"#)
}
