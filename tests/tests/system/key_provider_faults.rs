//! Identity providers that are down, slow or wrong, and the keys that stay in force.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::key_provider::{Answer, TestProvider};
use tests::test_process::send_signal;
use tests::waiting::{eventually, side_by_side};

use crate::key_provider::{ACCEPTED, ProviderServer, SERVER, Signer, TRY_AGAIN, UNKNOWN_KEY, key_set, keys_at};

/// Wrong answers, and what the log says about each.
fn wrong_answers(provider: &TestProvider) -> Vec<(Answer, &'static str)> {
    let many: Vec<_> = (0..65)
        .map(|number| {
            let mut key: Value = serde_json::from_str(&key_set(&[&Signer::es256("x")])).unwrap();
            key["keys"][0]["kid"] = number.to_string().into();
            key["keys"][0].take()
        })
        .collect();
    let html =
        Answer::With { status: "200 OK", headers: vec!["content-type: text/html".into()], body: "<html>".into() };
    let oct = json!({"keys": [{"kty": "oct", "kid": "s", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}]}).to_string();
    vec![
        (Answer::HangUp, "cannot get the keys of"),
        (Answer::json("{\"keys\":"), "it is not a JSON Web Key Set: EOF"),
        (Answer::json("<!doctype html>"), "it is not a JSON Web Key Set"),
        (html, "it answers with an HTML page, not with JSON"),
        (Answer::json("{\"keys\":[]}"), "none of its keys can be used"),
        (Answer::json(oct), "none of its keys can be used"),
        (Answer::json(json!({ "keys": many }).to_string()), "it has more than 64 keys"),
        (Answer::json("x".repeat(300_000)), "its answer has more than 262144 bytes"),
        (Answer::With { status: "500 Oops", headers: Vec::new(), body: String::new() }, "it answers 500"),
        (Answer::With { status: "204 No Content", headers: Vec::new(), body: String::new() }, "it answers 204"),
        (Answer::redirect(&provider.url("/good")), "which is not followed"),
    ]
}

/// The set that was good last stays in force, and the log says since when.
#[test]
fn last_good_keys_stay_in_force() {
    let provider = TestProvider::start();
    let key = Signer::es256("first");
    provider.set("/good", Answer::json(key_set(&[&key])));
    let answers = wrong_answers(&provider);
    let cases: Vec<_> = answers.into_iter().enumerate().collect();
    side_by_side(cases, |(case, (answer, message))| {
        let path = format!("/{case}");
        provider.set(&path, Answer::json(key_set(&[&key])));
        let server = ProviderServer::start(&keys_at(&provider.url(&path)));
        let _ada = server.expect(&key.token("ada"), ACCEPTED);
        server.logged("fetched the keys of tokens");

        let started = Instant::now();
        provider.set(&path, answer);
        send_signal(server.process.id(), Signal::HUP);
        let line = server.logged("the last ones stay in force");
        assert!(line.contains(message) && line.contains("keys=1 in_force_since=\"20"), "{line}");
        let _ada = server.expect(&key.token("ada"), ACCEPTED);
        // Retries that fail are logged at most once a minute.
        eventually("it tries again", || provider.requests(&path) >= 4);
        let lines = server.log().matches("the last ones stay in force").count() as u64;
        assert!(lines <= 1 + started.elapsed().as_secs() / 60, "{lines}");

        // A secret in the set is no key: everybody could sign with it.
        let next = Signer::es256("next");
        let mut set: Value = serde_json::from_str(&key_set(&[&next])).unwrap();
        set["keys"].as_array_mut().unwrap().push(json!({"kty": "oct", "kid": "s3cret-id", "k": "c2VjcmV0"}));
        provider.set(&path, Answer::json(set.to_string()));
        server.logged("the keys of tokens can be fetched again");
        let line = server.logged("key_id=\"s3cret-id\"");
        assert!(line.contains("skipped a secret in a set of public keys") && !line.contains("c2Vj"), "{line}");
        let _ada = server.expect(&next.token("ada"), ACCEPTED);
    });
    // Only the path that is configured was ever asked for.
    assert_eq!(provider.requests("/good"), 0);
}

#[test]
fn server_starts_while_its_provider_is_down() {
    let provider = TestProvider::start();
    let (key, url) = (Signer::es256("first"), provider.url("/keys"));
    provider.set("/keys", Answer::HangUp);
    let server = ProviderServer::start(&keys_at(&url));
    let mut peer = server.expect(&key.token("ada"), TRY_AGAIN);
    peer.expect_close(1013);
    let _eve = server.expect("no token", "Token is not a signed JSON Web Token");
    let line = server.logged("until they come, clients are refused with 1013");
    assert!(line.contains("ERROR") && line.contains(&url), "{line}");

    provider.set("/keys", Answer::json(key_set(&[&key])));
    eventually("the keys have come", || server.answer(&key.token("ada")).0.contains(ACCEPTED));
    // The keys are saved, so a restart survives an outage.
    let file = server.directory.path().join("data/jwt_keys.json");
    eventually("the keys are saved", || file.exists());
    let directory = Arc::clone(&server.directory);
    drop(server);
    provider.set("/keys", Answer::HangUp);
    let server = ProviderServer::start_in(Arc::clone(&directory), &keys_at(&url));
    let _ada = server.expect(&key.token("ada"), ACCEPTED);
    server.logged("the last ones stay in force");
    drop(server);

    // They are for this provider alone.
    provider.set("/other", Answer::HangUp);
    let server = ProviderServer::start_in(Arc::clone(&directory), &keys_at(&provider.url("/other")));
    let _ada = server.expect(&key.token("ada"), TRY_AGAIN);
    drop(server);
    fs::write(&file, "half of a fi").unwrap();
    let server = ProviderServer::start_in(directory, &keys_at(&url));
    let _ada = server.expect(&key.token("ada"), TRY_AGAIN);
    server.logged("the saved keys of tokens cannot be used");
}

