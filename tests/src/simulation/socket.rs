//! A socket that is two queues, and the sockets whose clients were told that they are in.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use session_core::connection_limiter::Work;
use session_core::protocol::{CloseReason, ServerMessage};
use session_core::session::{Frame, Violation};
use session_core::{SessionId, Timestamp};
use shell::net::message_socket::{MessageSocket, SocketEvent};
use shell::runtime::clock::Clock;

use super::faulty_store::SharedStore;

/// One connection between a client and a server. Both ends are here; the server sees it as a [`MessageSocket`].
#[derive(Clone)]
pub(super) struct SimulatedSocket(Rc<RefCell<Inner>>);

struct Inner {
    clock: Clock,
    session: SessionId,
    told_sockets: Weak<ToldSockets>,
    /// What the client has sent and the server has not read.
    inbox: VecDeque<ClientInput>,
    /// What the server has buffered because the client takes no data.
    unsent: Vec<ServerOutput>,
    /// What the server has sent since the client last read.
    outbox: Vec<ServerOutput>,
    attention: Attention,
    /// The client has not disconnected.
    connected: bool,
    /// The server has sent AUTHENTICATE_SUCCESS, and no BYE_SUCCESS.
    is_told: bool,
    phase: Phase,
    /// The server does not read.
    is_paused: bool,
    /// How many events the server has read since it last asked for the work.
    uncounted: u32,
    waker: Option<Waker>,
    /// The time of the last poll, and the number of polls at that time.
    polls: (Timestamp, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing { until: Timestamp },
    Closed,
}

/// What a client does with what the server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    /// It reads and answers.
    Full,
    /// The data reaches its machine. It answers neither a ping nor a close.
    Silent,
    /// Its machine takes no data. The server's writes get stuck, and the server then reads nothing either.
    Stalled,
}

/// What a client sends.
#[derive(Debug)]
pub(super) enum ClientInput {
    Text(String),
    Alive,
    Violation(Violation),
}

/// What a client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerOutput {
    Reply(ServerMessage),
    Ping,
    Close(CloseReason),
}

impl ServerOutput {
    /// Whether a client that takes this believes that it is in. `None` if it believes what it believed before.
    fn says_that_client_is_in(&self) -> Option<bool> {
        match self {
            Self::Reply(ServerMessage::AuthenticateSuccess(_) | ServerMessage::AuthenticateSuccessDetailed(_)) => {
                Some(true)
            }
            Self::Reply(ServerMessage::ByeSuccess) => Some(false),
            Self::Reply(
                ServerMessage::Hello
                | ServerMessage::HelloDetailed(_)
                | ServerMessage::Pong
                | ServerMessage::EvictedDetailed(_)
                | ServerMessage::ErrorDetailed(_)
                | ServerMessage::AuthenticateFailure(_)
                | ServerMessage::AuthenticateFailureDetailed(_)
                | ServerMessage::CheckConnectionsSuccess(_)
                | ServerMessage::ListSessionsSuccess(_)
                | ServerMessage::AuthenticateWaiting(_)
                | ServerMessage::SessionsChanged(_)
                | ServerMessage::EndSessionSuccess(_)
                | ServerMessage::Evicted(_)
                | ServerMessage::Error(_),
            )
            | Self::Ping
            | Self::Close(_) => None,
        }
    }
}

impl SimulatedSocket {
    /// How long the server waits for the answer to its close.
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

    /// How many reads each event counts as.
    const READS: u32 = 8;

    /// Maximum polls of a socket at one time. A server that waits polls far less often.
    const MAX_POLLS: u32 = 10_000;

