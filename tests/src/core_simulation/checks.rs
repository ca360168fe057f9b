//! The invariants that hold after every step, and those that hold after recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use session_core::SessionId;
use session_core::ledger::{self, SessionRecord, SessionStatus, StoreCommand, UserRecord};
use session_core::protocol::ClientMessage;
use session_core::session::{Event, Session};

use super::scenario::{StoreFault, credential, user_id};
use super::simulation::CoreSimulation;
use super::store::{Queued, liveness};
use crate::policies::LINGER;
use crate::rule_oracle;

impl CoreSimulation {
    /// Checks the invariants that hold at any time.
    pub fn check(&mut self) {
        self.checks += 1;
        self.check_told();
        let mut sessions = BTreeSet::new();
        for record in self.store.records.values() {
            for entry in record.sessions() {
                assert!(sessions.insert(entry.session), "session {} has two entries", entry.session);
                if entry.status == SessionStatus::Live && self.is_alive(entry.session.node()) {
                    let session = entry.session;
                    assert!(self.is_accounted_for(session), "nothing will release the slot of {session}");
                }
            }
            for waiter in record.waiting() {
                let session = waiter.session;
                assert!(sessions.insert(session), "session {session} has an entry, and waits");
                let is_alive = self.is_alive(session.node());
                assert!(!is_alive || self.is_leaving_line_or_waits(session), "{session} waits in line for nobody");
            }
            for waiter in record.waiting() {
                sessions.remove(&waiter.session);
            }
        }
        let is_lingering = |entry: &SessionRecord| entry.status != SessionStatus::Live;
        let lingering: Vec<_> =
            self.store.records.values().flat_map(UserRecord::sessions).filter(|entry| is_lingering(entry)).collect();
        for entry in lingering {
            sessions.remove(&entry.session);
            // A node that was killed may have granted a slot without telling the client.
            let is_known =
                entry.resumable().is_some_and(|resumable| self.known_keys.contains(&resumable.key.to_bytes()));
            let may_linger = is_known || !self.is_alive(entry.session.node());
            assert!(may_linger, "the slot of {} lingers, and no client has its token", entry.session);
        }
        for (id, connection) in &self.connections {
            if connection.has_slot {
                assert!(sessions.contains(id), "session {id} was granted a slot that is not in the store");
            }
            let expires = connection.session.expires_at();
            assert!(
                expires.is_none_or(|unix_seconds| self.now < self.time_of(unix_seconds)),
                "session {id} is open although its token has expired"
            );
            let is_served = connection.open && connection.is_in_line && connection.under_way.is_none();
            assert!(!is_served || self.is_in_a_line(*id), "session {id} waits, and is not in line");
            let busy = connection.session.is_busy();
            assert_eq!(
                busy,
                connection.under_way.is_some(),
                "session {id}: busy without a command under way, or the reverse"
            );
            assert!(!(busy && connection.session.deadline().is_some()), "session {id} counts silence while busy");
            let is_overdue = connection.cut_at.is_some_and(|cut_at| cut_at < self.now) && !connection.is_gone;
            assert!(!is_overdue, "session {id} lost its slot and keeps its socket");
        }
        let is_any_held = self.connections.values().any(|connection| connection.held.is_some());
        assert!(!(is_any_held && self.leaving.is_empty()), "a grant is held back, and nobody is leaving");
        assert!(self.tracker.pending() <= self.tracker.tracked(), "more releases are pending than sessions tracked");
    }

    /// The sessions whose clients were told that they are in, and are served.
    #[must_use]
    pub fn told_sessions(&self) -> Vec<SessionId> {
        self.connections.iter().filter(|(_, connection)| connection.is_told).map(|(&id, _)| id).collect()
    }

    /// How many sessions the records have in line.
    #[must_use]
    pub fn in_line(&self) -> usize {
        self.store.records.values().map(|record| record.waiting().len()).sum()
    }

    /// How many hints of the store have not reached their sessions.
    #[must_use]
    pub fn hints_under_way(&self) -> usize {
        self.hints.len()
    }

    /// Checks which clients were told that they are in.
    pub(super) fn check_told(&mut self) {
        let told = self.told_sessions();
        self.told.check(told);
    }

