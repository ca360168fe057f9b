//! A disk that fills up under a running server, and one that has room again.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use session_core::{Limit, Limits};
use shell::store::{LmdbConfig, LmdbStore};
use tests::peer::{InProcess, NODE, Raw, Sent, eventually};

/// A file system of so many KiB, unmounted when dropped. `None` where mounting is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kib: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = File::create(self.path().join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what is still open in there goes when it is closed.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

enum Answer {
    Admitted(Raw),
    /// Closed with 1013, in these words.
    TurnedAway(String),
}

fn sign_in(server: &InProcess, user: &str) -> Answer {
    let mut peer = Raw::open(server.address);
    peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{user}"}}"#));
    match peer.read() {
        Sent::Text(text) if text.contains("AUTHENTICATE_SUCCESS") => Answer::Admitted(peer),
        Sent::Text(text) if text.contains("AUTHENTICATE_FAILURE") => {
            assert!(text.contains("store") && text.contains("try again later"), "{text}");
            peer.expect_goodbye(1013);
            Answer::TurnedAway(text)
        }
        other => panic!("{other:?}"),
    }
}

/// Signs in one user after another until somebody is turned away.
fn sign_in_until_full(server: &InProcess, most: usize) -> (Vec<Raw>, String) {
    let mut held = Vec::new();
    for number in 0..most {
        match sign_in(server, &format!("user {number} {}", "x".repeat(200))) {
            Answer::Admitted(peer) => held.push(peer),
            Answer::TurnedAway(words) => return (held, words),
        }
    }
    panic!("{most} users were admitted and nothing was full");
}

/// Releases are taken while it lasts, whether or not they can be written down now.
fn everybody_leaves(held: Vec<Raw>) {
    for mut peer in held {
        peer.say_bye();
    }
}

fn admitted_again(server: &InProcess) {
    eventually("somebody is admitted again", || matches!(sign_in(server, "ada"), Answer::Admitted(_)));
    eventually("user 0 holds nothing", || match sign_in(server, &format!("user 0 {}", "x".repeat(200))) {
        Answer::Admitted(mut peer) => {
            peer.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
            matches!(peer.read(), Sent::Text(text) if text.ends_with(r#""connections":1}}"#))
        }
        Answer::TurnedAway(_) => false,
    });
}

#[test]
fn a_full_disk_admits_nobody_takes_releases_and_is_survived() {
    let Some(disk) = SmallDisk::mount(1024) else {
        println!("skipped: mounting a file system is not allowed here");
        return;
    };
    let config = LmdbConfig::new(disk.path().join("data"), Limit::default());
    let store = Arc::new(LmdbStore::open(&config, NODE).unwrap());
    let server = InProcess::with(store, Limits::default(), 2);
    drop(sign_in(&server, "somebody who was here before"));
    disk.fill();
    let (held, _words) = sign_in_until_full(&server, 3000);
    everybody_leaves(held);
    disk.free();
    admitted_again(&server);
}

#[test]
fn a_full_map_admits_nobody_takes_releases_and_is_survived() {
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig { live_map_bytes: 1 << 20, ..LmdbConfig::new(directory.path(), Limit::default()) };
    let store = Arc::new(LmdbStore::open(&config, NODE).unwrap());
    let server = InProcess::with(store, Limits::default(), 2);
    let (held, words) = sign_in_until_full(&server, 8000);
    assert!(words.contains("The session store is full"), "{words}");
    everybody_leaves(held);
    admitted_again(&server);
}
