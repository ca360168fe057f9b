//! A store command from submission to its outcome.

use std::collections::BTreeSet;
use std::mem;

use session_core::SessionId;
use session_core::ledger::{self, ApplyResult, StoreCommand};
use session_core::ledger::{EndedSession, Outcome, SessionHint, StoreError};
use session_core::release_tracker::Ticket;
use session_core::session::Event;

use super::scenario::StoreFault;
use super::simulation::CoreSimulation;
use super::store::{Queued, liveness};
use crate::rule_oracle;

impl CoreSimulation {
    /// The store handles a command that is the first of its session in the queue.
    pub(super) fn store_step(&mut self, which: u8, fault: StoreFault) {
        let mut sessions = BTreeSet::new();
        let heads: Vec<_> =
            (0..self.store.queue.len()).filter(|&at| sessions.insert(self.store.queue[at].command.session())).collect();
        let Some(&at) = heads.get(usize::from(which) % heads.len().max(1)) else { return };
        self.store.queue[at].has_begun = true;
        let queued = self.store.queue[at].clone();
        let (result, answer) = match fault {
            StoreFault::Apply => (true, Some(None)),
            StoreFault::ApplyUnanswered => (true, None),
            StoreFault::ApplyUnknown => (true, Some(Some(Outcome::Unknown))),
            StoreFault::Reject => (false, Some(Some(Outcome::Rejected(StoreError::Failed)))),
            StoreFault::DropUnknown => (false, Some(Some(Outcome::Unknown))),
            StoreFault::DropUnanswered => (false, None),
            StoreFault::Begin => return,
            StoreFault::Postpone => {
                self.store.queue[at].answered = true;
                if !queued.answered {
                    self.outcome(&queued.command, Outcome::Unknown);
                }
                return;
            }
        };
        self.store.queue.remove(at);
        let outcome = if result { Some(self.apply(&queued.command)) } else { None };
        match answer {
            Some(given) if !queued.answered => {
                let outcome = given.or(outcome).expect("an applied command has an outcome");
                self.outcome(&queued.command, outcome);
            }
            // No session waits for a release, so no timeout answers it: the store must.
            None if queued.command.is_release() && !queued.answered => {
                self.outcome(&queued.command, Outcome::Unknown);
            }
            Some(_) | None => {}
        }
    }

    /// Applies a command, checks the result, and notifies the sessions that lost their slots.
    fn apply(&mut self, command: &StoreCommand) -> Outcome {
        let (alive, deaths) = (self.node(), self.deaths.clone());
        let liveness = |node| liveness(&deaths, alive, node);
        let record = self.store.records.entry(command.user().clone()).or_default();
        let before = record.clone();
        let result = ledger::apply(command.user(), record, command, &self.policy, liveness);
        rule_oracle::check(&before, command, &self.policy, liveness, &result, record);
        self.told.applied(command, &self.policy, &result.outcome, record);
        let ApplyResult { outcome, ended, hints, .. } = result;
        self.hints.extend(hints);
        for EndedSession { session, .. } in &ended {
            if let Some(connection) = self.connections.get_mut(session)
                && !connection.is_gone
            {
                connection.cut_at = Some(self.leaving.slot_lost(command.user(), *session, self.now));
            }
        }
        for EndedSession { session, reason } in ended {
            self.handle(session, Event::Ended(reason));
        }
        outcome
    }

    /// Delivers all hints. A session whose server was killed gets none.
    pub(super) fn deliver_hints(&mut self) {
        for SessionHint { session, hint } in mem::take(&mut self.hints) {
            self.handle(session, Event::Hinted(hint));
        }
    }

    /// Delivers one of the hints, or loses it.
    pub(super) fn hint(&mut self, which: u8, is_lost: bool) {
        if self.hints.is_empty() {
            return;
        }
        let SessionHint { session, hint } = self.hints.swap_remove(usize::from(which) % self.hints.len());
        if !is_lost {
            self.handle(session, Event::Hinted(hint));
        }
    }

