//! What one process owes the store: releases that are not confirmed yet.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::id::{SessionId, UserId};
use crate::ledger::{Cause, Command, Outcome};
use crate::time::Time;

/// Sees every slot of one process back into the store.
///
/// An acquire whose answer never came may have taken a slot, and a release may fail. Both leave a *debt*: a release
/// that is submitted again, with backoff, until the store confirms it. Room for that debt is reserved before the
/// acquire is submitted, so there is always room to owe.
///
/// Every ledger command passes through here twice: [`Debts::before`] it is submitted, and [`Debts::after`] its
/// answer, be it that a wait ended without one ([`Outcome::Unknown`]).
///
/// Invariant: every session that may have a slot in the store is either served, or has a release under way, or is
/// in `owed`; their number is at most `room`.
#[derive(Debug)]
pub struct Debts {
    room: usize,
    /// Sessions that may have a slot in the store.
    held: usize,
    owed: BTreeMap<SessionId, Debt>,
    /// The debts that wait for their next try.
    schedule: BTreeSet<(Time, SessionId)>,
}

#[derive(Debug)]
struct Debt {
    user: UserId,
    tries: u32,
}

impl Debts {
    /// How many releases are tried again at the same time, at most, so that they cannot fill a store's queue.
    pub const MAX_UNDER_WAY: usize = 64;

    const FIRST_BACKOFF: Duration = Duration::from_millis(50);

    /// The longest pause between two tries of one release. A store that recovers has every slot back this long
    /// after, and as much longer as the releases themselves take.
    pub const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

    /// No debts, and room for so many sessions at once that hold or may hold a slot.
    #[must_use]
    pub const fn new(room: usize) -> Self {
        Self { room, held: 0, owed: BTreeMap::new(), schedule: BTreeSet::new() }
    }

    /// Reserves what the command may come to owe. Must be asked before a session's command is submitted; releases
    /// from [`Debts::due`] are not asked about.
    ///
    /// # Errors
    /// [`Cause::Overloaded`] for an acquire beyond the room: it must not be submitted.
    pub fn before(&mut self, command: &Command) -> Result<(), Cause> {
        match command {
            Command::Acquire { .. } if self.held >= self.room => Err(Cause::Overloaded),
            Command::Acquire { .. } => {
                self.held += 1;
                Ok(())
            }
            Command::Release { .. } | Command::Lookup { .. } => Ok(()),
        }
    }

    /// Takes note of what became of a submitted command.
    pub fn after(&mut self, command: &Command, outcome: Outcome, now: Time) {
        match (command, outcome) {
            (Command::Lookup { .. }, _) | (Command::Acquire { .. }, Outcome::Granted { .. }) => {}
            (Command::Acquire { .. }, Outcome::Denied | Outcome::Rejected(_)) => {
                self.held = self.held.saturating_sub(1)
            }
            (Command::Release { session, .. }, Outcome::Released) => {
                self.owed.remove(session);
                self.held = self.held.saturating_sub(1);
            }
            // Unknown, or the answer to another question: the slot may be there.
            (Command::Acquire { user, session, .. }, Outcome::Unknown | Outcome::Released | Outcome::Found { .. })
            | (
                Command::Release { user, session },
                Outcome::Granted { .. }
                | Outcome::Denied
                | Outcome::Found { .. }
                | Outcome::Rejected(_)
                | Outcome::Unknown,
            ) => self.owe(user, *session, now),
        }
    }

    /// The next release to try again, if one is due. It is under way until [`Debts::after`] says what became of it.
    pub fn due(&mut self, now: Time) -> Option<Command> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let (_, session) = self.schedule.pop_first()?;
        let debt = self.owed.get(&session)?;
        Some(Command::Release { user: debt.user.clone(), session })
    }

    /// When [`Debts::due`] will next have something. May change with every call.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let under_way = self.owed.len() - self.schedule.len();
        if under_way >= Self::MAX_UNDER_WAY {
            return None;
        }
        self.schedule.first().map(|&(at, _)| at)
    }

    /// How many releases are owed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Whether this session's release is owed, be it that it waits or that it is under way again.
    #[must_use]
    pub fn owes(&self, session: SessionId) -> bool {
        self.owed.contains_key(&session)
    }

    /// How many sessions hold, or may hold, a slot.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    fn owe(&mut self, user: &UserId, session: SessionId, now: Time) {
        let debt = self.owed.entry(session).or_insert_with(|| Debt { user: user.clone(), tries: 0 });
        let backoff = Self::FIRST_BACKOFF.saturating_mul(1 << debt.tries.min(16)).min(Self::LONGEST_BACKOFF);
        debt.tries = debt.tries.saturating_add(1);
        self.schedule.insert((now + backoff, session));
    }
}
