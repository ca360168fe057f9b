//! What one process owes the store: releases that are not confirmed yet.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::id::{SessionId, UserId};
use crate::ledger::{Outcome, StoreCommand, StoreError};
use crate::time::Timestamp;

/// Sees every slot of one process back into the store.
///
/// An acquire whose answer never came may have taken a slot, and a release may fail. Both leave a *debt*: a release
/// that is submitted again, with backoff, until the store confirms it. What is said of releases holds for
/// [`Command::Linger`] as well, which is what the acquire of a slot that was to be taken up again comes to owe: a slot
/// that lingers is nobody's to give back. Room for the debt is reserved before the acquire is submitted, so there is
/// always room to owe.
///
/// Every ledger command passes through here twice: [`ReleaseTracker::reserve`] it is submitted, and [`ReleaseTracker::record`] its
/// answer, be it that a wait ended without one ([`Outcome::Unknown`]). Answers may come in any order, also those to
/// an acquire and to the release that was submitted behind it.
///
/// Invariant: a session that may have a slot in the store is in `held`, and unless its connection still sees to the
/// release, or has submitted one that is not answered, it owes it there. At most `room` sessions are.
#[derive(Debug)]
pub struct ReleaseTracker {
    capacity: usize,
    sessions: BTreeMap<SessionId, SlotState>,
    /// The debts that wait for their next try: exactly those that are [`SlotState::Waiting`].
    schedule: BTreeSet<(Timestamp, SessionId)>,
    /// How many are [`SlotState::Trying`].
    trying: usize,
}

/// How it stands with a session that may have a slot.
#[derive(Debug)]
enum SlotState {
    /// Nothing is owed: its connection sees to the release.
    Held,
    /// Its release is owed, and tried again then.
    Waiting(PendingRelease, Timestamp),
    /// Its release is owed, and under way again.
    Trying(PendingRelease),
}

#[derive(Debug)]
struct PendingRelease {
    user: UserId,
    /// When the session was lost, if its slot is to linger from then on.
    lost: Option<Timestamp>,
    tries: u32,
}

impl ReleaseTracker {
    /// How many releases are tried again at the same time, at most, so that they cannot fill a store's queue.
    pub const MAX_UNDER_WAY: usize = 64;

    const FIRST_BACKOFF: Duration = Duration::from_millis(50);

    /// The longest pause between two tries of one release. Once a store is well again, every debt is tried within
    /// this time, and as much longer as [`ReleaseTracker::MAX_UNDER_WAY`] at a time take.
    pub const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

    /// No debts, and room for so many sessions at once that hold or may hold a slot.
    #[must_use]
    pub const fn new(room: usize) -> Self {
        Self { capacity: room, sessions: BTreeMap::new(), schedule: BTreeSet::new(), trying: 0 }
    }

    /// Reserves what the command may come to owe. Must be asked before a session's command is submitted; releases
    /// from [`ReleaseTracker::next_retry`] are not asked about.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] for an acquire beyond the room: it must not be submitted.
    pub fn reserve(&mut self, command: &StoreCommand) -> Result<(), StoreError> {
        match command {
            StoreCommand::Acquire { .. } if self.sessions.len() >= self.capacity => Err(StoreError::Overloaded),
            StoreCommand::Acquire { session, .. } => {
                self.sessions.entry(*session).or_insert(SlotState::Held);
                Ok(())
            }
            StoreCommand::Release { .. }
            | StoreCommand::Linger { .. }
            | StoreCommand::CountSlots { .. }
            | StoreCommand::ListSessions { .. }
            | StoreCommand::EndSessions { .. } => Ok(()),
        }
    }

