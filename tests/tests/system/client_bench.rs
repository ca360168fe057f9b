//! `client bench` as a process against the real server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tests::client_process::ClientProcess;
use tests::raw_client::RawClient;
use tests::test_process::{TestProcess, send_signal};
use tests::values::unreachable_url;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");

fn start() -> (TestProcess, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    (TestProcess::start(SERVER, data.path(), &[]), data)
}

fn bench(url: &str, arguments: &[&str]) -> Output {
    Command::new(CLIENT).args(["bench", "--url", url]).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The exit code and the report of a run without other output.
fn report(url: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } = bench(url, &[&["--json"], arguments].concat());
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    (status.code(), serde_json::from_slice(&stdout).unwrap())
}

/// Starts a run that goes on until it is ended. Its progress is read line by line.
fn start_bench(url: &str, arguments: &[&str]) -> ClientProcess {
    let mut command = Command::new(CLIENT);
    command.args(["bench", "--url", url, "--duration", "1h"]).args(arguments);
    ClientProcess::start_reading_stderr(command)
}

#[test]
fn open_loop_starts_the_requested_cycles() {
    let (server, _data) = start();
    let (code, report) = report(&server.url(), &["--rate", "200", "--duration", "500ms"]);
    assert_eq!((code, report["cycles"].as_u64(), report["failed"].as_u64()), (Some(0), Some(100), Some(0)), "{report}");
    for times in ["sign_in", "cycle", "late"] {
        assert_eq!(report[times]["count"].as_u64(), Some(100), "{report}");
    }
    assert!(report["sign_in"]["p50_micros"].as_f64() <= report["sign_in"]["max_micros"].as_f64(), "{report}");
}

#[test]
fn closed_loop_runs_as_fast_as_possible() {
    let (server, _data) = start();
    let (code, report) = report(&server.url(), &["--concurrency", "4", "--duration", "300ms", "--users", "2"]);
    assert_eq!((code, report["failed"].as_u64(), report["concurrency"].as_u64()), (Some(0), Some(0), Some(4)));
    assert!(report["cycles"].as_u64() >= Some(4), "{report}");
    assert_eq!(report["sign_in"]["count"], report["cycles"]);
}

#[test]
fn denial_at_the_limit_is_no_failure() {
    let (server, _data) = start();
    let _held: Vec<_> = (1..=3).map(|held| RawClient::authenticated(server.address, "user-00000000", held)).collect();
    let (code, report) = report(&server.url(), &["--concurrency", "16", "--users", "1", "--duration", "300ms"]);
    assert_eq!((code, report["failed"].as_u64()), (Some(0), Some(0)), "{report}");
    assert!(report["cycles"].as_u64() >= Some(16) && report["refused"] == report["cycles"], "{report}");
}

#[test]
fn held_sessions_leave_with_bye() {
    let (server, _data) = start();
    let (code, all) = report(&server.url(), &["--hold", "30", "--duration", "100ms"]);
    assert_eq!((code, &all["users"], &all["hold"]["granted"]), (Some(0), &10.into(), &30.into()), "{all}");
    // Their slots are free again, or no session would be granted.
    let (code, some) = report(&server.url(), &["--hold", "10", "--users", "1", "--duration", "100ms"]);
    let hold = &some["hold"];
    assert_eq!((code, &hold["granted"], &some["refused"], &hold["lost"]), (Some(0), &3.into(), &7.into(), &0.into()));
}

#[test]
fn lost_sessions_are_counted() {
    let (mut server, _data) = start();
    let mut running = start_bench(&server.url(), &["--hold", "6"]);
    running.read_until("6 held  0 refused  0 lost");
    server.kill();
    running.read_until("0 held  0 refused  6 lost");
    running.signal(Signal::INT);
    let (code, report) = running.wait();
    assert_eq!(code, Some(4), "{report}");
    assert!(report.contains("lost                 6") && report.contains("6 × the connection is lost"), "{report}");
}

#[test]
fn lost_server_is_a_failure_with_a_reason() {
    let (mut server, _data) = start();
    let mut running = start_bench(&server.url(), &["--rate", "50"]);
    running.read_until(" cycles ");
    server.kill();
    running.read_until("0.0/s");
    running.signal(Signal::INT);
    let (code, report) = running.wait();
    assert_eq!(code, Some(4), "{report}");
    assert!(report.contains(&format!(" × cannot reach {}", server.url())), "{report}");
}

#[test]
fn ctrl_c_ends_the_run_with_a_report() {
    let (server, _data) = start();
    let mut running = start_bench(&server.url(), &["--rate", "50"]);
    running.read_until(" cycles ");
    running.signal(Signal::INT);
    let (code, report) = running.wait();
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("\nended early, by a signal\n") && report.contains("\np99.99 "), "{report}");
}

#[test]
fn second_ctrl_c_ends_at_once() {
    let (server, _data) = start();
    let mut running = start_bench(&server.url(), &["--concurrency", "5"]);
    running.read_until(" cycles ");
    send_signal(server.id(), Signal::STOP);
    running.read_until(" 0.0/s ");
    running.signal(Signal::INT);
    running.read_until("ending");
    running.signal(Signal::INT);
    let (code, report) = running.wait();
    assert_eq!(code, Some(4), "{report}");
    assert!(report.contains(" 5 × still under way at the second Ctrl-C\n"), "{report}");
}

#[test]
fn impossible_run_fails_before_it_starts() {
    let unreachable = unreachable_url();
    let few_files = |arguments: &[&str]| {
        let script = r#"ulimit -n 100 && exec "$0" bench "$@""#;
        Command::new("sh").args(["-c", script, CLIENT, "--url", &unreachable]).args(arguments).output().unwrap()
    };
    for (Output { status, stdout, stderr }, code, message) in [
        (bench(&unreachable, &[]), 4, "check the URL and that the server is running"),
        (bench(&unreachable, &["--rate", "0"]), 2, "expected a whole number, 1 to 100000"),
        (
            few_files(&["--hold", "100"]),
            1,
            "100 sessions at once do not fit: the limit of open files leaves room for 36; ask for fewer, or raise",
        ),
        (few_files(&["--concurrency", "37"]), 1, "37 sessions at once do not fit"),
    ] {
        let error = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), &*stdout), (Some(code), &b""[..]), "{error}");
        assert!(error.contains(message), "{error}");
    }
}
