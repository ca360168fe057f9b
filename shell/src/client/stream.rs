//! The stream under a WebSocket: TCP, with TLS for `wss://`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_rustls::client::TlsStream;
use futures_rustls::pki_types::ServerName;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

use super::{ConnectError, Error, RootCertificates, Url};

#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    /// Boxed because it is large and most connections are plain.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects, trying every address of the host in turn.
pub(super) async fn connect(url: &Url) -> Result<TcpStream, Error> {
    // Detects a server that vanished within a minute: 30 s idle, then three probes.
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
    let connected = async {
        let stream = TcpStream::connect(&*url.resolve().await?).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    };
    connected.await.map_err(|reason| match ConnectError::from_stream_error(&reason) {
        Some(obstacle) => Error::handshake(url, obstacle),
        None => Error::Unreachable { url: Box::new(url.clone()), reason },
    })
}

/// Does the TLS handshake with a server that must prove this name.
pub(super) async fn encrypt(
    url: &Url,
    name: ServerName<'static>,
    root_certificates: &RootCertificates,
    stream: TcpStream,
) -> Result<Stream, Error> {
    match root_certificates.connector().await.connect(name, stream).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => Err(Error::handshake(url, ConnectError::from_tls(&error))),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_close(cx),
            Self::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, Options};
    use super::*;
    use crate::client::testing::fake_server::{FakeServer, with_server};
    use crate::client::testing::test_ca::TestCa;
    use futures_rustls::TlsAcceptor;
    use futures_rustls::rustls::HandshakeKind;
    use futures_rustls::rustls::version::{TLS12, TLS13};
    use session_core::protocol::ServerMessage;
    use smol::future::{or, zip};

    const NOW: [i32; 2] = [2000, 2200];

    fn trusting(root_certificates: RootCertificates) -> Options {
        Options { root_certificates, ..Options::default() }
    }

    /// The error of a client that trusts these authorities at `wss://127.0.0.1`.
    fn refusal(tls: TlsAcceptor, root_certificates: RootCertificates) -> String {
        let mut message = String::new();
        with_server(async |listener: FakeServer| {
            let listener = listener.with_tls(tls);
            let (url, options) = (listener.url(), trusting(root_certificates));
            let (opened, accepted) = zip(Connection::open_with(&url, &options), listener.accept_stream()).await;
            let error = opened.expect_err("no trust").to_string();
            assert!(accepted.is_none(), "{error}");
            message = error.strip_prefix(&format!("no WebSocket at {url}: ")).expect("no WebSocket").into();
        });
        message
    }

    #[test]
    fn trusted_server_is_reached_by_name_and_address() {
        let ca = TestCa::new();
        for versions in [&[&TLS12][..], &[&TLS13], &[&TLS12, &TLS13]] {
            with_server(async |listener: FakeServer| {
                let tls = ca.acceptor_with_versions(versions, &["localhost", "127.0.0.1"], NOW);
                let listener = listener.with_tls(tls);
                let by_name: Url = format!("wss://localhost:{}", listener.port()).parse().expect("a good URL");
                let client = async {
                    for url in [listener.url(), by_name] {
                        let mut connection =
                            Connection::open_with(&url, &trusting(ca.root_certificates())).await.expect("a greeting");
                        assert_eq!(connection.authenticate("ada").await.expect("a slot").connections, 1);
                        connection.bye().await.expect("a good bye");
                    }
                };
                or(client, listener.serve(1)).await;
            });
        }
    }

    #[test]
    fn handshakes_are_full_and_offer_http_1_1() {
        let ca = TestCa::new();
        with_server(async |listener: FakeServer| {
            let tls = ca.acceptor(&["127.0.0.1"], NOW);
            let url: Url = format!("wss://127.0.0.1:{}", listener.port()).parse().expect("a good URL");
            let options = trusting(ca.root_certificates());
            for _ in 0..2 {
                let server = async {
                    let stream = tls.accept(listener.accept_tcp().await).await.expect("trust");
                    let (_, state) = stream.get_ref();
                    assert_eq!(state.alpn_protocol(), Some(&b"http/1.1"[..]));
                    assert_eq!(state.handshake_kind(), Some(HandshakeKind::Full));
                };
                let (_opened, ()) = zip(Connection::open_with(&url, &options), server).await;
            }
        });
    }

    #[test]
    fn untrusted_server_is_refused() {
        let ca = TestCa::new();
        for root_certificates in [RootCertificates::SYSTEM, TestCa::new().root_certificates()] {
            assert_eq!(
                refusal(ca.acceptor(&["127.0.0.1"], NOW), root_certificates),
                "its certificate is not trusted: no known authority has issued it; name the file with the certificate \
                 of that authority with --ca"
            );
        }
    }

    #[test]
    fn ca_certificate_as_server_certificate_is_named() {
        let ca = TestCa::new();
        let refusal = refusal(ca.acceptor_with_ca_certificate(), ca.root_certificates());
        assert_eq!(
            refusal,
            "its certificate is no good: it is an authority's own (CA:TRUE), not a server's; have it replaced"
        );
    }

    #[test]
    fn any_authority_of_the_file_is_trusted() {
        let [first, second] = [TestCa::new(), TestCa::new()];
        let both = first.pem_file();
        std::fs::write(both.path(), format!("The first\n{}{}", first.pem(), second.pem())).unwrap();
        let root_certificates = RootCertificates::read(both.path()).unwrap();
        for ca in [first, second] {
            with_server(async |listener: FakeServer| {
                let listener = listener.with_tls(ca.acceptor(&["127.0.0.1"], NOW));
                let (url, options) = (listener.url(), trusting(root_certificates.clone()));
                let client = async { drop(Connection::open_with(&url, &options).await.expect("a greeting")) };
                or(client, listener.serve(1)).await;
            });
        }
    }

    #[test]
    fn certificate_errors_say_what_is_wrong() {
        let ca = TestCa::new();
        let refusal = |names: &[&str], years| refusal(ca.acceptor(names, years), ca.root_certificates());
        assert_eq!(
            refusal(&["localhost", "192.0.2.1", "c.example", "d.example", "e.example", "f.example"], NOW),
            "its certificate is for localhost, 192.0.2.1, c.example, d.example, e.example, not for the host of the URL; \
             check the URL"
        );
        assert_eq!(
            refusal(&["127.0.0.1"], [2000, 2001]),
            "its certificate has expired; have it renewed, and check the clock of this machine"
        );
        assert_eq!(
            refusal(&["127.0.0.1"], [2200, 2201]),
            "its certificate is not valid yet; check the clock of this machine"
        );
    }

    #[test]
    fn tls_mismatch_is_reported_both_ways() {
        let ca = TestCa::new();
        with_server(async |listener: FakeServer| {
            let url: Url = format!("wss://127.0.0.1:{}", listener.port()).parse().expect("a good URL");
            let answer = ["HTTP/1.1 400 Bad Request\r\n\r\n"];
            let (opened, ()) = zip(Connection::open(&url), listener.answer(&answer)).await;
            assert_eq!(
                opened.expect_err("no TLS").to_string(),
                format!(
                    "no WebSocket at {url}: it does not speak TLS; check the port, or try ws://, where nothing is encrypted"
                )
            );
        });
        with_server(async |listener: FakeServer| {
            let listener = listener.with_tls(ca.acceptor(&["127.0.0.1"], NOW));
            let url: Url = format!("ws://127.0.0.1:{}", listener.port()).parse().expect("a good URL");
            let (opened, accepted) = zip(Connection::open(&url), listener.accept_stream()).await;
            assert!(accepted.is_none());
            let error = opened.expect_err("TLS alone").to_string();
            assert_eq!(error, format!("no WebSocket at {url}: it speaks TLS; try wss://"));
        });
    }

    #[test]
    fn hangup_during_tls_handshake_is_reported() {
        with_server(async |listener: FakeServer| {
            let url: Url = format!("wss://127.0.0.1:{}", listener.port()).parse().expect("a good URL");
            let server = async { drop(listener.accept_stream().await) };
            let (opened, ()) = zip(Connection::open(&url), server).await;
            let error = opened.expect_err("nobody there").to_string();
            assert!(error.contains("it hung up before it answered; try again in a while"), "{error}");
        });
    }

    #[test]
    fn tls_refusals_and_losses_read_as_without_tls() {
        let ca = TestCa::new();
        with_server(async |listener: FakeServer| {
            let listener = listener.with_tls(ca.acceptor(&["127.0.0.1"], NOW));
            let (url, options) = (listener.url(), trusting(ca.root_certificates()));
            let answer = ["HTTP/1.1 503 No\r\nRetry-After: 1\r\n\r\n", r#"{"message":"Full"}"#];
            let (opened, ()) = zip(Connection::open_with(&url, &options), listener.answer(&answer)).await;
            let error = opened.expect_err("no room").to_string();
            let expected = "it answered HTTP 503 Service Unavailable: \"Full\"; try again in 1 s";
            assert!(error.ends_with(expected), "{error}");

            let server = async {
                let mut connection = listener.accept().await;
                connection.send(&ServerMessage::Hello).await;
            };
            let (opened, ()) = zip(Connection::open_with(&url, &options), server).await;
            // The server drops the socket without TLS's close_notify.
            let error = opened.expect("a greeting").next_event().await.expect_err("no more").to_string();
            assert_eq!(error, "the connection is lost: the server went away without a word; connect again");
        });
    }
}
