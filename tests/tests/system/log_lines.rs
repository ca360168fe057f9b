//! What the log of a running server says: its lines are those of the table of events, and they answer what happened to a user.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use shell::runtime::events::{EVENTS, Event, Rate};
use tests::process_log::ProcessLog;
use tests::raw_client::{RawClient, Received};
use tests::test_process::{TestProcess, send_signal, without_connection_limits};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server whose log is JSON, line by line.
struct JsonServer {
    process: TestProcess,
    lines: Receiver<Value>,
    seen: Vec<Value>,
}

impl JsonServer {
    fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = without_connection_limits(SERVER);
        command.args(["--log-format", "json", "--log", "info,session=debug"]).args(arguments).stderr(Stdio::piped());
        let mut process = TestProcess::run_as(command, data);
        let stderr = BufReader::new(process.stderr().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                let line = serde_json::from_str(&line.unwrap()).unwrap();
                drop(sender.send(line));
            }
        });
        Self { process, lines, seen: Vec::new() }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(TIMEOUT).unwrap_or_else(|_| panic!("nothing more after {:#?}", self.seen));
        self.seen.push(line.clone());
        line
    }

    /// Waits for the next line of this event.
    fn wait_for(&mut self, event: &str) -> Value {
        loop {
            let line = self.next();
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Stops the server, and returns every line that it logged.
    fn stop(mut self) -> Vec<Value> {
        send_signal(self.process.id(), Signal::TERM);
        assert!(self.process.wait().success());
        self.seen.extend(self.lines.iter());
        self.seen
    }
}

/// Checks a line against the table. Every value of a field may be missing, but there is no other field.
fn event_of(line: &Value) -> &'static Event {
    let name = line["event"].as_str().unwrap_or_else(|| panic!("{line} is no event"));
    let event = EVENTS.iter().find(|event| event.name == name).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&event.level.as_str().into(), &event.message.into()), "{line}");
    for field in line.as_object().unwrap().keys() {
        let is_known = ["timestamp", "level", "message", "event"].contains(&&**field)
            || event.fields.contains(&&**field)
            || field == "suppressed" && event.rate == Rate::OnePerSecond;
        assert!(is_known, "{field} is not in the table: {line}");
    }
    event
}

fn sign_in(server: &JsonServer, payload: &Value) -> (RawClient, Value) {
    let mut peer = RawClient::open(server.process.address);
    peer.text(&json!({ "type": "AUTHENTICATE", "payload": payload }).to_string());
    let Received::Text(answer) = peer.read() else { panic!("no answer") };
    (peer, serde_json::from_str(&answer).unwrap())
}

