//! What one process owes the store: releases that are not confirmed yet.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::id::{SessionId, UserId};
use crate::ledger::{Outcome, StoreCommand, StoreError};
use crate::time::Time;

/// Sees every slot of one process back into the store.
///
/// An acquire whose answer never came may have taken a slot, and a release may fail. Both leave a *debt*: a release
/// that is submitted again, with backoff, until the store confirms it. What is said of releases holds for
/// [`Command::Linger`] as well, which is what the acquire of a slot that was to be taken up again comes to owe: a slot
/// that lingers is nobody's to give back. Room for the debt is reserved before the acquire is submitted, so there is
/// always room to owe.
///
/// Every ledger command passes through here twice: [`Debts::before`] it is submitted, and [`Debts::after`] its
/// answer, be it that a wait ended without one ([`Outcome::Unknown`]). Answers may come in any order, also those to
/// an acquire and to the release that was submitted behind it.
///
/// Invariant: a session that may have a slot in the store is in `held`, and unless its connection still sees to the
/// release, or has submitted one that is not answered, it owes it there. At most `room` sessions are.
#[derive(Debug)]
pub struct Debts {
    room: usize,
    held: BTreeMap<SessionId, Standing>,
    /// The debts that wait for their next try: exactly those that are [`Standing::Waiting`].
    schedule: BTreeSet<(Time, SessionId)>,
    /// How many are [`Standing::Trying`].
    trying: usize,
}

/// How it stands with a session that may have a slot.
#[derive(Debug)]
enum Standing {
    /// Nothing is owed: its connection sees to the release.
    Served,
    /// Its release is owed, and tried again then.
    Waiting(Debt, Time),
    /// Its release is owed, and under way again.
    Trying(Debt),
}

#[derive(Debug)]
struct Debt {
    user: UserId,
    /// When the session was lost, if its slot is to linger from then on.
    lost: Option<Time>,
    tries: u32,
}

impl Debts {
    /// How many releases are tried again at the same time, at most, so that they cannot fill a store's queue.
    pub const MAX_UNDER_WAY: usize = 64;

    const FIRST_BACKOFF: Duration = Duration::from_millis(50);

    /// The longest pause between two tries of one release. Once a store is well again, every debt is tried within
    /// this time, and as much longer as [`Debts::MAX_UNDER_WAY`] at a time take.
    pub const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

    /// No debts, and room for so many sessions at once that hold or may hold a slot.
    #[must_use]
    pub const fn new(room: usize) -> Self {
        Self { room, held: BTreeMap::new(), schedule: BTreeSet::new(), trying: 0 }
    }

    /// Reserves what the command may come to owe. Must be asked before a session's command is submitted; releases
    /// from [`Debts::due`] are not asked about.
    ///
    /// # Errors
    /// [`Cause::Overloaded`] for an acquire beyond the room: it must not be submitted.
    pub fn before(&mut self, command: &StoreCommand) -> Result<(), StoreError> {
        match command {
            StoreCommand::Acquire { .. } if self.held.len() >= self.room => Err(StoreError::Overloaded),
            StoreCommand::Acquire { session, .. } => {
                self.held.entry(*session).or_insert(Standing::Served);
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
    pub fn after(&mut self, command: &StoreCommand, outcome: &Outcome, now: Time) {
        match (command, outcome) {
            (
                StoreCommand::CountSlots { .. } | StoreCommand::ListSessions { .. } | StoreCommand::EndSessions { .. },
                _,
            )
            | (StoreCommand::Acquire { .. }, Outcome::Granted { .. }) => {}
            (StoreCommand::Acquire { session, .. }, Outcome::Denied(_) | Outcome::Rejected(_))
            | (StoreCommand::Release { session, .. } | StoreCommand::Linger { session, .. }, Outcome::Released) => {
                self.settle(*session);
            }
            // An answer to another question is as good as none: the slot may be there, or the acquire under way yet.
            (StoreCommand::Acquire { user, session, options: wish, .. }, _) => {
                let is_return = wish.as_ref().is_some_and(|wish| wish.resume.is_some());
                self.forsake(user, *session, is_return, now);
            }
            (StoreCommand::Release { user, session }, _) => self.owe(user, *session, None, now),
            (StoreCommand::Linger { user, session, at }, _) => self.owe(user, *session, Some(*at), now),
        }
    }

    /// Nobody waits any longer for the answer to the session's acquire: it counts as [`Outcome::Unknown`].
    ///
    /// A slot that was to be taken up again (`is_return`) is not given back then, or its client would lose it to a slow
    /// store: it lingers, if it can.
    pub fn forsake(&mut self, user: &UserId, session: SessionId, is_return: bool, now: Time) {
        self.owe(user, session, is_return.then_some(now), now);
    }

    /// The next release to try again, if one is due. It is under way until [`Debts::after`] says what became of it.
    pub fn due(&mut self, now: Time) -> Option<StoreCommand> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let (_, session) = self.schedule.pop_first()?;
        let Some(Standing::Waiting(debt, _)) = self.held.remove(&session) else {
            unreachable!("the schedule has exactly the debts that wait");
        };
        let user = debt.user.clone();
        let release = match debt.lost {
            None => StoreCommand::Release { user, session },
            Some(at) => StoreCommand::Linger { user, session, at },
        };
        self.held.insert(session, Standing::Trying(debt));
        self.trying += 1;
        Some(release)
    }

    /// When [`Debts::due`] will next have something. May change with every call.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if self.trying >= Self::MAX_UNDER_WAY {
            return None;
        }
        self.schedule.first().map(|&(at, _)| at)
    }

    /// Whether this session's release is owed, be it that it waits or that it is under way again.
    #[must_use]
    pub fn owes(&self, session: SessionId) -> bool {
        matches!(self.held.get(&session), Some(Standing::Waiting(..) | Standing::Trying(_)))
    }

    /// How many releases are owed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.schedule.len() + self.trying
    }

    /// How many sessions hold, or may hold, a slot.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The session certainly has no slot.
    fn settle(&mut self, session: SessionId) {
        match self.held.remove(&session) {
            Some(Standing::Waiting(_, at)) => {
                self.schedule.remove(&(at, session));
            }
            Some(Standing::Trying(_)) => self.trying -= 1,
            Some(Standing::Served) | None => {}
        }
    }

    /// The session may have a slot, and nobody else sees to its release. One that is settled already has none,
    /// whatever a late answer says: its commands are applied in order, and the release was the last.
    fn owe(&mut self, user: &UserId, session: SessionId, lost: Option<Time>, now: Time) {
        let Some(standing) = self.held.get_mut(&session) else { return };
        let tries = match standing {
            Standing::Served => 0,
            Standing::Trying(debt) => {
                self.trying -= 1;
                debt.tries
            }
            Standing::Waiting(..) => return,
        };
        let backoff = Self::FIRST_BACKOFF.saturating_mul(1 << tries.min(16)).min(Self::LONGEST_BACKOFF);
        let at = now + backoff;
        *standing = Standing::Waiting(Debt { user: user.clone(), lost, tries: tries.saturating_add(1) }, at);
        self.schedule.insert((at, session));
    }
}
