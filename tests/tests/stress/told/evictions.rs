//! While sessions take one another's place, no more clients than the limit are told that they are in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the numbers are worth reading")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use session_core::ledger::{AdmissionPolicy, SlotLimit, WhenFull};
use session_core::session::SessionSettings;
use shell::auth::OpenAuthenticator;
use shell::store::{LmdbConfig, LmdbStore, MemoryStore, Store};
use tests::raw_client::{RawClient, Received};
use tests::test_server::{NODE, TestServer, settings};
use tests::waiting::eventually;

use super::system_calls::Recording;

const LIMIT: u32 = 3;
const CLIENTS: usize = 20;
const GRANTS: usize = 200;

fn policy(limit: u32) -> AdmissionPolicy {
    let when_full = WhenFull::EvictOldest;
    AdmissionPolicy { when_full, ..AdmissionPolicy::new(SlotLimit::new(limit).unwrap()) }
}

/// Authenticates, and does so again at once whenever the session is ended.
fn come_back(address: SocketAddr, is_over: &AtomicBool, ended: &AtomicUsize) {
    while !is_over.load(Ordering::Relaxed) {
        let mut peer = RawClient::open(address);
        peer.authenticate("ada");
        while let Received::Text(_) | Received::Ping | Received::Pong(_) = peer.read() {}
    }
    ended.fetch_add(1, Ordering::Relaxed);
}

/// When dropped, also by a failure, nobody comes back any more, and the server stops.
struct Storm<'a> {
    is_over: &'a AtomicBool,
    _server: TestServer,
}

impl Drop for Storm<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn storm_of_evictions_keeps_the_limit(store: Arc<dyn Store>) {
    let recording = Recording::start(LIMIT as usize);
    let server = TestServer::with_authenticator(store, Box::new(OpenAuthenticator::default()), settings(), 2);
    let (address, is_over, ended) = (server.address, AtomicBool::new(false), AtomicUsize::new(0));
    let told = thread::scope(|scope| {
        let storm = Storm { is_over: &is_over, _server: server };
        for _ in 0..CLIENTS {
            scope.spawn(|| come_back(address, &is_over, &ended));
        }
        eventually("enough clients were told that they are in", || recording.count() >= GRANTS);
        let told = recording.end();
        storm.is_over.store(true, Ordering::Relaxed);
        let left = CLIENTS - LIMIT as usize;
        eventually("all are ended but those that hold a slot", || ended.load(Ordering::Relaxed) >= left);
        told
    });
    println!("{} told, {} of them beyond the limit, at most {} at once", told.count, told.beyond, told.peak);
    assert!(told.count >= GRANTS);
    assert_eq!((told.beyond, told.peak), (0, LIMIT as usize));
}

#[test]
fn storm_on_the_memory_store_keeps_the_limit() {
    storm_of_evictions_keeps_the_limit(Arc::new(MemoryStore::with_policy(NODE, policy(LIMIT))));
}

#[test]
fn storm_on_lmdb_keeps_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig { policy: policy(LIMIT), ..LmdbConfig::new(directory.path(), SlotLimit::default()) };
    storm_of_evictions_keeps_the_limit(Arc::new(LmdbStore::open(&config, NODE).unwrap()));
}

/// A client that reads nothing cannot be told that it is out. Its socket is cut before the next client is told.
#[test]
fn evicted_client_that_reads_nothing_is_cut() {
    let limits = SessionSettings { max_message_rate: None, ..SessionSettings::default() };
    let store = Arc::new(MemoryStore::with_policy(NODE, policy(1)));
    let recording = Recording::start(1);
    let server = TestServer::with(store, limits, 2);
    let mut deaf = RawClient::authenticated(server.address, "ada", 1);
    deaf.set_write_timeout(Duration::from_millis(200));
    // The server stops reading when it cannot write its answers.
    while deaf.text(r#"{"type":"CHECK_CONNECTIONS"}"#) {}
    let mut next = RawClient::open(server.address);
    next.authenticate("ada");
    next.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#);
    let told = recording.end();
    assert_eq!((told.count, told.beyond, told.peak), (2, 0, 1));
    deaf.wait_for_end();
}
