//! The answers of the ledger, and the sessions that a command ended.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::limit::SlotLimit;
use super::policy::LimitSource;
use super::record::SessionRecord;
use crate::id::{DisplayName, SessionId};
use crate::time::Timestamp;

/// The answer to a [`StoreCommand`](super::StoreCommand).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The session has a slot.
    Granted {
        /// The slots that the user holds now, this one included. At most the limit, unless the session held its slot
        /// before and the limit was lowered since.
        slots: u32,
        /// More about the slot, if the acquire had [`AcquireOptions`](super::AcquireOptions).
        grant: Option<Box<GrantDetails>>,
    },
    /// The user has no slot left. Nothing has changed. With the sessions that hold the slots, if the acquire had
    /// [`AcquireOptions`](super::AcquireOptions).
    Denied(Option<Box<SlotUsage>>),
    /// The session has no slot any more, or its slot lingers.
    Released,
    /// The number of slots that the user holds. Also the answer to a renewal that is permitted.
    Counted {
        /// The slots that the user holds.
        slots: u32,
    },
    /// The sessions that hold the user's slots.
    Listed(Box<SlotUsage>),
    /// These sessions were ended, or would be in a dry run.
    Ended {
        /// The sessions, also those that only lingered.
        sessions: Box<[SessionId]>,
        /// The slots that the user held before. At most 1024; in this type the outcome stays small.
        before: u16,
        /// The slots that the user holds now.
        slots: u32,
    },
    /// The session may not go on with the other credential. Nothing has changed.
    NotRenewed(RenewalDenied),
    /// The command was certainly not applied. Nothing has changed and nothing has to be released.
    Rejected(StoreError),
    /// The store cannot tell whether the command was applied, or will be. After an acquire the slot has to be released.
    Unknown,
}

impl Outcome {
    /// A grant to a client that asked for nothing beyond a slot.
    #[must_use]
    pub const fn granted(slots: u32) -> Self {
        Self::Granted { slots, grant: None }
    }

    /// The slots that the user holds, if the outcome says so.
    #[must_use]
    pub fn slots(&self) -> Option<u32> {
        match self {
            Self::Granted { slots, .. } | Self::Counted { slots } | Self::Ended { slots, .. } => Some(*slots),
            Self::Denied(usage) => usage.as_ref().map(|usage| usage.slots),
            Self::Listed(usage) => Some(usage.slots),
            Self::Released | Self::NotRenewed(_) | Self::Rejected(_) | Self::Unknown => None,
        }
    }
}

/// The details of a grant, for a client that asked with [`AcquireOptions`](super::AcquireOptions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantDetails {
    /// The limit in force.
    pub limit: SlotLimit,
    /// The grace period of the slot after its session is lost.
    pub linger: Duration,
    /// Whether the session took over a slot with the resume token that it showed.
    pub is_resumed: bool,
}

/// How many slots a user holds of how many, and the sessions that hold them, as the ledger has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotUsage {
    /// The limit in force.
    pub limit: SlotLimit,
    /// Where the limit comes from.
    pub limit_source: LimitSource,
    /// The number of slots held.
    pub slots: u32,
    /// The sessions, oldest first. At most [`SlotUsage::MAX_SHOWN`], unless all were asked for.
    pub sessions: Box<[SessionRecord]>,
    /// When a slot becomes free by itself, if that is known. In a denial: when a new session will find room, also because a
    /// lingering slot is no longer kept for its client ([`AdmissionPolicy::linger_grace`](super::AdmissionPolicy)).
    pub free_at: Option<Timestamp>,
    /// Whether the device has as many sessions as it may. Then the limit is not what denies the session.
    pub is_device_full: bool,
    /// Whether a client may choose sessions to evict.
    pub client_choice: bool,
}

impl SlotUsage {
    /// The number of sessions listed to a client. Many clients can ask at once, so this bounds the memory.
    pub const MAX_SHOWN: usize = 100;
}

/// The result of [`apply`](super::apply()).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the outcome is the answer, and the ended sessions have to be told"]
pub struct ApplyResult {
    /// The answer to the command.
    pub outcome: Outcome,
    /// Live sessions that lost their slots. Each has to be told.
    pub ended: Vec<EndedSession>,
    /// Sessions that had lapsed before, and are removed now. Nobody has to be told.
    pub lapsed: Vec<SessionId>,
    /// Lingering sessions that lost their slots. Nobody has to be told: their clients are gone.
    pub displaced: Vec<EndedSession>,
}

/// A session that lost its slot to a command of another session or of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// The session.
    pub session: SessionId,
    /// What the session is told.
    pub reason: EndReason,
}

/// Why a session lost its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// Another session of its user took the slot. With the label or device of that session.
    TakenOver(Option<DisplayName>),
    /// Another session of its user ended it. With the label or device of that session, which [`apply`](super::apply())
    /// fills in.
    ByUser(Option<DisplayName>),
    /// The operator ended it.
    ByOperator,
    /// Its client resumed it on another connection.
    Resumed,
}

/// Why a session may not go on with another credential. It keeps the slot, and the credential that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenewalDenied {
    /// With the other credential the user may hold no slot at all.
    Banned,
    /// The credential names another device than that of the session's slot.
    AnotherDevice,
}

impl fmt::Display for RenewalDenied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Banned => "with this credential the user may hold no slot",
            Self::AnotherDevice => "the credential names another device",
        })
    }
}

impl core::error::Error for RenewalDenied {}

/// Why a store did not apply a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreError {
    /// A queue or a table is full.
    Overloaded,
    /// The store has no room for another slot.
    Full,
    /// The store failed, or is closed.
    Failed,
}

impl StoreError {
    /// Every error.
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

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl core::error::Error for StoreError {}

/// Whether a node (one process start) still serves its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It does, or it may.
    Alive,
    /// It was last known to be alive at this time, and is dead for good. Its sessions lapse. Resumable ones linger from this
    /// time on.
    DeadSince(Timestamp),
}
