//! One connection: it passes events from the socket, the mailbox and the clock to its [`Session`], and carries out what the
//! session decides. No other file knows both the session and its socket.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use session_core::connection_limiter::{ClientPrefix, Work};
use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{Outcome, RenewalDenied, StoreCommand, StoreError};
use session_core::protocol::{AuthenticateFailure, Credential, CredentialError, ServerMessage};
use session_core::session::{Actions, Effect, Event, Frame, Identity, Session, SessionSettings, Violation};
use session_core::{ResumeToken, Timestamp};
use smol::future::FutureExt as _;

use crate::auth::{Authenticator, InvalidCredential};
use crate::net::connection_limiter::ConnectionPermit;
use crate::net::message_socket::{MessageSocket, SocketEvent};
use crate::runtime::clock::Clock;
use crate::runtime::deadline_timer::DeadlineTimer;
use crate::runtime::fair_turns::FairTurns;
use crate::server::mailbox::{Mailbox, Notification};
use crate::server::registry::Registration;
use crate::server::session_log::{SessionLog, Subject};
use crate::server::slot_guard::SlotGuard;
use crate::server::store_client::StoreClient;

/// What all connections of the process share.
pub struct ConnectionContext {
    /// Submits the session's commands to the store.
    pub store_client: Arc<StoreClient>,
    /// Verifies credentials.
    pub authenticator: Box<dyn Authenticator>,
    /// The turns in which it verifies them, if that is expensive.
    pub turns: Arc<FairTurns>,
    /// Creates a random resume token. `None` if the system has no randomness: then the session cannot be resumed.
    pub new_resume_token: Box<dyn Fn() -> Option<ResumeToken> + Send + Sync>,
    /// Logs what happens to sessions.
    pub session_log: SessionLog,
}

impl ConnectionContext {
    fn verify(&self, credential: &Credential) -> Result<Identity, InvalidCredential> {
        let is_detailed = matches!(credential, Credential::User(_) | Credential::Token(_));
        let identity = self.authenticator.authenticate(credential)?;
        let resume_token = if is_detailed { (self.new_resume_token)() } else { None };
        Ok(Identity { resume_token, ..identity })
    }

    /// The event for the session, and a line in the log if the credential is refused.
    fn verified(&self, result: Result<Identity, InvalidCredential>, subject: Subject) -> Event<'static> {
        Event::Verified(match result {
            Ok(identity) => Ok(identity),
            Err(InvalidCredential { error, .. }) if self.authenticator.is_undecided(error) => {
                self.session_log.credential_undecided(subject);
                return Event::VerifyTimedOut;
            }
            Err(invalid) => {
                self.session_log.credential_refused(subject, &invalid);
                Err(invalid.error)
            }
        })
    }
}

/// The check of a credential that waits for its turn, or is under way on another thread. It returns the session's event.
type Verification = Pin<Box<dyn Future<Output = Event<'static>> + Send>>;

/// A check that has not ended within the timeout of the store is given up. If its turn has not come by then, it never does.
///
/// A credential that was signed with an unknown key may wait for newer keys, and is then checked once more. It has no turn while
/// it waits, so it holds up no other check.
async fn verify_in_turn(
    context: Arc<ConnectionContext>,
    client: ClientPrefix,
    subject: Subject,
    credential: Credential,
) -> Event<'static> {
    let clock = context.store_client.clock();
    let until = clock.now() + context.store_client.timeout();
    let timeout = clock.wait_until(until);
    let check = async {
        let version = context.authenticator.keys_version();
        let (mut result, credential) = verify_once(&context, client, credential).await;
        if let Err(invalid) = &result
            && let Some(newer_keys) = context.authenticator.newer_keys(invalid.error, version, until)
        {
            newer_keys.await;
            (result, _) = verify_once(&context, client, credential).await;
        }
        context.verified(result, subject)
    };
    check
        .or(async {
            timeout.await;
            context.session_log.credential_not_checked(subject);
            Event::VerifyTimedOut
        })
        .await
}