/// A provider chooses how many keys of its set cannot be used, and the set is read again with each fetch.
#[test]
fn skipped_keys_do_not_flood_the_log() {
    let (provider, key) = (TestProvider::start(), Signer::es256("first"));
    let mut set: Value = serde_json::from_str(&key_set(&[&key])).unwrap();
    for number in 0..5000 {
        set["keys"].as_array_mut().unwrap().push(json!({"kty": "oct", "kid": number.to_string(), "k": "c2VjcmV0"}));
    }
    provider.set("/keys", Answer::json(set.to_string()));
    let server = ProviderServer::start(&keys_at(&provider.url("/keys")));
    let _ada = server.expect(&key.token("ada"), ACCEPTED);
    server.logged("fetched the keys of tokens");
    assert_eq!(server.log().matches("skipped a secret in a set of public keys").count(), 8);
}

/// The provider may have withdrawn a key while the server was down.
#[test]
fn saved_keys_serve_only_once_a_fetch_has_failed() {
    let provider = TestProvider::start();
    let (key, settings) = (Signer::es256("first"), keys_at(&provider.url("/keys")));
    provider.set("/keys", Answer::json(key_set(&[&key])));
    let server = ProviderServer::start(&settings);
    let _ada = server.expect(&key.token("ada"), ACCEPTED);
    let directory = Arc::clone(&server.directory);
    eventually("the keys are saved", || directory.path().join("data/jwt_keys.json").exists());
    drop(server);

    provider.set("/keys", Answer::Silence);
    let server = ProviderServer::start_in(directory, &format!("{settings}store_timeout = \"1s\"\n"));
    eventually("the server asks", || provider.requests("/keys") >= 2);
    let _ada = server.expect(&key.token("ada"), TRY_AGAIN);
    let line = server.logged("the last ones stay in force");
    assert!(line.contains("keys=1 in_force_since=\"20"), "{line}");
    let _ada = server.expect(&key.token("ada"), ACCEPTED);
}

#[test]
fn slow_provider_holds_up_only_those_who_need_it() {
    side_by_side([Answer::Silence, Answer::Drip], |slow| {
        let provider = TestProvider::start();
        let (key, new) = (Signer::es256("first"), Signer::es256("new"));
        provider.set("/keys", Answer::json(key_set(&[&key])));
        let settings = format!("{}store_timeout = \"1s\"\n", keys_at(&provider.url("/keys")));
        let server = ProviderServer::start(&settings);
        let _ada = server.expect(&key.token("ada"), ACCEPTED);
        provider.set("/keys", slow.clone());
        thread::scope(|scope| {
            let waits = scope.spawn(|| server.answer(&new.token("eve")).0);
            for _ in 0..20 {
                drop(server.expect(&key.token("bob"), ACCEPTED));
            }
            // Refused at once if the fetch could not begin in time, and otherwise when the time is over.
            let answer = waits.join().unwrap();
            assert!(answer.contains(TRY_AGAIN) || answer.contains(UNKNOWN_KEY), "{answer}");
        });
        let line = server.logged("the last ones stay in force");
        assert!(line.contains("it does not answer in time"), "{slow:?}: {line}");
    });
}

#[test]
fn conflicting_settings_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sessions.toml");
    let url = "jwt_key_set_url = \"https://idp.example/keys\"\n";
    for (settings, message) in [
        (format!("{url}jwt_key_set_file = \"keys.json\""), "set only one of them"),
        (format!("{url}jwt_public_key_file = \"key.pem\""), "set only one of them"),
        (format!("{url}jwt_secret_file = \"secret\""), "set only one of them"),
        (format!("{url}jwt_discovery = true\njwt_issuer = \"https://idp.example\""), "set only one of them"),
        (format!("{url}jwt_algorithm = \"HS256\""), "need a secret: set jwt_algorithm to what it signs with"),
        ("jwt_key_set_url = \"http://idp.example/keys\"".into(), "keys must come over https"),
        ("jwt_discovery = true".into(), "jwt_discovery needs the URL of the issuer in jwt_issuer"),
        (
            "jwt_discovery = true\njwt_issuer = [\"https://a.example\", \"https://b.example\"]".into(),
            "needs one issuer",
        ),
        ("jwt_discovery = true\njwt_issuer = \"accounts\"".into(), "the issuer \"accounts\" cannot be discovered"),
        ("jwt_key_set_ca = \"ca.pem\"\njwt_key_set_file = \"k\"".into(), "jwt_key_set_ca has no effect without"),
        (format!("{url}jwt_key_set_ca = \"missing.pem\""), "the certificate authorities in missing.pem cannot be used"),
        (String::new(), "jwt_key_set_url or jwt_discovery for those of an identity provider"),
    ] {
        let algorithm = if settings.contains("jwt_algorithm") { "" } else { "jwt_algorithm = \"RS256\"\n" };
        fs::write(&file, format!("auth = \"jwt\"\n{algorithm}{settings}")).unwrap();
        let output = Command::new(SERVER).arg("check-config").arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(message), "{settings}: {text}");
    }
    fs::write(&file, format!("auth = \"jwt\"\njwt_algorithm = \"RS256\"\n{url}")).unwrap();
    let output = Command::new(SERVER).arg("check-config").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "the form counts, nothing is fetched: {output:?}");
}
