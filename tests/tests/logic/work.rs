//! A client that causes more work than it may is read more slowly, and only that client. The tests count reads, never time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use session_core::Timestamp;
use session_core::connection_limiter::{ConnectionLimits, Work};
use session_core::ledger::SlotLimit;
use session_core::protocol::{CloseReason, ServerMessage};
use session_core::session::Event;
use session_core::session::{Frame, Session, SessionSettings};
use shell::auth::OpenAuthenticator;
use shell::net::connection_limiter::SharedConnectionLimiter;
use shell::net::message_socket::{MessageSocket, SocketEvent};
use shell::runtime::clock::{Clock, ManualClock};
use shell::runtime::fair_turns::FairTurns;
use shell::server::connection::{Connection, ConnectionContext};
use shell::server::registry::Registry;
use shell::server::session_log::SessionLog;
use shell::server::store_client::StoreClient;
use shell::store::MemoryStore;
use tests::test_server::NODE;

const RATE: u32 = 64 * 1024;
/// One connection may have done this much before it is charged.
const UNCHARGED: u32 = 8 * 1024;
const READ: u32 = 2 * 1024;

/// A server without sockets whose clients may each cause [`RATE`] of work.
struct Server {
    clock: Arc<ManualClock>,
    context: Arc<ConnectionContext>,
    registry: Arc<Registry>,
    limiter: Arc<SharedConnectionLimiter>,
}

/// A socket whose peer always has something to read.
#[derive(Clone, Default)]
struct FloodedSocket(Rc<FloodedPeer>);

#[derive(Default)]
struct FloodedPeer {
    /// What each read finds. Without it the reads never end a message.
    message: Option<&'static str>,
    reads: Cell<u32>,
    uncounted: Cell<u32>,
    is_paused: Cell<bool>,
    closed: RefCell<Vec<CloseReason>>,
    /// The first message.
    sign_in: Cell<bool>,
    /// The answer to a ping.
    pong: Cell<bool>,
}

impl MessageSocket for FloodedSocket {
    type Text = String;