/// Waits for a turn, and returns the credential with the result.
async fn verify_once(
    context: &Arc<ConnectionContext>,
    client: ClientPrefix,
    credential: Credential,
) -> (Result<Identity, InvalidCredential>, Credential) {
    let turn = context.turns.turn(client).await;
    let context = Arc::clone(context);
    turn.run(move || (context.verify(&credential), credential)).await
}

/// Drives a session and its socket until both have ended.
pub struct Connection<S: MessageSocket> {
    session: Session,
    socket: S,
    mailbox: Arc<Mailbox>,
    slot: SlotGuard,
    clock: Clock,
    context: Arc<ConnectionContext>,
    permit: ConnectionPermit,
    /// When the connection reads from the socket again. Set while a store command is pending.
    read_again_at: Option<Timestamp>,
    /// When to cut the socket if its peer has not been told by then that the session lost its slot.
    cut_at: Option<Timestamp>,
    /// When the connection reads again after its client caused more work than it may.
    paused_until: Option<Timestamp>,
    /// As `paused_until`, from the charge until the connection has handled what it read before it.
    next_pause: Option<Timestamp>,
    verification: Option<Verification>,
    /// How often the client was denied a slot since the last grant.
    denials: u8,
}

/// How long the connection does not read while a store command is pending. Usually the outcome comes sooner, and this
/// saves two system calls: a read that finds nothing, and a registration for the next one.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// How often a connection that pauses looks whether the peer has ended it. A lost connection gives its slot back this soon,
/// even if the pause is long.
const PAUSE_LOOK: Duration = Duration::from_secs(1);

/// Why a connection's task wakes.
enum Wake<Text> {
    Notification(Notification),
    Verified(Event<'static>),
    Peer(SocketEvent<Text>),
    Deadline,
}

impl<S: MessageSocket> Connection<S> {
    /// A connection that was accepted at `accepted`, when its time to authenticate began.
    pub fn new(
        registration: &Registration,
        socket: S,
        settings: &SessionSettings,
        accepted: Timestamp,
        context: Arc<ConnectionContext>,
        permit: ConnectionPermit,
    ) -> Self {
        let mailbox = Arc::clone(registration.mailbox());
        let clock = context.store_client.clock().clone();
        let slot = SlotGuard::new(Arc::clone(&context.store_client), Arc::clone(&mailbox), registration.id());
        let session = Session::new(registration.id(), settings, accepted);
        Self {
            session,
            socket,
            mailbox,
            slot,
            clock,
            context,
            permit,
            read_again_at: None,
            cut_at: None,
            paused_until: None,
            next_pause: None,
            verification: None,
            denials: 0,
        }
    }

    /// Runs until the session has finished and the socket is closed. `connected` is the session's first event.
    ///
    /// Takes `&mut self`, not `self`: a future stores an argument twice, and `self` is most of an idle session's memory.
    pub async fn run(&mut self, connected: Event<'_>) {
        let mut timer = DeadlineTimer::new(self.clock.clone());
        // A message that waits while the session is busy. The socket reads no further message until it is handled.
        let mut unhandled: Option<S::Text> = None;
        self.handle(connected);
        while !(self.session.is_finished() && self.socket.is_closed()) {
            if !self.session.is_busy()
                && let Some(text) = unhandled.take()
            {
                self.handle(Event::Text(&text));
                continue;
            }
            let wake =
                poll_fn(|cx| self.poll(unhandled.is_none() && self.read_again_at.is_none(), &mut timer, cx)).await;
            match wake {
                Wake::Notification(Notification::Draining) => self.handle(Event::Draining),
                Wake::Notification(Notification::Cut) => self.cut(),
                Wake::Notification(Notification::Ended(reason)) => {
                    self.slot.ended();
                    self.cut_at.get_or_insert(self.clock.now() + LeavingTracker::CUT_AFTER);
                    self.context.session_log.evicted(self.subject(), self.slot.user(), &reason);
                    self.handle(Event::Ended(reason));
                }
                Wake::Notification(Notification::Stored(outcome)) => self.handle_outcome(outcome),
                Wake::Notification(Notification::Hinted(hint)) => self.handle(Event::Hinted(hint)),
                Wake::Verified(event) => self.handle(event),
                Wake::Peer(SocketEvent::Text(text)) => unhandled = Some(text),
                Wake::Peer(SocketEvent::Alive) => self.handle(Event::Alive),
                Wake::Peer(SocketEvent::Violation(violation)) => self.handle(Event::Violation(violation)),
                Wake::Peer(SocketEvent::TooBig(size)) => {
                    self.context.session_log.message_too_big(self.subject(), size);
                    self.handle(Event::Violation(Violation::MessageTooBig));
                }
                Wake::Peer(SocketEvent::Gone) => {
                    if let Some(user) = self.slot.user() {
                        self.context.session_log.lost(self.subject(), user);
                    }
                    self.slot.gone();
                    self.handle(Event::Disconnected);
                }
                Wake::Deadline => self.deadline_passed(),
            }
        }
    }