    /// Takes note of what became of a submitted command.
    pub fn record(&mut self, command: &StoreCommand, outcome: &Outcome, now: Timestamp) {
        match (command, outcome) {
            (
                StoreCommand::CountSlots { .. } | StoreCommand::ListSessions { .. } | StoreCommand::EndSessions { .. },
                _,
            )
            | (StoreCommand::Acquire { .. }, Outcome::Granted { .. }) => {}
            (StoreCommand::Acquire { session, .. }, Outcome::Denied(_) | Outcome::Rejected(_))
            | (StoreCommand::Release { session, .. } | StoreCommand::Linger { session, .. }, Outcome::Released) => {
                self.remove(*session);
            }
            // An answer to another question is as good as none: the slot may be there, or the acquire under way yet.
            (StoreCommand::Acquire { user, session, options, .. }, _) => {
                let is_return = options.as_ref().is_some_and(|options| options.resume.is_some());
                self.acquire_timed_out(user, *session, is_return, now);
            }
            (StoreCommand::Release { user, session }, _) => self.schedule_release(user, *session, None, now),
            (StoreCommand::Linger { user, session, at }, _) => self.schedule_release(user, *session, Some(*at), now),
        }
    }

    /// Nobody waits any longer for the answer to the session's acquire: it counts as [`Outcome::Unknown`].
    ///
    /// A slot that was to be taken up again (`is_return`) is not given back then, or its client would lose it to a slow
    /// store: it lingers, if it can.
    pub fn acquire_timed_out(&mut self, user: &UserId, session: SessionId, is_return: bool, now: Timestamp) {
        self.schedule_release(user, session, is_return.then_some(now), now);
    }

    /// The next release to try again, if one is due. It is under way until [`ReleaseTracker::record`] says what became of it.
    pub fn next_retry(&mut self, now: Timestamp) -> Option<StoreCommand> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let (_, session) = self.schedule.pop_first()?;
        let Some(SlotState::Waiting(debt, _)) = self.sessions.remove(&session) else {
            unreachable!("the schedule has exactly the debts that wait");
        };
        let user = debt.user.clone();
        let release = match debt.lost {
            None => StoreCommand::Release { user, session },
            Some(at) => StoreCommand::Linger { user, session, at },
        };
        self.sessions.insert(session, SlotState::Trying(debt));
        self.trying += 1;
        Some(release)
    }

    /// When [`ReleaseTracker::next_retry`] will next have something. May change with every call.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.trying >= Self::MAX_UNDER_WAY {
            return None;
        }
        self.schedule.first().map(|&(at, _)| at)
    }

    /// Whether this session's release is owed, be it that it waits or that it is under way again.
    #[must_use]
    pub fn is_pending(&self, session: SessionId) -> bool {
        matches!(self.sessions.get(&session), Some(SlotState::Waiting(..) | SlotState::Trying(_)))
    }

    /// How many releases are owed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.schedule.len() + self.trying
    }

    /// How many sessions hold, or may hold, a slot.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.sessions.len()
    }

    /// The session certainly has no slot.
    fn remove(&mut self, session: SessionId) {
        match self.sessions.remove(&session) {
            Some(SlotState::Waiting(_, at)) => {
                self.schedule.remove(&(at, session));
            }
            Some(SlotState::Trying(_)) => self.trying -= 1,
            Some(SlotState::Held) | None => {}
        }
    }

    /// The session may have a slot, and nobody else sees to its release. One that is settled already has none,
    /// whatever a late answer says: its commands are applied in order, and the release was the last.
    fn schedule_release(&mut self, user: &UserId, session: SessionId, lost: Option<Timestamp>, now: Timestamp) {
        let Some(standing) = self.sessions.get_mut(&session) else { return };
        let tries = match standing {
            SlotState::Held => 0,
            SlotState::Trying(debt) => {
                self.trying -= 1;
                debt.tries
            }
            SlotState::Waiting(..) => return,
        };
        let backoff = Self::FIRST_BACKOFF.saturating_mul(1 << tries.min(16)).min(Self::LONGEST_BACKOFF);
        let at = now + backoff;
        *standing = SlotState::Waiting(PendingRelease { user: user.clone(), lost, tries: tries.saturating_add(1) }, at);
        self.schedule.insert((at, session));
    }
}