    fn poll(&mut self, read: bool, _: &mut Context<'_>) -> Poll<SocketEvent<String>> {
        let peer = &self.0;
        if !read || peer.is_paused.get() || !peer.closed.borrow().is_empty() {
            return Poll::Pending;
        }
        peer.reads.set(peer.reads.get() + 1);
        peer.uncounted.set(peer.uncounted.get() + 1);
        if peer.sign_in.take() {
            return Poll::Ready(SocketEvent::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#.into()));
        }
        if peer.pong.take() {
            return Poll::Ready(SocketEvent::Alive);
        }
        peer.message.map_or(Poll::Pending, |text| Poll::Ready(SocketEvent::Text(text.into())))
    }

    fn send(&mut self, frame: Frame) {
        if frame == Frame::Ping {
            self.0.pong.set(true);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.0.closed.borrow_mut().push(reason);
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn abort(&mut self) {}

    fn is_served(&self) -> bool {
        self.0.closed.borrow().is_empty()
    }

    fn has_unsent(&self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn take_work(&mut self) -> Work {
        let reads = self.0.uncounted.take();
        Work::traffic(reads * (READ - 1024), reads)
    }

    fn set_paused(&mut self, is_paused: bool) {
        self.0.is_paused.set(is_paused);
    }
}

impl Server {
    fn new() -> Self {
        let manual = Arc::<ManualClock>::default();
        let clock = Clock::manual(Arc::clone(&manual));
        let limits = ConnectionLimits { work_per_client: NonZeroU32::new(RATE), ..ConnectionLimits::default() };
        let store = Arc::new(MemoryStore::new(NODE, SlotLimit::MAX));
        let registry = Registry::new(NODE, clock.clone());
        let context = Arc::new(ConnectionContext {
            store_client: StoreClient::new(store, Arc::clone(&registry), clock.clone(), Duration::from_secs(5), 1000),
            authenticator: Box::new(OpenAuthenticator::default()),
            turns: FairTurns::new(NonZeroUsize::MIN),
            new_resume_token: Box::new(|| None),
            session_log: SessionLog::default(),
        });
        let limiter = SharedConnectionLimiter::new(limits, clock);
        Self { clock: manual, context, registry, limiter }
    }

    /// Polls connections of these addresses by turns, many times at one time after another. Returns how often each was read
    /// by then, for each time.
    fn run(&self, peers: &[(u8, FloodedSocket)], seconds: impl IntoIterator<Item = u64>) -> Vec<Vec<u32>> {
        let settings = SessionSettings {
            max_message_rate: None,
            max_bad_messages: None,
            ping_interval: Duration::from_secs(2),
            pong_timeout: Duration::from_secs(1),
            ..SessionSettings::default()
        };
        let registrations: Vec<_> = peers.iter().map(|_| self.registry.register()).collect();
        let mut connections: Vec<_> = peers
            .iter()
            .zip(&registrations)
            .map(|((address, socket), registration)| {
                let permit = self.limiter.acquire(Some(IpAddr::from([192, 0, 2, *address]))).unwrap();
                let context = Arc::clone(&self.context);
                Connection::new(registration, socket.clone(), &settings, Timestamp::default(), context, permit)
            })
            .collect();
        let mut tasks: Vec<_> =
            connections.iter_mut().map(|connection| Box::pin(connection.run(Event::Connected))).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let mut reads = Vec::new();
        for second in seconds {
            self.clock.set(Timestamp::default() + Duration::from_secs(second));
            for _ in 0..200 {
                for task in &mut tasks {
                    assert!(task.as_mut().poll(&mut cx).is_pending());
                }
            }
            reads.push(peers.iter().map(|(_, socket)| socket.0.reads.get()).collect());
        }
        reads
    }
}

fn flood(message: Option<&'static str>) -> FloodedSocket {
    FloodedSocket(Rc::new(FloodedPeer { message, sign_in: Cell::new(true), ..FloodedPeer::default() }))
}

#[test]
fn endless_fragments_are_read_at_the_allowed_rate() {
    let server = Server::new();
    let peer = flood(None);
    let reads = server.run(&[(1, peer.clone())], 1..=9);
    let most = (RATE + UNCHARGED) / READ + 1;
    assert!((RATE / READ - 1..=most).contains(&reads[0][0]), "{reads:?}");
    for pair in reads.windows(2) {
        let read = pair[1][0] - pair[0][0];
        assert!(read.abs_diff(RATE / READ) <= UNCHARGED / READ + 1, "{reads:?}");
    }
    assert_eq!(*peer.0.closed.borrow(), [], "it is only slower");
}

#[test]
fn client_that_floods_slows_no_other_client() {
    let server = Server::new();
    let mut peers: Vec<_> = (0..50).map(|_| (1, flood(None))).collect();
    peers.push((2, flood(None)));
    let reads = server.run(&peers, 1..=1);
    let (other, flooding) = reads[0].split_last().unwrap();
    assert!(*other >= RATE / READ - 1, "{reads:?}");
    let all: u32 = flooding.iter().sum();
    assert!(all <= RATE / READ + 50 * (UNCHARGED / READ + 1), "{all}");
}

#[test]
fn connections_of_one_client_get_equal_turns() {
    let server = Server::new();
    let mut peers: Vec<_> = (0..20).map(|_| (1, flood(None))).collect();
    peers.push((1, flood(None)));
    let reads = server.run(&peers, 1..=60);
    let last = reads.last().unwrap();
    assert!(last.iter().min().unwrap() * 2 > *last.iter().max().unwrap(), "{last:?}");
}

/// Each pause is longer than the time for a pong. The pong is there when the pause ends, and is read first.
#[test]
fn pause_is_not_the_silence_of_the_peer() {
    let server = Server::new();
    let peers: Vec<_> = (0..40).map(|_| (1, flood(None))).collect();
    let reads = server.run(&peers, 1..=60);
    for (_, peer) in &peers {
        assert_eq!(*peer.0.closed.borrow(), [], "{:?}", reads.last().unwrap());
    }
}

/// A socket whose peer does what a test says. Each event takes [`READ`] bytes, and fragments are work without an event.
#[derive(Clone, Default)]
struct ScriptedSocket(Rc<Script>);

#[derive(Default)]
struct Script {
    unread: RefCell<VecDeque<SocketEvent<String>>>,
    uncounted: Cell<u32>,
    is_paused: Cell<bool>,
    sent: RefCell<Vec<Frame>>,
    closed: RefCell<Vec<CloseReason>>,
}

impl ScriptedSocket {
    fn sends(&self, event: SocketEvent<String>) {
        self.0.unread.borrow_mut().push_back(event);
    }

    fn sends_fragments(&self, bytes: u32) {
        self.0.uncounted.set(self.0.uncounted.get() + bytes);
    }
}

impl MessageSocket for ScriptedSocket {
    type Text = String;

    fn poll(&mut self, read: bool, _: &mut Context<'_>) -> Poll<SocketEvent<String>> {
        if !read || self.0.is_paused.get() || !self.0.closed.borrow().is_empty() {
            return Poll::Pending;
        }
        let event = self.0.unread.borrow_mut().pop_front();
        event.map_or(Poll::Pending, |event| {
            self.sends_fragments(UNCHARGED);
            Poll::Ready(event)
        })
    }

    fn send(&mut self, frame: Frame) {
        self.0.sent.borrow_mut().push(frame);
    }

    fn close(&mut self, reason: CloseReason) {
        self.0.closed.borrow_mut().push(reason);
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn abort(&mut self) {}

    fn is_served(&self) -> bool {
        self.0.closed.borrow().is_empty()
    }

    fn has_unsent(&self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn take_work(&mut self) -> Work {
        Work::traffic(self.0.uncounted.take(), 0)
    }

    fn set_paused(&mut self, is_paused: bool) {
        self.0.is_paused.set(is_paused);
    }
}

/// Runs one connection. `act` gets what runs it at a time since its start.
fn run_scripted(socket: &ScriptedSocket, settings: &SessionSettings, act: impl FnOnce(&mut dyn FnMut(Duration))) {
    let server = Server::new();
    let registration = server.registry.register();
    let permit = server.limiter.acquire(Some(IpAddr::from([192, 0, 2, 1]))).unwrap();
    let context = Arc::clone(&server.context);
    let mut connection =
        Connection::new(&registration, socket.clone(), settings, Timestamp::default(), context, permit);
    let mut task = Box::pin(connection.run(Event::Connected));
    act(&mut |time| {
        server.clock.set(Timestamp::default() + time);
        for _ in 0..10 {
            assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
    });
}

fn sign_in() -> SocketEvent<String> {
    SocketEvent::Text(r#"{"type":"AUTHENTICATE","payload":"ada"}"#.into())
}

/// How long a client pauses after this many seconds' worth of work, and a little more.
fn pause_after(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds) - 1) + Duration::from_millis(10)
}

#[test]
fn pong_that_came_in_a_pause_counts() {
    let (socket, settings) = (ScriptedSocket::default(), SessionSettings::default());
    run_scripted(&socket, &settings, |run_at| {
        socket.sends(sign_in());
        run_at(Duration::ZERO);
        run_at(settings.ping_interval);
        assert_eq!(socket.0.sent.borrow().last(), Some(&Frame::Ping));
        // The pause is longer than the pong may take.
        socket.sends_fragments(RATE * 30);
        run_at(settings.ping_interval);
        assert!(socket.0.is_paused.get());
        socket.sends(SocketEvent::Alive);
        run_at(settings.ping_interval + pause_after(30));
        assert!(socket.0.unread.borrow().is_empty() && socket.0.is_paused.get(), "the next pause begins with the pong");
        assert_eq!(*socket.0.closed.borrow(), []);
    });
}

#[test]
fn sign_in_that_came_in_a_pause_counts() {
    let (socket, settings) = (ScriptedSocket::default(), SessionSettings::default());
    run_scripted(&socket, &settings, |run_at| {
        // As much as others at the same address may cause.
        socket.sends_fragments(RATE * 30);
        run_at(Duration::ZERO);
        socket.sends(sign_in());
        run_at(settings.auth_timeout);
        assert!(socket.0.is_paused.get());
        run_at(pause_after(30));
        assert!(matches!(socket.0.sent.borrow().last(), Some(Frame::Message(ServerMessage::AuthenticateSuccess(_)))));
        assert_eq!(*socket.0.closed.borrow(), []);
    });
}

#[test]
fn pauses_do_not_keep_a_silent_client() {
    let (socket, settings) = (ScriptedSocket::default(), SessionSettings::default());
    run_scripted(&socket, &settings, |run_at| {
        // Each second it is read it sends as much as it may, but never signs in.
        let mut now = Duration::ZERO;
        for _ in 0..settings.auth_timeout.as_secs() {
            run_at(now);
            assert!(socket.0.closed.borrow().is_empty() && !socket.0.is_paused.get());
            socket.sends_fragments(RATE * 2);
            run_at(now);
            assert!(socket.0.is_paused.get());
            now += pause_after(2) + Duration::from_secs(1);
        }
        run_at(now);
        assert_eq!(*socket.0.closed.borrow(), [CloseReason::NotAuthenticated]);
    });
}

/// While the socket pauses, it still writes.
#[test]
fn work_at_the_end_of_a_pause_causes_the_next() {
    let (socket, settings) = (ScriptedSocket::default(), SessionSettings::default());
    run_scripted(&socket, &settings, |run_at| {
        for second in [0, 29, 59] {
            socket.sends_fragments(RATE * 30);
            run_at(Duration::from_secs(second));
            assert!(socket.0.is_paused.get(), "at second {second}");
        }
    });
}

#[test]
fn work_after_each_pause_keeps_no_unauthenticated_client() {
    let (socket, settings) = (ScriptedSocket::default(), SessionSettings::default());
    run_scripted(&socket, &settings, |run_at| {
        // Whenever it is read again, it causes the next pause at once.
        for pauses in 0..=u64::from(Session::MAX_PUT_OFFS) {
            assert_eq!(*socket.0.closed.borrow(), []);
            socket.sends_fragments(RATE * 30);
            run_at(Duration::from_secs((30 * pauses).saturating_sub(1)));
            assert!(socket.0.is_paused.get());
        }
        run_at(Duration::from_secs(30 * u64::from(Session::MAX_PUT_OFFS + 1)));
        assert_eq!(*socket.0.closed.borrow(), [CloseReason::NotAuthenticated]);
    });
}

#[test]
fn pings_and_answers_count_like_bytes() {
    let server = Server::new();
    let reads = server.run(&[(1, flood(Some(r#"{"type":"CHECK_CONNECTIONS"}"#)))], 1..=1);
    // Each message counts as 1 KiB more than the read that brought it.
    let most = (RATE + UNCHARGED) / (READ + 1024) + 2;
    assert!(reads[0][0] <= most, "{reads:?}");
}
