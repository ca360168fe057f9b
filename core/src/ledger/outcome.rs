//! The answers of the ledger, and the sessions that a command ended.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::end_reason::{EndReason, SessionNames};
use super::limit::SlotLimit;
use super::policy::LimitSource;
use super::record::{FormerEnd, SessionRecord};
use crate::id::{SessionId, SlotId};
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
    /// [`AcquireOptions`](super::AcquireOptions). They also say whether the session keeps a place in line that it had: it does if
    /// it wants to wait, but not for what it is denied.
    Denied(Option<Box<SlotUsage>>),
    /// The user has no slot left, and the session waits in line, at the [place](SlotUsage::line) that the list says. It has to
    /// be released as one that has a slot.
    Waiting(Box<SlotUsage>),
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
            Self::Listed(usage) | Self::Waiting(usage) => Some(usage.slots),
            Self::Released | Self::NotRenewed(_) | Self::Rejected(_) | Self::Unknown => None,
        }
    }
}

/// The details of a grant, for a client that asked with [`AcquireOptions`](super::AcquireOptions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantDetails {
    /// The limit in force.
    pub limit: SlotLimit,
    /// The grace period of the slot after its session is lost.
    pub linger: Duration,
    /// The slot.
    pub slot: SlotId,
    /// When the slot was taken, by the clock of the node that did.
    pub since: Timestamp,
    /// What became of the resume token that the client showed.
    pub resume: Resumption,
    /// The sessions that were ended for this one, also those that only lingered.
    pub evicted: Box<[EvictedSession]>,
}

/// Why a session was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// The user holds as many slots as the limit allows.
    LimitReached,
    /// The device has as many sessions as [`AdmissionPolicy::sessions_per_device`](super::AdmissionPolicy::sessions_per_device) allows.
    DeviceFull,
    /// The user holds as many slots as the limit allows, and a session that the client chose to evict is not there any more.
    Gone,
    /// The client wants no other slot than the one that it cannot resume.
    NotResumed(NotResumed),
    /// The node of the session is dead. It would lapse at once.
    NodeDead,
}

impl DenyReason {
    /// Whether a session that was denied for this reason may wait in line: time alone can help.
    #[must_use]
    pub const fn allows_waiting(self) -> bool {
        match self {
            Self::LimitReached | Self::DeviceFull => true,
            Self::Gone | Self::NotResumed(_) | Self::NodeDead => false,
        }
    }
}

/// What became of the resume token that a client showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resumption {
    /// The client showed none.
    NotAsked,
    /// The session took over the slot of the token.
    Resumed,
    /// No slot has the token any more, or not for this device.
    Failed(NotResumed),
}

/// Why a resume token gives no slot. In JSON a word in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotResumed {
    /// The grace period of its slot ended.
    Expired,
    /// Another session took its slot, or another session or the operator ended it.
    Taken,
    /// It never was the token of a slot of this user and device, or the record does not remember it. Also for a word of a
    /// newer server.
    #[serde(other)]
    Unknown,
}

impl NotResumed {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Taken, Self::Unknown];
}

impl From<Option<FormerEnd>> for NotResumed {
    fn from(end: Option<FormerEnd>) -> Self {
        match end {
            Some(FormerEnd::Expired) => Self::Expired,
            Some(FormerEnd::Taken) => Self::Taken,
            None => Self::Unknown,
        }
    }
}

/// A session that was ended for another one, as that one is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictedSession {
    /// The slot that it had.
    pub slot: SlotId,
    /// What the session calls itself.
    pub names: Option<Box<SessionNames>>,
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
    /// Why a session was denied. `None` if this is no denial.
    pub denied: Option<DenyReason>,
    /// Whether a client may choose sessions to evict.
    pub client_choice: bool,
    /// How many sessions wait in line for a slot.
    pub waiting: u16,
    /// What became of the asker's wish to wait.
    pub line: LinePlace,
}

impl SlotUsage {
    /// Whether the asker is in line.
    #[must_use]
    pub const fn is_in_line(&self) -> bool {
        matches!(self.line, LinePlace::At(_))
    }

    /// The number of sessions listed to a client. Many clients can ask at once, so this bounds the memory.
    pub const MAX_SHOWN: usize = 100;
}

/// What became of a wish to wait in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LinePlace {
    /// The session did not ask to wait, or nobody may wait for what it asks.
    #[default]
    NotInLine,
    /// It waits. The first in line has place 1.
    At(u16),
    /// As many sessions wait as may ([`AdmissionPolicy::max_waiting`](super::AdmissionPolicy)).
    Full,
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
    /// What other sessions may want to know.
    pub hints: Vec<SessionHint>,
}

/// A hint for a session. If it is lost, the session learns the same a few seconds later. If there is no reason for it, it does
/// no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHint {
    /// The session.
    pub session: SessionId,
    /// The hint.
    pub hint: Hint,
}

/// What a session may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hint {
    /// A session in line: a slot is free for it. Nobody else is admitted to that slot before it asks again or leaves, but for a
    /// session that would end it at once.
    Turn,
    /// A session that watches, or waits: the sessions of its user have changed.
    Changed,
}

/// A session that lost its slot to a command of another session or of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// The session.
    pub session: SessionId,
    /// What the session is told.
    pub reason: EndReason,
}

/// Why a session may not go on with another credential. If the device differs, it keeps the slot and the credential that it has.
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
