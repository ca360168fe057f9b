//! The server's own origin, its paths and its subprotocols, as the real server decides them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use shell::net::settings::ConnectionSettings;
use tests::process_log::ProcessLog;
use tests::raw_client::{RawClient, UPGRADE, upgrade_request};
use tests::test_process::{TestProcess, without_connection_limits};
use tests::test_server::TestServer;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// The head of the answer to a handshake with these headers.
fn head(address: SocketAddr, headers: &str) -> String {
    let mut client = RawClient::connect(address);
    client.write(upgrade_request(headers).as_bytes());
    client.try_head()
}

fn status(address: SocketAddr, headers: &str) -> u16 {
    let head = head(address, headers);
    head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer but {head:?}"))
}

/// The status for a page of the host to which the request is addressed.
fn same_origin(address: SocketAddr, host: &str) -> u16 {
    status(address, &format!("Host: {host}\r\nOrigin: http://{host}\r\n"))
}

#[test]
fn own_origin_may_connect_and_no_rebound_name() {
    let server = TestServer::start();
    let (address, port) = (server.address, server.address.port());
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "127.1.2.3", "[::1]"] {
        assert_eq!(same_origin(address, &format!("{host}:{port}")), 101, "{host}");
    }
    // The owner of evil.example lets it point to this address.
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "192.0.2.1"] {
        assert_eq!(same_origin(address, &format!("{host}:{port}")), 403, "{host}");
    }
    let other = port - 1;
    for (host, origin) in [
        (format!("localhost:{port}"), format!("http://localhost:{other}")),
        (format!("localhost:{port}"), "http://localhost".into()),
        (format!("localhost:{port}"), format!("https://localhost:{port}")),
        (format!("localhost:{port}"), format!("http://127.0.0.1:{port}")),
        (format!("localhost:{other}"), format!("http://localhost:{other}")),
        ("localhost".into(), "http://localhost".into()),
    ] {
        assert_eq!(status(address, &format!("Host: {host}\r\nOrigin: {origin}\r\n")), 403, "{origin} at {host}");
    }
}

#[test]
fn address_of_the_accepted_socket_is_own() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestProcess::start(SERVER, directory.path(), &["--listen", "0.0.0.0:0", "--allow-open-auth"]);
    let port = server.address.port();
    assert!(server.address.ip().is_unspecified(), "{}", server.announcement);
    assert_eq!(same_origin(([127, 0, 0, 1], port).into(), &format!("127.0.0.1:{port}")), 101);
    // An address of this machine that others can reach, if it has one.
    let Some(ip) = outward_address() else { return };
    assert_eq!(same_origin((ip, port).into(), &format!("{ip}:{port}")), 101);
    assert_eq!(same_origin(([127, 0, 0, 1], port).into(), &format!("{ip}:{port}")), 403, "it is another address");
    assert_eq!(same_origin((ip, port).into(), &format!("evil.example:{port}")), 403);
}

/// The address from which this machine would send to others. Nothing is sent.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn proxied_origin_is_own_only_by_an_allowed_host() {
    let trusted = || ["127.0.0.1".parse().unwrap()].into_iter().collect();
    let hosts = ["sessions.example.com".parse().unwrap()].into_iter().collect();
    let server =
        TestServer::with_policy(ConnectionSettings { hosts, trusted_proxies: trusted(), ..Default::default() });
    let status_at = |server: &TestServer, host: &str, proxy: &str, scheme: &str| {
        status(server.address, &format!("Host: {host}\r\n{proxy}Origin: {scheme}://{host}\r\n"))
    };
    let client = "X-Forwarded-For: 203.0.113.1\r\n";
    let https = &format!("{client}X-Forwarded-Proto: https\r\n");
    for (host, proxy, scheme, expected) in [
        ("sessions.example.com", &**https, "https", 101),
        ("sessions.example.com", https, "http", 403),
        ("sessions.example.com", client, "http", 101),
        ("sessions.example.com", client, "https", 403),
        ("sessions.example.com:8443", https, "https", 101),
        ("evil.example", https, "https", 421),
    ] {
        assert_eq!(status_at(&server, host, proxy, scheme), expected, "{scheme}://{host} with {proxy}");
    }
    // A proxy may put the server's address into Host, whatever the browser has asked for.
    let server = TestServer::with_policy(ConnectionSettings { trusted_proxies: trusted(), ..Default::default() });
    let own = server.address.to_string();
    assert_eq!(status_at(&server, &own, "", "http"), 101, "the proxy itself");
    assert_eq!(status_at(&server, &own, client, "http"), 403);
    assert_eq!(status_at(&server, &own, https, "https"), 403);
    // It is a proxy also if it hides its client, or is not in trusted_proxies.
    let hidden =
        ["X-Forwarded-For: unknown", "Forwarded: for=_hidden", "X-Real-IP: unknown", "Via: 1.1 x", client.trim()];
    for server in [&server, &TestServer::start()] {
        let own = server.address.to_string();
        for header in hidden {
            assert_eq!(status_at(server, &own, &format!("{header}\r\n"), "http"), 403, "{header}");
        }
    }
    // Nobody else says what the client speaks.
    let server = TestServer::start();
    let own = server.address.to_string();
    let https = "X-Forwarded-Proto: https\r\n";
    assert_eq!(status_at(&server, &own, https, "http"), 101);
    assert_eq!(status_at(&server, &own, https, "https"), 403);
}

