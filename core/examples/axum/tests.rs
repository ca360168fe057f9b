//! 200 clients of one user at once. At no moment are more told that they are in than the limit allows.
//!
//! The server's side is recorded where its sockets are written: a client is in from before the write that tells it, until its
//! close frame is written, its socket is closed, or the server has read its BYE. The clients record what they receive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use axum::serve::Listener;
use session_core::ledger::{SlotLimit, WhenFull};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::*;

const LIMIT: usize = 3;
const CLIENTS: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The clients that were told that they are in, and are served, as one side sees it.
#[derive(Debug)]
struct Inside<Key> {
    now: BTreeSet<Key>,
    /// How many were told so far.
    told: usize,
    peak: usize,
    /// This one takes nothing any more.
    stuck: Option<Key>,
}

impl<Key> Default for Inside<Key> {
    fn default() -> Self {
        Self { now: BTreeSet::new(), told: 0, peak: 0, stuck: None }
    }
}

impl<Key: Ord> Inside<Key> {
    fn enter(&mut self, key: Key) {
        self.told += 1;
        self.now.insert(key);
        self.peak = self.peak.max(self.now.len());
    }
}

/// What the server wrote to its sockets. The server writes nothing while this is locked.
type Written = Arc<Mutex<Inside<SocketAddr>>>;

fn lock(written: &Written) -> MutexGuard<'_, Inside<SocketAddr>> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

struct RecordedListener(TcpListener, Written);

impl Listener for RecordedListener {
    type Io = RecordedSocket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (RecordedSocket, SocketAddr) {
        let (socket, peer) = Listener::accept(&mut self.0).await;
        (RecordedSocket { socket, peer, written: Arc::clone(&self.1), frames: Frames::default() }, peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct RecordedSocket {
    socket: TcpStream,
    peer: SocketAddr,
    written: Written,
    frames: Frames,
}

impl AsyncWrite for RecordedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = &mut *self;
        let mut inside = lock(&this.written);
        if inside.stuck == Some(this.peer) {
            return Poll::Pending;
        }
        if contains(bytes, "AUTHENTICATE_SUCCESS") && !inside.now.contains(&this.peer) {
            inside.enter(this.peer);
        }
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = result
            && this.frames.read(&bytes[..length]).contains(&Received::Close)
        {
            inside.now.remove(&this.peer);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl AsyncRead for RecordedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if contains(buffer.filled(), "BYE") {
            lock(&self.written).now.remove(&self.peer);
        }
        result
    }
}

impl Drop for RecordedSocket {
    fn drop(&mut self) {
        lock(&self.written).now.remove(&self.peer);
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What a client receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Hello,
    Success,
    Failure,
    Close,
    Other,
}

/// The bytes that a server writes: an HTTP response, then frames (RFC 6455 §5.2) of less than 126 bytes.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    is_upgraded: bool,
}

impl Frames {
    fn read(&mut self, bytes: &[u8]) -> Vec<Received> {
        self.bytes.extend_from_slice(bytes);
        if !self.is_upgraded {
            let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Vec::new() };
            self.bytes.drain(..end + 4);
            self.is_upgraded = true;
        }
        let mut received = Vec::new();
        while let [first, length, rest @ ..] = &*self.bytes
            && let Some(payload) = rest.get(..usize::from(*length))
        {
            received.push(match *first & 0x0f {
                8 => Received::Close,
                1 if contains(payload, "HELLO") => Received::Hello,
                1 if contains(payload, "AUTHENTICATE_SUCCESS") => Received::Success,
                1 if contains(payload, "AUTHENTICATE_FAILURE") => Received::Failure,
                _ => Received::Other,
            });
            self.bytes.drain(..2 + payload.len());
        }
        received
    }
}

struct Client {
    socket: std::net::TcpStream,
    frames: Frames,
    received: VecDeque<Received>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        socket.write_all(upgrade.as_bytes()).unwrap();
        Self { socket, frames: Frames::default(), received: VecDeque::new() }
    }

    /// Sends a text. The mask is zero, so the server's side can read it as well.
    fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
        // A socket that the server has closed is read to its end.
        let _is_sent = self.socket.write_all(&frame).is_ok();
    }

    fn authenticate(&mut self) {
        self.send(r#"{"type":"AUTHENTICATE","payload":"ada"}"#);
    }

    fn leave(&mut self) {
        self.send(r#"{"type":"BYE","payload":null}"#);
    }

    /// Waits until this is what was received last.
    fn wait_for(&mut self, last: Received) {
        let started = Instant::now();
        while self.received.back() != Some(&last) {
            assert!(started.elapsed() < TIMEOUT, "{last:?} does not come, but {:?}", self.received);
            self.read();
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads what has arrived. Returns whether the client has been told that it is out.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => self.received.push_back(Received::Close),
            Ok(length) => self.received.extend(self.frames.read(&buffer[..length])),
        }
        self.received.contains(&Received::Close)
    }
}

/// A server, and what it wrote.
struct Recording {
    runtime: Runtime,
    server: Arc<Server>,
    address: SocketAddr,
    written: Written,
}

impl Recording {
    fn start(limit: usize, when_full: WhenFull) -> Self {
        let limit = SlotLimit::new(u32::try_from(limit).unwrap()).unwrap();
        let server = Server::new(AdmissionPolicy { when_full, ..AdmissionPolicy::new(limit) });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let written = Written::default();
        let listener = RecordedListener(listener, Arc::clone(&written));
        runtime.spawn(axum::serve(listener, router(&server)).into_future());
        Self { runtime, server, address, written }
    }

    fn wait_until_idle(&self) {
        let started = Instant::now();
        while !self.server.is_idle() {
            assert!(started.elapsed() < TIMEOUT, "a slot is held, or a connection is live");
            thread::sleep(Duration::from_millis(1));
        }
        let shared = self.server.lock();
        assert!(shared.records.is_empty() && shared.leaving.is_empty());
        assert!(lock(&self.written).now.is_empty());
    }
}

/// 200 clients, and those of them that were told that they are in.
struct Clients<'a> {
    recording: &'a Recording,
    clients: Vec<Client>,
    inside: Inside<usize>,
}

