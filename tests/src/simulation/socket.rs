//! A socket that is two queues.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use session_core::Timestamp;
use session_core::protocol::{CloseReason, ServerMessage};
use session_core::session::{Frame, Violation};
use shell::net::message_socket::{MessageSocket, SocketEvent};
use shell::runtime::clock::Clock;

/// One connection between a client and a server. Both ends are here; the server sees it as a [`MessageSocket`].
#[derive(Clone)]
pub(super) struct SimulatedSocket(Rc<RefCell<Inner>>);

struct Inner {
    clock: Clock,
    /// What the client has sent and the server has not read.
    inbox: VecDeque<ClientInput>,
    /// What the server has sent since the client last read.
    outbox: Vec<ServerOutput>,
    /// The client reads and answers a close. Otherwise the server's writes get stuck.
    attentive: bool,
    /// The client has not disconnected.
    connected: bool,
    stuck: bool,
    phase: Phase,
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

impl SimulatedSocket {
    /// How long the server waits for the answer to its close.
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

    /// Maximum polls of a socket at one time. A server that waits polls far less often.
    const MAX_POLLS: u32 = 10_000;

    pub(super) fn new(clock: Clock) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            clock,
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            attentive: true,
            connected: true,
            stuck: false,
            phase: Phase::Open,
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

    pub(super) fn set_attentive(&self, attentive: bool) {
        self.0.borrow_mut().attentive = attentive;
        self.wake();
    }

    pub(super) fn is_attentive(&self) -> bool {
        self.0.borrow().attentive
    }

    /// What the server has sent, in order.
    pub(super) fn take_output(&self) -> Vec<ServerOutput> {
        std::mem::take(&mut self.0.borrow_mut().outbox)
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
}

impl MessageSocket for SimulatedSocket {
    type Text = String;

    fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<SocketEvent<String>> {
        let mut inner = self.0.borrow_mut();
        inner.waker = Some(cx.waker().clone());
        inner.count_poll();
        let over = match inner.phase {
            Phase::Closed => return Poll::Pending,
            Phase::Open => !inner.connected,
            Phase::Closing { .. } => !inner.connected || inner.attentive,
        };
        if over {
            inner.phase = Phase::Closed;
            return Poll::Ready(SocketEvent::Gone);
        }
        if inner.stuck && !inner.attentive {
            return Poll::Pending;
        }
        inner.stuck = false;
        if inner.phase != Phase::Open || !read {
            return Poll::Pending;
        }
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
        inner.stuck = true;
        inner.outbox.push(match frame {
            Frame::Message(reply) => ServerOutput::Reply(reply),
            Frame::Ping => ServerOutput::Ping,
        });
    }

    fn close(&mut self, reason: CloseReason) {
        let mut inner = self.0.borrow_mut();
        if inner.phase == Phase::Open {
            inner.outbox.push(ServerOutput::Close(reason));
            inner.stuck = true;
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
        self.0.borrow_mut().phase = Phase::Closed;
    }

    fn is_closed(&self) -> bool {
        self.0.borrow().phase == Phase::Closed
    }
}