fn run(data: &Path, arguments: &[&str]) {
    let output = Command::new(SERVER).args(arguments).arg("--data").arg(data).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn log_tells_the_life_of_every_session() {
    let data = tempfile::tempdir().unwrap();
    let mut server =
        JsonServer::start(data.path(), &["--limit", "1", "--when-full", "evict-oldest", "--linger", "500ms"]);
    let announced: Value = serde_json::from_str(&server.process.announcement).unwrap();
    let address = format!("ws://{}", server.process.address);
    assert_eq!((&announced["event"], &announced["addresses"]), (&"server_listening".into(), &json!([address])));
    assert_eq!(server.wait_for("server_listening")["addresses"], address);

    // Ada signs in, is lost, resumes on another connection, and is evicted by a third.
    let (first, answer) = sign_in(&server, &json!({ "user": "ada" }));
    let session = answer["payload"]["session"].clone();
    let admitted = server.wait_for("session_admitted");
    let expected = json!([session, "ada", "127.0.0.1", 1, false]);
    let fields = |line: &Value| {
        json!([line["session"], line["user"], line["client_address"], line["connections"], line["is_resumed"]])
    };
    assert_eq!(fields(&admitted), expected);
    drop(first);
    assert_eq!(server.wait_for("session_lost")["session"], session);
    assert_eq!(server.wait_for("slot_lingers")["session"], session);
    let (mut second, answer) = sign_in(&server, &json!({ "user": "ada", "resume": answer["payload"]["resume"] }));
    assert_eq!(server.wait_for("session_admitted")["is_resumed"], true);
    let resumed = answer["payload"]["session"].clone();
    let (mut third, _) = sign_in(&server, &json!("ada"));
    let evicted = server.wait_for("session_evicted");
    assert_eq!((&evicted["user"], &evicted["session"]), (&"ada".into(), &resumed));
    let closed = server.wait_for("session_closed");
    assert_eq!(json!([closed["user"], closed["session"], closed["close_code"]]), json!(["ada", resumed, 4409]));
    second.expect_text(
        r#"{"type":"EVICTED","payload":"Another session of this user has taken the place of this one","code":"taken"}"#,
    );
    third.send_bye();
    let closed = server.wait_for("session_closed");
    assert_eq!((&closed["user"], &closed["close_code"]), (&"ada".into(), &1000.into()));
    assert_eq!(server.wait_for("slot_released")["user"], "ada");

    // Bob is lost for good.
    let (bob, answer) = sign_in(&server, &json!({ "user": "bob" }));
    drop(bob);
    assert_eq!(server.wait_for("slot_lingers")["user"], "bob");
    thread::sleep(Duration::from_millis(600));
    let (_bob, _) = sign_in(&server, &json!("bob"));
    let lapsed = server.wait_for("slot_lapsed");
    assert_eq!((&lapsed["user"], &lapsed["session"]), (&"bob".into(), &answer["payload"]["session"]));

    // What operators do.
    run(data.path(), &["limit", "bob", "2"]);
    let set = server.wait_for("overrides_set");
    assert_eq!((&set["user"], &set["limit"]), (&"bob".into(), &"2".into()));
    run(data.path(), &["end", "bob"]);
    // The operator's task and the session's task log at the same time.
    let before = server.seen.len();
    let mut in_any_order = BTreeSet::from(["sessions_ended", "session_closed", "slot_released"]);
    while !in_any_order.is_empty() {
        let line = server.next();
        in_any_order.remove(line["event"].as_str().unwrap());
    }
    let ended = server.seen[before..].iter().find(|line| line["event"] == "sessions_ended").unwrap();
    assert_eq!((&ended["user"], &ended["ended"]), (&"bob".into(), &1.into()));

    // Refusals have a line a second. The next one says how many were left out.
    for _ in 0..3 {
        sign_in(&server, &json!(""));
    }
    let refused = server.wait_for("credential_refused");
    assert_eq!((&refused["client_address"], &refused["suppressed"]), (&"127.0.0.1".into(), &Value::Null));
    thread::sleep(Duration::from_millis(1100));
    sign_in(&server, &json!(""));
    assert!(server.wait_for("credential_refused")["suppressed"].as_u64().is_some_and(|left_out| left_out >= 1));

    let idle = RawClient::open(server.process.address);
    let lines = server.stop();
    drop(idle);
    let stopping = lines.iter().find(|line| line["event"] == "server_stopping").unwrap();
    assert_eq!(stopping["sessions"], 0, "connections that hold no slot are no sessions: {stopping}");
    let events: BTreeSet<_> = lines.iter().map(|line| event_of(line).name).collect();
    assert!(events.contains("store_opened") && events.contains("server_stopped"), "{events:?}");
    let session_lines = lines.iter().filter(|line| event_of(line).target == "session");
    for line in session_lines.filter(|line| line["event"] != "slot_lapsed") {
        assert!(line["session"].is_string(), "{line}");
    }
}

/// A banned user that signs in is denied. Only a session that is refused a fresh token is not renewed.
#[test]
fn only_a_refused_renewal_is_logged_as_one() {
    let data = tempfile::tempdir().unwrap();
    let secret = data.path().join("secret");
    fs::write(&secret, "x".repeat(32)).unwrap();
    let secret = secret.to_str().unwrap();
    let token = |sessions: &str| {
        let mut command = Command::new(SERVER);
        command.args(["token", "--user", "ada", "--sessions", sessions, "--jwt-secret-file", secret]);
        json!({ "token": String::from_utf8(command.output().unwrap().stdout).unwrap().trim() })
    };
    let mut server = JsonServer::start(data.path(), &["--auth", "jwt", "--jwt-secret-file", secret]);
    let (_denied, answer) = sign_in(&server, &token("0"));
    assert_eq!(answer["code"], "banned", "{answer}");
    server.wait_for("session_denied");
    let (mut ada, answer) = sign_in(&server, &token("3"));
    assert_eq!(answer["type"], "AUTHENTICATE_SUCCESS", "{answer}");
    server.wait_for("session_admitted");
    assert!(server.seen.iter().all(|line| line["event"] != "renewal_refused"), "{:#?}", server.seen);
    ada.text(&json!({ "type": "AUTHENTICATE", "payload": token("0") }).to_string());
    let refused = server.wait_for("renewal_refused");
    assert_eq!((&refused["user"], &refused["reason"]), (&"ada".into(), &"This user may hold no session".into()));
}

/// A client chooses the name of its device. It must not look like fields of the line, and may be the user's own.
#[test]
fn name_of_a_device_is_quoted_and_names_nobody() {
    for (log_users, expected) in [
        ("plain", r#" reason="x\" user=\"root\" has taken the place of this session""#),
        ("hash", r#" reason="Another session of this user has taken the place of this one""#),
        ("off", r#" reason="Another session of this user has taken the place of this one""#),
    ] {
        let data = tempfile::tempdir().unwrap();
        let mut command = without_connection_limits(SERVER);
        command
            .args(["--log-users", log_users, "--log", "session=debug", "--limit", "1", "--when-full", "evict-oldest"])
            .stderr(Stdio::piped());
        let mut server = TestProcess::run_as(command, data.path());
        let log = ProcessLog::take(&mut server);
        let sign_in = || {
            let mut peer = RawClient::open(server.address);
            let payload = json!({ "user": "ada", "device": "x\" user=\"root\"" });
            peer.text(&json!({ "type": "AUTHENTICATE", "payload": payload }).to_string());
            assert!(matches!(peer.read(), Received::Text(_)));
            peer
        };
        let _both = [sign_in(), sign_in()];
        let line = log.wait_for("session_evicted");
        assert!(line.contains(expected), "{log_users}: {line}");
    }
}

#[test]
fn end_of_a_lingering_session_is_logged() {
    let data = tempfile::tempdir().unwrap();
    let mut server = JsonServer::start(data.path(), &["--limit", "1", "--linger", "1h", "--linger-grace", "0s"]);
    let linger = |server: &mut JsonServer, user: &str| {
        let (client, answer) = sign_in(server, &json!({ "user": user }));
        drop(client);
        let session = answer["payload"]["session"].clone();
        assert_eq!(server.wait_for("slot_lingers")["session"], session);
        (session, answer["payload"]["resume"].clone())
    };
    let ended = |server: &mut JsonServer, user: &str, session: &Value, reason: &str| {
        let line = server.wait_for("session_evicted");
        let expected = json!([user, session, reason, null]);
        assert_eq!(json!([line["user"], line["session"], line["reason"], line["client_address"]]), expected);
    };

    let (session, _) = linger(&mut server, "ada");
    let (_ada, _) = sign_in(&server, &json!("ada"));
    ended(&mut server, "ada", &session, "Another session of this user has taken the place of this one");

    let (session, resume) = linger(&mut server, "bob");
    let (_bob, _) = sign_in(&server, &json!({ "user": "bob", "resume": resume }));
    ended(&mut server, "bob", &session, "This session goes on on another connection");

    let (session, _) = linger(&mut server, "eve");
    run(data.path(), &["end", "eve"]);
    ended(&mut server, "eve", &session, "The operator has ended this session");
    server.stop();
}

#[test]
fn log_names_users_as_configured() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let life = |arguments: &[&str], limit: &str| -> Vec<Value> {
        let mut server = JsonServer::start(&data, arguments);
        let (mut ada, _) = sign_in(&server, &json!("ada"));
        ada.send_bye();
        server.wait_for("slot_released");
        run(&data, &["limit", "ada", limit]);
        let lines = server.stop();
        lines.into_iter().filter(|line| event_of(line).fields.contains(&"user")).collect()
    };
    let users = |lines: &[Value]| lines.iter().map(|line| line["user"].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(users(&life(&[], "2")), BTreeSet::from(["\"ada\"".to_owned()]));
    let hashed = users(&life(&["--log-users", "hash"], "3"));
    assert!(hashed.len() == 1 && hashed.iter().all(|hash| hash.len() == 18), "{hashed:?}");
    assert_eq!(users(&life(&["--log-users", "hash"], "4")), hashed, "the key is kept");
    let mut explain = Command::new(SERVER);
    explain.env("SESSIONS_LOG_USERS", "hash").args(["explain", "ada", "--json", "--data"]).arg(&data);
    let explained: Value = serde_json::from_slice(&explain.output().unwrap().stdout).unwrap();
    assert_eq!(BTreeSet::from([explained["logged_as"].to_string()]), hashed, "explain says which hash is ada's");
    assert_eq!(users(&life(&["--log-users", "off"], "5")), BTreeSet::from(["null".to_owned()]));
    fs::write(data.join("log-key"), "no key").unwrap();
    let output = without_connection_limits(SERVER)
        .args(["--listen", "127.0.0.1:0", "--log-users", "hash", "--data"])
        .arg(&data)
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("log-key"), "{message}");
}