    /// Polls the mailbox first and the clock last. A peer that answered a ping in time is not silent, even if this task, or
    /// the whole process, was not running when the answer came.
    fn poll(&mut self, read: bool, timer: &mut DeadlineTimer, cx: &mut Context<'_>) -> Poll<Wake<S::Text>> {
        if let Some(until) = self.next_pause.take() {
            self.begin_pause(until);
        }
        if let Poll::Ready(notification) = self.mailbox.poll(cx) {
            return Poll::Ready(Wake::Notification(notification));
        }
        if !self.slot.is_gone() && !self.slot.may_serve() {
            return Poll::Ready(Wake::Notification(Notification::Cut));
        }
        if let Some(verification) = &mut self.verification
            && let Poll::Ready(event) = verification.as_mut().poll(cx)
        {
            self.verification = None;
            return Poll::Ready(Wake::Verified(event));
        }
        let event = self.socket.poll(read, cx);
        if !self.socket.is_served() && !self.slot.is_gone() {
            self.slot.gone();
        }
        self.session.set_congested(self.is_congested());
        let mut work = self.socket.take_work();
        if event.is_ready() {
            work += Work::message();
        }
        self.charge(work);
        if let Poll::Ready(event) = event {
            return Poll::Ready(Wake::Peer(event));
        }
        if self.next_pause.is_some() {
            cx.waker().wake_by_ref();
        }
        // The deadline is computed in each poll, because the wall clock may have been corrected meanwhile.
        timer.poll(self.deadline(), cx).map(|()| Wake::Deadline)
    }

    /// Charges the client for work. If it has caused more than it may, the connection reads nothing more, and pauses as soon
    /// as it has handled what it has read.
    fn charge(&mut self, work: Work) {
        if let Some(until) = self.permit.charge(work) {
            self.next_pause = Some(until);
            self.socket.set_paused(true);
        }
    }

    /// During the pause the connection does not hear the peer, so silence does not count. Until now it does.
    fn begin_pause(&mut self, until: Timestamp) {
        let now = self.clock.now();
        if self.paused_until.is_none() {
            self.handle(Event::Tick);
        }
        self.session.put_off_deadline(until.since(self.paused_until.map_or(now, |before| before.max(now))));
        self.paused_until = Some(until);
        // Since the charge an earlier pause may have ended.
        self.socket.set_paused(true);
    }

    /// Whether the session should do nothing that its client does not wait for.
    fn is_congested(&self) -> bool {
        self.socket.has_unsent() || self.paused_until.is_some()
    }

    fn deadline(&self) -> Option<Timestamp> {
        let expiry = self.session.expires_at().map(|unix_seconds| self.clock.time_of(unix_seconds));
        // The session's deadline waits for the end of a pause.
        let session = self.session.deadline().max(self.paused_until);
        let paused = self.paused_until.map(|until| until.min(self.clock.now() + PAUSE_LOOK));
        let reading = [self.read_again_at, paused].into_iter().flatten().min();
        let cut_at = self.cut_at.filter(|_| !self.slot.is_gone());
        [session, self.socket.deadline(), self.slot.deadline(), reading, cut_at, expiry].into_iter().flatten().min()
    }

