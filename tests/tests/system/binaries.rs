//! The real binaries as processes, as an operator and a user see them.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::client_process::ClientProcess;
use tests::raw_client::{RawClient, Received};
use tests::test_process::{TestProcess, send_signal};
use tests::values::unreachable_url;
use tests::waiting::eventually;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");

/// Runs a server that is expected to end by itself.
fn server(arguments: &[&str], data: &Path) -> Output {
    Command::new(SERVER).args(["--listen", "127.0.0.1:0", "--data"]).arg(data).args(arguments).output().unwrap()
}

fn is_full(process: &TestProcess, user: &str) -> bool {
    let mut peer = RawClient::open(process.address);
    peer.authenticate(user);
    matches!(peer.read(), Received::Text(text) if text.contains("connection limit"))
}

#[test]
fn killed_server_frees_its_slots() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut process = TestProcess::start(SERVER, data.path(), &[]);
        let mut held = Vec::new();
        for user in ["ada", "grace"] {
            held.extend((1..=3).map(|number| RawClient::authenticated(process.address, user, number)));
            assert!(is_full(&process, user), "round {round}");
        }
        process.kill();
    }
}

#[test]
fn sigterm_closes_every_session_and_exits_0() {
    let data = tempfile::tempdir().unwrap();
    let mut process = TestProcess::start(SERVER, data.path(), &[]);
    let mut peers: Vec<_> = (1..=3).map(|held| RawClient::authenticated(process.address, "ada", held)).collect();
    let start = Instant::now();
    send_signal(process.id(), Signal::TERM);
    peers.iter_mut().for_each(|peer| peer.expect_goodbye(1001));
    assert_eq!(process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10));
    let restarted = TestProcess::start(SERVER, data.path(), &[]);
    drop(RawClient::authenticated(restarted.address, "ada", 1));
}

#[test]
fn second_signal_ends_a_draining_server() {
    let data = tempfile::tempdir().unwrap();
    let mut process = TestProcess::start(SERVER, data.path(), &[]);
    // It does not answer the close.
    let mut unresponsive = RawClient::authenticated(process.address, "ada", 1);
    send_signal(process.id(), Signal::INT);
    assert_eq!(unresponsive.read(), Received::Close(1001, "Server is shutting down".into()));
    send_signal(process.id(), Signal::INT);
    assert_eq!(process.wait().code(), Some(130));
}

#[test]
fn second_server_on_one_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let first = TestProcess::start(SERVER, data.path(), &[]);
    let second = server(&[], data.path());
    let message = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{message}");
    assert!(message.contains("in use by") && message.contains(&first.id().to_string()), "{message}");
    drop(RawClient::authenticated(first.address, "ada", 1));
}

#[test]
fn failed_start_explains_itself_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for (arguments, code, message) in [
        (vec!["--limit", "1025"], 2, "the most is 1024"),
        (vec!["--ping-interval", "1ms"], 2, "it must be 100ms to 1h"),
        (vec!["--listen", "192.0.2.1:80", "--allow-open-auth"], 1, "cannot listen on 192.0.2.1:80"),
        (vec!["--listen", "0.0.0.0:0"], 2, "open authentication lets any client sign in as any user"),
        (
            vec!["--auth", "jwt"],
            2,
            "the secret for tokens is missing: set the environment variable SESSIONS_JWT_SECRET",
        ),
        (vec!["--auth", "jwt", "--jwt-secret-file", "/missing"], 2, "cannot read /missing: No such file"),
        (vec!["--tls-cert", "/missing"], 2, "a certificate needs its key"),
        (vec!["--tls-cert", "/missing", "--tls-key", "/missing"], 2, "cannot read /missing: No such file"),
    ] {
        let output = server(&arguments, &data);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(message), "{error}");
        assert!(!data.exists(), "nothing was opened");
    }
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let output = server(&[], &file);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[test]
fn first_line_names_addresses_and_data() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("deep").join("data");
    let process = TestProcess::start(SERVER, &data, &["--listen", "localhost:0"]);
    let line = &process.announcement;
    assert!(line.contains("ws://127.0.0.1:") && line.contains(&data.display().to_string()), "{line}");
    assert!(data.is_dir(), "the directory was created");
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        assert!(line.contains(" and ws://[::1]:"), "{line}");
    }
    let memory = TestProcess::start(SERVER, &directory.path().join("none"), &["--store", "memory"]);
    assert!(memory.announcement.contains("in memory"), "{}", memory.announcement);
    drop(RawClient::authenticated(memory.address, "ada", 1));
    assert!(!directory.path().join("none").exists());
}

