//! Any bytes before the first frame: a header of the PROXY protocol, and HTTP.
//!
//! The real code reads them from a stream that delivers them in chunks and then ends.

use std::io::Result;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use session_core::connection_limiter::{ClientPrefix, ConnectionLimits};
use shell::net::connection_limiter::SharedConnectionLimiter;
use shell::net::peer::Peer;
use shell::net::proxy_protocol;
use shell::net::settings::ConnectionSettings;
use shell::net::upgrade::{UpgradeOutcome, serve_request};
use shell::runtime::clock::Clock;
use smol::io::{AsyncRead, AsyncWrite};

/// What a server made of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedResult {
    /// A header of the PROXY protocol.
    ProxyHeader,
    /// No header of the PROXY protocol.
    NoProxyHeader,
    /// A WebSocket handshake.
    Upgraded,
    /// The server answered with this status, or closed without an answer.
    Answered(Option<u16>),
}

/// A client without a proxy, and a trusted proxy.
const DIRECT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
/// Where the server is.
const LOCAL: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 3000));

/// Feeds these bytes to a server. The first byte selects the sender and the chunk size.
#[must_use]
pub fn feed(bytes: &[u8]) -> FeedResult {
    let (&way, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let peer = if way & 1 == 0 { DIRECT } else { PROXY };
    let chunk = [1, 2, 7, 64, 1000, 4096, 8192, usize::MAX][usize::from(way >> 2) % 8];
    let stream = ChunkedStream { unread: bytes, chunk, written: Vec::new(), is_closed: false };
    if way & 2 == 0 { feed_request(stream, peer) } else { feed_proxy_header(stream) }
}

fn feed_proxy_header(mut stream: ChunkedStream<'_>) -> FeedResult {
    let whole = stream.unread;
    let source = run_to_completion(proxy_protocol::read_header(&mut stream));
    if source.is_err() {
        return FeedResult::NoProxyHeader;
    }
    let read = &whole[..whole.len() - stream.unread.len()];
    if read.starts_with(b"PROXY ") {
        let end = read.windows(2).position(|bytes| bytes == b"\r\n").expect("a header of version 1 has an end");
        assert_eq!(read.len(), end + 2, "more than the header was read");
        assert!(read.len() <= 107, "a longer header than there can be");
    } else {
        let [.., high, low] = *read.first_chunk::<16>().expect("a header of version 2 has sixteen bytes and more");
        assert_eq!(read.len(), 16 + usize::from(u16::from_be_bytes([high, low])), "more than the header was read");
        assert!(read.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "the bytes are no header");
    }
    FeedResult::ProxyHeader
}

fn feed_request(stream: ChunkedStream<'_>, peer: IpAddr) -> FeedResult {
    let settings = connection_settings();
    let connection_limiter = SharedConnectionLimiter::new(ConnectionLimits::default(), Clock::manual(Arc::default()));
    let mut permit =
        connection_limiter.acquire(Some(peer).filter(|&peer| peer == DIRECT)).expect("there are no bounds");
    let mut stream = stream;
    let never = std::future::pending();
    let from = Peer::of_socket(peer, LOCAL);
    let handshake = run_to_completion(serve_request(&mut stream, from, &settings, &mut permit, never));

    let client = permit.client();
    if peer == DIRECT {
        assert_eq!(client, Some(ClientPrefix::from(DIRECT)), "a direct client counts by its own address");
    }
    let result = match handshake {
        UpgradeOutcome::Upgraded { response, .. } => {
            assert!(stream.written.is_empty(), "the response is sent before the first frame: {:?}", stream.text());
            assert!(response.starts_with(b"HTTP/1.1 101 ") && response.ends_with(b"\r\n\r\n"), "{response:?}");
            FeedResult::Upgraded
        }
        UpgradeOutcome::Answered => {
            assert_ne!(stream.status(), Some(101), "{:?}", stream.text());
            FeedResult::Answered(stream.status())
        }
    };
    assert!(stream.written.len() < 1024, "a long response: {:?}", stream.text());
    assert!(stream.is_closed || result == FeedResult::Upgraded, "the connection stays open after the response");
    if stream.status().is_some_and(|status| status != 400 && status != 431) {
        assert!(client.is_some(), "an answered client is not counted");
    }
    result
}

/// Settings with every check enabled.
fn connection_settings() -> ConnectionSettings {
    ConnectionSettings {
        origins: "https://app.example.com".parse().map(|one| [one].into_iter().collect()).expect("a good origin"),
        hosts: "chess.example.com".parse().map(|one| [one].into_iter().collect()).expect("a good host"),
        trusted_proxies: "10.0.0.0/8".parse().map(|one| [one].into_iter().collect()).expect("a good network"),
        ..ConnectionSettings::default()
    }
}

/// Runs a future that never waits for input.
fn run_to_completion<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    // Some futures yield now and then.
    for _ in 0..100_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
    panic!("the future waits, but all input is there");
}

/// A stream that delivers these bytes and then ends.
struct ChunkedStream<'a> {
    unread: &'a [u8],
    chunk: usize,
    written: Vec<u8>,
    is_closed: bool,
}

impl ChunkedStream<'_> {
    fn status(&self) -> Option<u16> {
        self.text().strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|status| status.parse().ok())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.written).expect("a server speaks UTF-8")
    }
}

impl AsyncRead for ChunkedStream<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let length = buffer.len().min(self.chunk).min(self.unread.len());
        let (chunk, unread) = self.unread.split_at(length);
        buffer[..length].copy_from_slice(chunk);
        self.unread = unread;
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for ChunkedStream<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        assert!(!self.is_closed, "bytes are written after the close");
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.is_closed = true;
        Poll::Ready(Ok(()))
    }
}