    pub(super) fn new(clock: Clock, session: SessionId, told_sockets: &Rc<ToldSockets>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            clock,
            session,
            told_sockets: Rc::downgrade(told_sockets),
            inbox: VecDeque::new(),
            unsent: Vec::new(),
            outbox: Vec::new(),
            attention: Attention::Full,
            connected: true,
            is_told: false,
            phase: Phase::Open,
            is_paused: false,
            uncounted: 0,
            waker: None,
            polls: (Timestamp::default(), 0),
        })))
    }

    /// Whether the server still reads from the client.
    pub(super) fn is_open(&self) -> bool {
        let inner = self.0.borrow();
        inner.connected && inner.phase == Phase::Open
    }

    pub(super) fn send(&self, sent: ClientInput) {
        self.0.borrow_mut().inbox.push_back(sent);
        self.wake();
    }

    /// The client disconnects. Its unread messages are lost.
    pub(super) fn lose(&self) {
        {
            let mut inner = self.0.borrow_mut();
            inner.connected = false;
            inner.inbox.clear();
        }
        self.wake();
    }

    pub(super) fn set_attention(&self, attention: Attention) {
        self.0.borrow_mut().attention = attention;
        self.wake();
    }

    pub(super) fn is_attentive(&self) -> bool {
        self.0.borrow().attention == Attention::Full
    }

    /// Whether the client was told that it is in, and is served: no close frame was written, the socket is not gone, and the
    /// client has not said BYE.
    fn is_told_and_served(&self) -> bool {
        let inner = self.0.borrow();
        inner.is_told && inner.connected && inner.is_served()
    }

    /// What the server has sent, in order.
    pub(super) fn take_output(&self) -> Vec<ServerOutput> {
        mem::take(&mut self.0.borrow_mut().outbox)
    }

    fn wake(&self) {
        let waker = self.0.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Inner {
    fn count_poll(&mut self) {
        let now = self.clock.now();
        let polls = if self.polls.0 == now { self.polls.1 + 1 } else { 1 };
        assert!(polls <= SimulatedSocket::MAX_POLLS, "a connection polls without end");
        self.polls = (now, polls);
    }

    /// Whether everything is sent.
    fn flush(&mut self) -> bool {
        match self.attention {
            Attention::Full | Attention::Silent => self.outbox.append(&mut self.unsent),
            Attention::Stalled => {}
        }
        self.unsent.is_empty()
    }

    fn is_served(&self) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Closing { .. } => !self.unsent.is_empty(),
            Phase::Closed => false,
        }
    }
}

/// The sockets whose clients were told that they are in.
pub(super) struct ToldSockets {
    store: Arc<SharedStore>,
    sockets: RefCell<BTreeMap<SessionId, SimulatedSocket>>,
    /// How many sockets were cut whose clients still believed that they were in.
    pub(super) cut: Cell<u64>,
    /// How many pauses began while the client was in.
    pub(super) pauses: Cell<u64>,
    /// Every socket that was paused, also of clients that have left meanwhile.
    paused: RefCell<Vec<Weak<RefCell<Inner>>>>,
}

impl ToldSockets {
    pub(super) fn new(store: Arc<SharedStore>) -> Self {
        Self { store, sockets: RefCell::default(), cut: Cell::new(0), pauses: Cell::new(0), paused: RefCell::default() }
    }

    /// Whether a server does not read from a socket now, because its client has caused too much work.
    pub(super) fn is_any_paused(&self) -> bool {
        let mut paused = self.paused.borrow_mut();
        paused.retain(|socket| socket.upgrade().is_some_and(|socket| socket.borrow().is_paused));
        !paused.is_empty()
    }

    /// The server tells this client that it is in.
    fn tell(&self, session: SessionId, socket: SimulatedSocket) {
        self.sockets.borrow_mut().insert(session, socket);
        self.check();
    }

    /// Checks the clients that are in, for each server alone: servers do not know yet who is leaving elsewhere.
    pub(super) fn check(&self) {
        let mut sockets = self.sockets.borrow_mut();
        sockets.retain(|_, socket| socket.is_told_and_served());
        let mut sessions: Vec<_> = sockets.keys().copied().collect();
        while let Some(node) = sessions.first().map(|session| session.node()) {
            let of_others = sessions.split_off(sessions.partition_point(|session| session.node() == node));
            self.store.check_told(mem::replace(&mut sessions, of_others));
        }
    }
}

