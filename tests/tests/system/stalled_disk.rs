//! A disk that stalls. It holds up the commands, and the one thread that applies them: nobody else.
//!
//! The stall is real for the server: this process takes LMDB's lock for writers, as a stalled commit keeps it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use heed::EnvOpenOptions;
use rustix::process::Signal;
use tests::raw_client::{RawClient, Received};
use tests::test_process::{TestProcess, send_signal};
use tests::waiting::eventually;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// Stalls every commit to `live/` until it is dropped.
struct Stall {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stall {
    fn begin(data: &Path) -> Self {
        let live = data.join("live");
        let ((begun, has_begun), (end, ended)) = (channel(), channel());
        let thread = thread::spawn(move || {
            // SAFETY: the server's file is neither changed nor removed here.
            let environment = unsafe { EnvOpenOptions::new().open(live) }.unwrap();
            let transaction = environment.write_txn().unwrap();
            begun.send(()).unwrap();
            assert!(ended.recv().is_err());
            drop(transaction);
        });
        has_begun.recv().unwrap();
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The server must answer a ping of this client.
fn ping(client: &mut RawClient) {
    client.frame(0x89, b"here?");
    assert_eq!(client.read(), Received::Pong(b"here?".to_vec()));
}

#[test]
fn stalled_commit_holds_up_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--limit", "2", "--store-timeout", "500ms", "--threads", "1"];
    let server = TestProcess::start(SERVER, directory.path(), &arguments);
    let mut sessions: Vec<_> =
        (0..8).map(|number| RawClient::authenticated(server.address, &format!("user {number}"), 1)).collect();
    let mut asking: Vec<_> = (0..8).map(|_| RawClient::open(server.address)).collect();

    let stall = Stall::begin(directory.path());
    let began = Instant::now();
    // One of these is served by the thread that waits for the disk.
    asking.iter_mut().for_each(|client| client.authenticate("ada"));
    let mut leaving = RawClient::open(server.address);
    while began.elapsed() < Duration::from_secs(2) {
        sessions.iter_mut().for_each(ping);
        drop(RawClient::open(server.address));
        // A client may send 100 messages a second.
        thread::sleep(Duration::from_millis(20));
    }
    leaving.send_bye();
    sessions.pop().unwrap().send_bye();
    // Those behind it are told that it is not known whether they are in, and are closed.
    let mut told = 0;
    for client in &mut asking {
        match client.read_within(Duration::from_millis(1)) {
            Some(Received::Text(text)) => assert!(text.contains("did not answer in time"), "{text}"),
            Some(other) => panic!("{other:?}"),
            None => continue,
        }
        told += 1;
    }
    assert_eq!(told, 7, "all but the one whose thread waits");
    drop(stall);

    // Every slot comes back: those of the clients that were told nothing certain, too.
    drop(asking);
    eventually("ada has no slot but two", || {
        let mut first = RawClient::open(server.address);
        first.authenticate("ada");
        matches!(first.read(), Received::Text(text) if text.ends_with(r#""connections":1}}"#))
    });
    let _two = [1, 2].map(|number| RawClient::authenticated(server.address, "ada", number));
    let mut third = RawClient::open(server.address);
    third.authenticate("ada");
    assert!(matches!(third.read(), Received::Text(text) if text.contains("AUTHENTICATE_FAILURE")));
    sessions.iter_mut().for_each(ping);
}

#[test]
fn server_stops_while_a_commit_is_stalled() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = TestProcess::start(SERVER, directory.path(), &["--store-timeout", "500ms", "--threads", "1"]);
    let mut session = RawClient::authenticated(server.address, "bob", 1);
    let mut asking = [(); 2].map(|()| RawClient::open(server.address));
    let stall = Stall::begin(directory.path());
    asking.iter_mut().for_each(|client| client.authenticate("ada"));
    // The thread of one of them waits for the disk. So the session's own thread will not.
    eventually("the store does not answer the other one", || {
        asking.iter_mut().any(|client| {
            matches!(client.read_within(Duration::from_millis(1)), Some(Received::Text(text)) if text.contains("in time"))
        })
    });
    ping(&mut session);
    send_signal(server.id(), Signal::TERM);
    session.expect_goodbye(1001);
    assert!(server.wait().success());
    drop(stall);
}
