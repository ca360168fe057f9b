//! Connection limits and timeouts over real sockets.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use session_core::connection_limiter::ConnectionLimits;
use session_core::session::SessionSettings;
use shell::net::settings::ConnectionSettings;
use shell::server::Settings;
use tests::descriptors::enough_descriptors;
use tests::raw_client::{RawClient, Received, UPGRADE, frame_head, upgrade_request};
use tests::test_process::TestProcess;
use tests::test_server::{TestServer, session_settings, settings};
use tests::waiting::{TIMEOUT, eventually};

/// Sends a handshake with additional headers. Returns everything that the server sends until it closes.
fn send_handshake(server: &TestServer, headers: &str) -> String {
    let mut peer = RawClient::connect(server.address);
    peer.write(upgrade_request(headers).as_bytes());
    peer.read_to_end()
}

/// The body of the response to a refused connection.
fn refusal(server: &TestServer) -> String {
    let answer = send_handshake(server, "");
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    answer.rsplit_once("\r\n\r\n").unwrap().1.into()
}

/// Also beyond the number of refused connections that the server keeps open, and whether or not they send a request.
#[test]
fn each_of_500_refused_connections_gets_503() {
    if !enough_descriptors(1100) {
        return;
    }
    let server =
        start_with_limits(ConnectionLimits { per_client: NonZeroUsize::new(1), ..ConnectionLimits::default() });
    let _first = RawClient::open(server.address);
    let clients: Vec<_> = (0..500)
        .map(|number| {
            let mut peer = RawClient::connect(server.address);
            if number % 2 == 0 {
                peer.write(upgrade_request("").as_bytes());
            }
            peer
        })
        .collect();
    let refused = clients.into_iter().map(|mut peer| peer.try_head()).filter(|head| head.starts_with("HTTP/1.1 503 "));
    assert_eq!(refused.count(), 500);
}

/// Opens a session, and retries while the limits refuse it.
fn open_when_possible(server: &TestServer) -> RawClient {
    let start = Instant::now();
    loop {
        let mut peer = RawClient::connect(server.address);
        peer.write(upgrade_request("").as_bytes());
        if peer.try_head().starts_with("HTTP/1.1 101 ") {
            peer.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
            return peer;
        }
        assert!(start.elapsed() < TIMEOUT, "the server refuses every connection");
    }
}

fn start_with_limits(bounds: ConnectionLimits) -> TestServer {
    TestServer::with_settings(Settings { connection_limits: bounds, ..settings() })
}

#[test]
fn total_limit_answers_503_until_a_connection_ends() {
    let server =
        start_with_limits(ConnectionLimits { connections: NonZeroUsize::new(2), ..ConnectionLimits::default() });
    let (first, mut second) = (RawClient::authenticated(server.address, "ada", 1), RawClient::open(server.address));
    for _ in 0..200 {
        assert_eq!(refusal(&server), r#"{"message":"The server has as many connections as it may, try again later"}"#);
    }
    second.authenticate("ada");
    second.expect_text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"ada","connections":2}}"#);
    drop(first);
    drop(open_when_possible(&server));
}

#[test]
fn authenticated_connection_makes_room_for_another() {
    let server =
        start_with_limits(ConnectionLimits { unauthenticated: NonZeroUsize::new(2), ..ConnectionLimits::default() });
    let mut held: Vec<_> = (1..=3).map(|held| RawClient::authenticated(server.address, "ada", held)).collect();
    let silent = [(); 2].map(|()| RawClient::connect(server.address));
    eventually("two wait", || send_handshake(&server, "").starts_with("HTTP/1.1 503 "));
    assert!(refusal(&server).contains("connections that are not authenticated yet"), "they count from the start");
    drop(silent);
    let mut refused = open_when_possible(&server);
    refused.authenticate("ada");
    assert!(matches!(refused.read(), Received::Text(text) if text.contains("AUTHENTICATE_FAILURE")));
    let _waiting = open_when_possible(&server);
    assert!(refusal(&server).contains("not authenticated yet"), "a denied client stays unauthenticated");
    held.pop().unwrap().send_bye();
    refused.authenticate("ada");
    assert!(matches!(refused.read(), Received::Text(text) if text.contains("AUTHENTICATE_SUCCESS")));
    drop(open_when_possible(&server));
}

