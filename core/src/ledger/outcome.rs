//! What the ledger answers, and whom else it concerns.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::limit::SlotLimit;
use super::policy::LimitSource;
use super::record::SessionRecord;
use crate::id::{DisplayName, SessionId};
use crate::time::Timestamp;

/// What became of a [`Command`](super::Command).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The session has a slot; the user now holds so many.
    Granted {
        /// Slots held, this one included. No more than the limit, unless the session held its slot before and the
        /// limit was lowered since.
        connections: u32,
        /// More about it, for a client that asked by a [`AcquireOptions`](super::Wish).
        grant: Option<Box<Grant>>,
    },
    /// The user holds as many as the limit allows: nothing was taken. Who holds them, for a client that asked by a
    /// [`AcquireOptions`](super::Wish).
    Denied(Option<Box<SlotListing>>),
    /// The session has no slot, or it lingers.
    Released,
    /// The user holds so many slots.
    Counted {
        /// Slots held.
        connections: u32,
    },
    /// Who holds the user's slots.
    Listed(Box<SlotListing>),
    /// These sessions were ended, or would be.
    Ended {
        /// Who.
        sessions: Box<[SessionId]>,
        /// Slots held then.
        connections: u32,
    },
    /// The command was certainly not applied: nothing has changed and nothing is owed.
    Rejected(StoreError),
    /// Nobody knows whether the command was, or will be, applied. An acquire that ends so owes a release.
    Unknown,
}

impl Outcome {
    /// A grant to a client that asked for nothing but a slot.
    #[must_use]
    pub const fn granted(connections: u32) -> Self {
        Self::Granted { connections, grant: None }
    }
}

/// What else there is to say of a slot that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The limit in force.
    pub limit: SlotLimit,
    /// How long the slot lingers once its session is lost.
    pub linger: Duration,
    /// Whether the slot is one that was taken up again, with the token that was shown.
    pub is_resumed: bool,
}

/// Who holds a user's slots, and under which limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotListing {
    /// The limit in force.
    pub limit: SlotLimit,
    /// Where it comes from.
    pub limit_source: LimitSource,
    /// How many slots are held.
    pub connections: u32,
    /// Who holds them, oldest first, at most [`SlotListing::MAX`] unless all were asked for.
    pub sessions: Box<[SessionRecord]>,
    /// When a slot comes back by itself to somebody who comes then, if that is known.
    pub free_at: Option<Timestamp>,
    /// Whether no limit is in the way, but that the device has as many sessions as one may.
    pub is_device_full: bool,
    /// Whether a client may choose whom to end.
    pub client_choice: bool,
}

impl SlotListing {
    /// How many holds are listed to a client: many who ask at once must not take much memory.
    pub const MAX_SHOWN: usize = 100;
}

/// What was done to a record, and to others than who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the outcome is owed to whoever asked, and those who were ended are to be told"]
pub struct ApplyResult {
    /// The answer for whoever asked.
    pub outcome: Outcome,
    /// Sessions that had a slot, as far as they know, and have none any more.
    pub ended: Vec<EndedSession>,
}

/// A session that lost its slot to somebody else's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// Which.
    pub session: SessionId,
    /// What it is told.
    pub reason: EndReason,
}

/// How a session lost its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// To another session of its user, which calls itself so, or its device.
    TakenOver(Option<DisplayName>),
    /// Another session of its user has ended it, which calls itself so, or its device. [`apply`](super::apply) finds that out.
    ByUser(Option<DisplayName>),
    /// The operator has.
    ByOperator,
    /// Its client has taken it up on another connection.
    Resumed,
}

/// Why a store did not apply a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreError {
    /// More is asked than can be served: a queue or a table is full.
    Overloaded,
    /// The store has no room for another slot.
    Full,
    /// The store failed, or is closed.
    Failed,
}

impl StoreError {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::Overloaded, Self::Full, Self::Failed];

    /// What a client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Overloaded => "The server is overloaded, try again later",
            Self::Full => "The session store is full, try again later",
            Self::Failed => "The session store is not available, try again later",
        }
    }
}

/// Whether a node still serves its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It does, or may.
    Alive,
    /// It has not since then, as far as is known, and never will again: its slots are void, but for those that linger, and
    /// those that can be taken up linger from then on.
    DeadSince(Timestamp),
}
