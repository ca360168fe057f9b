//! TLS handshakes and token checks are computed in turns, away from the threads that serve. The tests count them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_rustls::pki_types::ServerName;
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use session_core::connection_limiter::ConnectionLimits;
use session_core::ledger::SlotLimit;
use session_core::protocol::Credential;
use session_core::session::Identity;
use session_core::{UnixSeconds, UserId};
use shell::auth::{Authenticator, InvalidCredential};
use shell::net::settings::ConnectionSettings;
use shell::runtime::fair_turns::Turn;
use shell::server::Settings;
use shell::store::MemoryStore;
use smol::future::poll_once;
use tests::raw_client::RawClient;
use tests::test_ca::TestCa;
use tests::test_server::{NODE, TestServer, settings};
use tests::waiting::eventually;

/// Takes every turn there is, so that all else waits.
fn take_all_turns(server: &TestServer) -> Vec<Turn> {
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)).into();
    std::iter::from_fn(|| smol::block_on(poll_once(server.handle.turns().turn(client)))).collect()
}

/// The first message of a TLS handshake.
fn client_hello() -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn tls_server(connection_limits: ConnectionLimits) -> TestServer {
    let directory = tempfile::tempdir().unwrap();
    let tls = Some(TestCa::new(directory.path()).certify("server", &["localhost"]).load().unwrap());
    let connection = ConnectionSettings { tls, ..ConnectionSettings::default() };
    TestServer::with_settings(Settings { connection_limits, connection, ..settings() })
}

fn send_hello(server: &TestServer) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    // The server may refuse the connection before the write.
    let _refused = stream.write_all(&client_hello());
    stream
}

#[test]
fn server_signs_nothing_for_peers_that_left() {
    let server = tls_server(ConnectionLimits::default());
    let turns = server.handle.turns();
    let taken = take_all_turns(&server);
    let peers: Vec<_> = (0..20).map(|_| send_hello(&server)).collect();
    eventually("all wait", || turns.queued() == taken.len() + 20);
    for peer in peers {
        // A process that another test is just starting has the socket too, so closing it here would not end the connection.
        peer.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let stays = send_hello(&server);
    eventually("one more waits", || turns.queued() == taken.len() + 21);
    assert_eq!(turns.begun(), 0);
    drop(taken);
    eventually("the queue is empty", || turns.queued() == 0);
    assert_eq!(turns.begun(), 1, "only the peer that stays gets a handshake");
    drop(stays);
}

#[test]
fn refused_connection_costs_no_handshake() {
    let server = tls_server(ConnectionLimits { per_client: NonZeroUsize::new(1), ..ConnectionLimits::default() });
    let turns = server.handle.turns();
    let _first = send_hello(&server);
    eventually("the first has its handshake", || turns.begun() == 1);
    for _ in 0..50 {
        let mut refused = RawClient::connect(server.address);
        refused.write(&client_hello());
        refused.wait_for_end();
    }
    assert_eq!(turns.begun(), 1);
}

/// Its checks take until the lock is free. Its credentials can be renewed.
struct SlowAuthenticator(Arc<Mutex<()>>);

impl Authenticator for SlowAuthenticator {
    fn authenticate(&self, _: &Credential) -> Result<Identity, InvalidCredential> {
        drop(self.0.lock().unwrap());
        let expires = Some(UnixSeconds::from_unix_seconds(u64::from(u32::MAX)));
        Ok(Identity { expires, ..Identity::for_user(UserId::parse("ada").unwrap()) })
    }

    fn is_expensive(&self) -> bool {
        true
    }
}

#[test]
fn slow_token_check_keeps_no_other_client_waiting() {
    let busy = Arc::new(Mutex::new(()));
    let store = Arc::new(MemoryStore::new(NODE, SlotLimit::default()));
    let authenticator = Box::new(SlowAuthenticator(Arc::clone(&busy)));
    // One thread serves all connections.
    let server = TestServer::with_authenticator(store, authenticator, settings(), 1);
    let turns = server.handle.turns();
    let guard = busy.lock().unwrap();
    let mut slow = RawClient::open(server.address);
    slow.authenticate("a token");
    eventually("the check is under way", || turns.begun() == 1);
    let mut other = RawClient::open(server.address);
    other.frame(0x89, b"x");
    assert_eq!(other.read(), tests::raw_client::Received::Pong(b"x".to_vec()));

    // A client that leaves before its turn gets none.
    let taken = take_all_turns(&server);
    let mut leaves = RawClient::open(server.address);
    leaves.authenticate("a token");
    eventually("it waits", || turns.queued() == taken.len() + 2);
    drop(leaves);
    eventually("it waits no more", || turns.queued() == taken.len() + 1);
    drop(taken);
    drop(guard);
    slow.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#);
    assert_eq!(turns.begun(), 1);
}

/// One check never ends, and another never has its turn.
#[test]
fn check_that_takes_too_long_is_given_up() {
    const LATE: &str =
        r#"{"type":"AUTHENTICATE_FAILURE","payload":"The credential cannot be checked now, try again later"}"#;

    let busy = Arc::new(Mutex::new(()));
    let store = Arc::new(MemoryStore::new(NODE, SlotLimit::default()));
    let authenticator = Box::new(SlowAuthenticator(Arc::clone(&busy)));
    let settings = Settings { store_timeout: Duration::from_millis(300), ..settings() };
    let server = TestServer::with_authenticator(store, authenticator, settings, 1);
    let turns = server.handle.turns();
    let mut renews = RawClient::open(server.address);
    renews.authenticate("a token");
    renews.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#);

    let guard = busy.lock().unwrap();
    let mut slow = RawClient::open(server.address);
    slow.authenticate("a token");
    eventually("the check is under way", || turns.begun() == 2);
    let taken = take_all_turns(&server);
    let mut queued = RawClient::open(server.address);
    queued.authenticate("a token");
    for refused in [&mut slow, &mut queued] {
        refused.expect_text(LATE);
        refused.expect_goodbye(1013);
    }
    // A session goes on with the token that it has.
    renews.authenticate("a fresh token");
    renews.expect_text(LATE);
    renews.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    renews.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"ada","connections":1}}"#);

    // What waited for its turn is withdrawn. What is under way ends its turn when it ends.
    assert_eq!(turns.queued(), taken.len() + 1);
    drop((taken, guard));
    eventually("no turn is left", || turns.queued() == 0);
    assert_eq!(turns.begun(), 2);
    renews.authenticate("a fresh token");
    renews.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":1}}"#);
}
