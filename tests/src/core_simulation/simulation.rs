//! Many clients, one server process at a time, and a store with every fault that its contract allows. Time is virtual,
//! nothing sleeps, and the same operations give the same result.
//!
//! It runs the real [`Session`], ledger rule, [`ReleaseTracker`] and [`LeavingTracker`]. The rule oracle checks every command
//! that the store applies, and the told oracle every AUTHENTICATE_SUCCESS. [`CoreSimulation::check`] checks the invariants
//! after every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{AdmissionPolicy, EndReason, Outcome, SlotLimit, StoreError};
use session_core::ledger::{EndTarget, SessionHint, StoreCommand};
use session_core::protocol::{ClientMessage, ServerMessage};
use session_core::release_tracker::{ReleaseTracker, Ticket};
use session_core::session::{Actions, Effect, Event, Frame, Session, SessionSettings, Violation};
use session_core::{NodeId, ResumeToken, SessionId, Timestamp, UnixSeconds, UserId};

use super::connection::Connection;
use super::scenario::{Message, Op, credential, user_id};
use super::store::{Queued, Store};
use crate::told_oracle::ToldOracle;

/// One server at a time, its clients and its store.
#[derive(Debug)]
pub struct CoreSimulation {
    pub(super) policy: AdmissionPolicy,
    /// The admission policy at the start.
    pub(super) initial_policy: AdmissionPolicy,
    /// When each earlier node died.
    pub(super) deaths: BTreeMap<NodeId, Timestamp>,
    /// Every resume token that a client received, with its user.
    pub(super) resume_tokens: Vec<(UserId, ResumeToken)>,
    /// Their keys.
    pub(super) known_keys: BTreeSet<[u8; 32]>,
    pub(super) tokens: u64,
    pub(super) now: Timestamp,
    /// Seconds by which the wall clock is ahead.
    pub(super) wall_ahead: i64,
    generation: u64,
    next_session: u64,
    pub(super) draining: bool,
    pub(super) connections: BTreeMap<SessionId, Connection>,
    pub(super) tracker: ReleaseTracker,
    pub(super) leaving: LeavingTracker,
    pub(super) told: ToldOracle,
    pub(super) store: Store,
    /// The hints of the store that are under way to their sessions.
    pub(super) hints: Vec<SessionHint>,
    /// The number of checks, so that a test can tell that some took place.
    pub checks: u64,
    /// The number of times that a watching client was told of a change.
    pub changes: u64,
}

impl CoreSimulation {
    /// How long a session waits for the store.
    pub const STORE_TIMEOUT: Duration = Duration::from_secs(5);
    pub(super) const USERS: u8 = 4;
    /// The highest limit in a token.
    pub(super) const MAX_CLAIM: u32 = 5;
    const MAX_CONNECTIONS: usize = 32;
    const MAX_QUEUE: usize = 256;

    /// A simulation with this admission policy.
    #[must_use]
    pub fn new(policy: AdmissionPolicy) -> Self {
        Self {
            policy,
            initial_policy: policy,
            deaths: BTreeMap::new(),
            resume_tokens: Vec::new(),
            known_keys: BTreeSet::new(),
            tokens: 0,
            now: Timestamp::from_epoch(Duration::from_secs(1_000_000)),
            wall_ahead: 0,
            generation: 1,
            next_session: 1,
            draining: false,
            connections: BTreeMap::new(),
            tracker: ReleaseTracker::new(Self::MAX_CONNECTIONS * 2),
            leaving: LeavingTracker::default(),
            told: ToldOracle::default(),
            store: Store::default(),
            hints: Vec::new(),
            checks: 0,
            changes: 0,
        }
    }

    /// Runs a scenario, checks after every step, then checks recovery.
    pub fn run(policy: AdmissionPolicy, ops: &[Op]) -> Self {
        let mut simulation = Self::new(policy);
        for op in ops {
            simulation.step(op);
            simulation.check();
        }
        simulation.check_recovery();
        simulation
    }

