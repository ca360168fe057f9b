//! A data directory that is deleted, moved, replaced or mounted over under a running server.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a skipped test is reported")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::raw_client::{RawClient, Received};
use tests::test_process::TestProcess;
use tests::waiting::{eventually, side_by_side};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// A server with a data directory that the test does something to.
struct Subject {
    parent: tempfile::TempDir,
    process: TestProcess,
}

impl Subject {
    fn start() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let process = TestProcess::start(SERVER, &parent.path().join("data"), &[]);
        Self { parent, process }
    }

    fn data(&self) -> PathBuf {
        self.parent.path().join("data")
    }

    fn aside(&self) -> PathBuf {
        self.parent.path().join("aside")
    }

    /// Waits until it admits no session and says so to a health check. Sessions that it has go on, and leave.
    fn refuses(&self, held: &mut Vec<RawClient>) {
        eventually("no session is admitted", || !admits(&self.process, "ada"));
        eventually("the health check says so", || self.process.health() == 503);
        let mut peer = held.pop().unwrap();
        peer.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
        peer.expect_text(&format!(
            r#"{{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{{"id":"eve","connections":{}}}}}"#,
            held.len() + 1
        ));
        peer.send_bye();
    }

    fn admits_again(&self) {
        eventually("sessions are admitted again", || admits(&self.process, "ada"));
        eventually("the health check says so", || self.process.health() == 200);
    }
}

/// Whether the user is admitted. A refusal closes with 1013.
fn admits(process: &TestProcess, user: &str) -> bool {
    let mut peer = RawClient::open(process.address);
    peer.authenticate(user);
    match peer.read() {
        Received::Text(text) if text.contains("AUTHENTICATE_SUCCESS") => {
            peer.send_bye();
            true
        }
        Received::Text(text) => {
            assert!(text.contains("The session store is not available, try again later"), "{text}");
            peer.expect_goodbye(1013);
            false
        }
        other => panic!("{other:?}"),
    }
}

fn held(process: &TestProcess) -> Vec<RawClient> {
    (1..=3).map(|number| RawClient::authenticated(process.address, "eve", number)).collect()
}

fn run_command(data: &Path, arguments: &[&str]) -> Output {
    Command::new(SERVER).args(arguments).arg("--data").arg(data).output().unwrap()
}

#[test]
fn deleted_directory_stops_admission() {
    let subject = Subject::start();
    let mut held = held(&subject.process);
    fs::remove_dir_all(subject.data()).unwrap();
    subject.refuses(&mut held);
    // Another server may start there. The first one admits nobody any more.
    let second = TestProcess::start(SERVER, &subject.data(), &[]);
    assert!(admits(&second, "ada"));
    subject.refuses(&mut held);
    subject.refuses(&mut held);
}

#[test]
fn directory_that_is_moved_and_put_back_is_used_again() {
    let subject = Subject::start();
    let mut held = held(&subject.process);
    fs::rename(subject.data(), subject.aside()).unwrap();
    subject.refuses(&mut held);
    assert!(!subject.data().exists(), "nothing is created in its place");
    let refused = run_command(&subject.aside(), &["explain", "eve"]);
    assert!(refused.status.success(), "operators find it where it is: {refused:?}");
    fs::rename(subject.aside(), subject.data()).unwrap();
    subject.admits_again();
    // What happened meanwhile is known: one of three left.
    drop(RawClient::authenticated(subject.process.address, "eve", 3));
}

#[test]
fn deleted_part_stops_admission_and_updates() {
    side_by_side(["live", "users", "live/data.mdb", "users/data.mdb"], |part| {
        let subject = Subject::start();
        let mut held = held(&subject.process);
        fs::rename(subject.data().join(part), subject.aside()).unwrap();
        subject.refuses(&mut held);
        let limit = run_command(&subject.data(), &["limit", "eve", "7"]);
        assert_eq!(limit.status.code(), Some(1), "an override would be gone at the next start: {limit:?}");
        fs::rename(subject.aside(), subject.data().join(part)).unwrap();
        subject.admits_again();
        assert!(run_command(&subject.data(), &["limit", "eve", "7"]).status.success());
    });
}

#[test]
fn deleted_lock_file_changes_nothing() {
    let subject = Subject::start();
    let _held = held(&subject.process);
    fs::remove_file(subject.data().join("lock")).unwrap();
    eventually("the health check has been answered", || subject.process.health() == 200);
    assert!(admits(&subject.process, "ada"));
    assert_eq!(run_command(&subject.data(), &["--listen", "127.0.0.1:0"]).status.code(), Some(1), "it is still locked");
}

