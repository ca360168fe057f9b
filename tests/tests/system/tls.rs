//! Connections over TLS, with certificates of a test authority.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_rustls::TlsConnector;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use session_core::connection_limiter::ConnectionLimits;
use session_core::session::SessionSettings;
use shell::client::{Error, Event, Options, RootCertificates, Url, UserConnections};
use shell::net::settings::ConnectionSettings;
use shell::server::Settings;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::net::TcpStream;
use tests::raw_client::{RawClient, Received, upgrade_request};
use tests::test_ca::TestCa;
use tests::test_server::{TestServer, settings};

struct TlsServer {
    authority: TestCa,
    server: TestServer,
    _directory: tempfile::TempDir,
}

impl TlsServer {
    /// A server with a certificate for this machine.
    fn start(bounds: ConnectionLimits, policy: ConnectionSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = TestCa::new(directory.path());
        let tls = Some(authority.certify("server", &["localhost", "127.0.0.1"]).load().unwrap());
        let server = TestServer::with_settings(Settings {
            connection_limits: bounds,
            connection: ConnectionSettings { tls, ..policy },
            ..settings()
        });
        Self { authority, server, _directory: directory }
    }

    fn url(&self) -> Url {
        format!("wss://{}", self.server.address).parse().unwrap()
    }

    fn user(&self, id: &str) -> UserConnections {
        let root_certificates = RootCertificates::read(&self.authority.ca).unwrap();
        UserConnections::new(&self.url(), id).with_options(Options { root_certificates, ..Options::default() })
    }
}

fn start_with_defaults() -> TlsServer {
    TlsServer::start(ConnectionLimits::default(), ConnectionSettings::default())
}

#[test]
fn sessions_work_over_tls() {
    let server = start_with_defaults();
    smol::block_on(async {
        let mut ada = server.user("ada");
        for held in 1..=3 {
            assert_eq!(ada.connect().await.unwrap().connections, held);
        }
        assert!(matches!(ada.connect().await, Err(Error::Denied { .. })));
        assert_eq!(ada.latest().unwrap().check_connections().await.unwrap().connections, 3);
        ada.disconnect().await.unwrap();
        assert_eq!(ada.connect().await.unwrap().connections, 3);
        // The socket is closed without BYE and without `close_notify` of TLS.
        assert!(ada.drop_latest());
        while ada.connect().await.is_err() {}
        // Frames that the server sends by itself arrive, too.
        for _ in 0..=SessionSettings::default().max_bad_messages.unwrap() {
            ada.latest().unwrap().send_text("?").await.unwrap();
        }
        let end = loop {
            if let Event::Closed { code, .. } = ada.next_event().await.unwrap() {
                break code;
            }
        };
        assert_eq!(end, 1008);
    });
}

#[test]
fn tls_accepts_two_versions_and_only_http_1_1() {
    let server = start_with_defaults();
    let attempt =
        |version: &'static SupportedProtocolVersion, alpn: &[&[u8]]| smol::block_on(handshake(&server, version, alpn));
    let http = Some(b"http/1.1".to_vec());
    assert_eq!(attempt(&version::TLS13, &[b"http/1.1"]).unwrap(), (Some(ProtocolVersion::TLSv1_3), http.clone()));
    assert_eq!(attempt(&version::TLS12, &[b"h2", b"http/1.1"]).unwrap(), (Some(ProtocolVersion::TLSv1_2), http));
    assert_eq!(attempt(&version::TLS13, &[]).unwrap(), (Some(ProtocolVersion::TLSv1_3), None));
    assert!(attempt(&version::TLS13, &[b"h2"]).unwrap_err().contains("ApplicationProtocol"));
}

/// Connects and sends a plain GET. Returns the negotiated version and protocol.
async fn handshake(
    server: &TlsServer,
    version: &'static SupportedProtocolVersion,
    alpn: &[&[u8]],
) -> Result<(Option<ProtocolVersion>, Option<Vec<u8>>), String> {
    let mut config = client_config(&server.authority.ca, version);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(server.server.address).await.unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| format!("{e:?}"))?;
    let agreed = stream.get_ref().1;
    let agreed = (agreed.protocol_version(), agreed.alpn_protocol().map(<[u8]>::to_vec));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Ok(agreed)
}

