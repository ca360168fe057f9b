//! The ends of a server process: what a thread or a task that fails leads to, and that no log line is lost.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use shell::runtime::supervisor::{OnEnd, Part, Supervisor};
use tests::raw_client::{RawClient, Received};
use tests::redis_process::{NOTHING_KEPT, RedisProcess};
use tests::test_process::{TestProcess, send_signal, without_connection_limits};
use tests::waiting::{eventually, side_by_side};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// A server process whose standard error is read as it comes.
struct LoggingServer {
    process: TestProcess,
    log: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl LoggingServer {
    fn start(mut command: Command, data: &Path) -> Self {
        command.args(["--log", "info", "--threads", "2"]).stderr(Stdio::piped());
        let mut process = TestProcess::run_as(command, data);
        let (mut stderr, log) = (process.stderr().unwrap(), Arc::<Mutex<String>>::default());
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut bytes) {
                lines.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { process, log, reader }
    }

    fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().contains(text)
    }

    /// Waits until it ends. Its exit code, and all that it logged.
    fn wait(mut self) -> (Option<i32>, String) {
        let code = self.process.wait().code();
        self.reader.join().unwrap();
        (code, self.log.lock().unwrap().clone())
    }
}

/// A server of a debug build whose part panics once the file exists.
fn with_panic(part: Part, trigger: &Path) -> Command {
    let mut command = without_connection_limits(SERVER);
    command.env("TEST_PANIC_IN", part.name()).env("TEST_PANIC_WHEN", trigger);
    command
}

/// The arguments of a server with a store in this Redis, and keys of its own.
fn redis_arguments(redis: Option<&RedisProcess>, part: Part) -> Vec<String> {
    let Some(redis) = redis else { return Vec::new() };
    let url = redis.url();
    let times = ["--node-beat", "200ms", "--node-fence", "2s", "--node-lease", "3s", "--store-timeout", "1s"];
    let store = ["--store", "redis", "--redis-url", &url, "--redis-prefix", part.name()];
    store.iter().chain(&times).map(|argument| (*argument).to_owned()).collect()
}

fn admits(process: &TestProcess, user: &str) -> bool {
    let mut peer = RawClient::open(process.address);
    peer.authenticate(user);
    matches!(peer.read(), Received::Text(text) if text.contains("AUTHENTICATE_SUCCESS"))
}

/// Whether only a server runs this part whose store others share.
fn needs_redis(part: Part) -> bool {
    matches!(part, Part::StoreLane | Part::StoreFence | Part::StoreHints | Part::StoreAbout)
}

fn panics_in(part: Part, redis: Option<&RedisProcess>) -> (tempfile::TempDir, LoggingServer) {
    let directory = tempfile::tempdir().unwrap();
    let trigger = directory.path().join("panic now");
    let mut command = with_panic(part, &trigger);
    command.args(redis_arguments(redis, part));
    let server = LoggingServer::start(command, &directory.path().join("data"));
    eventually("it admits", || server.process.health() == 200);
    for number in 1..=3 {
        drop(RawClient::authenticated(server.process.address, &format!("user {number}"), 1));
    }
    fs::write(trigger, "").unwrap();
    // So that there is a line to write.
    send_signal(server.process.id(), Signal::HUP);
    (directory, server)
}

#[test]
#[cfg(debug_assertions)]
fn process_ends_with_a_part_it_cannot_go_on_without() {
    let redis = RedisProcess::is_installed().then(|| RedisProcess::start(&NOTHING_KEPT));
    let is_there = |part: &Part| redis.is_some() || !needs_redis(*part);
    let parts = Part::ALL.into_iter().filter(|part| part.on_end() == OnEnd::EndProcess).filter(is_there);
    side_by_side(parts, |part| {
        let redis = redis.as_ref().filter(|_| needs_redis(part));
        let (directory, server) = panics_in(part, redis);
        let (code, log) = server.wait();
        assert_eq!(code, Some(Supervisor::EXIT_CODE.into()), "{part:?}: {log}");
        let message =
            format!("error: the part {:?} of the server has ended; the server ends with code 70", part.name());
        assert!(log.contains(&message), "{part:?}: {log}");
        // What the next start finds is in order.
        let mut next = without_connection_limits(SERVER);
        next.args(redis_arguments(redis, part));
        let next = TestProcess::run(next, &directory.path().join("data"), &[]);
        eventually("it admits", || next.health() == 200);
        let held: Vec<_> = (1..=3).map(|held| RawClient::authenticated(next.address, "user 1", held)).collect();
        assert!(!admits(&next, "user 1"), "{part:?}: {held:?}", held = held.len());
    });
}

#[test]
#[cfg(debug_assertions)]
fn part_that_keeps_nothing_starts_again() {
    side_by_side(Part::ALL.into_iter().filter(|part| part.on_end() == OnEnd::Restart), |part| {
        let (directory, server) = panics_in(part, None);
        let restarted = format!("event=\"part_restarted\" part={:?}", part.name());
        eventually("the part starts again", || server.has_logged(&restarted));
        // It works: it accepts, timers fire, operators are answered, SIGHUP reloads, the health check is answered.
        eventually("a session is admitted", || admits(&server.process, "ada"));
        let explain = || {
            let data = directory.path().join("data");
            Command::new(SERVER).args(["explain", "ada", "--data"]).arg(data).output().unwrap().status.success()
        };
        eventually("an operator is answered", explain);
        let reloads = || server.log.lock().unwrap().matches("the configuration is reloaded").count();
        let before = reloads();
        eventually("it reloads", || {
            send_signal(server.process.id(), Signal::HUP);
            reloads() > before
        });
        send_signal(server.process.id(), Signal::TERM);
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "{part:?}: {log}");
        assert!(log.contains("stopped"), "{part:?}: {log}");
    });
}

#[test]
fn every_stop_logs_its_last_line() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..15 {
        let server = LoggingServer::start(without_connection_limits(SERVER), data.path());
        let mut peer = RawClient::authenticated(server.process.address, "ada", 1);
        send_signal(server.process.id(), if round % 2 == 0 { Signal::TERM } else { Signal::INT });
        peer.expect_goodbye(1001);
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "round {round}: {log}");
        let last = log.lines().last().unwrap();
        assert!(last.contains("event=\"server_stopped\" dropped_log_lines=0"), "round {round}: {log}");
    }
}

#[test]
fn second_signal_logs_its_last_line() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..15 {
        let server = LoggingServer::start(without_connection_limits(SERVER), data.path());
        // It does not answer the close, so the server waits for it.
        let mut unresponsive = RawClient::authenticated(server.process.address, "ada", 1);
        send_signal(server.process.id(), Signal::INT);
        assert_eq!(unresponsive.read(), Received::Close(1001, "Server is shutting down".into()));
        send_signal(server.process.id(), Signal::INT);
        let (code, log) = server.wait();
        assert_eq!(code, Some(130), "round {round}: {log}");
        // Another thread may log at the same time.
        assert!(log.contains("stopped at once by a second signal"), "round {round}: {log}");
    }
}

#[test]
fn failed_start_logs_what_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let (secret, data) = (directory.path().join("secret"), directory.path().join("data"));
    fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    fs::write(&data, "a file is no data directory").unwrap();
    for _ in 0..5 {
        let mut command = Command::new(SERVER);
        command.args(["--listen", "127.0.0.1:0", "--log", "info", "--auth", "jwt", "--jwt-secret-file"]).arg(&secret);
        let output = command.arg("--data").arg(&data).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains("users authenticate by tokens") && log.contains("cannot be used"), "{log}");
    }
}
