//! One connection: the only place that sees both the session and its socket.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use session_core::ledger::Outcome;
use session_core::protocol::{AuthenticateFailure, Credential, CredentialError, ServerMessage};
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings};
use session_core::{ResumeToken, Timestamp};

use crate::auth::Authenticator;
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::message_socket::{MessageSocket, SocketEvent};
use crate::runtime::clock::Clock;
use crate::runtime::deadline_timer::DeadlineTimer;
use crate::server::mailbox::{Mailbox, Notification};
use crate::server::refusal_log::RefusalLog;
use crate::server::registry::Registration;
use crate::server::slot_guard::SlotGuard;
use crate::server::store_client::StoreClient;

/// What a connection asks of the process, for all of them one.
pub struct ConnectionContext {
    /// The way to the store.
    pub store_client: Arc<StoreClient>,
    /// Who says whom a credential belongs to.
    pub authenticator: Box<dyn Authenticator>,
    /// Draws what a slot can be taken up with again. `None` where the system has no randomness: then it cannot.
    pub new_resume_token: Box<dyn Fn() -> Option<ResumeToken> + Send + Sync>,
    /// Where refusals are logged.
    pub refusal_log: RefusalLog,
}

impl ConnectionContext {
    fn verify(&self, credential: &Credential) -> Result<Identity, CredentialError> {
        let verdict = self.authenticator.authenticate(credential);
        if let Err(error) = verdict {
            self.refusal_log.log_credential_error(error);
        }
        let wants_more = matches!(credential, Credential::User(_) | Credential::Token(_));
        verdict.map(|identity| Identity {
            resume_token: if wants_more { (self.new_resume_token)() } else { None },
            ..identity
        })
    }
}

/// Drives a session over its socket until both have ended.
pub struct Connection<W: MessageSocket> {
    session: Session,
    socket: W,
    mailbox: Arc<Mailbox>,
    slot: SlotGuard,
    clock: Clock,
    context: Arc<ConnectionContext>,
    permit: ConnectionPermit,
    /// While the store has a question, and is not late: when the peer is listened to again.
    read_again_at: Option<Timestamp>,
}

/// How long nothing is read while the store has a question. Mostly its answer comes sooner, and to look whether the
/// peer has left meanwhile, and to ask to be told, are two system calls.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection wakes.
enum Wake<Text> {
    Notification(Notification),
    Peer(SocketEvent<Text>),
    Deadline,
}

impl<W: MessageSocket> Connection<W> {
    /// A connection that has been open since `accepted`, which is when its time to authenticate began.
    pub fn new(
        entry: &Registration,
        socket: W,
        limits: &SessionSettings,
        accepted: Timestamp,
        context: Arc<ConnectionContext>,
        permit: ConnectionPermit,
    ) -> Self {
        let mailbox = Arc::clone(entry.mailbox());
        let clock = context.store_client.clock().clone();
        let claim = SlotGuard::new(Arc::clone(&context.store_client), Arc::clone(&mailbox), entry.id());
        let session = Session::new(entry.id(), limits, accepted);
        Self { session, socket, mailbox, slot: claim, clock, context, permit, read_again_at: None }
    }

    /// Runs to the end.
    ///
    /// Not by value: a future keeps its arguments twice, and this is what an idle session is made of.
    pub async fn run(&mut self) {
        let mut timer = DeadlineTimer::new(self.clock.clone());
        // A message, until the session is not busy. No other is read until it is handled.
        let mut waiting: Option<W::Text> = None;
        self.handle(Event::Connected);
        while !(self.session.is_finished() && self.socket.is_closed()) {
            if !self.session.is_busy()
                && let Some(text) = waiting.take()
            {
                self.handle(Event::Text(&text));
                continue;
            }
            let wake = poll_fn(|cx| self.poll(waiting.is_none() && self.read_again_at.is_none(), &mut timer, cx)).await;
            match wake {
                Wake::Notification(Notification::Draining) => self.handle(Event::Draining),
                Wake::Notification(Notification::Ended(ending)) => self.handle(Event::Ended(ending)),
                Wake::Notification(Notification::Stored(outcome)) => self.answered(outcome),
                Wake::Peer(SocketEvent::Text(text)) => waiting = Some(text),
                Wake::Peer(SocketEvent::Alive) => self.handle(Event::Alive),
                Wake::Peer(SocketEvent::Violation(violation)) => self.handle(Event::Violation(violation)),
                Wake::Peer(SocketEvent::Gone) => self.handle(Event::Disconnected),
                Wake::Deadline => self.deadline_passed(),
            }
        }
    }

    /// What the process has to say comes first, the clock last: a peer that has answered in time is not silent, even if
    /// this task, or the whole process, was not running when the answer came.
    fn poll(&mut self, read: bool, timer: &mut DeadlineTimer, cx: &mut Context<'_>) -> Poll<Wake<W::Text>> {
        if let Poll::Ready(notification) = self.mailbox.poll(cx) {
            return Poll::Ready(Wake::Notification(notification));
        }
        if let Poll::Ready(incoming) = self.socket.poll(read, cx) {
            return Poll::Ready(Wake::Peer(incoming));
        }
        // Now, and not when the wait began: the wall clock may have been corrected since.
        timer.poll(self.deadline(), cx).map(|()| Wake::Deadline)
    }

    fn deadline(&self) -> Option<Timestamp> {
        let expiry = self.session.expires_at().map(|unix_seconds| self.clock.time_of(unix_seconds));
        [self.session.deadline(), self.socket.deadline(), self.slot.deadline(), self.read_again_at, expiry]
            .into_iter()
            .flatten()
            .min()
    }

    fn deadline_passed(&mut self) {
        let now = self.clock.now();
        self.read_again_at = self.read_again_at.filter(|&at| now < at);
        if self.slot.deadline().is_some_and(|until| until <= now) && self.slot.expire() {
            self.answered(Outcome::Unknown);
        }
        if self.session.expires_at().is_some_and(|unix_seconds| self.clock.has_passed(unix_seconds)) {
            self.handle(Event::Expired);
        }
        self.handle(Event::Tick);
        if self.socket.deadline().is_some_and(|until| until <= now) {
            self.socket.abort();
        }
    }

    fn answered(&mut self, outcome: Outcome) {
        self.read_again_at = None;
        if let Some(user) = self.slot.answered(&outcome) {
            self.context.refusal_log.log_outcome(&user, &outcome);
        }
        if matches!(outcome, Outcome::Granted { .. }) {
            self.permit.authenticated();
        }
        self.handle(Event::Stored(outcome));
    }

    /// Tells the session what happened and carries out what it decides: submit, send, close.
    fn handle(&mut self, event: Event<'_>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let now = self.clock.now();
            let Actions { effect: command, send, close } = self.session.handle(event, now);
            match command {
                Some(Effect::Verify(credential)) => {
                    next = Some(Event::Verified(self.context.verify(&credential)));
                }
                Some(Effect::Store(command)) => {
                    self.slot.submit(command);
                    self.read_again_at = self.slot.deadline().map(|_| now + READ_PAUSE);
                }
                None => {}
            }
            if let Some(frame) = send {
                if frame == Frame::Message(ServerMessage::AuthenticateFailure(AuthenticateFailure::AnotherUser)) {
                    self.context.refusal_log.log_another_user();
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