#[test]
fn refused_origin_is_named_with_the_setting() {
    let server = TestServer::start();
    let body = |origin: &[u8]| {
        let mut client = RawClient::connect(server.address);
        client.write(&[UPGRADE.as_bytes(), b"Host: x\r\nOrigin: ", origin, b"\r\n\r\n"].concat());
        assert!(client.try_head().starts_with("HTTP/1.1 403 "));
        let body: serde_json::Value = serde_json::from_str(&client.read_to_end()).unwrap();
        body["message"].as_str().unwrap().to_owned()
    };
    let text = body(br#"http://"\evil"#);
    assert!(text.contains(r#"'http://"\evil'"#) && text.contains("allowed_origins"), "{text}");
    let text = body(&[&b"http://"[..], &[b'x'; 4000]].concat());
    assert!(text.len() < 200 && text.contains("xxx…'"), "{text}");
    let text = body(b"http://\xff\x80");
    assert!(text.contains("http://\u{fffd}"), "{text}");
}

#[test]
fn subprotocol_is_selected_and_otherwise_logged() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = without_connection_limits(SERVER);
    command.stderr(Stdio::piped());
    let mut server = TestProcess::run_as(command, directory.path());
    let log = ProcessLog::take(&mut server);
    let selected = |headers: &str| {
        let head = head(server.address, headers);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: ").map(ToOwned::to_owned))
    };
    assert_eq!(selected(""), None);
    assert_eq!(selected("Sec-WebSocket-Protocol: sessions.v1\r\n").as_deref(), Some("sessions.v1"));
    let several = "Sec-WebSocket-Protocol: graphql-ws, mqtt\r\nSec-WebSocket-Protocol: chat, sessions.v1\r\n";
    assert_eq!(selected(several).as_deref(), Some("sessions.v1"));
    let long = format!("Sec-WebSocket-Protocol: \"graphql\"\t,{}{}\r\n", "x".repeat(1000), ",a".repeat(500));
    assert_eq!(selected(&long), None);
    let line = log.wait_for("selected no subprotocol");
    assert!(line.contains(r#"offered="\"graphql\", (1000 bytes), a, a"#) && line.len() < 400, "{line}");
    assert!(line.contains("client_address=127.0.0.1"), "{line}");
}

#[cfg(unix)]
#[test]
fn paths_and_subprotocols_follow_a_reload() {
    use rustix::process::Signal;
    use std::fs;
    use tests::test_process::send_signal;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sessions.toml");
    fs::write(&file, "").unwrap();
    let mut command: Command = without_connection_limits(SERVER);
    command.stderr(Stdio::piped()).arg("--config").arg(&file);
    let mut server = TestProcess::run_as(command, &directory.path().join("data"));
    let log = ProcessLog::take(&mut server);
    let request = |path: &str| {
        let mut client = RawClient::connect(server.address);
        let request = upgrade_request("Sec-WebSocket-Protocol: chess, sessions.v1\r\n");
        client.write(request.replace("GET / ", &format!("GET {path} ")).as_bytes());
        let head = client.try_head();
        head.lines().next().unwrap_or_default()[9..12].to_owned()
            + head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol:")).unwrap_or_default()
    };
    assert_eq!((&*request("/"), &*request("/chess")), ("101 sessions.v1", "404"));
    fs::write(&file, "path = [\"/chess\"]\nsubprotocols = [\"chess\"]\n").unwrap();
    send_signal(server.id(), Signal::HUP);
    let _reloaded = log.wait_for("the configuration is reloaded");
    assert_eq!((&*request("/"), &*request("/chess")), ("404", "101 chess"));
    let mut client = RawClient::connect(server.address);
    client.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.read_to_end().starts_with("HTTP/1.1 200 "), "the health check stays");
    let mut client = RawClient::connect(server.address);
    client.write(upgrade_request("").as_bytes());
    assert!(client.read_to_end().contains("the web socket is at /chess"));
}