    /// Ends all faults, disconnects all clients, and checks that every slot becomes free.
    pub fn check_recovery(&mut self) {
        self.check_line_moves();
        for id in self.ids() {
            self.disconnect(id);
        }
        // Long enough for every timeout and every retry, with a store without faults.
        for _ in 0..1000 {
            while !self.store.queue.is_empty() {
                self.store_step(0, StoreFault::Apply);
                self.check();
            }
            if self.connections.is_empty() && self.tracker.tracked() == 0 {
                break;
            }
            self.pass(Duration::from_secs(1));
            self.check();
        }
        assert!(self.connections.is_empty(), "these sessions never finished: {:?}", self.connections);
        assert!(self.leaving.is_empty(), "sessions that ended are still leaving: {:?}", self.leaving);
        assert_eq!((self.tracker.tracked(), self.tracker.pending()), (0, 0), "a release was never confirmed");
        self.draining = false;
        // Lingering sessions lapse.
        self.pass(LINGER);
        self.policy = self.initial_policy;
        let (now, alive) = (self.now, self.node());
        let deaths = self.deaths.clone();
        for record in self.store.records.values_mut() {
            ledger::remove_lapsed(record, now, |node| liveness(&deaths, alive, node));
            assert!(record.is_empty(), "a session never lapses: {record:?}");
        }
        for user in 0..Self::USERS {
            self.connect();
            let (&id, _) = self.connections.last_key_value().expect("it has just connected");
            self.handle(id, Event::Text(&ClientMessage::Authenticate(credential(user)).encode()));
            while !self.store.queue.is_empty() {
                self.store_step(0, StoreFault::Apply);
            }
            assert_eq!(
                self.connections[&id].has_slot,
                self.policy.limit.slots() > 0,
                "a new session was not admitted at the first attempt"
            );
            let slots = self.store.records.get(&user_id(user));
            assert_eq!(slots.map_or(0, |record| record.sessions().len()), self.policy.limit.slots().min(1) as usize);
            self.disconnect(id);
            while !self.store.queue.is_empty() {
                self.store_step(0, StoreFault::Apply);
            }
            self.check();
        }
        assert_eq!(self.tracker.tracked(), 0);
        let left: Vec<_> = self.store.records.values().flat_map(UserRecord::sessions).collect();
        assert!(left.is_empty(), "these slots were never released: {left:?}");
        let waiting: Vec<_> = self.store.records.values().flat_map(UserRecord::waiting).collect();
        assert!(waiting.is_empty(), "these sessions still wait: {waiting:?}");
    }

    /// Without faults nobody stays in line for long who would find room.
    fn check_line_moves(&mut self) {
        let mut called_since = BTreeMap::new();
        for _ in 0..25 {
            if self.store.records.values().all(|record| record.waiting().is_empty()) {
                return;
            }
            // Few steps: no two sessions answer each other for ever.
            for _ in 0..1000 {
                self.deliver_hints();
                self.store_step(0, StoreFault::Apply);
                self.check();
                if self.store.queue.is_empty() && self.hints.is_empty() {
                    break;
                }
            }
            assert!(self.store.queue.is_empty(), "sessions ask again and again: {:?}", self.store.queue);
            let (now, alive, deaths) = (self.now, self.node(), self.deaths.clone());
            let liveness = |node| liveness(&deaths, alive, node);
            let called = self.store.records.values();
            let called: BTreeSet<_> =
                called.flat_map(|record| rule_oracle::called(record, &self.policy, liveness, now)).collect();
            called_since.retain(|session, _| called.contains(session));
            for session in called {
                let since = *called_since.entry(session).or_insert(now);
                assert!(
                    now.since(since) <= Session::LINE_INTERVAL,
                    "{session} waits since {since}, and would find room"
                );
            }
            self.pass(Duration::from_secs(1));
            self.check();
        }
    }

    /// Whether the session's connection is open and it waits, or something will take it out of the line.
    fn is_leaving_line_or_waits(&self, session: SessionId) -> bool {
        let release = |queued: &Queued| queued.command.session() == session && queued.command.is_release();
        let waits = self.connections.get(&session).is_some_and(|connection| {
            let asks = connection.under_way.as_ref();
            connection.open && connection.is_in_line
                || asks.is_some_and(|(command, _)| matches!(command, StoreCommand::Acquire { .. }))
        });
        waits || self.tracker.is_pending(session) || self.store.queue.iter().any(release)
    }

    fn is_in_a_line(&self, session: SessionId) -> bool {
        let mut waiting = self.store.records.values().flat_map(UserRecord::waiting);
        waiting.any(|waiter| waiter.session == session)
    }

    /// Whether a connection, the release tracker or the store's queue will release the slot of this session.
    fn is_accounted_for(&self, session: SessionId) -> bool {
        let served = self.connections.get(&session).is_some_and(|connection| !connection.session.is_finished());
        let release = |queued: &Queued| queued.command.session() == session && queued.command.is_release();
        served || self.tracker.is_pending(session) || self.store.queue.iter().any(release)
    }
}
