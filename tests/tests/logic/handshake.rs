//! Any bytes before the first frame. The checks are in the harness.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use tests::handshake_harness::{FeedResult, feed};
use tests::values::fuzz_seeds;

const HEAD: &str = "GET / HTTP/1.1\r\nHost: chess.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// From each sender and in chunks of each size.
fn feed_in_every_way(bytes: &[u8], reads_proxy_header: bool) -> Vec<FeedResult> {
    let ways = (0..32_u8).filter(|how| (how & 2 != 0) == reads_proxy_header);
    let mut results: Vec<_> = ways.map(|how| feed(&[&[how], bytes].concat())).collect();
    results.dedup();
    results
}

#[test]
fn response_does_not_depend_on_chunking() {
    for (request, result) in [
        (format!("{HEAD}\r\n"), FeedResult::Upgraded),
        (
            format!("{HEAD}Origin: https://app.example.com\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n"),
            FeedResult::Upgraded,
        ),
        (format!("{HEAD}\r\n\u{1}\u{2}more"), FeedResult::Upgraded),
        (format!("{HEAD}Origin: https://evil.example\r\n\r\n"), FeedResult::Answered(Some(403))),
        (format!("{HEAD}Origin: http://chess.example.com\r\n\r\n"), FeedResult::Upgraded),
        (format!("{HEAD}Sec-WebSocket-Protocol: a, sessions.v1\r\n\r\n"), FeedResult::Upgraded),
        (HEAD.replace("chess", "evil") + "\r\n", FeedResult::Answered(Some(421))),
        (format!("{HEAD}Host: evil.example\r\n\r\n"), FeedResult::Answered(Some(400))),
        (format!("{HEAD}Content-Length: 1\r\n\r\nx"), FeedResult::Answered(Some(400))),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), FeedResult::Answered(Some(200))),
        ("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n".into(), FeedResult::Answered(Some(200))),
        ("GET / HTTP/1.1\r\n\r\n".into(), FeedResult::Answered(Some(400))),
        ("GET /x HTTP/1.1\r\n\r\n".into(), FeedResult::Answered(Some(404))),
        ("PUT / HTTP/1.1\r\n\r\n".into(), FeedResult::Answered(Some(405))),
        ("nonsense\r\n\r\n".into(), FeedResult::Answered(Some(400))),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000)), FeedResult::Answered(Some(431))),
        (HEAD.into(), FeedResult::Answered(None)),
        (String::new(), FeedResult::Answered(None)),
    ] {
        assert_eq!(feed_in_every_way(request.as_bytes(), false), [result], "{request:.200}");
    }
}

#[test]
fn proxy_header_does_not_depend_on_chunking() {
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x01\x7f\x00\x00\x01\x12\x34\x00\x50GET /";
    assert_eq!(feed_in_every_way(header, true), [FeedResult::ProxyHeader]);
    assert_eq!(feed_in_every_way(&header[..20], true), [FeedResult::NoProxyHeader]);
    for (header, result) in [
        (&b"PROXY TCP4 203.0.113.1 127.0.0.1 4660 80\r\nGET /"[..], FeedResult::ProxyHeader),
        (b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\nGET /", FeedResult::ProxyHeader),
        (b"PROXY UNKNOWN\r\nGET /", FeedResult::ProxyHeader),
        (b"PROXY TCP4 203.0.113.1 127.0.0.1 4660\r\nGET /", FeedResult::NoProxyHeader),
        (b"PROXY TCP4 203.0.113.1 127.0.0.1 4660 80", FeedResult::NoProxyHeader),
    ] {
        assert_eq!(feed_in_every_way(header, true), [result], "{}", String::from_utf8_lossy(header));
    }
    assert_eq!(feed_in_every_way(b"GET / HTTP/1.1\r\n\r\n", true), [FeedResult::NoProxyHeader]);
}

/// The committed seeds of the fuzz target.
#[test]
fn fuzz_seeds_pass() {
    for seed in fuzz_seeds("handshake") {
        let _result = feed(&seed);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(how: u8, bytes: Vec<u8>) {
        let _reception = feed(&[&[how][..], &bytes].concat());
    }

    #[test]
    fn any_headers_are_survived(how: u8, headers in prop::collection::vec(header(), 0..12)) {
        let request = format!("{HEAD}{}\r\n", headers.concat());
        let _reception = feed(&[&[how & !2][..], request.as_bytes()].concat());
    }
}

fn header() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "Host",
        "Origin",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Sec-WebSocket-Protocol",
        "Upgrade",
        "Content-Length",
        "Expect",
        "X",
    ]);
    let value = prop_oneof![
        "[ -~]{0,40}",
        "([0-9]{1,3}[.]){3}[0-9]{1,3}(, ([0-9]{1,3}[.]){3}[0-9]{1,3}){0,3}",
        prop::sample::select(vec![
            "https://app.example.com",
            "null",
            "chess.example.com",
            "[::1]:3",
            "unknown",
            "0",
            "https",
            "sessions.v1"
        ])
        .prop_map(Into::into),
    ];
    (name, value).prop_map(|(name, value)| format!("{name}: {value}\r\n"))
}
