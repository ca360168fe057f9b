//! The session machine: one per connection, one event in, one set of actions out.

use alloc::boxed::Box;
use core::mem;
use core::time::Duration;

use super::io::{Actions, Effect, Event, Frame, Identity, Violation};
use super::replies::{authenticate_failure, error, limit_failure, query_reply, reply, store_command, violation_reply};
use super::settings::SessionSettings;
use super::state::{Heartbeat, PendingCall, ResumeTokens, SlotExit, State, StoreQuery};
use crate::id::{SessionId, UserId};
use crate::ledger::{self, AcquireOptions, EndReason, EndTarget, GrantDetails, Outcome, SlotLimit, SlotListing};
use crate::protocol::{
    AuthenticateFailure, AuthenticateOptions, AuthenticateSuccessDetails, ClientMessage, CloseReason, Credential,
    CredentialError, RequestError, ServerMessage, UserSummary,
};
use crate::time::{Timestamp, UnixSeconds};
use crate::token_bucket::TokenBucket;

/// One connection, from its first byte until it owes nothing any more. The [crate documentation](crate) shows how
/// it is driven and draws its states.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    settings: SessionSettings,
    authenticate_by: Timestamp,
    bad_messages: u16,
    /// What the peer may still say.
    pace: TokenBucket,
    /// When the token runs out that the session was, or is to be, let in with.
    expires: Option<UnixSeconds>,
    /// The limit that it claims.
    claim: Option<SlotLimit>,
    /// Whether the client was given time to choose whom to end. It is, once.
    has_retry_window: bool,
    /// Whether the slot lingers once the client is lost.
    lingers: bool,
    state: State,
}

impl Session {
    /// How long a client that asked at length has, once, to choose whom to end and to ask again.
    pub const RETRY_WINDOW: Duration = Duration::from_secs(60);

    /// A session that begins `now`: the time to authenticate counts from here.
    #[must_use]
    pub fn new(id: SessionId, limits: &SessionSettings, now: Timestamp) -> Self {
        Self {
            id,
            settings: *limits,
            authenticate_by: now + limits.auth_timeout,
            bad_messages: 0,
            pace: TokenBucket::default(),
            expires: None,
            claim: None,
            has_retry_window: false,
            lingers: false,
            state: State::Anonymous,
        }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether a command is under way. Until its answer comes no message is to be delivered; every other event is.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state.is_busy()
    }