fn start_client(url: &str, arguments: &[&str]) -> ClientProcess {
    let mut command = Command::new(CLIENT);
    command.args(["--url", url]).args(arguments);
    ClientProcess::start(command)
}

#[test]
fn demonstration_of_the_readme() {
    let data = tempfile::tempdir().unwrap();
    let process = TestProcess::start(SERVER, data.path(), &[]);
    let mut held: Vec<_> = (1..=3)
        .map(|held| {
            let mut client = start_client(&process.url(), &[]);
            let line = client.read_until("AUTHENTICATE_SUCCESS");
            assert!(line.contains("testuser") && line.contains(&held.to_string()), "{line}");
            client
        })
        .collect();
    let (code, output) = start_client(&process.url(), &[]).wait();
    assert_eq!(code, Some(3), "{output}");
    assert!(output.contains("User has reached connection limit, no more connections allowed"), "{output}");

    let leaving = held.pop().unwrap();
    leaving.signal(Signal::INT);
    let (code, output) = leaving.wait();
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("BYE_SUCCESS"), "{output}");

    let mut back = start_client(&process.url(), &[]);
    back.read_until("AUTHENTICATE_SUCCESS");
    // A killed client sends no BYE. Its slot still becomes free.
    back.kill();
    eventually("the slot of the killed client is free", || !is_full(&process, "testuser"));
    held.into_iter().for_each(ClientProcess::kill);
}

#[test]
fn client_holds_many_connections_and_prints_json() {
    let data = tempfile::tempdir().unwrap();
    let process = TestProcess::start(SERVER, data.path(), &["--limit", "5"]);
    let mut client = start_client(&process.url(), &["--user", "ada", "--connections", "7", "--json"]);
    let (mut granted, mut refused) = (Vec::new(), 0);
    while granted.len() + refused < 7 {
        let event: serde_json::Value = serde_json::from_str(&client.read_line()).unwrap();
        match event["type"].as_str().unwrap() {
            "AUTHENTICATE_SUCCESS" => granted.push(event["connection"].as_u64().unwrap()),
            "AUTHENTICATE_FAILURE" => refused += 1,
            _ => {}
        }
    }
    assert_eq!((granted.len(), refused), (5, 2));
    assert!(is_full(&process, "ada"));
    client.signal(Signal::TERM);
    let (code, output) = client.wait();
    assert_eq!(code, Some(3), "two were refused: {output}");
    for connection in granted {
        assert!(output.contains(&format!(r#"{{"connection":{connection},"type":"BYE_SUCCESS""#)), "{output}");
    }
    assert!(!is_full(&process, "ada"));
}

#[test]
fn client_exit_code_names_the_failure() {
    let unreachable = unreachable_url();
    let (code, output) = start_client(&unreachable, &[]).wait();
    assert_eq!(code, Some(4), "{output}");
    assert!(output.contains(&unreachable), "{output}");
    let (code, output) = start_client("http://localhost", &[]).wait();
    assert!([Some(2), Some(4)].contains(&code), "{code:?} {output}");
    let (code, output) = start_client(&unreachable, &["--connections", "0"]).wait();
    assert_eq!(code, Some(2), "{output}");

    let data = tempfile::tempdir().unwrap();
    let mut process = TestProcess::start(SERVER, data.path(), &[]);
    let mut client = start_client(&process.url(), &[]);
    client.read_until("AUTHENTICATE_SUCCESS");
    process.kill();
    let (code, output) = client.wait();
    assert_eq!(code, Some(4), "{output}");
}
