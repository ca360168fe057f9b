//! The server over real sockets: the flow of the README, races, lost sockets, and the graceful stop.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use session_core::ledger::SlotLimit;
use session_core::session::SessionSettings;
use shell::client::{Error, Url, UserConnections};
use shell::store::{LmdbConfig, LmdbStore, MemoryStore, Store};
use tests::descriptors::enough_descriptors;
use tests::raw_client::{RawClient, Received, frame_head, upgrade_request};
use tests::stallable_store::StallableStore;
use tests::test_server::{NODE, TestServer, session_settings, slots_in_store};
use tests::waiting::eventually;

const DENIED: &str =
    r#"{"type":"AUTHENTICATE_FAILURE","payload":"User has reached connection limit, no more connections allowed"}"#;
const GOODBYE: &str = r#"{"type":"BYE_SUCCESS","payload":null}"#;

#[test]
fn plain_protocol_is_answered_byte_for_byte() {
    let server = TestServer::start();
    let mut peer = RawClient::open(server.address);
    peer.text(r#"{"type":"AUTHENTICATE","payload":"my-unique-user-id"}"#);
    peer.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"my-unique-user-id","connections":1}}"#);
    peer.text(r#"{"type":"CHECK_CONNECTIONS","payload":null}"#);
    peer.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"my-unique-user-id","connections":1}}"#);
    peer.text(r#"{"type":"FOO","payload":null}"#);
    peer.expect_text(r#"{"type":"ERROR","payload":"No such event type FOO"}"#);
    peer.text(r#"{"type":"BYE","payload":null}"#);
    peer.expect_text(GOODBYE);
    peer.expect_goodbye(1000);
}

#[test]
fn fourth_client_waits_for_a_bye() {
    let server = TestServer::start();
    let mut held: Vec<_> = (1..=3).map(|number| RawClient::authenticated(server.address, "ada", number)).collect();
    let mut fourth = RawClient::open(server.address);
    fourth.authenticate("ada");
    fourth.expect_text(DENIED);
    // Other users are not affected.
    drop(RawClient::authenticated(server.address, "grace", 1));
    // After BYE_SUCCESS the slot is free, also for the socket that was denied.
    held.pop().unwrap().send_bye();
    fourth.authenticate("ada");
    fourth.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":3}}"#);
}

#[test]
fn library_user_holds_many_connections() {
    let server = TestServer::start();
    smol::block_on(async {
        let url: Url = server.url().parse().unwrap();
        let mut users: Vec<_> = (0..20).map(|number| UserConnections::new(&url, &format!("user {number}"))).collect();
        for user in &mut users {
            for held in 1..=3 {
                assert_eq!(user.connect().await.unwrap().connections, held);
            }
            assert!(matches!(user.connect().await, Err(Error::Denied { .. })));
            user.disconnect().await.unwrap();
            assert_eq!(user.connect().await.unwrap().connections, 3);
        }
    });
}

#[test]
fn lost_socket_releases_its_slot() {
    let server = TestServer::start();
    let held: Vec<_> = (1..=3).map(|number| RawClient::authenticated(server.address, "ada", number)).collect();
    drop(held);
    eventually("all three slots are free", || connections(&server, "ada") == Some(1));
    // A close frame without BYE frees the slot, too.
    let mut polite = RawClient::authenticated(server.address, "grace", 1);
    polite.frame(0x88, &1000_u16.to_be_bytes());
    assert_eq!(polite.read(), Received::Close(1000, String::new()));
    assert_eq!(polite.read(), Received::End);
    eventually("its slot is free", || connections(&server, "grace") == Some(1));
}

/// The number of connections of the user including a new one, which leaves again.
fn connections(server: &TestServer, user: &str) -> Option<u32> {
    let mut peer = RawClient::open(server.address);
    peer.authenticate(user);
    let Received::Text(answer) = peer.read() else { return None };
    peer.send_bye();
    answer.rsplit_once(':')?.1.trim_end_matches('}').parse().ok()
}

#[test]
fn silent_client_is_pinged_and_then_dropped() {
    let limits = SessionSettings {
        ping_interval: Duration::from_millis(150),
        pong_timeout: Duration::from_millis(300),
        ..session_settings()
    };
    let server = TestServer::with(Arc::new(MemoryStore::new(NODE, SlotLimit::new(1).unwrap())), limits, 2);
    let mut peer = RawClient::authenticated(server.address, "ada", 1);
    let mut last_pong = Instant::now();
    for _ in 0..3 {
        assert_eq!(peer.read(), Received::Ping);
        last_pong = Instant::now();
        peer.pong();
    }
    assert_eq!(peer.read(), Received::Ping);
    assert_eq!(peer.read(), Received::Close(4408, "Peer was silent for too long".into()));
    // Ping interval and pong timeout, counted from the last pong: the test may read the ping late.
    assert!(last_pong.elapsed() >= Duration::from_millis(400), "the server waits for the pong timeout");
    drop(RawClient::authenticated(server.address, "ada", 1));
}

#[test]
fn authentication_deadline_is_not_moved_by_denials() {
    let limits =
        SessionSettings { auth_timeout: Duration::from_millis(400), max_message_rate: None, ..session_settings() };
    let server = TestServer::with(Arc::new(MemoryStore::new(NODE, SlotLimit::new(1).unwrap())), limits, 2);
    let _holder = RawClient::authenticated(server.address, "ada", 1);
    let start = Instant::now();
    let mut silent = RawClient::open(server.address);
    let mut refused = RawClient::open(server.address);
    loop {
        refused.authenticate("ada");
        match refused.read() {
            Received::Text(text) => assert_eq!(text, DENIED),
            Received::Close(code, _) => break assert_eq!(code, 4401),
            other => panic!("{other:?}"),
        }
        refused.pong();
    }
    assert!((350..4000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    silent.expect_goodbye(4401);
}

#[test]
fn repeated_authenticate_and_bye_are_harmless() {
    let server = TestServer::start();
    let mut peer = RawClient::authenticated(server.address, "ada", 1);
    for user in ["ada", "grace"] {
        peer.authenticate(user);
        peer.expect_text(r#"{"type":"ERROR","payload":"This session is already authenticated"}"#);
    }
    drop(RawClient::authenticated(server.address, "ada", 2));
    drop(RawClient::authenticated(server.address, "grace", 1));
    // The second BYE comes after the close, so the server ignores it.
    peer.text(r#"{"type":"BYE"}"#);
    peer.text(r#"{"type":"BYE"}"#);
    peer.expect_text(GOODBYE);
    peer.expect_goodbye(1000);
    let mut anonymous = RawClient::open(server.address);
    anonymous.text(r#"{"type":"BYE"}"#);
    anonymous.expect_text(GOODBYE);
    anonymous.expect_goodbye(1000);
}

#[test]
fn frames_pipelined_with_the_handshake_are_answered() {
    let server = TestServer::start();
    for _ in 0..20 {
        let mut peer = RawClient::connect(server.address);
        let mut bytes = upgrade_request("").into_bytes();
        for text in [
            r#"{"type":"CHECK_CONNECTIONS"}"#,
            r#"{"type":"AUTHENTICATE","payload":"ada"}"#,
            r#"{"type":"CHECK_CONNECTIONS"}"#,
            r#"{"type":"CHECK_CONNECTIONS"}"#,
            r#"{"type":"BYE"}"#,
        ] {
            bytes.extend(frame_head(0x81, text.len()));
            bytes.extend(text.as_bytes());
        }
        peer.write(&bytes);
        peer.skip_head();
        peer.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
        peer.expect_text(r#"{"type":"ERROR","payload":"This session is not authenticated"}"#);
        peer.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#);
        for _ in 0..2 {
            peer.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1}}"#);
        }
        peer.expect_text(GOODBYE);
        peer.expect_goodbye(1000);
    }
}

/// Two segments would be two system calls of the server, and two wake-ups of the client.
#[test]
fn handshake_response_and_hello_arrive_together() {
    let server = TestServer::start();
    for _ in 0..50 {
        let mut peer = TcpStream::connect(server.address).unwrap();
        peer.write_all(upgrade_request("").as_bytes()).unwrap();
        let mut bytes = [0; 1024];
        let read = peer.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..read]);
        assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{text}");
        assert!(text.ends_with(r#"{"type":"HELLO","payload":"message from server"}"#), "{text}");
    }
}

/// 200 connections of one user authenticate at once.
fn race(store: Arc<dyn Store>, threads: usize) {
    if !enough_descriptors(420) {
        return;
    }
    let server = TestServer::with(store, session_settings(), threads);
    let mut peers: Vec<_> = (0..200).map(|_| RawClient::open(server.address)).collect();
    let barrier = Barrier::new(4);
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for part in peers.chunks_mut(50) {
            scope.spawn(|| {
                barrier.wait();
                for peer in part.iter_mut() {
                    peer.authenticate("ada");
                }
                for peer in part {
                    let Received::Text(answer) = peer.read() else { panic!("no answer") };
                    answers.lock().unwrap().push(answer);
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap();
    answers.retain(|answer| answer != DENIED);
    answers.sort_unstable();
    let granted = |held| format!(r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"ada","connections":{held}}}}}"#);
    assert_eq!(answers, [1, 2, 3].map(granted));
}

#[test]
fn exactly_three_of_two_hundred_are_admitted_by_memory() {
    for threads in [1, 8] {
        race(Arc::new(MemoryStore::new(NODE, SlotLimit::default())), threads);
    }
}

#[test]
fn exactly_three_of_two_hundred_are_admitted_by_lmdb() {
    for threads in [1, 8] {
        let directory = tempfile::tempdir().unwrap();
        let config = LmdbConfig::new(directory.path(), SlotLimit::default());
        race(Arc::new(LmdbStore::open(&config, NODE).unwrap()), threads);
    }
}

#[test]
fn stopping_server_closes_everything_and_releases_slots() {
    let store = Arc::new(MemoryStore::new(NODE, SlotLimit::default()));
    let mut server = TestServer::with(store.clone(), session_settings(), 2);
    let mut live = RawClient::authenticated(server.address, "ada", 1);
    let mut anonymous = RawClient::open(server.address);
    let mut handshake = RawClient::connect(server.address);
    handshake.write(b"GET / HTTP/1.1\r\n");
    // Connections are accepted in order, so the earlier ones are accepted by now.
    drop(RawClient::open(server.address));
    let closed = thread::spawn(move || {
        live.expect_goodbye(1001);
        anonymous.expect_goodbye(1001);
        assert!(matches!(handshake.read(), Received::End | Received::Reset));
    });
    let address = server.address;
    assert!(server.stop() < Duration::from_secs(5));
    closed.join().unwrap();
    assert!(TcpStream::connect(address).is_err(), "the server still listens");
    assert_eq!(slots_in_store(&*store, "ada"), Some(0));
}

#[test]
fn server_stops_in_time_despite_unresponsive_clients() {
    let mut server = TestServer::start();
    let mut unresponsive = RawClient::authenticated(server.address, "ada", 1);
    unresponsive.set_write_timeout(Duration::from_millis(200));
    let questions = b"\x81\x9c\0\0\0\0{\"type\":\"CHECK_CONNECTIONS\"}".repeat(10_000);
    while unresponsive.write(&questions) {}
    let _silent = RawClient::authenticated(server.address, "grace", 1);
    assert!(server.stop() < Duration::from_secs(9));
}

#[test]
fn late_grant_after_store_timeout_is_released() {
    let store = StallableStore::new(1);
    let server = TestServer::with_timeout(store.clone(), session_settings(), 2, Duration::from_millis(200));
    store.stall();
    let mut peer = RawClient::open(server.address);
    peer.authenticate("ada");
    peer.expect_text(
        r#"{"type":"AUTHENTICATE_FAILURE","payload":"The session store did not answer in time, try again later"}"#,
    );
    peer.expect_goodbye(1013);
    // The store applies the acquire now, and the pending release after it.
    store.recover();
    eventually("the slot is free", || connections(&server, "ada") == Some(1));
}

/// A client of ada's whose acquire the store holds back.
fn acquiring(store: &StallableStore, server: &TestServer) -> RawClient {
    store.stall();
    let mut peer = RawClient::open(server.address);
    peer.authenticate("ada");
    eventually("the acquire is under way", || store.waiting() == 1);
    peer
}

#[test]
fn client_lost_during_acquire_holds_no_slot() {
    let store = StallableStore::new(1);
    let server = TestServer::with(store.clone(), session_settings(), 2);
    let peer = acquiring(&store, &server);
    drop(peer);
    store.recover();
    eventually("the slot is free", || connections(&server, "ada") == Some(1));
}

/// The store has begun to apply the acquire and does not answer. The client sends too much and does not answer the close.
#[test]
fn unanswered_close_is_cut_while_the_store_works() {
    let store = StallableStore::new(1);
    let limits = SessionSettings { max_message_rate: NonZeroU32::new(3), ..session_settings() };
    let server = TestServer::with_timeout(store.clone(), limits, 2, Duration::from_secs(60));
    let mut peer = acquiring(&store, &server);
    store.begin();
    for _ in 0..9 {
        peer.frame(0x89, b"");
    }
    let mut read_beside_pongs = || {
        loop {
            match peer.read() {
                Received::Pong(_) => {}
                other => break other,
            }
        }
    };
    assert_eq!(read_beside_pongs(), Received::Close(1008, "Too many messages in a second".into()));
    let end = read_beside_pongs();
    assert!(matches!(end, Received::End | Received::Reset), "{end:?}");
    assert_eq!(store.waiting(), 1, "the session still waits");
    // The grant comes for nobody, and its slot is released.
    store.recover();
    eventually("the slot is free", || connections(&server, "ada") == Some(1));
}

#[test]
fn stopping_server_releases_a_pending_grant() {
    let store = StallableStore::new(1);
    let mut server = TestServer::with(store.clone(), session_settings(), 2);
    let mut peer = acquiring(&store, &server);
    let stopping = thread::spawn(move || server.stop());
    assert_eq!(peer.read(), Received::Close(1001, "Server is shutting down".into()));
    // The grant comes now, and is not sent.
    store.recover();
    assert_eq!(peer.read(), Received::End);
    assert!(stopping.join().unwrap() < Duration::from_secs(9));
    assert_eq!(slots_in_store(&*store, "ada"), Some(0), "it was released");
}

#[test]
fn stopping_server_does_not_wait_for_the_store() {
    let store = StallableStore::new(1);
    let mut server = TestServer::with(store.clone(), session_settings(), 2);
    let mut peer = acquiring(&store, &server);
    let closed = thread::spawn(move || peer.expect_goodbye(1001));
    assert!(server.stop() < Duration::from_secs(9));
    closed.join().unwrap();
}

#[test]
fn frames_after_bye_cause_no_reset() {
    let server = TestServer::start();
    for after in [frame_head(0x81, 1 << 20), b"no frame at all".to_vec(), vec![0x88, 0x80, 0, 0, 0, 0]] {
        let mut peer = RawClient::authenticated(server.address, "ada", 1);
        let bye = br#"{"type":"BYE"}"#;
        peer.write(&[frame_head(0x81, bye.len()), bye.to_vec(), after].concat());
        peer.expect_text(GOODBYE);
        peer.expect_close(1000);
    }
}
