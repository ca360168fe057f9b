//! A server process, and tokens as identity providers and applications make them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::raw_client::{RawClient, Received};
use tests::test_process::{TestProcess, without_connection_limits};
use tests::waiting::TIMEOUT;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const SECRET: &str = "a secret of thirty-two bytes, all";

/// A server that requires tokens, and its log.
struct TokenServer {
    process: TestProcess,
    log: Receiver<String>,
    _data: Option<TempDir>,
}

impl TokenServer {
    fn start(arguments: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = without_connection_limits(SERVER);
        command.env("SESSIONS_AUTH", "jwt").args(arguments).env("SESSIONS_JWT_SECRET", SECRET).stderr(Stdio::piped());
        let server = Self::run(command, data.path());
        Self { _data: Some(data), ..server }
    }

    fn run(command: Command, directory: &Path) -> Self {
        let mut process = TestProcess::run_as(command, &directory.join("data"));
        let (sender, log) = channel();
        let lines = BufReader::new(process.stderr().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, log, _data: None }
    }

    /// Reads the log up to the line with this text.
    fn logged(&self, message: &str) -> String {
        let lines = std::iter::from_fn(|| Some(self.log.recv_timeout(TIMEOUT).expect(message)));
        lines.into_iter().find(|line| line.contains(message)).unwrap()
    }

    /// Sends AUTHENTICATE with this text. Returns the answer and the connection.
    fn authenticate(&self, credential: &str) -> (String, RawClient) {
        let mut peer = RawClient::open(self.process.address);
        peer.text(&json!({"type": "AUTHENTICATE", "payload": credential}).to_string());
        let received = peer.read();
        let Received::Text(answer) = received else { panic!("{received:?}") };
        (answer, peer)
    }
}

fn signed(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// An answer without the text around its payload.
fn success(user: &str, connections: u32) -> String {
    format!(r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"{user}","connections":{connections}}}}}"#)
}