    /// Whether the session owes nothing and will never act again. It must be driven until then.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// When [`Event::Tick`] is due. May change with every event.
    ///
    /// There is none while a command is under way: then it is not the peer who keeps others waiting, and the store's
    /// own time limit bounds the wait.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::Anonymous => Some(self.authenticate_by),
            State::Live(_, Heartbeat::HeardAt(at)) => Some(at + self.settings.ping_interval),
            State::Live(_, Heartbeat::PingedAt(at)) => Some(at + self.settings.pong_timeout),
            State::Verifying(_)
            | State::Acquiring(..)
            | State::Querying(..)
            | State::Renewing { .. }
            | State::Leaving(_)
            | State::Finished => None,
        }
    }

    /// When, by the wall clock, [`Event::Expired`] is due. May change with every event.
    ///
    /// There is none while the authenticator has another credential: whether the session goes on is for its answer.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        match self.state {
            State::Acquiring(..)
            | State::Live(..)
            | State::Querying(_, StoreQuery::Connections | StoreQuery::Sessions | StoreQuery::End) => self.expires,
            State::Querying(_, StoreQuery::Renewal { expires, .. }) => expires,
            State::Anonymous | State::Verifying(_) | State::Renewing { .. } | State::Leaving(_) | State::Finished => {
                None
            }
        }
    }

    /// Takes one event and says what is to be done. It cannot fail: whatever a client sends becomes a reply or a
    /// close, and an event that makes no sense in the present state changes nothing.
    pub fn handle(&mut self, event: Event<'_>, now: Timestamp) -> Actions {
        match event {
            Event::Connected => self.connected(),
            Event::Text(text) => self.text(text, now),
            Event::Alive => self.alive(now),
            Event::Violation(violation) => self.violation(violation, now),
            Event::Verified(verdict) => self.verified(verdict, now),
            Event::Stored(outcome) => self.stored(outcome, now),
            Event::Ended(ending) => self.ended(&ending, now),
            Event::Expired => self.expired(now),
            Event::Draining => self.leave(Some(CloseReason::ShuttingDown), now),
            Event::Disconnected => self.leave(None, now),
            Event::Tick => self.tick(now),
        }
    }

    fn connected(&self) -> Actions {
        match self.state {
            State::Anonymous => reply(ServerMessage::Hello),
            State::Verifying(_)
            | State::Acquiring(..)
            | State::Live(..)
            | State::Querying(..)
            | State::Renewing { .. }
            | State::Leaving(_)
            | State::Finished => Actions::default(),
        }
    }

    fn text(&mut self, text: &str, now: Timestamp) -> Actions {
        match &mut self.state {
            State::Anonymous if now >= self.authenticate_by => {
                return self.leave(Some(CloseReason::NotAuthenticated), now);
            }
            State::Anonymous => {}
            State::Live(_, peer) => *peer = Heartbeat::HeardAt(now),
            State::Verifying(_) | State::Acquiring(..) | State::Querying(..) | State::Renewing { .. } => {
                return error(RequestError::RequestPending);
            }
            State::Leaving(_) | State::Finished => return Actions::default(),
        }
        if !self.within_rate(now) {
            return self.leave(Some(CloseReason::TooManyMessages), now);
        }
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Authenticate(credential)) => self.authenticate(credential, None, now),
            Ok(ClientMessage::AuthenticateWith(credential, ask)) => self.authenticate(credential, Some(ask), now),
            Ok(ClientMessage::CheckConnections) => self.query(StoreQuery::Connections, now),
            Ok(ClientMessage::ListSessions) => self.query(StoreQuery::Sessions, now),
            Ok(ClientMessage::EndSession(session)) => self.end(session, now),
            Ok(ClientMessage::Bye) => Actions {
                send: Some(Frame::Message(ServerMessage::ByeSuccess)),
                ..self.leave(Some(CloseReason::Bye), now)
            },
            Err(error) => self.bad_message(ServerMessage::Error(error), now),
        }
    }

    fn authenticate(
        &mut self,
        credential: Credential,
        ask: Option<Box<AuthenticateOptions>>,
        now: Timestamp,
    ) -> Actions {
        self.state = match mem::replace(&mut self.state, State::Finished) {
            State::Anonymous => State::Verifying(ask),
            State::Live(user, _) if self.expires.is_some() => State::Renewing { user, is_detailed: ask.is_some() },
            state @ State::Live(..) => {
                self.state = state;
                return self.bad_message(ServerMessage::Error(RequestError::AlreadyAuthenticated), now);
            }
            state @ (State::Verifying(_)
            | State::Acquiring(..)
            | State::Querying(..)
            | State::Renewing { .. }
            | State::Leaving(_)
            | State::Finished) => {
                self.state = state;
                return Actions::default();
            }
        };
        Actions { effect: Some(Effect::Verify(credential)), ..Actions::default() }
    }

    /// Asks the store about the session's user, if the session has its slot.
    fn query(&mut self, question: StoreQuery, now: Timestamp) -> Actions {
        let Some(user) = self.state.user().cloned() else {
            return self.bad_message(ServerMessage::Error(RequestError::NotAuthenticated), now);
        };
        let session = self.id;
        let command = match question {
            StoreQuery::Connections | StoreQuery::Renewal { .. } => {
                ledger::StoreCommand::CountSlots { user: user.clone(), session, at: now }
            }
            StoreQuery::Sessions => ledger::StoreCommand::ListSessions {
                user: user.clone(),
                session,
                limit: self.claim,
                is_unbounded: false,
                at: now,
            },
            StoreQuery::End => unreachable!("this question comes with its command"),
        };
        self.state = State::Querying(user, question);
        store_command(command)
    }

    fn end(&mut self, which: SessionId, now: Timestamp) -> Actions {
        let Some(user) = self.state.user().cloned() else {
            return self.bad_message(ServerMessage::Error(RequestError::NotAuthenticated), now);
        };
        if which == self.id {
            return error(RequestError::OwnSession);
        }
        let (session, which, by) = (self.id, EndTarget::One(which), EndReason::ByUser(None));
        self.state = State::Querying(user.clone(), StoreQuery::End);
        store_command(ledger::StoreCommand::EndSessions { user, session, target: which, reason: by, at: now })
    }

    /// Whether the peer may say something now, and takes note that it does.
    fn within_rate(&mut self, now: Timestamp) -> bool {
        self.settings.max_message_rate.is_none_or(|rate| self.pace.take(rate, now).is_ok())
    }

    /// Answers a message that makes no sense here, and closes if it was one too many.
    fn bad_message(&mut self, reply: ServerMessage, now: Timestamp) -> Actions {
        let actions = if self.settings.max_bad_messages.is_some_and(|most| self.bad_messages >= most) {
            self.leave(Some(CloseReason::TooManyBadMessages), now)
        } else {
            self.bad_messages = self.bad_messages.saturating_add(1);
            Actions::default()
        };
        Actions { send: Some(Frame::Message(reply)), ..actions }
    }

    fn alive(&mut self, now: Timestamp) -> Actions {
        match &mut self.state {
            State::Live(_, peer) => *peer = Heartbeat::HeardAt(now),
            State::Anonymous
            | State::Verifying(_)
            | State::Acquiring(..)
            | State::Querying(..)
            | State::Renewing { .. } => {}
            State::Leaving(_) | State::Finished => return Actions::default(),
        }
        if self.within_rate(now) { Actions::default() } else { self.leave(Some(CloseReason::TooManyMessages), now) }
    }

    fn violation(&mut self, violation: Violation, now: Timestamp) -> Actions {
        if self.state.is_over() {
            return Actions::default();
        }
        let (error, reason) = violation_reply(violation);
        Actions { send: Some(Frame::Message(ServerMessage::Error(error))), ..self.leave(Some(reason), now) }
    }

    fn verified(&mut self, verdict: Result<Identity, CredentialError>, now: Timestamp) -> Actions {
        match mem::replace(&mut self.state, State::Finished) {
            State::Verifying(ask) => match verdict {
                Ok(identity) => self.acquire(identity, ask, now),
                Err(error) => {
                    self.state = State::Anonymous;
                    let failure = AuthenticateFailure::Credential(error);
                    self.bad_message(authenticate_failure(failure, ask.is_some()), now)
                }
            },
            State::Renewing { user, is_detailed: at_length } => {
                self.state = State::Live(user.clone(), Heartbeat::HeardAt(now));
                let failure = match verdict {
                    Ok(identity) if identity.user == user => {
                        return self.query(
                            StoreQuery::Renewal {
                                claim: identity.limit,
                                expires: identity.expires,
                                is_detailed: at_length,
                            },
                            now,
                        );
                    }
                    Ok(_) => AuthenticateFailure::AnotherUser,
                    Err(error) => AuthenticateFailure::Credential(error),
                };
                self.bad_message(authenticate_failure(failure, at_length), now)
            }
            State::Leaving(PendingCall::Verification) => Actions::default(),
            State::Leaving(PendingCall::Renewal(user, exit)) => self.release(user, exit),
            state @ (State::Anonymous
            | State::Acquiring(..)
            | State::Live(..)
            | State::Querying(..)
            | State::Leaving(PendingCall::Acquire(_) | PendingCall::Query(..))
            | State::Finished) => {
                self.state = state;
                Actions::default()
            }
        }
    }

    fn acquire(&mut self, identity: Identity, ask: Option<Box<AuthenticateOptions>>, now: Timestamp) -> Actions {
        let Identity { user, limit, expires, device, resume_token: fresh } = identity;
        (self.expires, self.claim) = (expires, limit);
        let (options, tokens) = match (ask, device) {
            (Some(ask), device) => {
                let AuthenticateOptions { device: said, label, resume, evict } = *ask;
                let tokens = ResumeTokens { shown: resume, new: fresh };
                let [resume, fresh] = [resume, fresh].map(|token| token.map(|token| token.key()));
                let options = AcquireOptions { device: device.or(said), label, resume, new_resume_key: fresh, evict };
                (Some(Box::new(options)), Some(Box::new(tokens)))
            }
            // It asks for nothing, and its token binds it to a device all the same.
            (None, device @ Some(_)) => (Some(Box::new(AcquireOptions { device, ..AcquireOptions::default() })), None),
            (None, None) => (None, None),
        };
        self.state = State::Acquiring(user.clone(), tokens);
        store_command(ledger::StoreCommand::Acquire { user, session: self.id, limit, at: now, options })
    }

    fn stored(&mut self, outcome: Outcome, now: Timestamp) -> Actions {
        match mem::replace(&mut self.state, State::Finished) {
            State::Acquiring(user, tokens) => self.acquired(user, tokens.as_deref(), outcome, now),
            State::Querying(user, question) => self.answered(user, question, outcome, now),
            State::Leaving(PendingCall::Acquire(user)) => match outcome {
                // What was taken up again was lost again, before its client could know.
                Outcome::Granted { grant: Some(grant), .. } if grant.is_resumed && self.lingers => {
                    self.release(user, SlotExit::Linger(now))
                }
                Outcome::Granted { .. } => self.release(user, SlotExit::Release),
                // Whatever may be in the store after these is owed by `ReleaseTracker`, not by the session.
                Outcome::Denied(_)
                | Outcome::Released
                | Outcome::Counted { .. }
                | Outcome::Listed(_)
                | Outcome::Ended { .. }
                | Outcome::Rejected(_)
                | Outcome::Unknown => Actions::default(),
            },
            State::Leaving(PendingCall::Query(user, exit)) => self.release(user, exit),
            state @ (State::Anonymous
            | State::Verifying(_)
            | State::Renewing { .. }
            | State::Live(..)
            | State::Leaving(PendingCall::Verification | PendingCall::Renewal(..))
            | State::Finished) => {
                self.state = state;
                Actions::default()
            }
        }
    }

    /// The acquire of a session that still wants it was answered. The state is `Drained` until this says otherwise.
    fn acquired(&mut self, user: UserId, tokens: Option<&ResumeTokens>, outcome: Outcome, now: Timestamp) -> Actions {
        let failure = match outcome {
            Outcome::Granted { connections, grant } => {
                self.state = State::Live(user.clone(), Heartbeat::HeardAt(now));
                let user = UserSummary { id: user, connections };
                return reply(match (tokens, grant) {
                    (Some(tokens), Some(grant)) => self.admit(user, tokens, &grant),
                    (Some(_), None) | (None, _) => ServerMessage::AuthenticateSuccess(user),
                });
            }
            Outcome::Denied(listing) => {
                self.state = State::Anonymous;
                return reply(match (listing, tokens) {
                    (Some(listing), Some(_)) => self.denied(&listing, now),
                    (Some(listing), None) if listing.is_device_full => {
                        authenticate_failure(AuthenticateFailure::DeviceFull, false)
                    }
                    (Some(_) | None, _) => authenticate_failure(AuthenticateFailure::LimitReached, tokens.is_some()),
                });
            }
            Outcome::Rejected(cause) => AuthenticateFailure::Store(cause),
            // An answer to another question is as good as none: `ReleaseTracker` sees it so, too.
            Outcome::Unknown
            | Outcome::Released
            | Outcome::Counted { .. }
            | Outcome::Listed(_)
            | Outcome::Ended { .. } => AuthenticateFailure::StoreTimedOut,
        };
        Actions {
            effect: None,
            send: Some(Frame::Message(authenticate_failure(failure, tokens.is_some()))),
            close: Some(CloseReason::TryAgainLater),
        }
    }

    fn admit(&mut self, user: UserSummary, tokens: &ResumeTokens, grant: &GrantDetails) -> ServerMessage {
        let &GrantDetails { limit, linger, is_resumed } = grant;
        let resume = if is_resumed { tokens.shown } else { tokens.new };
        self.lingers = resume.is_some() && !linger.is_zero();
        ServerMessage::AuthenticateSuccessDetailed(Box::new(AuthenticateSuccessDetails {
            user,
            limit,
            session: self.id,
            resume,
            linger,
        }))
    }

    fn denied(&mut self, listing: &SlotListing, now: Timestamp) -> ServerMessage {
        if !self.has_retry_window {
            self.has_retry_window = true;
            self.authenticate_by = self.authenticate_by.max(now + Self::RETRY_WINDOW);
        }
        limit_failure(listing, now)
    }

    fn answered(&mut self, user: UserId, question: StoreQuery, outcome: Outcome, now: Timestamp) -> Actions {
        self.state = State::Live(user.clone(), Heartbeat::HeardAt(now));
        if let (&StoreQuery::Renewal { claim, expires, .. }, Outcome::Counted { .. }) = (&question, &outcome) {
            (self.claim, self.expires) = (claim, expires);
        }
        reply(query_reply(user, question, outcome))
    }

    /// The slot is somebody else's, or nobody's. The release that the session owes all the same finds nothing.
    fn ended(&mut self, ending: &EndReason, now: Timestamp) -> Actions {
        match self.state {
            // Nothing was granted to it yet, or it is on its way out by itself.
            State::Anonymous | State::Verifying(_) | State::Leaving(_) | State::Finished => return Actions::default(),
            State::Acquiring(..) | State::Live(..) | State::Querying(..) | State::Renewing { .. } => {}
        }
        match ending {
            EndReason::Resumed => self.leave(Some(CloseReason::Resumed), now),
            EndReason::TakenOver(_) | EndReason::ByUser(_) | EndReason::ByOperator => {
                let words = ServerMessage::Evicted(ending.message().into());
                Actions { send: Some(Frame::Message(words)), ..self.leave(Some(CloseReason::Evicted), now) }
            }
        }
    }

    fn expired(&mut self, now: Timestamp) -> Actions {
        if self.expires_at().is_none() {
            return Actions::default();
        }
        self.leave(Some(CloseReason::TokenExpired), now)
    }

    fn tick(&mut self, now: Timestamp) -> Actions {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Actions::default();
        }
        match &mut self.state {
            State::Anonymous => self.leave(Some(CloseReason::NotAuthenticated), now),
            State::Live(_, Heartbeat::PingedAt(_)) => self.leave(Some(CloseReason::PeerSilent), now),
            State::Live(_, peer @ Heartbeat::HeardAt(_)) => {
                *peer = Heartbeat::PingedAt(now);
                Actions { send: Some(Frame::Ping), ..Actions::default() }
            }
            State::Verifying(_)
            | State::Acquiring(..)
            | State::Querying(..)
            | State::Renewing { .. }
            | State::Leaving(_)
            | State::Finished => Actions::default(),
        }
    }

    /// Ends the connection: gives the slot up, or remembers to once the command under way is answered.
    fn leave(&mut self, close: Option<CloseReason>, now: Timestamp) -> Actions {
        // Whoever has taken the session up may not have it after all, if the store is in doubt: then the slot is still there,
        // to be taken up again.
        let is_lost = close.is_none_or(|reason| reason.keeps_slot() || reason == CloseReason::Resumed);
        let exit = if is_lost && self.lingers { SlotExit::Linger(now) } else { SlotExit::Release };
        let (state, command) = match mem::replace(&mut self.state, State::Finished) {
            State::Anonymous => (State::Finished, None),
            State::Live(user, _) => (State::Finished, self.release(user, exit).effect),
            State::Verifying(_) => (State::Leaving(PendingCall::Verification), None),
            State::Acquiring(user, tokens) => {
                // What a client takes up it can take up again.
                self.lingers = is_lost && tokens.is_some_and(|tokens| tokens.shown.is_some());
                (State::Leaving(PendingCall::Acquire(user)), None)
            }
            State::Querying(user, _) => (State::Leaving(PendingCall::Query(user, exit)), None),
            State::Renewing { user, .. } => (State::Leaving(PendingCall::Renewal(user, exit)), None),
            state @ (State::Leaving(_) | State::Finished) => {
                self.state = state;
                return Actions::default();
            }
        };
        self.state = state;
        Actions { effect: command, send: None, close }
    }

    fn release(&self, user: UserId, exit: SlotExit) -> Actions {
        store_command(match exit {
            SlotExit::Release => ledger::StoreCommand::Release { user, session: self.id },
            SlotExit::Linger(at) => ledger::StoreCommand::Linger { user, session: self.id, at },
        })
    }
}
