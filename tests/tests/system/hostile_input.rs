//! Bad input over real sockets. Each gets its answer from the protocol, or is cut off by a limit. The server continues
//! to serve others, and no count changes.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use session_core::ledger::SlotLimit;
use session_core::session::SessionSettings;
use shell::net::settings::ConnectionSettings;
use shell::store::MemoryStore;
use tests::raw_client::{RawClient, Received, frame_head, upgrade_request};
use tests::test_server::{NODE, TestServer, session_settings};

/// Runs an attack beside a session that must not be affected, and checks that no count changes.
fn beside_a_witness(attack: impl FnOnce(&TestServer)) {
    let limits = SessionSettings { auth_timeout: Duration::from_secs(1), ..session_settings() };
    let server = TestServer::with_policy(ConnectionSettings {
        session: limits,
        header_timeout: Duration::from_millis(500),
        ..ConnectionSettings::default()
    });
    let mut witness = RawClient::authenticated(server.address, "witness", 1);
    attack(&server);
    witness.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    witness.expect_text(r#"{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{"id":"witness","connections":1}}"#);
    drop(RawClient::authenticated(server.address, "newcomer", 1));
}

fn error(words: &str) -> String {
    format!(r#"{{"type":"ERROR","payload":"{words}"}}"#)
}

#[test]
fn malformed_messages_leave_the_session_alive() {
    beside_a_witness(|server| {
        let mut peer = RawClient::authenticated(server.address, "peer", 1);
        let long_type = format!(r#"{{"type":"{}"}}"#, "X".repeat(500));
        let long_answer = format!("No such event type {}", "X".repeat(64));
        let nested = "[".repeat(4000);
        for (message, words) in [
            ("hello", "Message is not valid JSON"),
            (r#"{"type":"BYE""#, "Message is not valid JSON"),
            ("17", "Message is not a JSON object"),
            ("[]", "Message is not a JSON object"),
            ("null", "Message is not a JSON object"),
            (&nested, "Message is not valid JSON"),
            ("{}", "Message has no type"),
            (r#"{"type":null}"#, "Message has no type"),
            (r#"{"type":7}"#, "Message type is not a string"),
            (r#"{"type":"BYE","payload":1}"#, "This message takes no payload"),
            (r#"{"type":"NONSENSE"}"#, "No such event type NONSENSE"),
            (&long_type, &long_answer),
            (r#"{"type":"AUTHENTICATE","payload":"peer"}"#, "This session is already authenticated"),
        ] {
            peer.text(message);
            peer.expect_text(&error(words));
        }
        peer.text(r#"{"type":"BYE"}"#);
        peer.expect_text(r#"{"type":"BYE_SUCCESS","payload":null}"#);
        peer.expect_goodbye(1000);
    });
}

#[test]
fn hundred_thousand_brackets_are_one_bad_message() {
    let server =
        TestServer::with_policy(ConnectionSettings { max_message_bytes: 1 << 20, ..ConnectionSettings::default() });
    let mut peer = RawClient::open(server.address);
    for nested in ["[".repeat(100_000), format!(r#"{{"type":"BYE","payload":{}"#, "[".repeat(100_000))] {
        peer.text(&nested);
        peer.expect_text(&error("Message is not valid JSON"));
    }
    let balanced = format!(r#"{{"type":"BYE","payload":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    peer.text(&balanced);
    peer.expect_text(&error("This message takes no payload"));
}

#[test]
fn invalid_user_ids_are_refused_with_a_reason() {
    beside_a_witness(|server| {
        let mut peer = RawClient::open(server.address);
        for (payload, words) in [
            (r#""""#.to_owned(), "User id is empty, it must be 1 to 256 bytes"),
            (format!(r#""{}""#, "x".repeat(257)), "User id is too long, it must be 1 to 256 bytes"),
            (r#""a\u0000b""#.into(), "User id contains a control character"),
            (r#""a\nb""#.into(), "User id contains a control character"),
            ("17".into(), "AUTHENTICATE needs a user id as its payload, a string"),
            ("null".into(), "AUTHENTICATE needs a user id as its payload, a string"),
        ] {
            peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#));
            peer.expect_text(&format!(r#"{{"type":"AUTHENTICATE_FAILURE","payload":"{words}"}}"#));
        }
        // A valid id still succeeds.
        let longest = "é".repeat(128);
        peer.text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{longest}"}}"#));
        peer.expect_text(&format!(
            r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"{longest}","connections":1}}}}"#
        ));
    });
}

#[test]
fn too_many_bad_messages_release_the_slot() {
    beside_a_witness(|server| {
        let mut peer = RawClient::authenticated(server.address, "peer", 1);
        for _ in 0..=SessionSettings::default().max_bad_messages.expect("there is a default") {
            peer.text("?");
            peer.expect_text(&error("Message is not valid JSON"));
        }
        peer.expect_goodbye(1008);
        drop(RawClient::authenticated(server.address, "peer", 1));
    });
}

#[test]
fn websocket_violations_are_explained_and_release_the_slot() {
    beside_a_witness(|server| {
        let too_big = frame_head(0x81, 16 << 20);
        let invalid_utf8 = [frame_head(0x81, 2), vec![0xc3, 0x28]].concat();
        let fragments_too_big: Vec<u8> =
            [0x01, 0x00, 0x00].iter().flat_map(|&first| [frame_head(first, 2000), vec![b'x'; 2000]].concat()).collect();
        for (bytes, words, code) in [
            (&too_big, "Message is too big", 1009),
            (&fragments_too_big, "Message is too big", 1009),
            (&invalid_utf8, "Text message is not valid UTF-8", 1007),
            (&frame_head(0x82, 0), "Binary messages are not supported", 1003),
            (&frame_head(0xc1, 0), "That breaks the WebSocket protocol", 1002), // RSV1
            (&frame_head(0x83, 0), "That breaks the WebSocket protocol", 1002), // reserved opcode
            (&frame_head(0x80, 0), "That breaks the WebSocket protocol", 1002), // continues nothing
            (&vec![0x81, 0x00], "That breaks the WebSocket protocol", 1002),    // not masked
            (&frame_head(0x09, 0), "That breaks the WebSocket protocol", 1002), // fragmented ping
            (&[frame_head(0x89, 126), vec![0; 126]].concat(), "That breaks the WebSocket protocol", 1002),
        ] {
            let mut peer = RawClient::authenticated(server.address, "peer", 1);
            peer.write(bytes);
            peer.expect_text(&error(words));
            peer.expect_close(code);
        }
        drop(RawClient::authenticated(server.address, "peer", 1));
    });
}

#[test]
fn oversized_frame_is_discarded_and_its_sender_told() {
    beside_a_witness(|server| {
        let mut peer = RawClient::authenticated(server.address, "peer", 1);
        peer.frame(0x81, &vec![b'x'; 16 << 20]);
        peer.shut_down_writing();
        peer.expect_text(&error("Message is too big"));
        peer.expect_close(1009);
    });
}

#[test]
fn endless_message_ends_by_deadline_or_silence() {
    // Before authentication the deadline ends it.
    beside_a_witness(|server| {
        let mut peer = RawClient::open(server.address);
        peer.frame(0x01, br#"{"type":"#);
        peer.expect_goodbye(4401);
    });
    // Afterwards silence ends it: empty fragments are no sign of life.
    let limits = SessionSettings {
        ping_interval: Duration::from_millis(200),
        pong_timeout: Duration::from_millis(200),
        ..session_settings()
    };
    let server = TestServer::with(Arc::new(MemoryStore::new(NODE, SlotLimit::default())), limits, 2);
    let mut peer = RawClient::authenticated(server.address, "peer", 1);
    peer.frame(0x01, b"");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        peer.frame(0x00, b"");
    }
    assert_eq!(peer.read(), Received::Ping);
    peer.expect_goodbye(4408);
    drop(RawClient::authenticated(server.address, "peer", 1));
}

#[test]
fn ping_flood_leaves_other_clients_unaffected() {
    beside_a_witness(|server| {
        let mut peer = RawClient::authenticated(server.address, "peer", 1);
        let flood = [frame_head(0x89, 4), vec![1, 2, 3, 4]].concat().repeat(50_000);
        // The client reads nothing, so the pongs have no room and the server stops reading. The flood may not even be
        // read completely.
        let flooding = std::thread::spawn(move || {
            peer.set_write_timeout(Duration::from_millis(500));
            peer.write(&flood);
            peer
        });
        let others = Instant::now();
        for _ in 0..20 {
            RawClient::authenticated(server.address, "other", 1).send_bye();
        }
        assert!(others.elapsed() < Duration::from_secs(10));
        let mut peer = flooding.join().unwrap();
        assert_eq!(peer.read(), Received::Pong(vec![1, 2, 3, 4]));
    });
}

#[test]
fn client_that_does_not_read_times_out() {
    let limits = SessionSettings {
        ping_interval: Duration::from_millis(300),
        pong_timeout: Duration::from_millis(300),
        ..session_settings()
    };
    let server = TestServer::with(Arc::new(MemoryStore::new(NODE, SlotLimit::default())), limits, 2);
    let mut peer = RawClient::authenticated(server.address, "peer", 1);
    peer.set_write_timeout(Duration::from_millis(200));
    let questions = [frame_head(0x81, 28), br#"{"type":"CHECK_CONNECTIONS"}"#.to_vec()].concat().repeat(10_000);
    // Far more answers than all buffers between client and server hold.
    while peer.write(&questions) {}
    let mut other = RawClient::authenticated(server.address, "other", 1);
    tests::waiting::eventually("the slot is free", || {
        let mut next = RawClient::open(server.address);
        next.authenticate("peer");
        let first = Received::Text(r#"{"type":"AUTHENTICATE_SUCCESS","payload":{"id":"peer","connections":1}}"#.into());
        let is_first = next.read() == first;
        other.pong();
        next.send_bye();
        is_first
    });
}

#[test]
fn malformed_http_is_answered_or_cut_off() {
    beside_a_witness(|server| {
        let status = |bytes: &[u8]| {
            let mut peer = RawClient::connect(server.address);
            peer.write(bytes);
            peer.read_to_end().get(9..12).map(ToOwned::to_owned)
        };
        assert_eq!(status(b"\x16\x03\x01\x02\x00garbage\r\n\r\n").as_deref(), Some("400"));
        assert_eq!(status(b"GET / HTTP/9.9\r\n\r\n").as_deref(), Some("400"));
        let megabyte = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(status(&megabyte).as_deref(), Some("431"));
        let headers = (0..100).fold(String::from("GET / HTTP/1.1\r\n"), |head, at| head + &format!("x{at}: y\r\n"));
        assert_eq!(status(format!("{headers}\r\n").as_bytes()).as_deref(), Some("431"));
        assert_eq!(status(b"").as_deref(), Some("408"));
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost:").as_deref(), Some("408"));
    });
}

#[test]
fn slow_request_head_is_cut_off() {
    beside_a_witness(|server| {
        let mut peer = RawClient::connect(server.address);
        let start = Instant::now();
        let slow = b"GET / HTTP/1.1\r\nHost: a.very.long.name.that.takes.for.ever.to.arrive\r\n".iter().cycle();
        for byte in slow {
            if !peer.write(&[*byte]) {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the server does not cut the request off");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(start.elapsed() >= Duration::from_millis(400), "the server waited for the header timeout");
    });
}

/// Frames would begin after the body. A proxy in between could see that boundary elsewhere (request smuggling).
#[test]
fn handshake_with_a_body_is_refused() {
    beside_a_witness(|server| {
        let frame = [frame_head(0x81, 43), br#"{"type":"AUTHENTICATE","payload":"smuggled"}"#.to_vec()].concat();
        for (header, in_one) in [
            (format!("Content-Length: {}", frame.len()), true),
            (format!("Content-Length: {}", frame.len()), false),
            ("Transfer-Encoding: chunked".into(), true),
            ("Transfer-Encoding: chunked".into(), false),
            (format!("Expect: 100-continue\r\nContent-Length: {}", frame.len()), false),
        ] {
            let mut peer = RawClient::connect(server.address);
            let head = upgrade_request(&format!("{header}\r\n")).into_bytes();
            if in_one {
                peer.write(&[head, frame.clone()].concat());
            } else {
                peer.write(&head);
            }
            let answer = peer.read_to_end();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{header}: {answer}");
            assert!(answer.contains("A handshake has no body"), "{header}: {answer}");
        }
    });
}

#[test]
fn plain_http_is_answered_with_an_explanation() {
    beside_a_witness(|server| {
        let get = |request: &str| {
            let mut peer = RawClient::connect(server.address);
            peer.write(request.as_bytes());
            peer.read_to_end()
        };
        let hello = get("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(hello.starts_with("HTTP/1.1 200 OK\r\n"), "{hello}");
        assert!(hello.ends_with("\r\n\r\n{\"message\":\"Web socket is needed to talk to this server\"}"), "{hello}");
        assert!(get("GET /x HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 404 "));
        let method = get("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(method.starts_with("HTTP/1.1 405 ") && method.contains("allow: GET"), "{method}");
        let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        assert!(get(&format!("{upgrade}Sec-WebSocket-Version: 13\r\n\r\n")).starts_with("HTTP/1.1 400 "));
        let version = get(&format!("{upgrade}Sec-WebSocket-Version: 8\r\n\r\n"));
        assert!(version.starts_with("HTTP/1.1 426 ") && version.contains("sec-websocket-version: 13"), "{version}");
    });
}