#[test]
fn claims_of_any_shape_decide() {
    let server = TokenServer::start(&["--jwt-limit-claim", "/realm_access/plan"]);
    let token = signed(&json!({"sub": 42, "exp": 1e300, "realm_access": {"plan": "2"}, "max_sessions": 1}));
    let (answer, _first) = server.authenticate(&token);
    assert_eq!(answer, success("42", 1));
    let (answer, mut second) = server.authenticate(&token);
    assert_eq!(answer, success("42", 2));
    let (answer, _third) = server.authenticate(&token);
    assert!(answer.contains("User has reached connection limit"), "{answer}");
    // A token that practically never expires ends no session.
    second.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    assert!(matches!(second.read(), Received::Text(answer) if answer.contains(r#""connections":2"#)));
}

#[test]
fn log_names_the_claim_but_not_its_value() {
    let server = TokenServer::start(&["--jwt-limit-claim", "/plan/seats"]);
    let (answer, _peer) =
        server.authenticate(&signed(&json!({"sub": "ada", "exp": 1e300, "plan": {"seats": "gold-s3cret"}})));
    let message = "The limit that the token claims is neither a whole number from 0 to 1024 nor \\\"unlimited\\\"";
    assert_eq!(answer, format!(r#"{{"type":"AUTHENTICATE_FAILURE","payload":"{message}"}}"#));
    let line = server.logged("invalid credential");
    assert!(line.contains(r#"claim="/plan/seats" found="string""#) && !line.contains("s3cret"), "{line}");
}

#[test]
fn token_may_have_space_and_bearer_around_it() {
    let server = TokenServer::start(&[]);
    let token = signed(&json!({"sub": "ada", "exp": 1e300, "max_sessions": 0}));
    let answer = |credential: &str| server.authenticate(credential).0;
    for credential in [
        format!(" {token}"),
        format!("{token}\r\n"),
        format!("\u{a0}\t{token}\n\n"),
        format!("Bearer {token}"),
        format!("bearer   {token}"),
        format!(" BEARER\t{token}\n"),
    ] {
        // The token is accepted, and its limit is 0.
        assert!(answer(&credential).contains("User has reached connection limit"), "{credential:?}");
    }
    for credential in [
        format!("Bearer Bearer {token}"),
        format!("Bearer{token}"),
        format!("Bearer: {token}"),
        format!("Basic {token}"),
        format!("{token} {token}"),
        "Bearer".into(),
        " ".into(),
    ] {
        assert!(answer(&credential).contains("Token is not a signed JSON Web Token"), "{credential:?}");
    }
}

/// A token of about this many bytes, with the groups of the user, as in Entra ID.
fn long_token(bytes: usize) -> String {
    let groups: Vec<_> = (0..bytes / 52).map(|at| format!("{at:08x}-0f3c-4a77-9d4e-6c1f0f9a2b3d")).collect();
    signed(&json!({"sub": "ada", "exp": 1e300, "groups": groups}))
}

fn check_connections(peer: &mut RawClient, padding: usize) {
    peer.text(&format!(r#"{{"type":"CHECK_CONNECTIONS","padding":"{}"}}"#, "x".repeat(padding)));
}

#[test]
fn token_of_eight_kilobytes_is_accepted_and_renewed() {
    let server = TokenServer::start(&[]);
    let token = long_token(8192);
    assert!((8000..9000).contains(&token.len()), "{}", token.len());
    let (answer, mut peer) = server.authenticate(&token);
    assert_eq!(answer, success("ada", 1));
    // The next token is as long, or a little longer.
    peer.text(&json!({"type": "AUTHENTICATE", "payload": long_token(8800)}).to_string());
    peer.expect_text(&success("ada", 1));
    check_connections(&mut peer, 16_384);
    assert!(matches!(peer.read(), Received::Text(answer) if answer.contains("Message is too big")));
    peer.expect_close(1009);
}

/// The user was added to a group meanwhile.
#[test]
fn fresh_token_may_exceed_what_the_first_one_needed() {
    let server = TokenServer::start(&[]);
    let [first, next] = [3700, 4200].map(long_token);
    assert!(first.len() < 4000 && next.len() > 4096, "{} and {}", first.len(), next.len());
    let (answer, mut peer) = server.authenticate(&first);
    assert_eq!(answer, success("ada", 1));
    peer.text(&json!({"type": "AUTHENTICATE", "payload": next}).to_string());
    peer.expect_text(&success("ada", 1));
}

#[test]
fn long_messages_are_for_tokens_alone() {
    let server = TokenServer::start(&[]);
    let (answer, mut peer) = server.authenticate(&signed(&json!({"sub": "ada", "exp": 1e300})));
    assert_eq!(answer, success("ada", 1));
    check_connections(&mut peer, 4000);
    assert!(matches!(peer.read(), Received::Text(answer) if answer.contains("CHECK_CONNECTIONS_SUCCESS")));
    check_connections(&mut peer, 4096);
    assert!(matches!(peer.read(), Received::Text(answer) if answer.contains("Message is too big")));
    peer.expect_close(1009);
    let line = server.logged("too big");
    assert!(line.contains("message_bytes=4137 max_message_bytes=4096"), "{line}");
}

#[test]
fn message_bound_until_authentication_follows_the_setting() {
    for (arguments, max) in [
        (&[][..], 16_384),
        (&["--max-message-bytes", "4096"], 4096),
        (&["--max-message-bytes", "20000"], 20_000),
        (&["--auth", "open"], 4096),
    ] {
        let server = TokenServer::start(arguments);
        let mut peer = RawClient::open(server.process.address);
        peer.text(&"x".repeat(max));
        peer.expect_text(r#"{"type":"ERROR","payload":"Message is not valid JSON"}"#);
        peer.text(&"x".repeat(max + 1));
        peer.expect_text(r#"{"type":"ERROR","payload":"Message is too big"}"#);
        peer.expect_close(1009);
        let line = server.logged("too big");
        let sizes = format!("message_bytes={} max_message_bytes={max}", max + 1);
        assert!(line.ends_with(&sizes), "{arguments:?}: {line}");
    }
}

/// A provider changes from RS256 to ES256, as Auth0, Keycloak and others let one do: the new key is published beside the old
/// one, then it signs, then the old one is withdrawn. The server's configuration stays.
#[test]
fn provider_changes_its_algorithm_without_downtime() {
    let data = tempfile::tempdir().unwrap();
    let [old, new] = [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256].map(|kind| KeyPair::generate_for(kind).unwrap());
    let [old_key, new_key] = [
        EncodingKey::from_rsa_pem(old.serialize_pem().as_bytes()).unwrap(),
        EncodingKey::from_ec_pem(new.serialize_pem().as_bytes()).unwrap(),
    ];
    let jwk = |key: &EncodingKey, algorithm, id: &str| {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
        jwk["kid"] = id.into();
        jwk
    };
    let (old_jwk, new_jwk) = (jwk(&old_key, Algorithm::RS256, "2024"), jwk(&new_key, Algorithm::ES256, "2025"));
    let token = |key: &EncodingKey, algorithm, id: &str| {
        let header = Header { kid: Some(id.into()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &json!({"sub": "ada", "exp": 1e300, "max_sessions": 0}), key).unwrap()
    };
    let old_token = token(&old_key, Algorithm::RS256, "2024");
    let new_token = token(&new_key, Algorithm::ES256, "2025");

    let file = data.path().join("keys.json");
    let publish = |keys: &[&Value]| {
        let next = data.path().join("next.json");
        fs::write(&next, json!({ "keys": keys }).to_string()).unwrap();
        fs::rename(next, &file).unwrap();
    };
    publish(&[&old_jwk]);
    let mut command = without_connection_limits(SERVER);
    command.args(["--auth", "jwt", "--jwt-algorithm", "RS256,ES256", "--jwt-key-set-file"]).arg(&file);
    command.stderr(Stdio::piped());
    let server = TokenServer::run(command, data.path());
    let answer = |token: &str| server.authenticate(token).0;
    // Both are accepted tokens if the limit in them counts: it is 0.
    let (accepted, unknown, reloaded) = (
        "User has reached connection limit",
        "Token was signed with a key that this server does not know",
        "the keys of tokens have changed and are reloaded",
    );
    assert!(answer(&old_token).contains(accepted) && answer(&new_token).contains(unknown));
    publish(&[&new_jwk, &old_jwk]);
    server.logged(reloaded);
    assert!(answer(&old_token).contains(accepted) && answer(&new_token).contains(accepted));
    publish(&[&new_jwk]);
    server.logged(reloaded);
    assert!(answer(&old_token).contains(unknown) && answer(&new_token).contains(accepted));
}