    /// Delivers a command's outcome to the session that waits, or to the release tracker.
    fn outcome(&mut self, command: &StoreCommand, outcome: Outcome) {
        if command.session().node() != self.node() {
            return; // The node that submitted it is dead.
        }
        let waits = self.connections.get(&command.session()).and_then(|connection| connection.under_way.as_ref());
        if waits.is_some_and(|(waited_for, _)| waited_for == command) {
            let (user, session) = (command.user(), command.session());
            let is_grant = matches!(outcome, Outcome::Granted { .. }) && !self.connections[&session].is_gone;
            if is_grant && self.leaving.must_wait(user, session) {
                self.connections.get_mut(&session).expect("it waits").held = Some(outcome);
            } else {
                self.answer(session, outcome);
            }
        } else if command.is_release() {
            self.tracker.answered(&Ticket::from(command), &outcome, self.now);
        }
    }

    /// Ends a session's wait with an answer.
    pub(super) fn answer(&mut self, id: SessionId, outcome: Outcome) {
        let connection = self.connections.get_mut(&id).expect("a waiting session exists");
        let (command, _) = connection.under_way.take().expect("it waits");
        if matches!(command, StoreCommand::Acquire { .. }) && !matches!(outcome, Outcome::Granted { .. }) {
            connection.user = None;
        }
        match (&command, &outcome) {
            (StoreCommand::Acquire { .. }, Outcome::Waiting(_)) => connection.is_in_line = true,
            (StoreCommand::Acquire { .. }, Outcome::Granted { .. } | Outcome::Denied(_)) => {
                connection.is_in_line = false
            }
            (StoreCommand::ListSessions { at, .. }, _) => connection.listed_at = Some(*at),
            _ => {}
        }
        self.tracker.answered(&Ticket::from(&command), &outcome, self.now);
        self.handle(id, Event::Stored(outcome));
    }

    /// The client is served no more. The grants that waited for this are passed on.
    pub(super) fn gone(&mut self, id: SessionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            (connection.is_gone, connection.is_told) = (true, false);
        }
        for session in self.leaving.gone(id) {
            let held = self.connections.get_mut(&session).and_then(|connection| connection.held.take());
            self.answer(session, held.expect("a session that waits has an answer"));
        }
    }

    /// Ends a session's wait without an answer, and withdraws the command if the store has not begun to apply it.
    pub(super) fn end_wait(&mut self, id: SessionId) {
        let command = self.waits_for(id).expect("it waits");
        if self.withdraw(&command) {
            self.handle(id, Event::Stored(Outcome::Unknown));
        } else {
            self.answer(id, Outcome::Unknown);
        }
    }

    /// Withdraws the acquire of a session whose connection has ended, if the store has not begun to apply it. Returns
    /// whether it did: then the session has to be told.
    pub(super) fn withdraw_abandoned(&mut self, id: SessionId) -> bool {
        let is_abandoned =
            self.connections.get(&id).is_some_and(|connection| connection.session.is_acquire_abandoned());
        let Some(command) = self.waits_for(id).filter(|_| is_abandoned) else { return false };
        self.withdraw(&command)
    }

    fn waits_for(&self, id: SessionId) -> Option<StoreCommand> {
        let (command, _) = self.connections.get(&id)?.under_way.as_ref()?;
        Some(command.clone())
    }

    fn withdraw(&mut self, command: &StoreCommand) -> bool {
        let is_open = |queued: &Queued| queued.command == *command && !queued.has_begun;
        let Some(at) = self.store.queue.iter().position(is_open) else { return false };
        self.store.queue.remove(at);
        self.tracker.withdrawn(&Ticket::from(command), self.now);
        let connection = self.connections.get_mut(&command.session()).expect("a waiting session exists");
        connection.under_way = None;
        if matches!(command, StoreCommand::Acquire { .. }) {
            // It is certainly without a slot, so nobody waits for it to leave.
            connection.user = None;
        }
        true
    }

    pub(super) fn submit(&mut self, command: StoreCommand) {
        self.store.queue.push_back(Queued { command, answered: false, has_begun: false });
    }
}
