//! The headers in which proxies name their clients: which one counts, and what the log says of a proxy that sends none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroUsize;
use std::process::Stdio;

use session_core::connection_limiter::ConnectionLimits;
use shell::net::forwarded::ForwardedHeader;
use shell::net::settings::ConnectionSettings;
use shell::server::Settings;
use tests::process_log::ProcessLog;
use tests::raw_client::{RawClient, upgrade_request};
use tests::test_ca::TestCa;
use tests::test_process::{TestProcess, without_connection_limits};
use tests::test_server::{TestServer, settings};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// A server that trusts this machine, with one connection per address.
fn server(forwarded_header: ForwardedHeader, proxy_protocol: bool) -> TestServer {
    let connection = ConnectionSettings {
        trusted_proxies: ["127.0.0.0/8".parse().unwrap()].into_iter().collect(),
        forwarded_header,
        proxy_protocol,
        ..ConnectionSettings::default()
    };
    let connection_limits = ConnectionLimits { per_client: NonZeroUsize::new(1), ..ConnectionLimits::default() };
    TestServer::with_settings(Settings { connection_limits, connection, ..settings() })
}

fn connect(server: &TestServer, preface: &[u8], headers: &str) -> (u16, RawClient) {
    let mut client = RawClient::connect(server.address);
    client.write(&[preface, upgrade_request(headers).as_bytes()].concat());
    let head = client.try_head();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer but {head:?}")), client)
}

#[test]
fn only_the_configured_header_names_the_client() {
    for (header, first, same, other) in [
        (
            ForwardedHeader::Forwarded,
            "Forwarded: for=\"[2001:db8::1]:4711\";proto=https\r\n",
            "Forwarded: for=unknown, for=\"[2001:db8::1]\"\r\n",
            "Forwarded: for=\"[2001:db8::1]\", for=\"203.0.113.2:80\"\r\n",
        ),
        (
            ForwardedHeader::XRealIp,
            "X-Real-IP: 203.0.113.1\r\n",
            "X-Real-Ip: 203.0.113.1\r\n",
            "X-Real-IP: 203.0.113.2\r\n",
        ),
        (
            ForwardedHeader::XForwardedFor,
            "X-Forwarded-For: 203.0.113.1\r\n",
            "X-Forwarded-For: 203.0.113.9, 203.0.113.1\r\n",
            "X-Forwarded-For: 203.0.113.1, 203.0.113.2\r\n",
        ),
    ] {
        let server = server(header, false);
        let (status, _held) = connect(&server, b"", first);
        assert_eq!(status, 101);
        // The others would name another client each.
        let decoys = [
            (ForwardedHeader::XForwardedFor, "X-Forwarded-For: 198.51.100.1\r\n"),
            (ForwardedHeader::Forwarded, "Forwarded: for=198.51.100.2\r\n"),
            (ForwardedHeader::XRealIp, "X-Real-IP: 198.51.100.3\r\n"),
        ];
        let decoys: String = decoys.iter().filter(|(other, _)| *other != header).map(|(_, line)| *line).collect();
        assert_eq!(connect(&server, b"", &(decoys + same)).0, 503, "{header:?}");
        assert_eq!(connect(&server, b"", other).0, 101, "{header:?}");
    }
}

#[test]
fn proxy_protocol_1_names_the_client() {
    let server = server(ForwardedHeader::XForwardedFor, true);
    let from = |last: u8, headers: &str| {
        connect(&server, format!("PROXY TCP4 203.0.113.{last} 127.0.0.1 4711 80\r\n").as_bytes(), headers)
    };
    let (status, _held) = from(1, "");
    assert_eq!(status, 101);
    assert_eq!(from(1, "").0, 503);
    // Of a PROXY header and X-Forwarded-For, the first counts.
    assert_eq!(from(1, "X-Forwarded-For: 203.0.113.9\r\n").0, 503);
    assert_eq!(from(2, "X-Forwarded-For: 203.0.113.1\r\n").0, 101);
    assert_eq!(connect(&server, b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n", "").0, 101);
    // A header that names nobody: the connection counts as the proxy's, whatever the request says.
    for nobody in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
        // The connection of the round before may not have ended yet.
        let _held = loop {
            let (status, held) = connect(&server, nobody, "X-Forwarded-For: 203.0.113.7\r\n");
            if status != 503 {
                assert_eq!(status, 101);
                break held;
            }
        };
        assert_eq!(connect(&server, nobody, "X-Forwarded-For: 203.0.113.8\r\n").0, 503);
    }
}

#[test]
fn faulty_proxy_is_logged_with_what_to_check() {
    let directory = tempfile::tempdir().unwrap();
    let start = |data: &str, arguments: &[&str]| {
        let mut command = without_connection_limits(SERVER);
        command.stderr(Stdio::piped());
        let mut server = TestProcess::run(command, &directory.path().join(data), arguments);
        let log = ProcessLog::take(&mut server);
        (server, log)
    };
    let send = |server: &TestProcess, bytes: &[u8]| {
        let mut client = RawClient::connect(server.address);
        client.write(bytes);
        client.wait_for_end();
    };
    let request = upgrade_request("");
    for (data, bytes, reason) in [
        ("none", request.as_bytes(), "it sent no PROXY header"),
        ("invalid", b"PROXY TCP4 here there 1 2\r\n", "its PROXY header is invalid"),
    ] {
        let (server, log) = start(data, &["--trusted-proxies", "127.0.0.1", "--proxy-protocol"]);
        // A check of the port is no fault.
        RawClient::connect(server.address).shut_down_writing();
        send(&server, bytes);
        let line = log.wait_for("refused a connection of a trusted proxy");
        assert!(
            line.contains(" WARN ") && line.contains("client_address=127.0.0.1") && line.contains(reason),
            "{line}"
        );
        assert!(line.contains("send-proxy") && line.contains("switch proxy_protocol off"), "{line}");
        assert!(!line.contains("suppressed"), "{line}");
    }
    for (data, header) in
        [("off-1", &b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n"[..]), ("off-2", b"\r\n\r\n\0\r\nQUIT\n")]
    {
        let (server, log) = start(data, &["--trusted-proxies", "127.0.0.1"]);
        send(&server, &[header, request.as_bytes()].concat());
        let line = log.wait_for("set proxy_protocol");
        assert!(line.contains(" WARN ") && line.contains("client_address=127.0.0.1"), "{line}");
    }
    let files = TestCa::new(directory.path()).certify("server", &["localhost"]);
    let [certificate, key] = [&files.certificate, &files.key].map(|file| file.to_str().unwrap());
    let (server, log) = start("tls", &["--trusted-proxies", "127.0.0.1", "--tls-cert", certificate, "--tls-key", key]);
    send(&server, b"PROXY TCP4 203.0.113.1 127.0.0.1 1 2\r\n\x16\x03\x01");
    let _line = log.wait_for("set proxy_protocol");
}
