//! A client of rustls at the other end, in memory.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::task::Waker;

use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::*;

/// The server's end of a connection in memory. It takes and gives at most `most` bytes at a time.
struct Pipe {
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
    most: usize,
    is_full: bool,
    has_ended: bool,
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        if self.to_server.is_empty() && !self.has_ended {
            return Poll::Pending;
        }
        let most = self.most.min(buffer.len());
        Poll::Ready(self.to_server.read(&mut buffer[..most]))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.is_full {
            return Poll::Pending;
        }
        let written = bytes.len().min(self.most);
        self.to_client.extend_from_slice(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Pair {
    client: ClientConnection,
    server: TlsStream<Pipe>,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion, most: usize) -> Self {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let certificate = CertificateDer::from(issued.cert.der().to_vec());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let pipe = Pipe { to_server: VecDeque::new(), to_client: Vec::new(), most, is_full: false, has_ended: false };
        Self {
            client: ClientConnection::new(Arc::new(client), name).unwrap(),
            server: TlsStream::new(pipe, &Arc::new(server)).unwrap(),
        }
    }

    /// Carries what the client sends to the server's end, and the other way.
    fn carry(&mut self) {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.server.stream.to_server).unwrap();
        }
        let mut sent = &std::mem::take(&mut self.server.stream.to_client)[..];
        while !sent.is_empty() {
            self.client.read_tls(&mut sent).unwrap();
            self.client.process_new_packets().unwrap();
        }
    }

    fn shake_hands(mut self) -> Self {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            self.carry();
            match self.server.poll_handshake(&mut cx) {
                Poll::Ready(result) => break result.unwrap(),
                Poll::Pending => {}
            }
        }
        self.carry();
        assert!(!self.client.is_handshaking());
        self
    }

    fn read(&mut self) -> Poll<Result<Vec<u8>>> {
        let (mut cx, mut buffer) = (Context::from_waker(Waker::noop()), [0; 100]);
        let read = Pin::new(&mut self.server).poll_read(&mut cx, &mut buffer);
        read.map_ok(|bytes| buffer[..bytes].to_vec())
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.server).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
    }

    fn received(&mut self) -> Vec<u8> {
        self.carry();
        let mut received = Vec::new();
        let _would_block = self.client.reader().read_to_end(&mut received);
        received
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[test]
fn data_passes_both_ways_however_the_bytes_arrive() {
    for (version, most) in VERSIONS.into_iter().flat_map(|version| [1, 7, 9999].map(|most| (version, most))) {
        let mut pair = Pair::new(version, most).shake_hands();
        let sent: Vec<u8> = (0..40_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for part in sent.chunks(10_000) {
            pair.client.writer().write_all(part).unwrap();
            pair.carry();
            let mut read = Vec::new();
            while read.len() < part.len() {
                if let Poll::Ready(bytes) = pair.read() {
                    read.extend(bytes.unwrap());
                }
            }
            assert_eq!(read, part);
            assert!(pair.read().is_pending());
        }
        let (mut left, mut received) = (&sent[..], Vec::new());
        while !left.is_empty() {
            let Poll::Ready(written) = pair.write(left) else { panic!("there is room") };
            left = &left[written.unwrap()..];
            received.extend(pair.received());
        }
        assert_eq!(received, sent);
    }
}

#[test]
fn records_without_data_do_not_keep_the_task() {
    let mut pair = Pair::new(&version::TLS13, 20).shake_hands();
    for _ in 0..30 {
        pair.client.refresh_traffic_keys().unwrap();
    }
    pair.carry();
    let (waker, wakes) = crate::runtime::testing::counting_waker();
    let mut polls = 0;
    while !pair.server.stream.to_server.is_empty() {
        let left = pair.server.stream.to_server.len();
        let read = Pin::new(&mut pair.server).poll_read(&mut Context::from_waker(&waker), &mut [0; 9]);
        polls += 1;
        assert!(read.is_pending(), "{read:?}");
        assert_eq!((wakes(), pair.server.stream.to_server.len()), (polls, left.saturating_sub(20)));
    }
    pair.client.writer().write_all(b"hello").unwrap();
    pair.server.stream.most = 99;
    pair.carry();
    assert!(matches!(pair.read(), Poll::Ready(Ok(read)) if read == b"hello"));
}

#[test]
fn idle_stream_keeps_no_buffer() {
    for version in VERSIONS {
        let mut pair = Pair::new(version, 9999).shake_hands();
        assert!(matches!(pair.write(b"HELLO"), Poll::Ready(Ok(5))));
        pair.client.writer().write_all(b"hello").unwrap();
        assert_eq!(pair.received(), b"HELLO");
        assert!(matches!(pair.read(), Poll::Ready(Ok(read)) if read == b"hello"));
        assert!(pair.read().is_pending());
        let TlsStream { incoming, data, outgoing, .. } = &pair.server;
        assert_eq!([incoming, data, outgoing].map(Vec::capacity), [0; 3]);
    }
}

#[test]
fn incomplete_record_takes_no_more_than_it_needs() {
    let mut pair = Pair::new(&version::TLS13, 1000).shake_hands();
    // Two records, and all of the second but its last byte.
    for _ in 0..2 {
        pair.client.writer().write_all(&[7; MAX_RECORD_BYTES]).unwrap();
        pair.carry();
    }
    let last = pair.server.stream.to_server.pop_back().unwrap();
    let mut read = 0;
    while !pair.server.stream.to_server.is_empty() {
        read += if let Poll::Ready(bytes) = pair.read() { bytes.unwrap().len() } else { 0 };
        let incoming = &pair.server.incoming;
        assert!(incoming.capacity() <= incoming.len().max(READ_BYTES), "{}", incoming.capacity());
    }
    pair.server.stream.to_server.push_back(last);
    while read < 2 * MAX_RECORD_BYTES {
        read += if let Poll::Ready(bytes) = pair.read() { bytes.unwrap().len() } else { 0 };
    }
    assert_eq!(pair.server.incoming.capacity(), 0);
}

#[test]
fn full_peer_takes_the_rest_later_and_bounds_the_buffer() {
    let mut pair = Pair::new(&version::TLS13, 9999).shake_hands();
    pair.server.stream.is_full = true;
    assert!(matches!(pair.write(&[7; 99_999]), Poll::Ready(Ok(MAX_RECORD_BYTES))));
    assert!(pair.write(b"more").is_pending());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut pair.server).poll_flush(&mut cx).is_pending());
    pair.server.stream.is_full = false;
    assert!(matches!(Pin::new(&mut pair.server).poll_flush(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!(pair.received(), [7; MAX_RECORD_BYTES]);
}

#[test]
fn farewell_ends_the_stream_and_a_cut_is_an_error() {
    for version in VERSIONS {
        let mut pair = Pair::new(version, 9999).shake_hands();
        pair.client.writer().write_all(b"bye").unwrap();
        pair.client.send_close_notify();
        pair.carry();
        assert!(matches!(pair.read(), Poll::Ready(Ok(read)) if read == b"bye"));
        assert!(matches!(pair.read(), Poll::Ready(Ok(read)) if read.is_empty()));
        // The other direction is still open.
        assert!(matches!(pair.write(b"goodbye"), Poll::Ready(Ok(7))));
        assert_eq!(pair.received(), b"goodbye");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(&mut pair.server).poll_close(&mut cx), Poll::Ready(Ok(()))));
        pair.carry();
        let state = pair.client.process_new_packets().unwrap();
        assert!(state.peer_has_closed(), "the client is told the end");

        let mut cut = Pair::new(version, 9999).shake_hands();
        cut.server.stream.has_ended = true;
        let Poll::Ready(Err(error)) = cut.read() else { panic!("it is no end") };
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn nonsense_is_answered_with_an_alert() {
    let mut pair = Pair::new(&version::TLS13, 9999);
    pair.server.stream.to_server.extend(b"\x16\x03\x01\xff\xff a record that is too long");
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = pair.server.poll_handshake(&mut cx) else { panic!("it is no handshake") };
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(pair.server.stream.to_client.first(), Some(&21), "an alert (RFC 8446 §5.1)");
    pair.server.stream.to_server.extend([22; 99]);
    let again = pair.server.poll_handshake(&mut cx);
    assert!(matches!(&again, Poll::Ready(Err(_))), "{again:?}");
}

#[test]
fn endless_handshake_message_is_refused() {
    let mut pair = Pair::new(&version::TLS13, 9999);
    // A message of 16 MB in records of 16 KiB.
    let record = [&[22, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &[0; (1 << 14) - 4]].concat();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..9 {
        pair.server.stream.to_server.extend(&record);
        if let Poll::Ready(result) = pair.server.poll_handshake(&mut cx) {
            assert!(result.is_err());
            return;
        }
        assert!(pair.server.incoming.capacity() <= MAX_INCOMPLETE_BYTES);
    }
    panic!("{} bytes are kept", pair.server.incoming.len());
}