    fn deadline_passed(&mut self) {
        let now = self.clock.now();
        self.read_again_at = self.read_again_at.filter(|&at| now < at);
        let is_paused = self.paused_until.is_some();
        if self.paused_until.take_if(|until| *until <= now).is_some() {
            self.socket.set_paused(false);
        }
        if self.slot.deadline().is_some_and(|until| until <= now) && self.slot.end_wait() {
            self.handle_outcome(Outcome::Unknown);
        }
        if self.session.expires_at().is_some_and(|unix_seconds| self.clock.has_passed(unix_seconds)) {
            self.handle(Event::Expired);
        }
        // After a pause the socket is read first: the peer may have answered meanwhile.
        if !is_paused {
            self.handle(Event::Tick);
        }
        let is_over = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if is_over(self.socket.deadline()) || is_over(self.cut_at) && !self.slot.is_gone() {
            self.cut();
        }
    }

    /// Ends the connection at once and without a word.
    fn cut(&mut self) {
        self.socket.abort();
        self.slot.gone();
        self.handle(Event::Disconnected);
    }

    fn handle_outcome(&mut self, outcome: Outcome) {
        self.read_again_at = None;
        let is_void = matches!(outcome, Outcome::Granted { .. }) && !self.slot.tell();
        let outcome = if is_void { Outcome::Rejected(StoreError::Failed) } else { outcome };
        let refused = self.slot.answered(&outcome);
        self.charge_outcome(&outcome);
        let is_granted = matches!(outcome, Outcome::Granted { .. });
        if is_granted || matches!(outcome, Outcome::Waiting(_)) {
            self.permit.authenticated();
            self.socket.set_authenticated();
        }
        if let Some(user) = refused.as_ref().or(self.slot.user().filter(|_| is_granted)) {
            self.context.session_log.acquire_answered(self.subject(), user, &outcome);
        }
        if let Outcome::NotRenewed(denied) = outcome {
            let failure = match denied {
                RenewalDenied::Banned => AuthenticateFailure::Banned,
                RenewalDenied::AnotherDevice => AuthenticateFailure::AnotherDevice,
            };
            self.context.session_log.renewal_refused(self.subject(), self.slot.user(), &failure);
        }
        let expiry = self.session.expires_at().filter(|_| matches!(outcome, Outcome::Counted { .. }));
        self.handle(Event::Stored(outcome));
        if expiry.is_some_and(|before| self.session.expires_at().is_some_and(|now| now != before)) {
            self.context.session_log.renewed(self.subject(), self.slot.user());
        }
    }

    /// Counts what the store did. Denials get dearer until there is a grant.
    fn charge_outcome(&mut self, outcome: &Outcome) {
        let mut work = Work::slots(outcome.slots().unwrap_or(0));
        match outcome {
            Outcome::Denied(_) => {
                work += Work::denial(self.denials);
                self.denials = self.denials.saturating_add(1);
            }
            // The session asks again by itself, so that does not get dearer.
            Outcome::Waiting(_) => work += Work::denial(self.denials),
            Outcome::Granted { .. } => self.denials = 0,
            Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. }
            | Outcome::NotRenewed(_)
            | Outcome::Rejected(_)
            | Outcome::Unknown => {}
        }
        self.charge(work);
    }

