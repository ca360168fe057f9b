//! The client binary at the limit with `--wait`, and with `--watch`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::process::Signal;
use tests::raw_client::RawClient;
use tests::test_process::{send_signal, wait_for_exit};
use tests::waiting::TIMEOUT;

use super::client_command::{client, run, start_server};

/// A client that runs.
struct RunningClient {
    child: Child,
    lines: Receiver<String>,
}

impl RunningClient {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let mut child = client(&[&["--url", url, "--user", "ada"], arguments].concat()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // An error: the test has failed already.
                drop(sender.send(line));
            }
        });
        Self { child, lines }
    }

    /// Reads up to the line that begins so, and returns it.
    fn wait_for(&self, start: &str) -> String {
        let mut read = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(TIMEOUT) {
            if line.starts_with(start) {
                return line;
            }
            read.push(line);
        }
        panic!("no {start:?} after {read:#?}");
    }

    /// Interrupts it: its exit code, the last line, and the errors.
    fn interrupt(mut self) -> (i32, String, String) {
        send_signal(self.child.id(), Signal::INT);
        let code = wait_for_exit(&mut self.child).code().unwrap();
        let last = self.lines.iter().last().unwrap_or_default();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (code, last, errors)
    }
}

const GOODBYE: &str = "BYE_SUCCESS goodbye";
const GRANTED: &str = "AUTHENTICATE_SUCCESS ada holds 1 connection";

#[test]
fn waiting_client_gets_the_slot_that_is_released() {
    let (_directory, _process, url) = start_server(&["--limit", "1"]);
    let holding = RunningClient::start(&url, &[]);
    holding.wait_for(GRANTED);
    let leaving = RunningClient::start(&url, &["--wait", "1m"]);
    let place = leaving.wait_for("AUTHENTICATE_WAITING");
    assert_eq!(place, "AUTHENTICATE_WAITING place 1 in line, for another 1m at most");
    let waiting = RunningClient::start(&url, &["--wait", "1m"]);
    waiting.wait_for("AUTHENTICATE_WAITING place 2 in line");
    let (code, output) = run(client(&["sessions", "--url", &url, "--user", "ada"]), "");
    assert!(code == 0 && output.starts_with("1 slot of 1 taken, 2 in line\n"), "{output}");
    assert_eq!(leaving.interrupt(), (0, GOODBYE.into(), String::new()));
    waiting.wait_for("AUTHENTICATE_WAITING place 1 in line");
    assert_eq!(holding.interrupt(), (0, GOODBYE.into(), String::new()));
    waiting.wait_for(GRANTED);
    assert_eq!(waiting.interrupt(), (0, GOODBYE.into(), String::new()));
}

#[test]
fn client_whose_wait_ends_is_denied() {
    let (_directory, process, url) = start_server(&["--limit", "1"]);
    let mut only = RawClient::authenticated(process.address, "ada", 1);
    let run_as_ada = |arguments: &[&str]| run(client(&[&["--url", &url, "--user", "ada"], arguments].concat()), "");
    let (code, output) = run_as_ada(&["--wait", "200ms"]);
    let told = "AUTHENTICATE_WAITING place 1 in line, for another 1s at most\n\
                AUTHENTICATE_FAILURE User has reached connection limit, no more connections allowed\n\
                BYE_SUCCESS goodbye\n\
                error: user \"ada\" has reached the connection limit; end another session of this user first\n";
    assert!(code == 3 && output.ends_with(told), "{output}");
    let (code, output) = run_as_ada(&["--wait", "61m"]);
    assert!(code == 2 && output.contains("it must be 100ms to 1h"), "{output}");
    only.send_bye();
}

#[test]
fn client_that_cannot_wait_is_denied() {
    let (_directory, process, url) = start_server(&["--limit", "1", "--max-waiting", "0"]);
    let mut only = RawClient::authenticated(process.address, "ada", 1);
    let (code, output) = run(client(&["--url", &url, "--user", "ada", "--wait", "1h"]), "");
    let error = "error: user \"ada\" has reached the connection limit, and no more sessions may wait in line; try again later\n";
    assert!(code == 3 && output.ends_with(error), "{output}");
    only.send_bye();
}

#[test]
fn sessions_of_one_client_wait_together() {
    let (_directory, _process, url) = start_server(&["--limit", "1"]);
    let all = RunningClient::start(&url, &["--wait", "1m", "--connections", "3"]);
    all.wait_for("#1 AUTHENTICATE_SUCCESS ada holds 1 connection");
    all.wait_for("#2 AUTHENTICATE_WAITING place 1 in line");
    all.wait_for("#3 AUTHENTICATE_WAITING place 2 in line");
    let (code, last, errors) = all.interrupt();
    assert!(code == 0 && last.ends_with(GOODBYE) && errors.is_empty(), "{last} {errors}");
}

#[test]
fn watching_client_prints_each_change() {
    let (_directory, _process, url) = start_server(&["--limit", "2"]);
    let watching = RunningClient::start(&url, &["--watch", "--label", "first"]);
    assert_eq!(watching.wait_for("LIST_SESSIONS_SUCCESS"), "LIST_SESSIONS_SUCCESS 1 slot of 2 taken");
    let own = watching.wait_for("  ");
    assert!(own.contains(", label \"first\", since 20") && own.ends_with(", this session"), "{own}");
    let other = RunningClient::start(&url, &["--label", "other"]);
    other.wait_for("AUTHENTICATE_SUCCESS");
    assert_eq!(watching.wait_for("SESSIONS_CHANGED"), "SESSIONS_CHANGED 2 slots of 2 taken");
    assert_eq!(watching.wait_for("  "), own);
    assert!(watching.wait_for("  ").contains(", label \"other\", since 20"));
    let waiting = RunningClient::start(&url, &["--wait", "1m"]);
    waiting.wait_for("AUTHENTICATE_WAITING place 1");
    assert_eq!(watching.wait_for("SESSIONS_CHANGED"), "SESSIONS_CHANGED 2 slots of 2 taken, 1 in line");
    waiting.interrupt();
    assert_eq!(watching.wait_for("SESSIONS_CHANGED"), "SESSIONS_CHANGED 2 slots of 2 taken");
    other.interrupt();
    assert_eq!(watching.wait_for("SESSIONS_CHANGED"), "SESSIONS_CHANGED 1 slot of 2 taken");
    assert_eq!(watching.interrupt(), (0, GOODBYE.into(), String::new()));
}
