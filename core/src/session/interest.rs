//! What a session does by itself while its client is idle: it waits in line for a slot, or watches the user's sessions.

use alloc::boxed::Box;
use core::time::Duration;

use super::io::{Actions, Effect, Frame};
use super::machine::Session;
use super::replies::{authenticate_failure, reply, sessions_changed, waiting_details};
use super::state::{AcquireRequest, Connection, Interest, PendingCall, Slot, StoreQuery, Wait, Watch};
use crate::ledger::{AcquireOptions, Hint, LinePlace, Outcome, SlotUsage, StoreCommand};
use crate::protocol::{AuthenticateFailure, ServerMessage};
use crate::time::Timestamp;

impl Session {
    /// How often a session in line asks again without a hint. A hint may be lost, and nobody gives one when an operator
    /// raises the limit.
    pub const LINE_INTERVAL: Duration = Duration::from_secs(10);

    /// The shortest time between two [`ServerMessage::SessionsChanged`], and between two changes of its place that a client in
    /// line is told.
    pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.interest.as_ref(), Some(Interest::Waiting(_)))
    }

    /// What the session would hold if it were its turn.
    pub(super) fn awaited_slot(&self) -> Option<&Slot> {
        match self.interest.as_ref() {
            Some(Interest::Waiting(wait)) => Some(&wait.slot),
            Some(Interest::Watching(_)) | None => None,
        }
    }

    /// When the session asks the store by itself.
    pub(super) fn asks_at(&self) -> Option<Timestamp> {
        match self.interest.as_ref()? {
            Interest::Waiting(wait) => Some(wait.asks_at()),
            Interest::Watching(watch) => watch.ask_at.filter(|_| !watch.is_congested),
        }
    }

    /// Says whether the client takes no data (what the session sent before has not left the process), or has caused more work than
    /// it may. Then the session does nothing of its own accord that can wait: it tells no place in line that has changed, and
    /// asks for no list. When its turn comes, it asks for its slot. Call it before
    /// [`Event::Hinted`](super::Event), [`Event::Stored`](super::Event) and [`Event::Tick`](super::Event), and when it changes. It
    /// may change [`Session::deadline`].
    pub fn set_congested(&mut self, is_congested: bool) {
        match self.interest.as_mut() {
            Some(Interest::Waiting(wait)) => wait.is_congested = is_congested,
            Some(Interest::Watching(watch)) => watch.is_congested = is_congested,
            None => {}
        }
    }

    /// Takes a hint. While a call is pending its answer may be older than the hint, so the session asks once more then.
    pub(super) fn hinted(&mut self, hint: Hint, now: Timestamp) -> Actions {
        if let Some(PendingCall::Acquire(Some(request))) = &mut self.pending
            && let Some(wait) = &mut request.wait
        {
            wait.hint_at = Some(now);
        }
        match (self.interest.as_mut(), hint) {
            (Some(Interest::Waiting(wait)), Hint::Turn) => wait.hint_at = Some(now),
            (Some(Interest::Waiting(wait)), Hint::Changed) if wait.is_congested => {}
            (Some(Interest::Waiting(wait)), Hint::Changed) => {
                let at = now.max(wait.asked_at + Self::WATCH_INTERVAL);
                wait.hint_at = Some(wait.hint_at.map_or(at, |before| before.min(at)));
            }
            (Some(Interest::Watching(watch)), Hint::Changed) => {
                let at = now.max(watch.asked_at + Self::WATCH_INTERVAL);
                watch.ask_at = Some(watch.ask_at.map_or(at, |before| before.min(at)));
            }
            (Some(Interest::Watching(_)), Hint::Turn) | (None, _) => {}
        }
        self.ask_if_due(now).unwrap_or_default()
    }

    /// Asks the store if it is time, and if no call is pending.
    pub(super) fn ask_if_due(&mut self, now: Timestamp) -> Option<Actions> {
        let is_open = matches!(self.connection, Connection::Open { .. });
        if !is_open || self.is_busy() || self.asks_at().is_none_or(|at| now < at) {
            return None;
        }
        match self.interest.as_mut()? {
            Interest::Waiting(wait) => {
                let (call, command) = wait.ask_again(self.id, now);
                self.slot = Some(wait.slot.clone());
                Some(self.call(call, Effect::Store(command)))
            }
            Interest::Watching(watch) => {
                (watch.asked_at, watch.ask_at) = (now, None);
                Some(self.query(StoreQuery::Watch, None, now))
            }
        }
    }

    /// The store put the session into the line, or it stays there.
    pub(super) fn waits(
        &mut self,
        slot: Slot,
        mut request: AcquireRequest,
        usage: &SlotUsage,
        now: Timestamp,
    ) -> Actions {
        let place = if let LinePlace::At(place) = usage.line { place } else { u16::MAX };
        let asked = request.wait.take();
        let is_asked_by_client = asked.is_some();
        let Connection::Open { deadline, .. } = self.connection else { return Actions::default() };
        let mut wait = match (self.interest.take(), asked) {
            (before, Some(asked)) => {
                let time_left = match before {
                    Some(Interest::Waiting(before)) => before.time_left,
                    Some(Interest::Watching(_)) | None => deadline.since(now),
                };
                let (options, until, hint_at) = (asked.options, asked.until, asked.hint_at);
                Box::new(Wait {
                    slot,
                    request,
                    options,
                    until,
                    ask_at: now,
                    asked_at: now,
                    hint_at,
                    place,
                    time_left,
                    is_congested: false,
                })
            }
            (Some(Interest::Waiting(wait)), None) => wait,
            // No store puts a session into the line that did not ask for it.
            (Some(Interest::Watching(_)) | None, None) => return Actions::default(),
        };
        let is_held_back = wait.is_congested && !is_asked_by_client;
        let has_moved = wait.place != place;
        if !is_held_back {
            wait.place = place;
        }
        let regular = now + Self::LINE_INTERVAL;
        // A time that has passed by this clock may come by that of the store.
        let free_at = usage.free_at.map(|at| if at > now { at } else { now + Self::WATCH_INTERVAL });
        wait.ask_at = free_at.map_or(regular, |at| at.min(regular));
        let until = wait.until;
        self.interest = Some(Interest::Waiting(wait));
        if is_asked_by_client {
            self.put_off_ping(now);
        }
        if is_held_back {
            return Actions::default();
        }
        let (details, is_new) = waiting_details(usage, place, until, self.id, &mut self.listed, now);
        let is_told = is_asked_by_client || has_moved || is_new;
        Actions {
            send: is_told.then(|| Frame::Message(ServerMessage::AuthenticateWaiting(Box::new(details)))),
            ..Actions::default()
        }
    }

    /// The store did not look at the session's place: it was overloaded, say. The session keeps it, and asks again. `None` if
    /// it cannot wait any longer, or does not. A client that has asked anew is told, and its earlier request goes on.
    pub(super) fn stays_in_line(
        &mut self,
        request: Option<&AcquireRequest>,
        failure: AuthenticateFailure,
        now: Timestamp,
    ) -> Option<Actions> {
        let Some(Interest::Waiting(wait)) = self.interest.as_mut() else { return None };
        if now >= wait.until {
            return None;
        }
        wait.ask_at = now + Self::WATCH_INTERVAL;
        let is_own = request.is_some_and(|request| request.is_own);
        Some(if is_own { Actions::default() } else { reply(authenticate_failure(failure, request.is_some())) })
    }

    /// The session does not wait any more. The time to authenticate goes on where it stopped.
    pub(super) fn leave_line(&mut self, now: Timestamp) {
        if let Some(Interest::Waiting(wait)) = self.interest.take()
            && let Connection::Open { deadline, is_pinged } = &mut self.connection
        {
            (*deadline, *is_pinged) = (now + wait.time_left, false);
        }
    }

    /// The answer to a client that begins or ceases to watch came.
    pub(super) fn watches(&mut self, watch: bool, usage: &SlotUsage, now: Timestamp) {
        self.interest = watch.then(|| {
            let (_, fingerprint) = sessions_changed(usage, self.id, self.is_detailed());
            let ask_at = next_lapse(usage, now);
            Interest::Watching(Box::new(Watch { asked_at: now, ask_at, fingerprint, is_congested: false }))
        });
    }

    /// The store answered a session that watches.
    pub(super) fn watched(&mut self, outcome: &Outcome, now: Timestamp) -> Actions {
        let is_detailed = self.is_detailed();
        let Some(Interest::Watching(watch)) = self.interest.as_mut() else { return Actions::default() };
        let Outcome::Listed(usage) = outcome else {
            watch.ask_at = Some(now + Self::WATCH_INTERVAL);
            return Actions::default();
        };
        let lapse = next_lapse(usage, now).map(|at| at.max(watch.asked_at + Self::WATCH_INTERVAL));
        watch.ask_at = watch.ask_at.map_or(lapse, |at| Some(lapse.map_or(at, |lapse| lapse.min(at))));
        let (list, fingerprint) = sessions_changed(usage, self.id, is_detailed);
        let has_changed = watch.fingerprint != fingerprint;
        watch.fingerprint = fingerprint;
        Actions {
            send: has_changed.then(|| Frame::Message(ServerMessage::SessionsChanged(Box::new(list)))),
            ..Actions::default()
        }
    }
}

