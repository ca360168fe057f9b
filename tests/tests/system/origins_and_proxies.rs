//! Origins, hosts, and proxies that name their clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroUsize;

use session_core::connection_limiter::ConnectionLimits;
use shell::net::settings::ConnectionSettings;
use shell::server::Settings;
use tests::raw_client::{RawClient, UPGRADE, upgrade_request};
use tests::test_server::{TestServer, settings};

/// Sends a handshake with these headers after the preface. Returns the status and the connection.
fn handshake(server: &TestServer, preface: &[u8], headers: &str) -> (u16, RawClient) {
    let mut peer = RawClient::connect(server.address);
    peer.write(&[preface, upgrade_request(headers).as_bytes()].concat());
    let head = peer.try_head();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer but {head:?}")), peer)
}

fn status(server: &TestServer, headers: &str) -> u16 {
    handshake(server, b"", headers).0
}

#[test]
fn only_allowed_origins_may_connect() {
    let origins = ["https://app.example.com", "http://*.localhost:8080"];
    let origins = origins.map(|origin| origin.parse().unwrap()).into_iter().collect();
    let server = TestServer::with_policy(ConnectionSettings { origins, ..ConnectionSettings::default() });
    for (headers, expected) in [
        ("Host: x\r\n", 101),
        ("Host: x\r\nOrigin: https://app.example.com\r\n", 101),
        ("Host: x\r\norigin: HTTPS://App.Example.com:443\r\n", 101),
        ("Host: x\r\nOrigin: http://chess.localhost:8080\r\n", 101),
        ("Host: x\r\nOrigin: https://evil.example\r\n", 403),
        ("Host: x\r\nOrigin: null\r\n", 403),
        ("Host: x\r\nOrigin:\r\n", 403),
        // Nor a page from the host that the request names: any name can point to this address.
        ("Host: evil.example\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: x\r\nOrigin: https://app.example.com\r\nOrigin: https://evil.example\r\n", 403),
        ("Host: x\r\nOrigin: https://app.example.com, https://evil.example\r\n", 403),
    ] {
        assert_eq!(status(&server, headers), expected, "{headers}");
    }
    let (_, mut refused) = handshake(&server, b"", "Host: x\r\nOrigin: https://evil.example\r\n");
    assert_eq!(
        refused.read_to_end(),
        r#"{"message":"Pages of the origin 'https://evil.example' may not connect, allowed_origins does not list it"}"#
    );
    // A plain GET is answered for every origin.
    let mut peer = RawClient::connect(server.address);
    peer.write(b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n\r\n");
    assert!(peer.read_to_end().starts_with("HTTP/1.1 200 "));

    let strict = TestServer::start();
    assert_eq!(status(&strict, "Host: x\r\nOrigin: http://x\r\n"), 403, "none is allowed unless it is written down");
    let any = ["*"].map(|origin| origin.parse().unwrap()).into_iter().collect();
    strict.handle.set_connection_settings(ConnectionSettings { origins: any, ..ConnectionSettings::default() });
    assert_eq!(status(&strict, "Host: x\r\nOrigin: null\r\n"), 101);
}

#[test]
fn only_allowed_hosts_are_served() {
    let hosts = ["sessions.example.com", "localhost:3000"].map(|host| host.parse().unwrap()).into_iter().collect();
    let server = TestServer::with_policy(ConnectionSettings { hosts, ..ConnectionSettings::default() });
    for (headers, expected) in [
        ("Host: sessions.example.com\r\n", 101),
        ("Host: SESSIONS.example.com:8443\r\n", 101),
        ("Host: localhost:3000\r\n", 101),
        ("Host: localhost\r\n", 421),
        ("Host: evil.example\r\n", 421),
        ("Host: sessions.example.com\r\nHost: evil.example\r\n", 400),
        ("Host:\r\n", 421),
    ] {
        assert_eq!(status(&server, headers), expected, "{headers}");
    }
}

/// A server behind a proxy on this machine, with one connection per address.
fn behind_a_proxy(trusted: &str, proxy_protocol: bool) -> TestServer {
    let proxies = [trusted.parse().unwrap()].into_iter().collect();
    let bounds = ConnectionLimits { per_client: NonZeroUsize::new(1), ..ConnectionLimits::default() };
    let policy = ConnectionSettings { trusted_proxies: proxies, proxy_protocol, ..ConnectionSettings::default() };
    TestServer::with_settings(Settings { connection_limits: bounds, connection: policy, ..settings() })
}

#[test]
fn trusted_proxy_clients_count_separately() {
    let server = behind_a_proxy("127.0.0.0/8", false);
    let from = |client: &str| handshake(&server, b"", &format!("X-Forwarded-For: {client}\r\n"));
    let (first, _held) = from("203.0.113.1");
    let (second, _held_too) = from("evil, 203.0.113.2, 127.0.0.9");
    assert_eq!((first, second), (101, 101));
    for client in
        ["203.0.113.1", "203.0.113.7, 203.0.113.1", "203.0.113.1:4711", "203.0.113.7\r\nX-Forwarded-For: 203.0.113.1"]
    {
        let (status, mut exceeded) = from(client);
        assert_eq!(status, 503, "{client}");
        assert_eq!(exceeded.read_to_end(), r#"{"message":"Your address has as many connections as one may"}"#);
    }
    assert_eq!(from("203.0.113.3").0, 101);
    // A header line that is no text. The addresses in the lines before it come from the client.
    let mut forging = RawClient::connect(server.address);
    let lines = b"Host: x\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: \xff, 203.0.113.3\r\n";
    forging.write(&[UPGRADE.as_bytes(), lines, b"\r\n"].concat());
    assert!(forging.try_head().starts_with("HTTP/1.1 101 "), "it counts as the proxy's");
    let (_, mut proxy) = handshake(&server, b"", "");
    assert!(proxy.read_to_end().contains("Your address"), "which has as many as it may now");
}

#[test]
fn untrusted_forwarding_headers_are_ignored() {
    let server = behind_a_proxy("192.0.2.1", true);
    let _held = RawClient::open(server.address);
    let preface = proxied([203, 0, 113, 7]);
    assert_eq!(handshake(&server, b"", "X-Forwarded-For: 203.0.113.7\r\n").0, 503);
    drop(_held);
    while handshake(&server, &[], "").0 == 503 {}
    let (first, _held) = loop {
        let (status, held) = handshake(&server, &preface, "");
        if status != 503 {
            break (status, held);
        }
    };
    assert_eq!(first, 101, "the header is read all the same");
    assert_eq!(handshake(&server, &proxied([203, 0, 113, 8]), "").0, 503, "but does not count");
}

#[test]
fn trusted_proxy_names_its_client_by_proxy_protocol() {
    let server = behind_a_proxy("127.0.0.0/8", true);
    let from = |last: u8, headers: &str| handshake(&server, &proxied([203, 0, 113, last]), headers);
    let (first, _held) = from(1, "");
    assert_eq!(first, 101);
    let (status, mut exceeded) = from(1, "");
    assert_eq!(status, 503);
    assert_eq!(exceeded.read_to_end(), r#"{"message":"Your address has as many connections as one may"}"#);
    // The client itself is not trusted.
    assert_eq!(from(1, "X-Forwarded-For: 203.0.113.9\r\n").0, 503);
    assert_eq!(from(2, "").0, 101);
    // A proxy behind a proxy is trusted.
    let (chained, _held_too) = handshake(&server, &proxied([127, 0, 0, 9]), "X-Forwarded-For: 203.0.113.3\r\n");
    assert_eq!((chained, handshake(&server, &proxied([203, 0, 113, 3]), "").0), (101, 503));
    // The proxy may connect for itself. Without the header its clients could send one.
    let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"[..]].concat();
    let (itself, _held_three) = handshake(&server, &local, "");
    assert_eq!((itself, handshake(&server, &local, "").0), (101, 503));
    let (missing, mut response) = handshake(&server, b"", "X-Forwarded-For: 203.0.113.9\r\n");
    assert_eq!(missing, 400);
    assert_eq!(response.read_to_end(), r#"{"message":"The header of the PROXY protocol is missing"}"#);

    let (nonsense, mut response) = handshake(&server, b"\r\n\r\n\0\r\nQUIT\n\x11\x11\x00\x0c............", "");
    assert_eq!(nonsense, 400);
    assert_eq!(response.read_to_end(), r#"{"message":"That is no header of the PROXY protocol, version 1 or 2"}"#);
}

#[test]
fn proxy_header_is_an_error_when_disabled() {
    let server = behind_a_proxy("127.0.0.0/8", false);
    assert_eq!(handshake(&server, &proxied([203, 0, 113, 1]), "").0, 400);
}

/// A header of the PROXY protocol from this client.
fn proxied(client: [u8; 4]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..], &client, &[127, 0, 0, 1, 0x12, 0x34, 0, 80]].concat()
}