#[test]
#[cfg(target_os = "linux")]
fn volume_mounted_over_it_stops_admission() {
    let subject = Subject::start();
    let mut held = held(&subject.process);
    let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(subject.data()).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting a file system is not allowed here");
        return;
    }
    subject.refuses(&mut held);
    assert!(Command::new("umount").arg(subject.data()).status().unwrap().success());
    subject.admits_again();
}

/// Signs in with a client that can resume, and kills the server and then the client. The slot lingers.
fn leave_a_lingering_slot(process: &mut TestProcess) {
    let mut peer = RawClient::open(process.address);
    peer.text(r#"{"type":"AUTHENTICATE","payload":{"user":"ada"}}"#);
    assert!(matches!(peer.read(), Received::Text(text) if text.contains("AUTHENTICATE_SUCCESS")));
    process.kill();
}

/// How many slots of ada are taken, besides that of the client that asks.
fn slots_of_ada(process: &TestProcess) -> u32 {
    let mut peer = RawClient::open(process.address);
    peer.authenticate("ada");
    let Received::Text(text) = peer.read() else { panic!("no answer") };
    peer.send_bye();
    let count = text.split_once(r#""connections":"#).unwrap_or_else(|| panic!("{text}")).1;
    count.trim_end_matches('}').parse::<u32>().unwrap() - 1
}

/// A memory file system, unmounted when dropped.
struct Memory<'a>(&'a Path);

impl<'a> Memory<'a> {
    /// `None` if mounting is not allowed.
    fn mount(directory: &'a Path) -> Option<Self> {
        fs::create_dir_all(directory).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(directory).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

/// On a memory file system, mounted or linked to, the slots survive the process and not the machine.
#[test]
fn slots_in_memory_survive_the_process() {
    let arguments = ["--linger", "10m", "--limit", "9"];
    for is_linked in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let (data, memory) = (parent.path().join("data"), parent.path().join("memory"));
        let live = data.join("live");
        let mounted = if is_linked { &memory } else { &live };
        let Some(first) = Memory::mount(mounted) else {
            println!("skipped: mounting a file system is not allowed here");
            return;
        };
        if is_linked {
            fs::create_dir(&data).unwrap();
            std::os::unix::fs::symlink(memory.join("sessions"), &live).unwrap();
        }
        let mut process = TestProcess::start(SERVER, &data, &arguments);
        leave_a_lingering_slot(&mut process);
        let mut process = TestProcess::start(SERVER, &data, &arguments);
        assert_eq!(slots_of_ada(&process), 1, "linked: {is_linked}");
        process.kill();
        // As after a reboot: other memory, and empty.
        drop(first);
        let _second = Memory::mount(mounted).unwrap();
        let process = TestProcess::start(SERVER, &data, &arguments);
        assert_eq!(slots_of_ada(&process), 0, "linked: {is_linked}");
        assert!(fs::metadata(mounted.join(if is_linked { "sessions/data.mdb" } else { "data.mdb" })).is_ok());
    }
}

#[test]
fn deleted_operator_socket_comes_back() {
    let subject = Subject::start();
    let _held = held(&subject.process);
    let explain = || run_command(&subject.data(), &["explain", "eve"]);
    assert!(explain().status.success());
    for _ in 0..2 {
        fs::remove_file(subject.data().join("operator.sock")).unwrap();
        // The command waits for it.
        let output = explain();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn command_explains_a_missing_operator_socket() {
    let subject = Subject::start();
    let socket = subject.data().join("operator.sock");
    fs::remove_file(&socket).unwrap();
    // A directory in its place, so that the server cannot bind it.
    while fs::create_dir(&socket).is_err() {
        drop(fs::remove_file(&socket));
    }
    let output = run_command(&subject.data(), &["explain", "eve"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    for part in ["process", "does not answer", "operator.sock", "its log says why"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
}

/// The name of a Unix socket has at most 107 bytes.
#[test]
fn long_path_has_an_operator_socket() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("d".repeat(150)).join("e".repeat(150));
    let mut process = TestProcess::start(SERVER, &data, &[]);
    let _held = held(&process);
    let explain = || {
        let output = run_command(&data, &["explain", "eve", "--json"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Only the server knows where a client connects from.
    assert!(explain().contains("127.0.0.1"), "{}", explain());
    fs::remove_file(data.join("operator.sock")).unwrap();
    assert!(explain().contains("127.0.0.1"), "it comes back");
    process.kill();
    assert!(!explain().contains("127.0.0.1"), "no server runs");
}