/// When the list changes by itself, if nothing else happens: the first lingering session lapses.
fn next_lapse(usage: &SlotUsage, now: Timestamp) -> Option<Timestamp> {
    let first = usage.sessions.iter().filter_map(|entry| entry.status.lingers_until()).min()?;
    // A time that has passed by this clock may come by that of the store.
    Some(if first > now { first } else { now + Session::WATCH_INTERVAL })
}

impl Wait {
    fn asks_at(&self) -> Timestamp {
        self.until.min(self.hint_at.map_or(self.ask_at, |hint| hint.min(self.ask_at)))
    }

    /// The call and the command with which the session asks again. The last time it does not want to wait any longer: it gets
    /// a slot, or leaves the line.
    fn ask_again(&mut self, session: crate::SessionId, now: Timestamp) -> (PendingCall, StoreCommand) {
        let is_last = now >= self.until;
        let options = AcquireOptions { waits: !is_last, ..self.options.clone() };
        (self.asked_at, self.hint_at) = (now, None);
        let request = Box::new(AcquireRequest { is_own: true, ..self.request.clone() });
        let (user, limit) = (self.slot.user.clone(), self.slot.limit);
        let command = StoreCommand::Acquire { user, session, limit, at: now, options: Some(Box::new(options)) };
        (PendingCall::Acquire(Some(request)), command)
    }
}
