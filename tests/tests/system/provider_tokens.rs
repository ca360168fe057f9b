//! A server process, and tokens as identity providers and applications make them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{ChildStderr, Command, Stdio};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::raw_client::{RawClient, Received};
use tests::test_process::{TestProcess, without_connection_limits};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const SECRET: &str = "a secret of thirty-two bytes, all";

/// A server that requires tokens, and its log.
struct TokenServer {
    process: TestProcess,
    log: Lines<BufReader<ChildStderr>>,
    _data: TempDir,
}

impl TokenServer {
    fn start(arguments: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = without_connection_limits(SERVER);
        command.args(["--auth", "jwt"]).args(arguments).env("SESSIONS_JWT_SECRET", SECRET).stderr(Stdio::piped());
        Self::run(command, data)
    }

    fn run(command: Command, data: TempDir) -> Self {
        let mut process = TestProcess::run_as(command, &data.path().join("data"));
        let log = BufReader::new(process.stderr().unwrap()).lines();
        Self { process, log, _data: data }
    }

    /// Reads the log up to the line with this text.
    fn logged(&mut self, message: &str) -> String {
        self.log.by_ref().map(Result::unwrap).find(|line| line.contains(message)).unwrap()
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
    let mut server = TokenServer::start(&["--jwt-limit-claim", "/plan/seats"]);
    let (answer, _peer) =
        server.authenticate(&signed(&json!({"sub": "ada", "exp": 1e300, "plan": {"seats": "gold-s3cret"}})));
    let message = "The limit that the token claims is neither a whole number from 0 to 1024 nor \\\"unlimited\\\"";
    assert_eq!(answer, format!(r#"{{"type":"AUTHENTICATE_FAILURE","payload":"{message}"}}"#));
    let line = server.logged("invalid credential");
    assert!(line.contains(r#"claim="/plan/seats" found="string""#) && !line.contains("s3cret"), "{line}");
}
