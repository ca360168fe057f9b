//! The session machine: each call of `handle` takes one event and returns the actions for it.

use alloc::boxed::Box;
use core::num::NonZeroU32;
use core::time::Duration;

use super::io::{Actions, Effect, Event, Frame, Identity, Violation};
use super::replies::{authenticate_failure, error, evicted, query_reply, reply, violation_reply};
use super::settings::{RunningSettings, SessionSettings};
use super::state::{Connection, Interest, Manner, PendingCall, RenewalQuery, Slot, StoreQuery};
use crate::id::{DisplayName, SessionId};
use crate::ledger::{self, EndReason, EndTarget, KnownToken, Outcome, RenewalDenied};
use crate::protocol::{
    AuthenticateFailure, AuthenticateOptions, ClientMessage, CloseReason, Credential, CredentialError, Greeting,
    RequestError, ServerMessage,
};
use crate::time::{Timestamp, UnixSeconds};
use crate::token_bucket::TokenBucket;

/// One connection, from its start until its slot is given up. The [module documentation](super) draws its states; the
/// [crate documentation](crate) shows how to drive it.
#[derive(Debug)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) settings: RunningSettings,
    /// Limits the rate of messages, pings and pongs together.
    message_bucket: TokenBucket,
    bad_messages: u16,
    pub(super) manner: Manner,
    /// How often the time to authenticate was put off.
    put_offs: u8,
    /// The fingerprint of the list of sessions that the client received with its last denial.
    pub(super) listed: Option<NonZeroU32>,
    /// While an acquire is pending: the slot that it asks for. Otherwise the slot that the session holds.
    pub(super) slot: Option<Slot>,
    pub(super) pending: Option<PendingCall>,
    /// While it has no slot: its place in line. Otherwise whether it watches.
    pub(super) interest: Option<Interest>,
    pub(super) connection: Connection,
}

impl Session {
    /// How long a denied client has to choose sessions to end and to authenticate again. Each session grants it once,
    /// and only to a client that authenticates with an object.
    pub const RETRY_WINDOW: Duration = Duration::from_secs(60);

    /// How often [`Session::put_off_deadline`] puts off the time to authenticate.
    pub const MAX_PUT_OFFS: u8 = 16;

    /// A session that starts `now`. The time to authenticate counts from here.
    #[must_use]
    pub fn new(id: SessionId, settings: &SessionSettings, now: Timestamp) -> Self {
        Self {
            id,
            settings: settings.into(),
            message_bucket: TokenBucket::default(),
            bad_messages: 0,
            manner: Manner::Plain,
            put_offs: 0,
            listed: None,
            slot: None,
            pending: None,
            interest: None,
            connection: Connection::Open { deadline: now + settings.auth_timeout, is_pinged: false },
        }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether a call is pending. Hold back messages until its answer comes, but deliver every other event.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the session has ended and will never act again. Drive it until then.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.is_open() && !self.is_busy()
    }

    /// Whether the pending acquire is for nobody, because the connection has ended. Then withdraw it, so that no other
    /// session is evicted for it, and hand over [`Outcome::Rejected`]. If the store has begun to apply it, wait for the
    /// outcome instead.
    #[must_use]
    pub fn is_acquire_abandoned(&self) -> bool {
        !self.is_open() && matches!(self.pending, Some(PendingCall::Acquire(_)))
    }

