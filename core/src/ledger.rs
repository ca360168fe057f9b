//! The ledger: one rule that decides who is admitted, for every store.
//!
//! There is no counter. A user's count *is* the number of slots in the user's record, each keyed by its session, so
//! it cannot be negative and cannot drift. A store keeps records and runs, atomically for one user,
//! *read record → [`apply`] → write record*: a lock in memory, a write transaction in LMDB, one compare-and-set
//! in a distributed store.
//!
//! # The contract of a store
//!
//! - Commands of one session are applied in the order they were submitted, or not at all.
//! - An acquire is applied at most once and never retried by the store.
//! - Every command is answered once. [`Outcome::Rejected`] means *certainly not applied*; a store that cannot say
//!   answers [`Outcome::Unknown`], and then it may be applied even later.
//! - [`Outcome::Granted`] is given only when the slot is in the store.

use alloc::vec::Vec;

use crate::id::{NodeId, SessionId, UserId};
use crate::limits::Limit;
use crate::time::Time;

/// What a store keeps of one user: the slots held, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRecord {
    slots: Vec<Slot>,
}

/// One session's hold on one of its user's places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Who holds it. The slot is void once that session's node is dead.
    pub session: SessionId,
    /// When it was taken, by the clock of the node that took it.
    pub since: Time,
}

/// What a session asks of the store, about its own user. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Take a slot for the session, if the user has one left.
    Acquire {
        /// Whose slot.
        user: UserId,
        /// For which session.
        session: SessionId,
        /// The limit that the user's token claims. It goes before the one that is in force otherwise.
        limit: Option<Limit>,
        /// When it was asked for.
        at: Time,
    },
    /// Give the session's slot back, if it holds one.
    Release {
        /// Whose slot.
        user: UserId,
        /// Which session's.
        session: SessionId,
    },
    /// Count the user's slots.
    Lookup {
        /// Whose slots.
        user: UserId,
        /// Who asks.
        session: SessionId,
    },
}

/// What became of a [`Command`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The session has a slot; the user now holds so many.
    Granted {
        /// Slots held, this one included. No more than the limit, unless the session held its slot before and the
        /// limit was lowered since.
        connections: u32,
    },
    /// The user holds as many as the limit allows: nothing was taken.
    Denied,
    /// The session has no slot.
    Released,
    /// The user holds so many slots.
    Found {
        /// Slots held.
        connections: u32,
    },
    /// The command was certainly not applied: nothing has changed and nothing is owed.
    Rejected(Cause),
    /// Nobody knows whether the command was, or will be, applied. An acquire that ends so owes a release.
    Unknown,
}

/// Why a store did not apply a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// More is asked than can be served: a queue or a table is full.
    Overloaded,
    /// The store has no room for another slot.
    Full,
    /// The store failed, or is closed.
    Failed,
}

/// Whether a node still serves its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It does, or may.
    Alive,
    /// It never will again: its slots are void.
    Dead,
}

/// Applies a command to its user's record: the only place where anyone is admitted.
///
/// First drops every slot that is void because its node is dead. A dead node's session acquires nothing: its slot
/// would be void at once, and whoever it told would be one too many. `default` is the limit in force for an acquire that
/// claims none; [`Limit::MAX`] holds beside either. The record may have changed whatever the outcome is.
#[must_use = "the outcome is owed to whoever asked"]
pub fn apply(
    record: &mut UserRecord,
    command: &Command,
    default: Limit,
    liveness: impl Fn(NodeId) -> Liveness,
) -> Outcome {
    record.slots.retain(|slot| liveness(slot.session.node()) == Liveness::Alive);
    match *command {
        Command::Acquire { session, limit, at, .. } => {
            if record.holds(session) {
                return Outcome::Granted { connections: record.connections() };
            }
            if liveness(session.node()) == Liveness::Dead {
                return Outcome::Rejected(Cause::Failed);
            }
            if record.connections() >= limit.unwrap_or(default).slots() {
                return Outcome::Denied;
            }
            record.slots.push(Slot { session, since: at });
            Outcome::Granted { connections: record.connections() }
        }
        Command::Release { session, .. } => {
            record.slots.retain(|slot| slot.session != session);
            Outcome::Released
        }
        Command::Lookup { .. } => Outcome::Found { connections: record.connections() },
    }
}

impl UserRecord {
    /// The record that holds these slots, as a store read them back.
    ///
    /// # Errors
    /// `TooManySlots` above the ceiling, `SlotTwice` when two slots are of one session.
    pub fn from_slots(slots: Vec<Slot>) -> Result<Self, crate::RecordError> {
        if slots.len() > Limit::MAX.slots() as usize {
            return Err(crate::RecordError::TooManySlots);
        }
        let mut sessions: Vec<_> = slots.iter().map(|slot| slot.session).collect();
        sessions.sort_unstable();
        if sessions.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(crate::RecordError::SlotTwice);
        }
        Ok(Self { slots })
    }

    /// The slots, oldest first. Some may be void.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether nothing is left to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the session has a slot here.
    #[must_use]
    pub fn holds(&self, session: SessionId) -> bool {
        self.slots.iter().any(|slot| slot.session == session)
    }

    fn connections(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("a record holds at most Limit::MAX slots")
    }
}

impl Command {
    /// The user whose record the command is about.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        match self {
            Self::Acquire { user, .. } | Self::Release { user, .. } | Self::Lookup { user, .. } => user,
        }
    }

    /// The session that asks.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        match self {
            Self::Acquire { session, .. } | Self::Release { session, .. } | Self::Lookup { session, .. } => *session,
        }
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::Overloaded, Self::Full, Self::Failed];

    /// What a client is told.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Overloaded => "The server is overloaded, try again later",
            Self::Full => "The session store is full, try again later",
            Self::Failed => "The session store is not available, try again later",
        }
    }
}
