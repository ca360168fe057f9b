//! What the shared store says.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Generation, GenerationId, HistoryId, NodeEntry, OverridesVersion, ScanPosition, Stamp, StoredRecord};
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{SessionHint, StoreError, UserOverrides, UserRecord};

/// The answer to a [`Request`](super::Request).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The store's history when it applied the request.
    pub history: HistoryId,
    /// What it says.
    pub body: AnswerBody,
}

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerBody {
    /// To [`Request::Beat`](super::Request::Beat).
    Beat(Box<BeatAnswer>),
    /// To [`Request::Bury`](super::Request::Bury), [`Request::Open`](super::Request::Open), [`Request::Leave`](super::Request::Leave), [`Request::Forget`](super::Request::Forget) and [`Request::RaiseFloor`](super::Request::RaiseFloor): whether it was
    /// done.
    Done(bool),
    /// To [`Request::Read`](super::Request::Read) and [`Request::Write`](super::Request::Write).
    Record(Box<RecordAnswer>),
    /// To [`Request::Scan`](super::Request::Scan).
    Page(Box<PageAnswer>),
    /// To [`Request::ReadOverrides`](super::Request::ReadOverrides), [`Request::WriteOverrides`](super::Request::WriteOverrides) and [`Request::RestoreOverrides`](super::Request::RestoreOverrides).
    Overrides(Box<OverridesAnswer>),
    /// To any request: it was certainly not applied, and never will be. Commands that it was to decide are rejected with this error;
    /// releases are tried again.
    Failed(StoreError),
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeatAnswer {
    /// Whether the beat was noted. If not, the node is dead to the others.
    pub is_confirmed: bool,
    /// The generation in force.
    pub generation: Generation,
    /// The version of the overrides.
    pub overrides: OverridesVersion,
    /// All nodes of the bucket.
    pub nodes: Vec<(NodeId, NodeEntry)>,
    /// The sessions in the inbox of the node, with their users.
    pub inbox: Vec<(UserId, SessionId)>,
}

/// A record, as it is once the request was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAnswer {
    /// The generation that the bucket's meta has, if it has one.
    pub generation: Option<GenerationId>,
    /// The version of the overrides.
    pub overrides: OverridesVersion,
    /// Whether the record was written. `false` for a read.
    pub is_written: bool,
    /// The record.
    pub record: StoredRecord,
}

/// Some records of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAnswer {
    /// The generation that the bucket's meta has, if it has one.
    pub generation: Option<GenerationId>,
    /// Users, and what the store has for each.
    pub records: Vec<(UserId, Stamp, UserRecord)>,
    /// Where the next page begins. `None` after the last one.
    pub next: Option<ScanPosition>,
}

/// The overrides of a bucket, as they are once the request was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverridesAnswer {
    /// The generation that the bucket's meta has, if it has one.
    pub generation: Option<GenerationId>,
    /// Whether they were written. `false` for a read.
    pub is_written: bool,
    /// Their version.
    pub version: OverridesVersion,
    /// All of them.
    pub all: Vec<(UserId, UserOverrides)>,
}

/// What a store publishes to nodes. It may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// To this node: the record of this user has changed.
    Changed(NodeId, UserId),
    /// To the node of the session.
    Session(SessionHint),
}
