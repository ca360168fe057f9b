//! A disk that becomes full under a running server, and has room again.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a skipped test is reported")]

use std::process::Stdio;
use std::sync::Arc;

use session_core::ledger::SlotLimit;
use shell::store::{LiveWrites, LmdbConfig, LmdbStore, OpenError};
use tests::descriptors::enough_descriptors;
use tests::raw_client::{RawClient, Received};
use tests::small_disk::SmallDisk;
use tests::test_process::{SpawnedProcess, StartFailure, without_connection_limits};
use tests::test_server::{NODE, TestServer, session_settings, slots_in_store};
use tests::values::long_user_id;
use tests::waiting::eventually;

enum Answer {
    Admitted(RawClient),
    /// Closed with 1013, and this message.
    Refused(String),
}

fn sign_in(server: &TestServer, user: &str) -> Answer {
    let mut peer = RawClient::open(server.address);
    peer.authenticate(user);
    match peer.read() {
        Received::Text(text) if text.contains("AUTHENTICATE_SUCCESS") => Answer::Admitted(peer),
        Received::Text(text) if text.contains("AUTHENTICATE_FAILURE") => {
            assert!(text.contains("store") && text.contains("try again later"), "{text}");
            peer.expect_goodbye(1013);
            Answer::Refused(text)
        }
        other => panic!("{other:?}"),
    }
}

/// Authenticates one user after another until the store is full.
fn sign_in_until_full(server: &TestServer, first: usize, most: usize) -> (Vec<RawClient>, String) {
    let mut peers = Vec::new();
    for number in first..most {
        match sign_in(server, &long_user_id(number)) {
            Answer::Admitted(peer) => peers.push(peer),
            Answer::Refused(words) => return (peers, words),
        }
    }
    panic!("{most} users were admitted and nothing was full");
}

/// Sends BYE on every connection. It succeeds whether or not the store can write now.
fn everybody_leaves(held: Vec<RawClient>) {
    for mut peer in held {
        peer.send_bye();
    }
}

/// Fills the store with sessions that then leave. Every slot becomes free, and a new session is admitted.
fn fills_up_and_recovers(store: &LmdbStore, server: &TestServer) {
    let (peers, words) = sign_in_until_full(server, 0, 8000);
    assert!(words.contains("The session store is full"), "{words}");
    let most = peers.len();
    everybody_leaves(peers);
    every_slot_is_back(store, most);
    admitted_again(server);
}

fn every_slot_is_back(store: &LmdbStore, users: usize) {
    for number in 0..users {
        eventually("the slot is free", || slots_in_store(store, &long_user_id(number)) == Some(0));
    }
}

fn admitted_again(server: &TestServer) {
    eventually("a session is admitted again", || matches!(sign_in(server, "ada"), Answer::Admitted(_)));
}

/// A server with its data on this disk.
fn serve(disk: &SmallDisk, live_writes: LiveWrites) -> (Arc<LmdbStore>, TestServer) {
    let config = LmdbConfig { live_writes, ..LmdbConfig::new(disk.path().join("data"), SlotLimit::default()) };
    // A process that another test is just starting has the file of the lock as well, until it runs its program.
    let mut opened = LmdbStore::open(&config, NODE);
    eventually("the store is free", || {
        if matches!(opened, Err(OpenError::InUse { .. })) {
            opened = LmdbStore::open(&config, NODE);
        }
        !matches!(opened, Err(OpenError::InUse { .. }))
    });
    let store = Arc::new(opened.unwrap());
    let server = TestServer::with(store.clone(), session_settings(), 2);
    (store, server)
}

macro_rules! mount_or_skip {
    ($kib:expr) => {
        match SmallDisk::mount($kib) {
            Some(disk) => disk,
            None => {
                println!("skipped: mounting a file system is not allowed here");
                return;
            }
        }
    };
}

#[test]
fn full_disk_denies_sessions_and_accepts_releases() {
    full_disk_serves(LiveWrites::File, [3, 100, 1000]);
}

/// A page of the map without a block would end this process.
#[test]
fn full_disk_below_a_map_denies_sessions_and_accepts_releases() {
    // The map has grown for the last of them.
    full_disk_serves(LiveWrites::Auto, [3, 100, 2500]);
}

fn full_disk_serves(live_writes: LiveWrites, counts: [usize; 3]) {
    if !enough_descriptors(12_000) {
        return;
    }
    let disk = mount_or_skip!(6144);
    // Few slots, so that the file has few reusable pages; then many.
    for users in counts {
        let (store, server) = serve(&disk, live_writes);
        let held_at_first: Vec<_> = (0..users).map(|number| sign_in(&server, &long_user_id(number))).collect();
        disk.fill();
        let mut held_then = Vec::new();
        // Twice: the first to be refused needed a larger map. The others may fit into what is left for sessions.
        for _ in 0..2 {
            let (held, words) = sign_in_until_full(&server, users + held_then.len(), 6000);
            assert!(words.contains("The session store is full"), "{words}");
            held_then.extend(held);
        }
        // The remaining room is reserved for releases.
        for number in 0..100 {
            let newcomer = sign_in(&server, &format!("newcomer {number} {}", "x".repeat(200)));
            assert!(matches!(newcomer, Answer::Refused(_)), "newcomer {number} was admitted");
        }
        let most = users + held_then.len();
        for answer in held_at_first {
            let Answer::Admitted(peer) = answer else { panic!("there was room") };
            drop(peer);
        }
        everybody_leaves(held_then);
        // The disk is still full.
        every_slot_is_back(&store, most);
        disk.free();
        admitted_again(&server);
        drop(server);
        drop(store);
    }
}

#[test]
fn disk_full_of_slots_recovers_after_releases() {
    if !enough_descriptors(6000) {
        return;
    }
    for (kib, live_writes) in [(1024, LiveWrites::File), (1024, LiveWrites::Auto), (3072, LiveWrites::Auto)] {
        let disk = mount_or_skip!(kib);
        let (store, server) = serve(&disk, live_writes);
        // The disk stays full, but the file has room after the releases.
        fills_up_and_recovers(&store, &server);
    }
}

#[test]
fn full_map_recovers_after_releases() {
    if !enough_descriptors(6000) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig { live_map_bytes: 1 << 20, ..LmdbConfig::new(directory.path(), SlotLimit::default()) };
    let store = Arc::new(LmdbStore::open(&config, NODE).unwrap());
    let server = TestServer::with(store.clone(), session_settings(), 2);
    fills_up_and_recovers(&store, &server);
}

#[test]
fn start_with_little_room_serves_or_explains() {
    let disk = mount_or_skip!(512);
    let (mut started, mut refused) = (0, 0);
    for kib in (0..400).step_by(4) {
        disk.fill_but(kib);
        let mut command = without_connection_limits(env!("CARGO_BIN_EXE_server-under-test"));
        command.args(["--log", "off"]).stderr(Stdio::piped());
        match SpawnedProcess::spawn(command, &disk.path().join("data")).listen() {
            Ok(mut process) => {
                started += 1;
                process.kill();
            }
            Err(StartFailure { code, message }) => {
                refused += 1;
                assert_eq!(code, Some(1), "{kib} KiB left: {message}");
                assert!(message.contains(disk.path().to_str().unwrap()), "{message}");
            }
        }
        std::fs::remove_dir_all(disk.path().join("data")).unwrap_or_default();
        disk.free();
    }
    assert!(started > 0 && refused > 0, "{started} started, {refused} refused");
}