    /// Passes an event to the session and carries out its actions: verify or submit, send, close.
    fn handle(&mut self, event: Event<'_>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let now = self.clock.now();
            let is_lost = matches!(event, Event::Disconnected);
            self.session.set_congested(self.is_congested());
            let Actions { effect, send, close } = self.session.handle(event, now);
            // Before the effect, after which the session may have no slot any more.
            let is_silenced = (send.is_some() || close.is_some()) && !self.slot.may_serve();
            // First, because a session that is certainly without a slot does not leave one.
            if self.session.is_acquire_abandoned() && self.slot.withdraw_acquire() {
                self.read_again_at = None;
                next = Some(Event::Stored(Outcome::Rejected(StoreError::Overloaded)));
            }
            // Before the effect, which may give the slot up.
            if let Some(reason) = close {
                self.context.session_log.closed(self.subject(), self.slot.user(), reason);
            }
            match close {
                None => {}
                Some(reason) if reason.is_by_client() => self.slot.gone(),
                Some(_) => self.cut_at = self.slot.leave().or(self.cut_at),
            }
            match effect {
                Some(Effect::Verify(credential)) => next = self.verify(credential),
                Some(Effect::Store(command)) => {
                    self.log_slot_given_up(&command);
                    if self.is_within_user_limit(&command) {
                        self.slot.submit(command);
                        self.read_again_at = self.slot.deadline().map(|_| now + READ_PAUSE);
                    } else {
                        next = Some(Event::TooManyConnections);
                    }
                }
                None => {}
            }
            if is_silenced {
                self.mailbox.cut();
            } else {
                if let Some(frame) = send {
                    self.log_other_user(&frame);
                    self.socket.send(frame);
                }
                if let Some(reason) = close {
                    self.socket.close(reason);
                }
            }
            if (is_lost || close.is_some()) && self.verification.take().is_some() {
                // Nobody waits for it any more. The session has ended, so the result changes nothing.
                next = Some(Event::Verified(Err(CredentialError::NotText)));
            }
        }
    }

    /// What the lines of the log about this connection name.
    fn subject(&self) -> Subject {
        Subject { session: self.session.id(), client_address: self.permit.address() }
    }

    fn log_slot_given_up(&self, command: &StoreCommand) {
        match command {
            StoreCommand::Release { user, session } => self.context.session_log.slot_released(*session, user),
            StoreCommand::Linger { user, session, .. } => self.context.session_log.slot_lingers(*session, user),
            StoreCommand::Acquire { .. }
            | StoreCommand::CountSlots { .. }
            | StoreCommand::ListSessions { .. }
            | StoreCommand::EndSessions { .. }
            | StoreCommand::Renew { .. } => {}
        }
    }

    /// Counts the connection for its user, if the command acquires a slot and the credential has proved the user. False if the
    /// user has too many connections.
    fn is_within_user_limit(&mut self, command: &StoreCommand) -> bool {
        match command {
            StoreCommand::Acquire { user, .. } if self.context.authenticator.proves_user() => {
                self.permit.identify_user(user).is_ok()
            }
            StoreCommand::Acquire { .. }
            | StoreCommand::Release { .. }
            | StoreCommand::Linger { .. }
            | StoreCommand::CountSlots { .. }
            | StoreCommand::ListSessions { .. }
            | StoreCommand::EndSessions { .. }
            | StoreCommand::Renew { .. } => true,
        }
    }

    /// Logs that the client showed a valid credential of another user. The authenticator does not know the session's.
    fn log_other_user(&self, frame: &Frame) {
        let Frame::Message(message) = frame else { return };
        let failure = if let ServerMessage::AuthenticateFailure(failure) = message {
            failure
        } else if let ServerMessage::AuthenticateFailureDetailed(details) = message {
            &details.reason
        } else {
            return;
        };
        if *failure == AuthenticateFailure::AnotherUser {
            self.context.session_log.renewal_refused(self.subject(), self.slot.user(), failure);
        }
    }

    /// Verifies a credential: now, or, if that is expensive, in the client's turn.
    fn verify(&mut self, credential: Credential) -> Option<Event<'static>> {
        match self.permit.client().filter(|_| self.context.authenticator.is_expensive()) {
            Some(client) => {
                let context = Arc::clone(&self.context);
                let check = verify_in_turn(context, client, self.subject(), credential);
                self.verification = Some(Box::pin(check));
                None
            }
            None => Some(self.context.verified(self.context.verify(&credential), self.subject())),
        }
    }
}