impl<'a> Clients<'a> {
    fn connect(recording: &'a Recording) -> Self {
        let clients = (0..CLIENTS).map(|_| Client::connect(recording.address)).collect();
        Self { recording, clients, inside: Inside::default() }
    }

    /// Each client comes three times, until it is denied or evicted. Where nobody is evicted, it leaves by itself.
    fn come_and_go(&mut self, when_full: WhenFull) {
        let mut left = vec![3; CLIENTS];
        let started = Instant::now();
        while left.iter().any(|&times| times > 0) {
            assert!(started.elapsed() < TIMEOUT, "the clients do not come to an end: {:?}", self.inside);
            let is_last = left.iter().filter(|&&times| times > 0).count() <= LIMIT;
            for index in (0..CLIENTS).filter(|&index| left[index] > 0).collect::<Vec<_>>() {
                // Where nobody is evicted, all places are taken before one becomes free.
                let may_leave = when_full == WhenFull::Deny && self.inside.now.len() == LIMIT;
                let client = &mut self.clients[index];
                client.read();
                match client.received.pop_front() {
                    Some(Received::Hello) => client.authenticate(),
                    Some(Received::Success) => self.told(index),
                    Some(Received::Failure) => client.leave(),
                    Some(Received::Close) => {
                        self.inside.now.remove(&index);
                        left[index] -= 1;
                        self.clients[index] = Client::connect(self.recording.address);
                    }
                    None if self.inside.now.contains(&index) && (is_last || may_leave) => {
                        self.inside.now.remove(&index);
                        client.leave();
                    }
                    Some(Received::Other) | None => {}
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.clients.clear();
    }

    /// A client was told that it is in. While it looks who else is, the server writes nothing. So what tells another client
    /// that it is out was written before, and is read now.
    fn told(&mut self, index: usize) {
        let written = lock(&self.recording.written);
        assert!(written.peak <= LIMIT, "the server has told too many");
        let started = Instant::now();
        while self.inside.now.len() >= LIMIT && started.elapsed() < TIMEOUT {
            if self.clients[index].read() {
                // It was in while the others were told.
                return;
            }
            self.inside.now.retain(|&other| !self.clients[other].read());
        }
        drop(written);
        self.inside.enter(index);
        assert!(self.inside.peak <= LIMIT, "too many clients were told");
    }
}

fn storm_keeps_the_limit(when_full: WhenFull) {
    let recording = Recording::start(LIMIT, when_full);
    Clients::connect(&recording).come_and_go(when_full);
    recording.wait_until_idle();
    let written = lock(&recording.written);
    assert!(written.peak == LIMIT && written.told > LIMIT, "{written:?}");
}

#[test]
fn storm_of_denials_keeps_the_limit() {
    storm_keeps_the_limit(WhenFull::Deny);
}

#[test]
fn storm_of_evictions_keeps_the_limit() {
    storm_keeps_the_limit(WhenFull::EvictOldest);
}

#[test]
fn shutdown_tells_every_client_and_leaves_no_slot() {
    let recording = Recording::start(LIMIT, WhenFull::Deny);
    let mut clients: Vec<_> = (0..LIMIT + 1).map(|_| Client::connect(recording.address)).collect();
    for client in &mut clients[..LIMIT] {
        client.wait_for(Received::Hello);
        client.authenticate();
        client.wait_for(Received::Success);
    }
    clients[LIMIT].wait_for(Received::Hello);
    recording.runtime.block_on(recording.server.shut_down());
    recording.wait_until_idle();
    for client in &mut clients {
        client.wait_for(Received::Close);
    }
    // Its upgrade was under way.
    let mut late = Client::connect(recording.address);
    late.authenticate();
    late.wait_for(Received::Close);
    assert!(!late.received.contains(&Received::Success));
}

/// A client that reads nothing cannot be told that it is out. Its socket is cut before the next client is told.
#[test]
fn evicted_client_that_reads_nothing_is_cut() {
    let recording = Recording::start(1, WhenFull::EvictOldest);
    let mut deaf = Client::connect(recording.address);
    deaf.wait_for(Received::Hello);
    deaf.authenticate();
    deaf.wait_for(Received::Success);
    lock(&recording.written).stuck = Some(deaf.socket.local_addr().unwrap());
    let mut next = Client::connect(recording.address);
    next.wait_for(Received::Hello);
    next.authenticate();
    next.wait_for(Received::Success);
    {
        let written = lock(&recording.written);
        assert_eq!((written.told, written.peak), (2, 1));
    }
    next.leave();
    next.wait_for(Received::Close);
    recording.wait_until_idle();
}
