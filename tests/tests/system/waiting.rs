//! Waiting in line and watching, over real sockets.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use session_core::ledger::{AdmissionPolicy, SlotLimit};
use shell::auth::OpenAuthenticator;
use shell::store::{LmdbConfig, LmdbStore, MemoryStore, Store};
use tests::raw_client::{RawClient, Received};
use tests::test_server::{NODE, TestServer, settings};

const MINUTE: u64 = 60_000;

fn server(store: Arc<dyn Store>) -> TestServer {
    TestServer::with_authenticator(store, Box::new(OpenAuthenticator::default()), settings(), 2)
}

fn memory(limit: u32) -> (TestServer, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new(NODE, SlotLimit::new(limit).unwrap()));
    (server(Arc::<MemoryStore>::clone(&store)), store)
}

fn read(peer: &mut RawClient) -> Value {
    loop {
        match peer.read() {
            Received::Text(text) => return serde_json::from_str(&text).unwrap(),
            Received::Ping => peer.pong(),
            other => panic!("no message but {other:?}"),
        }
    }
}

/// The next message of another type than this.
fn read_after(peer: &mut RawClient, kind: &str) -> Value {
    loop {
        let message = read(peer);
        if message["type"] != kind {
            return message;
        }
    }
}

fn send(peer: &mut RawClient, kind: &str, payload: &Value) {
    peer.text(&json!({"type": kind, "payload": payload}).to_string());
}

/// A client that asks for a slot of Ada, and waits so long for one.
fn ask(server: &TestServer, wait_ms: u64) -> RawClient {
    let mut peer = RawClient::open(server.address);
    send(&mut peer, "AUTHENTICATE", &json!({"user": "ada", "wait_ms": wait_ms}));
    peer
}

fn expect_granted(peer: &mut RawClient) {
    let answer = read_after(peer, "AUTHENTICATE_WAITING");
    assert_eq!(answer["type"], "AUTHENTICATE_SUCCESS", "{answer}");
}

fn admitted(server: &TestServer) -> RawClient {
    let mut peer = ask(server, 0);
    expect_granted(&mut peer);
    peer
}

/// A client that waits, and its place in line.
fn waiting(server: &TestServer) -> (RawClient, Value) {
    let mut peer = ask(server, MINUTE);
    let answer = read(&mut peer);
    assert_eq!(answer["type"], "AUTHENTICATE_WAITING", "{answer}");
    (peer, answer["payload"]["place"].clone())
}

fn expect_place(peer: &mut RawClient, place: u16) {
    let message = read(peer);
    assert_eq!((&message["type"], &message["payload"]["place"]), (&json!("AUTHENTICATE_WAITING"), &json!(place)));
}

fn bye(mut peer: RawClient) {
    send(&mut peer, "BYE", &Value::Null);
    while read(&mut peer)["type"] != "BYE_SUCCESS" {}
}

#[test]
fn slots_come_in_the_order_of_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let lmdb = LmdbStore::open(&LmdbConfig::new(directory.path(), SlotLimit::new(2).unwrap()), NODE).unwrap();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new(NODE, SlotLimit::new(2).unwrap())), Arc::new(lmdb)];
    for store in stores {
        let server = server(store);
        let mut holders = vec![admitted(&server), admitted(&server)];
        let mut line: Vec<_> = (1..=16)
            .map(|expected: u16| {
                let (peer, place) = waiting(&server);
                assert_eq!(place, expected);
                peer
            })
            .collect();
        // The line is full.
        let mut late = ask(&server, MINUTE);
        let answer = read(&mut late);
        assert_eq!(
            (&answer["code"], &answer["line"], &answer["waiting"]),
            (&json!("limit_reached"), &json!("full"), &json!(16))
        );
        while !line.is_empty() {
            bye(holders.remove(0));
            // Who does not wait comes too late, however quick.
            let mut newcomer = ask(&server, 0);
            assert_eq!(read(&mut newcomer)["code"], "limit_reached");
            let mut first = line.remove(0);
            expect_granted(&mut first);
            holders.push(first);
        }
    }
}