impl MessageSocket for SimulatedSocket {
    type Text = String;

    fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<SocketEvent<String>> {
        let mut inner = self.0.borrow_mut();
        inner.waker = Some(cx.waker().clone());
        inner.count_poll();
        if inner.phase == Phase::Closed {
            return Poll::Pending;
        }
        let is_flushed = inner.connected && inner.flush();
        if inner.is_paused && inner.connected && (is_flushed || inner.unsent.is_empty()) {
            return Poll::Pending;
        }
        let over = match inner.phase {
            Phase::Open => !inner.connected,
            Phase::Closing { .. } | Phase::Closed => !inner.connected || inner.attention == Attention::Full,
        };
        if over {
            inner.phase = Phase::Closed;
            return Poll::Ready(SocketEvent::Gone);
        }
        if !is_flushed {
            return Poll::Pending;
        }
        if inner.phase != Phase::Open || !read {
            return Poll::Pending;
        }
        inner.uncounted += u32::from(!inner.inbox.is_empty());
        match inner.inbox.pop_front() {
            Some(ClientInput::Text(text)) => Poll::Ready(SocketEvent::Text(text)),
            Some(ClientInput::Alive) => Poll::Ready(SocketEvent::Alive),
            Some(ClientInput::Violation(violation)) => Poll::Ready(SocketEvent::Violation(violation)),
            None => Poll::Pending,
        }
    }

    fn send(&mut self, frame: Frame) {
        let mut inner = self.0.borrow_mut();
        assert_eq!(inner.phase, Phase::Open, "{frame:?} is sent after a close");
        let output = match frame {
            Frame::Message(reply) => ServerOutput::Reply(reply),
            Frame::Ping => ServerOutput::Ping,
        };
        let tells = output.says_that_client_is_in();
        inner.is_told = tells.unwrap_or(inner.is_told);
        inner.unsent.push(output);
        let (session, told_sockets) = (inner.session, inner.told_sockets.upgrade());
        drop(inner);
        if let Some(told_sockets) = told_sockets.filter(|_| tells == Some(true)) {
            told_sockets.tell(session, self.clone());
        }
    }

    fn close(&mut self, reason: CloseReason) {
        let mut inner = self.0.borrow_mut();
        if inner.phase == Phase::Open {
            inner.unsent.push(ServerOutput::Close(reason));
            inner.phase = Phase::Closing { until: inner.clock.now() + Self::CLOSE_TIMEOUT };
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        match self.0.borrow().phase {
            Phase::Closing { until } => Some(until),
            Phase::Open | Phase::Closed => None,
        }
    }

    fn abort(&mut self) {
        let told_sockets = self.0.borrow().told_sockets.upgrade();
        if let Some(told_sockets) = told_sockets.filter(|_| self.is_told_and_served()) {
            told_sockets.cut.set(told_sockets.cut.get() + 1);
        }
        self.0.borrow_mut().phase = Phase::Closed;
    }

    fn is_served(&self) -> bool {
        self.0.borrow().is_served()
    }

    fn is_closed(&self) -> bool {
        self.0.borrow().phase == Phase::Closed
    }

    fn has_unsent(&self) -> bool {
        !self.0.borrow().unsent.is_empty()
    }

    fn take_work(&mut self) -> Work {
        Work::traffic(0, mem::take(&mut self.0.borrow_mut().uncounted) * Self::READS)
    }

    fn set_paused(&mut self, is_paused: bool) {
        let told_sockets = self.0.borrow().told_sockets.upgrade();
        if let Some(told_sockets) = told_sockets.filter(|_| is_paused) {
            told_sockets.paused.borrow_mut().push(Rc::downgrade(&self.0));
            told_sockets.pauses.set(told_sockets.pauses.get() + u64::from(self.is_told_and_served()));
        }
        self.0.borrow_mut().is_paused = is_paused;
    }
}