    /// When [`Event::Tick`] is due. Any event can change it.
    ///
    /// `None` while a call is pending: the peer is not to blame for the wait. The caller bounds it with a timeout of its own.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match (self.connection, &self.pending) {
            (Connection::Open { deadline, .. }, None) => Some(self.asks_at().map_or(deadline, |at| at.min(deadline))),
            (Connection::Open { .. }, Some(_)) | (Connection::Ended { .. }, _) => None,
        }
    }

    /// Puts off [`Session::deadline`]: for this long the caller does not read from the peer, so the peer's silence does not
    /// count.
    ///
    /// Without a slot it does so [`Session::MAX_PUT_OFFS`] times at most. Otherwise a client that is paused for its own work
    /// could stay for ever, and never authenticate.
    pub fn put_off_deadline(&mut self, by: Duration) {
        if self.slot.is_none() && !self.is_waiting() {
            if self.put_offs == Self::MAX_PUT_OFFS {
                return;
            }
            self.put_offs += 1;
        }
        if let Connection::Open { deadline, .. } = &mut self.connection {
            *deadline = *deadline + by;
        }
    }

    /// When [`Event::Expired`] is due, by the wall clock. Any event can change it.
    ///
    /// `None` while the authenticator verifies another credential: its answer decides whether the session goes on.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        if !self.is_open() {
            return None;
        }
        match &self.pending {
            Some(PendingCall::Verify(_)) => None,
            Some(PendingCall::Query(StoreQuery::Renewal(renewal))) => renewal.expires,
            Some(
                PendingCall::Acquire(_)
                | PendingCall::Query(
                    StoreQuery::Connections
                    | StoreQuery::Sessions(_)
                    | StoreQuery::Watch
                    | StoreQuery::End(_)
                    | StoreQuery::Gone(_),
                ),
            )
            | None => self.slot.as_ref().or(self.awaited_slot())?.expires,
        }
    }

    /// Takes one event and returns what the caller must do. It cannot fail: whatever a client sends becomes a reply or
    /// a close. An event that does not fit the state changes nothing.
    pub fn handle(&mut self, event: Event<'_>, now: Timestamp) -> Actions {
        let mut actions = match event {
            Event::Connected => self.connected(false, now),
            Event::ConnectedV1 => self.connected(true, now),
            Event::Text(text) => self.text(text, now),
            Event::Alive => self.alive(now),
            Event::Violation(violation) => self.violation(violation, now),
            Event::Verified(result) => self.verified(result, now),
            Event::Stored(outcome) => self.stored(outcome, now),
            Event::Ended(reason) => self.slot_lost(&reason, now),
            Event::Hinted(hint) => self.hinted(hint, now),
            Event::Expired => self.expired(now),
            Event::Draining => self.end(Some(CloseReason::ShuttingDown), now),
            Event::Disconnected => self.end(None, now),
            Event::Tick => self.tick(now),
            Event::TooManyConnections => self.too_many_connections(now),
            Event::VerifyTimedOut => self.verify_timed_out(now),
        };
        if self.is_finished() {
            // An event that starts a call does not finish the session, so this overwrites no effect.
            actions.effect = self.settle();
        }
        actions
    }

    /// Gives up the slot of a finished session, if it has one, or its place in line. No other code gives up a slot. Says what happened and what the
    /// client knows; the ledger decides whether the slot lingers.
    fn settle(&mut self) -> Option<Effect> {
        let Connection::Ended { linger_from } = self.connection else { return None };
        let awaited = match self.interest.take() {
            Some(Interest::Waiting(wait)) => Some(wait.slot),
            Some(Interest::Watching(_)) | None => None,
        };
        let Slot { user, knows_token, .. } = self.slot.take().or(awaited)?;
        let (session, token) = (self.id, KnownToken::Granted);
        Some(Effect::Store(match linger_from.filter(|_| knows_token) {
            Some(at) => ledger::StoreCommand::Linger { user, session, at, token },
            None => ledger::StoreCommand::Release { user, session },
        }))
    }

    /// Ends the connection: with a close frame, or because the socket is lost.
    pub(super) fn end(&mut self, close: Option<CloseReason>, now: Timestamp) -> Actions {
        if !self.is_open() {
            return Actions::default();
        }
        // `Resumed` counts as well: if the store is in doubt, the new connection may not have the slot. Then the slot
        // is still there, and must stay resumable.
        let is_moved = |reason| matches!(reason, CloseReason::Resumed | CloseReason::Contested);
        let is_lost = close.is_none_or(|reason| reason.keeps_slot() || is_moved(reason));
        self.connection = Connection::Ended { linger_from: is_lost.then_some(now) };
        Actions { close, ..Actions::default() }
    }

    /// Starts a call to the authenticator or to the store.
    pub(super) fn call(&mut self, call: PendingCall, effect: Effect) -> Actions {
        debug_assert!(self.pending.is_none(), "a session has one call pending at most");
        self.pending = Some(call);
        Actions { effect: Some(effect), ..Actions::default() }
    }

    /// Whether the client reads the details of each message.
    pub(super) fn is_detailed(&self) -> bool {
        self.manner != Manner::Plain
    }

    fn speaks_at_length(&mut self) {
        if self.manner == Manner::Plain {
            self.manner = Manner::AtLength;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.connection, Connection::Open { .. })
    }

    /// Puts off the next ping. Without a slot, or a place in line, it does nothing: a sign of life does not extend the time to
    /// authenticate. While a call for the client is pending it does nothing either: the answer to the call puts off the ping.
    pub(super) fn put_off_ping(&mut self, now: Timestamp) {
        let is_idle = matches!(self.pending, None | Some(PendingCall::Query(StoreQuery::Watch)));
        if self.is_open() && (self.is_waiting() || self.slot.is_some() && is_idle) {
            let deadline = now + self.settings.ping_interval;
            self.connection = Connection::Open { deadline, is_pinged: false };
        }
    }

    /// Takes one message from the rate limit. False if the peer exceeds it.
    fn within_rate(&mut self, now: Timestamp) -> bool {
        self.settings.max_message_rate.is_none_or(|rate| self.message_bucket.take(rate, now).is_ok())
    }

    fn connected(&mut self, is_v1: bool, now: Timestamp) -> Actions {
        let is_new = self.is_open() && !self.is_busy() && self.slot.is_none() && !self.is_waiting();
        if !is_new {
            return Actions::default();
        }
        self.manner = if is_v1 { Manner::AtLength } else { Manner::Plain };
        reply(if is_v1 {
            // The time counts from the start of the connection, and TLS and the upgrade may have taken some of it.
            let left = self.deadline().map_or(Duration::ZERO, |deadline| deadline.since(now));
            ServerMessage::HelloDetailed(Greeting { authenticate_within: left })
        } else {
            ServerMessage::Hello
        })
    }

    /// The connection ends because its client has no slot for too long.
    fn not_authenticated(&mut self, now: Timestamp) -> Actions {
        let reason =
            if self.manner == Manner::Choosing { CloseReason::NotChosen } else { CloseReason::NotAuthenticated };
        self.end(Some(reason), now)
    }

    fn text(&mut self, text: &str, now: Timestamp) -> Actions {
        let Connection::Open { deadline, .. } = self.connection else { return Actions::default() };
        if self.is_busy() {
            return reply(error(RequestError::RequestPending, self.is_detailed()));
        }
        if self.slot.is_none() && !self.is_waiting() && now >= deadline {
            return self.not_authenticated(now);
        }
        self.put_off_ping(now);
        if !self.within_rate(now) {
            return self.end(Some(CloseReason::TooManyMessages), now);
        }
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Authenticate(credential)) => self.authenticate(credential, None, now),
            Ok(ClientMessage::AuthenticateWith(credential, options)) => {
                self.speaks_at_length();
                self.authenticate(credential, Some(options), now)
            }
            Ok(ClientMessage::CheckConnections) => self.query(StoreQuery::Connections, None, now),
            Ok(ClientMessage::ListSessions(watch)) => self.query(StoreQuery::Sessions(watch), None, now),
            Ok(ClientMessage::EndSession(session)) => self.query(StoreQuery::End(session), None, now),
            Ok(ClientMessage::Ping) => reply(ServerMessage::Pong),
            Ok(ClientMessage::Bye) => Actions {
                send: Some(Frame::Message(ServerMessage::ByeSuccess)),
                ..self.end(Some(CloseReason::Bye), now)
            },
            Err(RequestError::BadOptions(error)) => {
                self.speaks_at_length();
                self.bad_message(authenticate_failure(AuthenticateFailure::BadOptions(error), true), now)
            }
            Err(cause) => self.bad_message(error(cause, self.is_detailed()), now),
        }
    }

    fn authenticate(
        &mut self,
        credential: Credential,
        options: Option<Box<AuthenticateOptions>>,
        now: Timestamp,
    ) -> Actions {
        if self.slot.as_ref().is_some_and(|slot| slot.expires.is_none()) {
            let message = if options.is_some() {
                authenticate_failure(AuthenticateFailure::AlreadyAuthenticated, true)
            } else {
                error(RequestError::AlreadyAuthenticated, self.is_detailed())
            };
            return self.bad_message(message, now);
        }
        self.call(PendingCall::Verify(options), Effect::Verify(credential))
    }

    /// Asks the store about the user, if the session has a slot. `device` is that of the token of a renewal.
    pub(super) fn query(&mut self, query: StoreQuery, device: Option<DisplayName>, now: Timestamp) -> Actions {
        let Some(slot) = &self.slot else {
            return self.bad_message(error(RequestError::NotAuthenticated, self.is_detailed()), now);
        };
        let (user, session, at) = (slot.user.clone(), self.id, now);
        let command = match &query {
            StoreQuery::Connections => ledger::StoreCommand::CountSlots { user, session, at },
            StoreQuery::Renewal(renewal) => {
                ledger::StoreCommand::Renew { user, session, limit: renewal.limit, device, at }
            }
            StoreQuery::Sessions(_) | StoreQuery::Watch | StoreQuery::Gone(_) => {
                // Its own session may be behind those that are shown.
                let is_unbounded = matches!(query, StoreQuery::Gone(_));
                let watch = if let StoreQuery::Sessions(watch) = query { watch } else { None };
                ledger::StoreCommand::ListSessions { user, session, limit: slot.limit, is_unbounded, watch, at }
            }
            StoreQuery::End(target) if *target == session => {
                return reply(error(RequestError::OwnSession, self.is_detailed()));
            }
            StoreQuery::End(target) => {
                let (target, reason) = (EndTarget::One(*target), EndReason::ByUser(None));
                ledger::StoreCommand::EndSessions { user, session, target, reason, at }
            }
        };
        self.call(PendingCall::Query(query), Effect::Store(command))
    }

    /// Replies to a message that makes no sense, and closes if it is one too many.
    fn bad_message(&mut self, message: ServerMessage, now: Timestamp) -> Actions {
        let actions = if self.settings.max_bad_messages.is_some_and(|max| self.bad_messages >= max) {
            self.end(Some(CloseReason::TooManyBadMessages), now)
        } else {
            self.bad_messages = self.bad_messages.saturating_add(1);
            Actions::default()
        };
        Actions { send: Some(Frame::Message(message)), ..actions }
    }

    fn alive(&mut self, now: Timestamp) -> Actions {
        if !self.is_open() {
            return Actions::default();
        }
        self.put_off_ping(now);
        if self.within_rate(now) { Actions::default() } else { self.end(Some(CloseReason::TooManyMessages), now) }
    }

    fn violation(&mut self, violation: Violation, now: Timestamp) -> Actions {
        if !self.is_open() {
            return Actions::default();
        }
        let (cause, reason) = violation_reply(violation);
        let message = error(cause, self.is_detailed());
        Actions { send: Some(Frame::Message(message)), ..self.end(Some(reason), now) }
    }

    /// The authenticator has answered, or has taken too long. Returns what the client sent with its credential. `None` if no
    /// credential is being verified, or nobody waits for it any more.
    fn end_verification(&mut self, now: Timestamp) -> Option<Option<Box<AuthenticateOptions>>> {
        let options = match self.pending.take() {
            Some(PendingCall::Verify(options)) => options,
            other @ (Some(PendingCall::Acquire(_) | PendingCall::Query(_)) | None) => {
                self.pending = other;
                return None;
            }
        };
        self.put_off_ping(now);
        self.is_open().then_some(options)
    }

    fn verified(&mut self, result: Result<Identity, CredentialError>, now: Timestamp) -> Actions {
        let Some(options) = self.end_verification(now) else { return Actions::default() };
        let is_detailed = options.is_some();
        let failure = match (result, &self.slot) {
            (Ok(identity), None) if self.awaited_slot().is_none_or(|slot| slot.user == identity.user) => {
                return self.acquire(identity, options, now);
            }
            (Ok(Identity { user, limit, expires, device, .. }), Some(slot)) if user == slot.user => {
                let renewal = Box::new(RenewalQuery { limit, expires, is_detailed });
                return self.query(StoreQuery::Renewal(renewal), device, now);
            }
            (Ok(_), _) => AuthenticateFailure::AnotherUser,
            (Err(error), _) => AuthenticateFailure::Credential(error),
        };
        self.bad_message(authenticate_failure(failure, is_detailed), now)
    }

    /// Nobody knows whether the credential is valid. A session that has its slot goes on with the token that it has.
    fn verify_timed_out(&mut self, now: Timestamp) -> Actions {
        let Some(options) = self.end_verification(now) else { return Actions::default() };
        let is_detailed = options.is_some();
        let failure = AuthenticateFailure::NotChecked;
        match self.slot.as_ref().or(self.awaited_slot()) {
            Some(_) => reply(authenticate_failure(failure, is_detailed)),
            None => self.refuse(failure, is_detailed, now),
        }
    }

    fn stored(&mut self, outcome: Outcome, now: Timestamp) -> Actions {
        match self.pending.take() {
            Some(PendingCall::Acquire(request)) => self.acquired(request, outcome, now),
            Some(PendingCall::Query(query)) if self.is_open() => self.answered(query, outcome, now),
            Some(PendingCall::Query(_)) => Actions::default(),
            pending @ (Some(PendingCall::Verify(_)) | None) => {
                self.pending = pending;
                Actions::default()
            }
        }
    }

    fn answered(&mut self, query: StoreQuery, outcome: Outcome, now: Timestamp) -> Actions {
        if let StoreQuery::Watch = query {
            return self.watched(&outcome, now);
        }
        self.put_off_ping(now);
        if let (StoreQuery::Sessions(Some(watch)), Outcome::Listed(usage)) = (&query, &outcome) {
            self.watches(*watch, usage, now);
        }
        let is_detailed = self.is_detailed();
        let slot = self.slot.as_mut().expect("a session that asks the store has its slot");
        match (&query, &outcome) {
            // After any other outcome the session goes on with the token it had.
            (StoreQuery::Renewal(renewal), Outcome::Counted { .. }) => {
                (slot.limit, slot.expires) = (renewal.limit, renewal.expires);
            }
            (StoreQuery::End(target), Outcome::Ended { sessions, .. }) if sessions.is_empty() && is_detailed => {
                let gone = StoreQuery::Gone(*target);
                return self.query(gone, None, now);
            }
            _ => {}
        }
        let user = slot.user.clone();
        let is_renewal = matches!(query, StoreQuery::Renewal(_));
        let is_banned = is_renewal && outcome == Outcome::NotRenewed(RenewalDenied::Banned);
        let message = query_reply(user, self.id, query, outcome, is_detailed);
        let actions = if is_banned { self.end(Some(CloseReason::Evicted), now) } else { Actions::default() };
        Actions { send: Some(Frame::Message(message)), ..actions }
    }

    /// The slot was taken from the session. The session still gives it up, and the store then finds nothing to release.
    fn slot_lost(&mut self, reason: &EndReason, now: Timestamp) -> Actions {
        if !self.is_open() || self.slot.is_none() {
            return Actions::default();
        }
        match reason {
            EndReason::Resumed => self.end(Some(CloseReason::Resumed), now),
            EndReason::Contested => self.end(Some(CloseReason::Contested), now),
            EndReason::TakenOver(_)
            | EndReason::DeviceFull(_)
            | EndReason::ByUser(_)
            | EndReason::ByOperator
            | EndReason::LimitLowered
            | EndReason::Banned => {
                let message = evicted(reason, self.is_detailed());
                Actions { send: Some(Frame::Message(message)), ..self.end(Some(CloseReason::Evicted), now) }
            }
        }
    }

    fn expired(&mut self, now: Timestamp) -> Actions {
        match self.expires_at() {
            Some(_) => self.end(Some(CloseReason::TokenExpired), now),
            None => Actions::default(),
        }
    }

    fn tick(&mut self, now: Timestamp) -> Actions {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Actions::default();
        }
        if let Some(actions) = self.ask_if_due(now) {
            return actions;
        }
        match (self.slot.as_ref().or(self.awaited_slot()), self.connection) {
            (None, Connection::Open { .. }) => self.not_authenticated(now),
            (Some(_), Connection::Open { is_pinged: true, .. }) => self.end(Some(CloseReason::PeerSilent), now),
            (Some(_), Connection::Open { is_pinged: false, .. }) => {
                let deadline = now + self.settings.pong_timeout;
                self.connection = Connection::Open { deadline, is_pinged: true };
                Actions { send: Some(Frame::Ping), ..Actions::default() }
            }
            (_, Connection::Ended { .. }) => Actions::default(),
        }
    }
}
