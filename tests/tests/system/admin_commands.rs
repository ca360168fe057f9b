//! The operator's commands, to a running server and to the data directory of a stopped one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tests::raw_client::{RawClient, Received};
use tests::test_process::TestProcess;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// Runs a command: exit code, and both outputs.
pub(crate) fn run_command(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(SERVER);
    let Output { status, stdout, stderr } = command.args(arguments).arg("--data").arg(data).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Runs a command that succeeds, or has nothing to do, and returns its report.
pub(crate) fn report(data: &Path, arguments: &[&str]) -> Value {
    let (code, out, err) = run_command(data, &[arguments, &["--json"]].concat());
    assert!(matches!((code, &*err), (0 | 6, "")), "{code} {out}{err}");
    serde_json::from_str(&out).unwrap()
}

/// Authenticates with an object. Returns the id of the session, or the failure.
pub(crate) fn sign_in(process: &TestProcess, user: &str, label: &str) -> (RawClient, Result<String, Value>) {
    let mut peer = RawClient::open(process.address);
    peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":{{"user":"{user}","label":"{label}"}}}}"#));
    let answer = read_json(&mut peer);
    let session = answer["payload"]["session"].as_str().map(ToOwned::to_owned);
    (peer, session.ok_or(answer))
}

fn read_json(peer: &mut RawClient) -> Value {
    let Received::Text(text) = peer.read() else { panic!("no answer") };
    serde_json::from_str(&text).unwrap()
}

fn expect_ended(peer: &mut RawClient) {
    let message = r#"{"type":"EVICTED","payload":"The operator has ended this session""#;
    assert!(matches!(peer.read(), Received::Text(text) if text.starts_with(message)));
    assert_eq!(peer.read(), Received::Close(4409, "The slot of this session was taken away".into()));
}

#[test]
fn running_server_explains_users_and_ends_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let process = TestProcess::start(SERVER, directory.path(), &[]);
    let (_first, first) = sign_in(&process, "ada", "laptop");
    let (mut second, second_id) = sign_in(&process, "ada", "phone");
    let mut plain = RawClient::authenticated(process.address, "ada", 3);

    let actual = report(directory.path(), &["explain", "ada"]);
    assert_eq!((&actual["limit"], &actual["rule"], &actual["connections"]), (&3.into(), &"server".into(), &3.into()));
    assert_eq!(actual["next"]["outcome"], "denied");
    let sessions = actual["sessions"].as_array().unwrap();
    assert_eq!(sessions[0]["id"], first.unwrap().as_str());
    assert_eq!((&sessions[1]["label"], &sessions[1]["from"]), (&"phone".into(), &"127.0.0.1".into()));
    assert_eq!((&sessions[2]["label"], &sessions[2]["state"]), (&Value::Null, &"live".into()));
    let (code, message, _) = run_command(directory.path(), &["explain", "ada"]);
    assert!(code == 0 && message.starts_with("user \"ada\" holds 3 slots of 3 (the server's default"), "{message}");
    assert!(message.contains(", label \"phone\", from 127.0.0.1\n"), "{message}");
    assert!(message.ends_with("the next session would be denied: all slots are taken\n"), "{message}");

    let second_id = second_id.unwrap();
    assert_eq!(report(directory.path(), &["end", "ada", &second_id])["ended"], Value::from(vec![second_id.clone()]));
    expect_ended(&mut second);
    let (code, _, err) = run_command(directory.path(), &["end", "ada", &second_id]);
    assert_eq!((code, &*err), (1, "error: this user has no such session\n"));
    let (code, _, err) = run_command(directory.path(), &["forget", "ada"]);
    assert_eq!((code, &*err), (1, "error: this user holds 2 slots: end them first\n"));
    assert_eq!(report(directory.path(), &["end", "ada"])["ended"].as_array().unwrap().len(), 2);
    expect_ended(&mut plain);
    assert_eq!(report(directory.path(), &["explain", "ada"])["connections"], 0);
    assert_eq!(report(directory.path(), &["end", "nobody"])["ended"], Value::Array(vec![]));
}