    /// Performs one operation.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Connect => self.connect(),
            Op::Send { client, message } => {
                if let Some(id) = self.pick(*client) {
                    let text = match message {
                        Message::Authenticate { user } => {
                            ClientMessage::Authenticate(credential(*user % Self::USERS)).encode()
                        }
                        Message::AuthenticateWithToken { user, limit, seconds } => {
                            let token = self.token(*user % Self::USERS, *limit, *seconds);
                            ClientMessage::AuthenticateWith(token, Box::default()).encode()
                        }
                        Message::AuthenticateWithObject { user, device, evict, resume } => {
                            self.authenticate_with_object(*user % Self::USERS, *device, *evict, *resume).encode()
                        }
                        Message::List => ClientMessage::ListSessions(None).encode(),
                        Message::End { which } => self.end_session(*which).encode(),
                        Message::Check => ClientMessage::CheckConnections.encode(),
                        Message::Bye => ClientMessage::Bye.encode(),
                        Message::Raw(text) => text.clone(),
                        Message::Watch { is_on } => ClientMessage::ListSessions(Some(*is_on)).encode(),
                    };
                    self.connections.get_mut(&id).expect("picked").unread.push_back(text);
                    self.read(id);
                }
            }
            Op::Violate { client, how } => {
                let violations =
                    [Violation::Protocol, Violation::InvalidUtf8, Violation::MessageTooBig, Violation::BinaryMessage];
                if let Some(id) = self.pick(*client) {
                    self.handle(id, Event::Violation(violations[usize::from(*how) % violations.len()]));
                }
            }
            Op::Alive { client } => {
                if let Some(id) = self.pick(*client) {
                    self.handle(id, Event::Alive);
                }
            }
            Op::Leave { client } => {
                if let Some(id) = self.pick(*client) {
                    self.disconnect(id);
                }
            }
            Op::Store { which, fault } => self.store_step(*which, *fault),
            Op::Pass { millis } => {
                self.deliver_hints();
                self.pass(Duration::from_millis(u64::from(*millis)));
            }
            Op::Hint { which, is_lost } => self.hint(*which, *is_lost),
            Op::Drain => {
                self.draining = true;
                for id in self.ids() {
                    self.handle(id, Event::Draining);
                }
            }
            Op::Restart => self.restart(),
            Op::SetLimit { slots } => {
                self.policy.limit = SlotLimit::new(u32::from(*slots) % 6).expect("five is below the ceiling");
            }
            Op::Enforce { user } => {
                let (user, session) = (user_id(*user % Self::USERS), self.node().session(0));
                let which = EndTarget::Excess { limit: self.policy.limit, dry_run: false };
                let by = EndReason::ByOperator;
                let command = StoreCommand::EndSessions { user, session, target: which, reason: by, at: self.now };
                // No session waits for the answer.
                self.store.queue.push_back(Queued { command, answered: true, has_begun: true });
            }
            Op::SetWallClock { seconds } => {
                self.wall_ahead = i64::from(*seconds);
                self.expire();
            }
            Op::Stall { client } => {
                let ids = self.ids();
                if let Some(&id) = ids.get(usize::from(*client) % ids.len().max(1)) {
                    self.set_stalled(id, !self.connections[&id].is_stalled);
                }
            }
        }
    }

    pub(super) fn connect(&mut self) {
        if self.draining || self.connections.len() >= Self::MAX_CONNECTIONS {
            return;
        }
        let id = self.node().session(self.next_session);
        self.next_session += 1;
        let connection = Connection {
            session: Session::new(id, &SessionSettings::default(), self.now),
            unread: VecDeque::new(),
            under_way: None,
            open: true,
            is_stalled: false,
            user: None,
            held: None,
            is_told: false,
            is_gone: false,
            cut_at: None,
            has_slot: false,
            is_renewal: false,
            greeted: false,
            is_in_line: false,
            listed_at: None,
            changed_at: None,
        };
        self.connections.insert(id, connection);
        self.handle(id, Event::Connected);
        assert!(self.connections[&id].greeted, "no HELLO on session {id}");
    }

    /// The client disconnects. Its unread messages are lost.
    pub(super) fn disconnect(&mut self, id: SessionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unread.clear();
            (connection.has_slot, connection.is_told) = (false, false);
            self.handle(id, Event::Disconnected);
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.open = false;
            }
            self.gone(id);
            self.remove_if_finished(id);
        }
    }

    fn restart(&mut self) {
        // The store may still apply what was submitted: a dead process cannot withdraw it.
        for queued in &mut self.store.queue {
            (queued.answered, queued.has_begun) = (true, true);
        }
        self.connections.clear();
        self.hints.clear();
        self.tracker = ReleaseTracker::new(Self::MAX_CONNECTIONS * 2);
        self.leaving = LeavingTracker::default();
        self.draining = false;
        self.deaths.insert(self.node(), self.now);
        self.policy.serving_since = self.now;
        self.generation += 1;
    }

    /// Lets time pass from deadline to deadline.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..100_000 {
            let sessions = self.connections.values().filter_map(|connection| connection.session.deadline());
            let waiting = self.connections.values().filter(|connection| connection.held.is_none());
            let answers = waiting.filter_map(|connection| connection.under_way.as_ref());
            let served = self.connections.values().filter(|connection| !connection.is_gone);
            let cuts = served.filter_map(|connection| connection.cut_at);
            let tokens = self.connections.values().filter_map(|connection| connection.session.expires_at());
            let sessions = sessions.chain(tokens.map(|unix_seconds| self.time_of(unix_seconds)));
            let next =
                sessions.chain(answers.map(|&(_, until)| until)).chain(cuts).chain(self.tracker.deadline()).min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.expire();
            for id in self.ids() {
                self.handle(id, Event::Tick);
                let connection = self.connections.get(&id);
                // The store has answered if the grant is held.
                let late = connection.filter(|waits| waits.held.is_none()).and_then(|waits| waits.under_way.as_ref());
                if late.is_some_and(|&(_, until)| until <= self.now) {
                    self.end_wait(id);
                }
                let served = self.connections.get(&id).filter(|connection| !connection.is_gone);
                if served.and_then(|connection| connection.cut_at).is_some_and(|cut_at| cut_at <= self.now) {
                    self.disconnect(id);
                }
            }
            while let Some(release) = self.tracker.next_retry(self.now) {
                self.submit(release);
            }
        }
        panic!("time stands still at {}: a deadline stays after it has passed", self.now);
    }

    /// Notifies each session whose token has expired by the wall clock.
    fn expire(&mut self) {
        for id in self.ids() {
            // The end of one session can be the end of another whose grant waited for it.
            let expires = self.connections.get(&id).and_then(|connection| connection.session.expires_at());
            if expires.is_some_and(|unix_seconds| self.time_of(unix_seconds) <= self.now) {
                self.handle(id, Event::Expired);
            }
        }
    }

    /// The time at which the wall clock shows this.
    pub(super) fn time_of(&self, unix_seconds: UnixSeconds) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(unix_seconds.unix_seconds().saturating_add_signed(-self.wall_ahead)))
    }

    /// Gives a session its next messages while it takes messages.
    fn read(&mut self, id: SessionId) {
        while let Some(connection) = self.connections.get_mut(&id) {
            if connection.session.is_busy() || !connection.open {
                return;
            }
            let Some(text) = connection.unread.pop_front() else { return };
            self.handle(id, Event::Text(&text));
        }
    }

    /// Gives a session an event and carries out its actions, as a server does.
    pub(super) fn handle(&mut self, id: SessionId, event: Event<'_>) {
        let mut next = Some(event);
        let (mut is_told, mut is_written) = (false, false);
        while let Some(event) = next.take() {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let leaves = matches!(event, Event::Disconnected | Event::Draining);
            let Actions { effect: command, send, close } = connection.session.handle(event, self.now);
            if leaves {
                connection.has_slot = false;
            }
            // First, because a session that is certainly without a slot does not leave one.
            if self.withdraw_abandoned(id) {
                next = Some(Event::Stored(Outcome::Rejected(StoreError::Overloaded)));
            }
            let connection = self.connections.get_mut(&id).expect("it has just handled an event");
            // Before the effect, which may give the slot up.
            if close.is_some_and(|reason| !reason.is_by_client())
                && let Some(user) = &connection.user
            {
                connection.cut_at = Some(self.leaving.slot_lost(user, id, self.now));
            }
            if let Some(frame) = send {
                assert!(connection.open, "session {id} sends {frame:?} after its close");
                let was_told = connection.is_told;
                if let Some((user, token)) = connection.receive(&frame, self.policy.max_waiting) {
                    self.known_keys.insert(token.key().to_bytes());
                    self.resume_tokens.push((user, token));
                }
                is_told |= connection.is_told && !was_told;
                self.changes += u64::from(matches!(frame, Frame::Message(ServerMessage::SessionsChanged(_))));
            }
            is_written |= close.is_some_and(|reason| reason.is_by_client() || !connection.is_stalled);
            if close.is_some() {
                assert!(connection.open, "session {id} closes twice");
                (connection.open, connection.has_slot) = (false, false);
                connection.unread.clear();
            }
            match command {
                None => {}
                Some(Effect::Verify(credential)) => {
                    connection.is_renewal = connection.has_slot;
                    let verdict = self.verify(&credential);
                    next = Some(Event::Verified(verdict));
                }
                Some(Effect::Store(command)) if command.is_release() => {
                    (connection.has_slot, connection.user) = (false, None);
                    self.submit(command);
                }
                Some(Effect::Store(command)) => {
                    if let StoreCommand::Acquire { user, .. } = &command {
                        connection.user = Some(user.clone());
                    }
                    assert!(connection.under_way.is_none(), "session {id} has two commands under way");
                    connection.under_way = Some((command.clone(), self.now + Self::STORE_TIMEOUT));
                    // A full store rejects a command at once.
                    let full = self.store.queue.len() >= Self::MAX_QUEUE;
                    match self.tracker.begin(&command).map(drop) {
                        Ok(()) if !full => self.submit(command),
                        Ok(()) => {
                            self.tracker.answered(
                                &Ticket::from(&command),
                                &Outcome::Rejected(StoreError::Full),
                                self.now,
                            );
                            self.reject(id, StoreError::Full, &mut next);
                        }
                        Err(cause) => self.reject(id, cause, &mut next),
                    }
                }
            }
        }
        if is_told {
            self.check_told();
        }
        if is_written {
            self.gone(id);
        }
        // Its token may have expired while the server verified another one.
        let expires = self.connections.get(&id).and_then(|connection| connection.session.expires_at());
        if expires.is_some_and(|unix_seconds| self.time_of(unix_seconds) <= self.now) {
            self.handle(id, Event::Expired);
        }
        self.remove_if_finished(id);
        self.read(id);
    }

    fn reject(&mut self, id: SessionId, cause: StoreError, next: &mut Option<Event<'_>>) {
        self.connections.get_mut(&id).expect("it has just handled an event").under_way = None;
        *next = Some(Event::Stored(Outcome::Rejected(cause)));
    }

    /// Removes a connection that has ended.
    fn remove_if_finished(&mut self, id: SessionId) {
        let is_over = |connection: &Connection| {
            let is_leaving = connection.cut_at.is_some() && !connection.is_gone;
            connection.session.is_finished() && !connection.open && !is_leaving
        };
        if self.connections.get(&id).is_some_and(is_over) {
            self.connections.remove(&id);
        }
    }

    pub(super) fn set_stalled(&mut self, id: SessionId, is_stalled: bool) {
        let connection = self.connections.get_mut(&id).expect("the caller has found it");
        connection.is_stalled = is_stalled;
        if !is_stalled && !connection.open {
            // The close frame is written.
            self.gone(id);
            self.remove_if_finished(id);
        }
    }

    pub(super) fn node(&self) -> NodeId {
        NodeId::new(self.generation)
    }

    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        node == self.node()
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.connections.keys().copied().collect()
    }

    /// The number of connections whose sessions have not ended.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections.values().filter(|connection| connection.open).count()
    }

    fn pick(&self, number: u8) -> Option<SessionId> {
        let open: Vec<_> =
            self.connections.iter().filter(|(_, connection)| connection.open).map(|(&id, _)| id).collect();
        open.get(usize::from(number) % open.len().max(1)).copied()
    }
}