fn client_config(ca: &Path, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A stream that copies what is read from it.
struct Recorder {
    stream: std::net::TcpStream,
    read: Arc<Mutex<Vec<u8>>>,
}

impl Read for Recorder {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.stream.read(buffer)?;
        self.read.lock().unwrap().extend_from_slice(&buffer[..bytes]);
        Ok(bytes)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn handshake_response_and_hello_are_one_record() {
    /// The type of a record with data (RFC 5246 §6.2.1). TLS 1.3 hides the types.
    const DATA: u8 = 23;

    let server = start_with_defaults();
    let config = Arc::new(client_config(&server.authority.ca, &version::TLS12));
    let session = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let read = Arc::<Mutex<Vec<u8>>>::default();
    let mut client = RawClient::connect_tls([127, 0, 0, 1].into(), server.server.address, |stream| {
        Box::new(StreamOwned::new(session, Recorder { stream, read: Arc::clone(&read) }))
    });
    client.write(upgrade_request("").as_bytes());
    client.skip_head();
    client.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
    let read = read.lock().unwrap();
    let (mut records, mut rest) = (Vec::new(), &read[..]);
    while let Some((&[kind, _, _, high, low], after)) = rest.split_first_chunk() {
        records.push(kind);
        rest = &after[usize::from(u16::from_be_bytes([high, low]))..];
    }
    assert_eq!(records.iter().filter(|&&kind| kind == DATA).count(), 1, "{records:?}");
}

/// Connects with a TLS session of `config`, if it has one, and upgrades to WebSocket.
fn connect(server: &TlsServer, config: &Arc<ClientConfig>) -> (RawClient, Option<HandshakeKind>) {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut kind = None;
    let mut client = RawClient::connect_tls([127, 0, 0, 1].into(), server.server.address, |mut stream| {
        session.complete_io(&mut stream).unwrap();
        kind = session.handshake_kind();
        Box::new(StreamOwned::new(session, stream))
    });
    client.write(upgrade_request("").as_bytes());
    client.skip_head();
    client.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
    (client, kind)
}

#[test]
fn tls_session_is_resumed_also_after_a_certificate_reload() {
    for version in [&version::TLS12, &version::TLS13] {
        let server = start_with_defaults();
        let config = Arc::new(client_config(&server.authority.ca, version));
        let kind = || connect(&server, &config).1;
        assert_eq!(kind(), Some(HandshakeKind::Full), "{version:?}");
        assert_eq!(kind(), Some(HandshakeKind::Resumed), "{version:?}");
        let tls = Some(server.authority.certify("next", &["localhost", "127.0.0.1"]).load().unwrap());
        server.server.handle.set_connection_settings(ConnectionSettings { tls, ..ConnectionSettings::default() });
        assert_eq!(kind(), Some(HandshakeKind::Resumed), "{version:?}");
        // Another client has no ticket, and sees the new certificate.
        let other = Arc::new(client_config(&server.authority.ca, version));
        assert_eq!(connect(&server, &other).1, Some(HandshakeKind::Full), "{version:?}");
    }
}

/// TLS knows the client again. The session does not.
#[test]
fn resumed_tls_session_authenticates_and_is_counted() {
    let bounds = ConnectionLimits { connections: NonZeroUsize::new(2), ..ConnectionLimits::default() };
    let server = TlsServer::start(bounds, ConnectionSettings::default());
    let config = Arc::new(client_config(&server.authority.ca, &version::TLS13));
    let success = |connections| {
        format!(r#"{{"type":"AUTHENTICATE_SUCCESS","payload":{{"id":"ada","connections":{connections}}}}}"#)
    };
    let (mut first, kind) = connect(&server, &config);
    assert_eq!(kind, Some(HandshakeKind::Full));
    first.authenticate("ada");
    first.expect_text(&success(1));
    let (mut resumed, kind) = connect(&server, &config);
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    resumed.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
    resumed.expect_text(r#"{"type":"ERROR","payload":"This session is not authenticated"}"#);
    resumed.authenticate("ada");
    resumed.expect_text(&success(2));
    // The third connection exceeds the limit.
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(config, name).unwrap();
    let mut stream = std::net::TcpStream::connect(server.server.address).unwrap();
    assert!(session.complete_io(&mut stream).is_err());
}

/// As a client with a slow network, or an attacker, sends it.
#[test]
fn tls_records_are_read_however_they_arrive() {
    let server = start_with_defaults();
    for version in [&version::TLS12, &version::TLS13] {
        let config = Arc::new(client_config(&server.authority.ca, version));
        let session = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
        let mut client = RawClient::connect_tls([127, 0, 0, 1].into(), server.server.address, |stream| {
            Box::new(StreamOwned::new(session, Trickle(stream)))
        });
        client.write(upgrade_request("").as_bytes());
        client.skip_head();
        client.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
        // Longer than a read, and a message of many.
        let long = "x".repeat(4000);
        client.text(&format!(r#"{{"type":"{long}","payload":null}}"#));
        assert!(matches!(client.read(), Received::Text(text) if text.starts_with(r#"{"type":"ERROR""#)));
        client.authenticate("ada");
        assert!(matches!(client.read(), Received::Text(text) if text.contains("AUTHENTICATE_SUCCESS")));
        client.send_bye();
        client.expect_goodbye(1000);
    }
}

/// A stream that sends a few bytes at a time.
struct Trickle(std::net::TcpStream);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.set_nodelay(true)?;
        self.0.write(&bytes[..bytes.len().min(11)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn own_origin_has_the_scheme_that_the_server_speaks() {
    let server = start_with_defaults();
    let at = server.server.address;
    for (origin, expected) in [(format!("https://{at}"), "101"), (format!("http://{at}"), "403")] {
        let status = smol::block_on(async {
            let config = Arc::new(client_config(&server.authority.ca, &version::TLS13));
            let stream = TcpStream::connect(at).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
            let request = upgrade_request(&format!("Host: {at}\r\nOrigin: {origin}\r\n"));
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            String::from_utf8_lossy(&status[9..]).into_owned()
        });
        assert_eq!(status, expected, "{origin}");
    }
}

#[test]
fn plain_http_on_the_tls_port_is_explained() {
    let server = start_with_defaults();
    let mut lost = RawClient::connect(server.server.address);
    lost.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = lost.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with(r#"{"message":"This port speaks TLS: use wss:// or https://"}"#), "{answer}");
    for nonsense in [&b"\x16\x03\x01\x00\x05nonsense"[..], b"\x16", &[0x16; 100_000]] {
        let mut peer = RawClient::connect(server.server.address);
        peer.write(nonsense);
        peer.shut_down_writing();
        peer.wait_for_end();
    }
    smol::block_on(async { assert_eq!(server.user("ada").connect().await.unwrap().connections, 1) });
}

#[test]
fn slow_tls_handshake_is_cut_off() {
    let policy = ConnectionSettings { header_timeout: Duration::from_millis(300), ..ConnectionSettings::default() };
    let server = TlsServer::start(ConnectionLimits::default(), policy);
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        let start = Instant::now();
        let mut slow = RawClient::connect(server.server.address);
        slow.write(begun);
        slow.wait_for_end();
        assert!((300..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}

#[test]
fn connection_beyond_a_limit_is_closed() {
    let bounds = ConnectionLimits { connections: NonZeroUsize::new(1), ..ConnectionLimits::default() };
    let server = TlsServer::start(bounds, ConnectionSettings::default());
    smol::block_on(async {
        let mut ada = server.user("ada");
        ada.connect().await.unwrap();
        assert!(matches!(ada.connect().await, Err(Error::Handshake { .. } | Error::Lost(_))));
        ada.disconnect().await.unwrap();
        while ada.connect().await.is_err() {}
    });
}

#[test]
fn new_certificate_applies_to_later_connections() {
    let server = start_with_defaults();
    smol::block_on(async {
        let mut before = server.user("ada");
        before.connect().await.unwrap();
        let elsewhere = server.authority.certify("other", &["elsewhere.example"]);
        let tls = Some(elsewhere.load().unwrap());
        server.server.handle.set_connection_settings(ConnectionSettings { tls, ..ConnectionSettings::default() });
        let error = server.user("ada").connect().await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        assert_eq!(before.latest().unwrap().check_connections().await.unwrap().connections, 1);
    });
}