#[test]
fn per_address_limit_counts_each_address_apart() {
    let server =
        start_with_limits(ConnectionLimits { per_client: NonZeroUsize::new(2), ..ConnectionLimits::default() });
    let held = [(); 2].map(|()| RawClient::open(server.address));
    assert_eq!(refusal(&server), r#"{"message":"Your address has as many connections as one may"}"#);
    drop(RawClient::open_from("127.0.0.2".parse().unwrap(), server.address));
    server
        .handle
        .set_connection_limits(ConnectionLimits { per_client: NonZeroUsize::new(3), ..ConnectionLimits::default() });
    let _third = RawClient::open(server.address);
    assert!(refusal(&server).contains("Your address"));
    drop(held);
    drop(open_when_possible(&server));
    server.handle.set_connection_limits(ConnectionLimits::default());
    let _many: Vec<_> = (0..20).map(|_| RawClient::open(server.address)).collect();
}

#[test]
fn connection_rate_of_one_address_is_limited() {
    let server =
        start_with_limits(ConnectionLimits { rate_per_client: NonZeroU32::new(4), ..ConnectionLimits::default() });
    let start = Instant::now();
    let mut accepted = 0;
    while start.elapsed() < Duration::from_millis(1500) {
        let mut peer = RawClient::connect(server.address);
        peer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = peer.read_to_end();
        if answer.starts_with("HTTP/1.1 503 ") {
            assert!(answer.contains("Your address opens connections faster than one may"), "{answer}");
        } else {
            accepted += 1;
        }
    }
    // Four at once and one per quarter of a second. The clock is read a little later.
    assert!((8..=11).contains(&accepted), "{accepted}");
    drop(RawClient::open_from("127.0.0.2".parse().unwrap(), server.address));
}

#[test]
fn incomplete_request_is_answered_408() {
    let server = TestServer::with_policy(ConnectionSettings {
        header_timeout: Duration::from_millis(300),
        ..ConnectionSettings::default()
    });
    for begun in ["", "GET / HT", UPGRADE] {
        let start = Instant::now();
        let mut peer = RawClient::connect(server.address);
        peer.write(begun.as_bytes());
        let answer = peer.read_to_end();
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.ends_with(r#"{"message":"The request did not come in time"}"#), "{answer}");
        assert!((300..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
    // An upgraded connection has the time to authenticate.
    let mut patient = RawClient::open(server.address);
    assert!(patient.is_silent_for(Duration::from_millis(500)));
}

#[test]
fn request_head_is_limited_in_bytes() {
    for bytes in [8 * 1024, 32 * 1024] {
        let server =
            TestServer::with_policy(ConnectionSettings { max_header_bytes: bytes, ..ConnectionSettings::default() });
        // The server checks the size as bytes arrive, and may read a little more than the limit.
        let padded = send_handshake(&server, &format!("X: {}\r\n", "x".repeat(bytes * 2)));
        assert!(padded.starts_with("HTTP/1.1 431 "), "{padded}");
        let mut peer = RawClient::connect(server.address);
        peer.write(upgrade_request(&format!("X: {}\r\n", "x".repeat(bytes - 512))).as_bytes());
        peer.skip_head();
    }
}

#[test]
fn exceeded_message_rate_closes_with_1008() {
    let limits =
        SessionSettings { max_message_rate: NonZeroU32::new(20), max_bad_messages: None, ..session_settings() };
    let server = TestServer::with_policy(ConnectionSettings { session: limits, ..ConnectionSettings::default() });
    let mut messages = RawClient::authenticated(server.address, "ada", 1);
    let mut pings = RawClient::authenticated(server.address, "bob", 1);
    for _ in 0..60 {
        messages.text("?");
        pings.frame(0x89, b"");
    }
    for peer in [&mut messages, &mut pings] {
        let close = loop {
            match peer.read() {
                Received::Text(_) | Received::Pong(_) => {}
                other => break other,
            }
        };
        assert_eq!(close, Received::Close(1008, "Too many messages in a second".into()));
    }
    drop(RawClient::authenticated(server.address, "ada", 1));
    drop(RawClient::authenticated(server.address, "bob", 1));
}

#[test]
fn configured_number_of_bad_messages_is_tolerated() {
    let limits = SessionSettings { max_bad_messages: Some(2), ..session_settings() };
    let server = TestServer::with_policy(ConnectionSettings { session: limits, ..ConnectionSettings::default() });
    let mut peer = RawClient::open(server.address);
    for _ in 0..3 {
        peer.text("?");
        assert!(matches!(peer.read(), Received::Text(_)));
    }
    peer.expect_goodbye(1008);
}

/// What the kernel buffers for a client that reads nothing: more or less, as configured, and not as it grows by itself.
#[test]
#[cfg(target_os = "linux")]
fn unread_output_is_bounded() {
    let unsent = |bound: u64, expected: RangeInclusive<u64>| {
        let data = tempfile::tempdir().unwrap();
        let bounds = ["--max-unsent-bytes", &bound.to_string(), "--max-message-rate", "unlimited"];
        let silence = ["--ping-interval", "4s", "--pong-timeout", "4s"];
        let arguments = [&bounds[..], &silence].concat();
        let server = TestProcess::start(env!("CARGO_BIN_EXE_server-under-test"), data.path(), &arguments);
        let mut unread = RawClient::authenticated(server.address, "ada", 1);
        unread.set_receive_buffer(8 * 1024);
        unread.set_write_timeout(Duration::from_millis(50));
        // Pings, each with an answer that stays unread, until the server cuts the connection.
        let mut pings = frame_head(0x89, 125);
        pings.extend([b'x'; 125]);
        let pings = pings.repeat(32);
        let (mut most, mut next, mut refused) = (0, 0, 0);
        while let Some(written) = unread.write_some(&pings[next..]) {
            next = (next + written) % pings.len();
            refused = if written == 0 { refused + 1 } else { 0 };
            // The server has stopped. To look may take seconds on a busy machine, so it is not done for each ping.
            if refused > 5 {
                most = most.max(send_queue(server.address, unread.address()));
            }
        }
        // The server had stopped reading from it, so it counted as silent. Its slot becomes free.
        eventually("the slot is free", || {
            let mut other = RawClient::open(server.address);
            other.authenticate("ada");
            matches!(other.read(), Received::Text(answer) if answer.contains(r#""connections":1"#))
        });
        assert!(expected.contains(&most), "{most} bytes, bound {bound}");
    };
    // Linux doubles the bound, and lets one more write begin below it.
    let most = |bound: u64| 2 * bound + (1 << 16);
    thread::scope(|scope| {
        scope.spawn(|| unsent(4096, 1..=most(4096)));
        unsent(100_000, most(4096) + 1..=most(100_000));
    });
}

/// How many bytes the kernel keeps for the server to send to this client, or waits for it to acknowledge. 0 if there is no
/// such connection.
#[cfg(target_os = "linux")]
fn send_queue(server: SocketAddr, client: SocketAddr) -> u64 {
    // proc(5): addresses are in the byte order of the machine, and everything is in hexadecimal digits.
    let end = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
        }
        SocketAddr::V6(_) => panic!("the tests use IPv4"),
    };
    let (server, client) = (end(server), end(client));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields[1..3] == [&server, &client]).then(|| fields[4].split(':').next().unwrap().to_owned())
    });
    queue.map_or(0, |bytes| u64::from_str_radix(&bytes, 16).unwrap())
}

/// A message that never ends. The server reads as much of it as the client may cause, and then no more.
#[test]
fn endless_fragments_are_not_read_beyond_the_bound() {
    let server = |work: Option<NonZeroU32>| {
        start_with_limits(ConnectionLimits { work_per_client: work, ..ConnectionLimits::default() })
    };
    let bytes_taken = |server: &TestServer| {
        let mut endless = RawClient::authenticated(server.address, "ada", 1);
        endless.set_send_buffer(8 * 1024);
        endless.set_write_timeout(Duration::from_secs(1));
        endless.frame(0x01, b"");
        let fragments = [0x00, 0x80, 0, 0, 0, 0].repeat(1024);
        (0..400).take_while(|_| endless.write(&fragments)).count() * fragments.len()
    };
    assert_eq!(bytes_taken(&server(None)), 400 * 6 * 1024);
    let bounded = server(NonZeroU32::new(100));
    // The rest is in the buffers of both kernels.
    assert!(bytes_taken(&bounded) < 400 * 1024);
    // Another address has an allowance of its own.
    let mut other = RawClient::open_from("127.0.0.2".parse().unwrap(), bounded.address);
    other.authenticate("bob");
    assert!(matches!(other.read(), Received::Text(answer) if answer.contains("AUTHENTICATE_SUCCESS")));
}

/// The pause would last a minute. What the client sent before is unread, so reading does not find out that it is gone.
#[test]
#[cfg(target_os = "linux")]
fn lost_connection_gives_its_slot_back_in_a_pause() {
    let limits = ConnectionLimits { work_per_client: NonZeroU32::new(100), ..ConnectionLimits::default() };
    let server = start_with_limits(limits);
    let mut slow = RawClient::authenticated(server.address, "ada", 1);
    slow.frame(0x01, b"");
    // More than it may cause in a minute, and little enough for the server's kernel to take all of it.
    assert!(slow.write(&[0x00, 0x80, 0, 0, 0, 0].repeat(5 * 1024)));
    drop(slow);
    // Each from an address of its own, which may cause as little.
    let mut addresses =
        (1_u16..).map(|number| IpAddr::from([127, 1, number.to_be_bytes()[0], number.to_be_bytes()[1]]));
    eventually("the slot is free", || {
        let mut other = RawClient::open_from(addresses.next().unwrap(), server.address);
        other.authenticate("ada");
        matches!(other.read(), Received::Text(answer) if answer.contains(r#""connections":1"#))
    });
}