#[test]
fn client_that_vanishes_leaves_the_line() {
    let (server, _) = memory(1);
    let holder = admitted(&server);
    let (lost, _) = waiting(&server);
    let (parted, _) = waiting(&server);
    let (mut last, place) = waiting(&server);
    assert_eq!(place, 3);
    drop(lost);
    expect_place(&mut last, 2);
    bye(parted);
    expect_place(&mut last, 1);
    bye(holder);
    expect_granted(&mut last);
}

#[test]
fn wait_ends_and_can_begin_again() {
    let (server, _) = memory(1);
    let holder = admitted(&server);
    let mut peer = ask(&server, 50);
    assert_eq!(read(&mut peer)["type"], "AUTHENTICATE_WAITING");
    let answer = read(&mut peer);
    assert_eq!((&answer["type"], &answer["code"]), (&json!("AUTHENTICATE_FAILURE"), &json!("limit_reached")));
    send(&mut peer, "AUTHENTICATE", &json!({"user": "ada", "wait_ms": MINUTE}));
    expect_place(&mut peer, 1);
    // While it waits, it is served.
    send(&mut peer, "PING", &Value::Null);
    assert_eq!(read(&mut peer)["type"], "PONG");
    send(&mut peer, "CHECK_CONNECTIONS", &Value::Null);
    assert_eq!(read(&mut peer)["code"], "not_authenticated");
    bye(holder);
    expect_granted(&mut peer);
}

#[test]
fn lost_slot_goes_to_the_line_when_it_lapses() {
    // Much longer than [`Session::WATCH_INTERVAL`]: so long a client in line may wait before it is told of a change.
    let linger = Duration::from_secs(3);
    let policy = AdmissionPolicy { linger, ..AdmissionPolicy::new(SlotLimit::new(1).unwrap()) };
    let server = server(Arc::new(MemoryStore::with_policy(NODE, policy)));
    let holder = admitted(&server);
    let (mut peer, _) = waiting(&server);
    drop(holder);
    let message = read(&mut peer);
    assert_eq!(message["type"], "AUTHENTICATE_WAITING", "it is told who is there now");
    assert_eq!(message["payload"]["sessions"][0]["state"], "lingering");
    assert!(message["payload"]["retry_after_ms"].as_u64().is_some_and(|millis| millis <= 3000), "{message}");
    expect_granted(&mut peer);
}

#[test]
fn higher_limit_is_noticed_without_a_hint() {
    let (server, store) = memory(1);
    let _holder = admitted(&server);
    let (mut peer, _) = waiting(&server);
    store.set_policy(AdmissionPolicy::new(SlotLimit::new(2).unwrap()));
    expect_granted(&mut peer);
}

#[test]
fn watching_client_sees_others_come_and_go() {
    let (server, _) = memory(3);
    let mut watcher = admitted(&server);
    send(&mut watcher, "LIST_SESSIONS", &json!({"watch": true}));
    assert_eq!(read(&mut watcher)["payload"]["connections"], 1);
    let mut plain = RawClient::authenticated(server.address, "ada", 2);
    let changed = read(&mut watcher);
    assert_eq!((&changed["type"], &changed["payload"]["connections"]), (&json!("SESSIONS_CHANGED"), &json!(2)));
    let other = changed["payload"]["sessions"][1]["slot"].clone();
    send(&mut watcher, "END_SESSION", &other);
    assert_eq!(read(&mut watcher)["type"], "END_SESSION_SUCCESS");
    assert_eq!(read(&mut watcher)["payload"]["connections"], 1, "it is told of its own changes, too");
    plain.expect_text(r#"{"type":"EVICTED","payload":"Another session of this user has ended this one"}"#);
    // Of many changes at once it hears the last.
    let (_stays, leaves) = (admitted(&server), admitted(&server));
    bye(leaves);
    loop {
        let changed = read(&mut watcher);
        assert_eq!(changed["type"], "SESSIONS_CHANGED");
        if changed["payload"]["connections"] == 2 {
            break;
        }
    }
    send(&mut watcher, "LIST_SESSIONS", &json!({"watch": false}));
    assert_eq!(read(&mut watcher)["type"], "LIST_SESSIONS_SUCCESS");
    let _another = admitted(&server);
    send(&mut watcher, "PING", &Value::Null);
    assert_eq!(read(&mut watcher)["type"], "PONG");
}