#[test]
fn user_overrides_apply_at_once_and_survive_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut process = TestProcess::start(SERVER, data, &[]);
    let mut held: Vec<_> = (1..=3).map(|held| RawClient::authenticated(process.address, "ada", held)).collect();
    assert_eq!(report(data, &["limit", "ada", "4"])["rule"], "user");
    held.push(RawClient::authenticated(process.address, "ada", 4));

    // The dry run lists sessions and ends none.
    let dry = report(data, &["limit", "ada", "2", "--enforce", "--dry-run"]);
    assert_eq!((&dry["limit"], &dry["connections"]), (&2.into(), &4.into()));
    // The next session is predicted for the sessions that would remain.
    let swapped = report(data, &["limit", "ada", "2", "--when-full", "evict-oldest", "--enforce", "--dry-run"]);
    assert_eq!(swapped["next"]["ended"], Value::from(vec![dry["sessions"][0]["id"].clone()]));
    let actual = report(data, &["limit", "ada"]);
    assert_eq!((&actual["limit"], actual["ended"].as_array().unwrap().len()), (&4.into(), 0));
    // A lowered limit ends no session by itself.
    assert_eq!(report(data, &["limit", "ada", "2"])["connections"], 4);
    let actual = report(data, &["limit", "ada", "--enforce"]);
    assert_eq!((&actual["ended"], &actual["connections"]), (&dry["ended"], &2.into()));
    held.drain(2..).rev().for_each(|mut newest| expect_ended(&mut newest));
    assert!(matches!(sign_in(&process, "ada", "x").1, Err(failure) if failure["limit"] == 2));
    let (code, out, err) = run_command(data, &["limit", "eve", "--enforce"]);
    assert_eq!((code, &*out), (1, ""));
    assert_eq!(err, "error: only a limit that is set for the user can be enforced: give one\n");
    // Other users are not affected.
    assert!(sign_in(&process, "bob", "x").1.is_ok());

    assert_eq!(
        report(data, &["limit", "ada", "--when-full", "evict-oldest"])["next"]["ended"][0],
        actual["sessions"][0]["id"]
    );
    assert!(sign_in(&process, "ada", "x").1.is_ok());
    held[0].expect_text(r#"{"type":"EVICTED","payload":"x has taken the place of this session"}"#);
    assert_eq!(report(data, &["limit", "ada", "0"])["when_full"], "evict-oldest");
    assert!(matches!(sign_in(&process, "ada", "x").1, Err(failure) if failure["code"] == "banned"));

    process.kill();
    let actual = report(data, &["limit", "ada", "unlimited"]);
    assert_eq!((&actual["limit"], &actual["connections"]), (&1024.into(), &0.into()));
    let process = TestProcess::start(SERVER, data, &[]);
    let actual = report(data, &["limit", "ada"]);
    assert_eq!(
        (&actual["limit"], &actual["rule"], &actual["when_full"]),
        (&1024.into(), &"user".into(), &"evict-oldest".into())
    );
    report(data, &["limit", "ada", "default", "--when-full", "default"]);
    let actual = report(data, &["explain", "ada"]);
    assert_eq!(
        (&actual["limit"], &actual["rule"], &actual["when_full"]),
        (&3.into(), &"server".into(), &"deny".into())
    );
    report(data, &["limit", "ada", "5"]);
    assert_eq!(report(data, &["forget", "ada"])["rule"], "server");
    drop(process);
    assert_eq!(report(data, &["limit", "ada"])["rule"], "server");
}

#[test]
fn operator_socket_is_private_and_replaced_after_kill() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("operator.sock");
    let mut process = TestProcess::start(SERVER, directory.path(), &[]);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    process.kill();
    assert!(socket.exists());
    let _second = TestProcess::start(SERVER, directory.path(), &[]);
    assert_eq!(report(directory.path(), &["explain", "ada"])["connections"], 0);
    let (code, _, err) = run_command(&directory.path().join("missing"), &["explain", "ada"]);
    assert!(code == 1 && err.contains("there is no server data in"), "{err}");
    let other = tempfile::tempdir().unwrap();
    let (code, _, err) = run_command(other.path(), &["limit", "ada", "5"]);
    assert!(code == 1 && err.contains("there is no server data in"), "{err}");
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0, "nothing is left in what was named by mistake");
}

#[test]
fn operator_socket_refuses_malformed_requests() {
    let directory = tempfile::tempdir().unwrap();
    let _process = TestProcess::start(SERVER, directory.path(), &[]);
    let send_request = |method: &str, path: &str, body: &str| {
        let mut socket = UnixStream::connect(directory.path().join("operator.sock")).unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let long = format!(r#"{{"limit":{}}}"#, " ".repeat(5000));
    for (method, path, body, status, message) in [
        ("GET", "/v1/users/ada%2Fb", "", 200, r#""user":"ada/b""#),
        ("GET", "/", "", 404, "there is nothing here"),
        ("POST", "/v1/users/ada", "", 405, "allow: GET, DELETE"),
        ("PUT", "/v1/users/ada/limit", r#"{"limit":1025}"#, 422, "the most is 1024"),
        ("PUT", "/v1/users/ada/limit", r#"{"limit":"lots"}"#, 400, "the body is no change"),
        ("PUT", "/v1/users/ada/limit", &long, 413, "too long"),
        ("GET", "/v1/users/", "", 400, "User id is empty"),
        ("DELETE", "/v1/users/ada/sessions/00", "", 400, "32 hexadecimal digits"),
        ("DELETE", "/v1/users/ada/limit", "", 200, r#""rule":"server""#),
    ] {
        let answer = send_request(method, path, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(message), "{path}: {answer}");
    }
}
