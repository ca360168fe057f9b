//! One connection: the only place that sees both the session and its socket.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use session_core::{Actions, Command, Event, Outcome, Reply, Session, Time};
use smol::Timer;

use crate::authenticator::authenticate;
use crate::clock::Clock;
use crate::custody::Claim;
use crate::log::Refusals;
use crate::mailbox::{Mail, Mailbox};
use crate::socket::{Incoming, Socket};

/// Drives a session over its socket until both have ended.
pub(crate) struct Connection {
    pub(crate) session: Session,
    pub(crate) socket: Socket,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) claim: Claim,
    pub(crate) clock: Clock,
    pub(crate) refusals: Arc<Refusals>,
}

/// Why a connection wakes.
enum Wake {
    Mail(Mail),
    Peer(Incoming),
    Deadline,
}

impl Connection {
    pub(crate) async fn run(mut self) {
        let mut alarm = Alarm::new(self.clock);
        // A message that came while the session was busy. No other is read until it is handled.
        let mut waiting: Option<Utf8Bytes> = None;
        self.handle(Event::Connected);
        while !(self.session.is_drained() && self.socket.is_closed()) {
            if !self.session.is_busy()
                && let Some(text) = waiting.take()
            {
                self.handle(Event::Text(&text));
                continue;
            }
            let deadline = self.deadline();
            let wake = poll_fn(|cx| self.poll(waiting.is_none(), deadline, &mut alarm, cx)).await;
            match wake {
                Wake::Mail(Mail::Draining) => self.handle(Event::Draining),
                Wake::Mail(Mail::Stored(outcome)) => self.answered(outcome),
                Wake::Peer(Incoming::Text(text)) if self.session.is_busy() => waiting = Some(text),
                Wake::Peer(Incoming::Text(text)) => self.handle(Event::Text(&text)),
                Wake::Peer(Incoming::Alive) => self.handle(Event::Alive),
                Wake::Peer(Incoming::Violation(violation)) => self.handle(Event::Violation(violation)),
                Wake::Peer(Incoming::Gone) => self.handle(Event::Disconnected),
                Wake::Deadline => self.deadline_passed(),
            }
        }
    }

    /// What the process has to say comes first, the clock last: a peer that has answered in time is not silent, even if
    /// this task, or the whole process, was not running when the answer came.
    fn poll(&mut self, read: bool, deadline: Option<Time>, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(mail) = self.mailbox.poll(cx) {
            return Poll::Ready(Wake::Mail(mail));
        }
        if let Poll::Ready(incoming) = self.socket.poll(read, cx) {
            return Poll::Ready(Wake::Peer(incoming));
        }
        alarm.poll(deadline, cx).map(|()| Wake::Deadline)
    }

    fn deadline(&self) -> Option<Time> {
        [self.session.deadline(), self.socket.deadline(), self.claim.until()].into_iter().flatten().min()
    }

    fn deadline_passed(&mut self) {
        let now = self.clock.now();
        if self.claim.until().is_some_and(|until| until <= now) && self.claim.give_up() {
            self.handle(Event::Stored(Outcome::Unknown));
        }
        self.handle(Event::Tick);
        if self.socket.deadline().is_some_and(|until| until <= now) {
            self.socket.cut();
        }
    }

    fn answered(&mut self, outcome: Outcome) {
        self.claim.answered(outcome);
        self.handle(Event::Stored(outcome));
    }

    /// Tells the session what happened and carries out what it decides: submit, send, close.
    fn handle(&mut self, event: Event<'_>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let now = self.clock.now();
            let Actions { command, send, close } = self.session.handle(event, now);
            match command {
                Some(Command::Verify(credential)) => next = Some(Event::Verified(authenticate(&credential))),
                Some(Command::Store(command)) => self.claim.submit(command),
                None => {}
            }
            if let Some(frame) = send {
                if let session_core::Frame::Reply(Reply::AuthenticateFailure(refusal)) = &frame {
                    self.refusals.note(refusal);
                }
                self.socket.send(frame);
            }
            if let Some(reason) = close {
                tracing::debug!(session = %self.session.id(), %reason, "closing");
                self.socket.close(reason);
            }
        }
    }
}

/// One timer for all of a connection's deadlines.
///
/// Deadlines move with every message, mostly to later, so the timer is left where it is and looks again when it goes
/// off: a busy connection does not touch the process's timer queue at all.
struct Alarm {
    clock: Clock,
    timer: Timer,
    set_to: Option<Time>,
}

impl Alarm {
    fn new(clock: Clock) -> Self {
        Self { clock, timer: Timer::never(), set_to: None }
    }

    /// Ready when `deadline` has passed, and perhaps before.
    fn poll(&mut self, deadline: Option<Time>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if self.set_to.is_none_or(|set_to| deadline < set_to) {
            self.timer.set_at(self.clock.instant(deadline));
            self.set_to = Some(deadline);
        }
        Pin::new(&mut self.timer).poll(cx).map(|_| self.set_to = None)
    }
}
