//! Requests, pipelines and bytes between the nodes and a shard.

use std::ops::{Add, Sub};

use session_core::cluster::{AnswerBody, Request, StoredRecord};
use session_core::ledger::UserRecord;

/// What each request costs with its answer beside records and nodes, in bytes. An estimate: the command and the digest of the
/// script (70), two keys (60), the generation, the history, stamps and numbers in both directions (120).
pub(crate) const REQUEST_BYTES: u64 = 250;

/// What the answer to a beat has for each node, in bytes: 16 digits of its id and its counter, as RESP frames them.
pub(crate) const NODE_BYTES: u64 = 35;

/// What a node id is in a request, in bytes.
const NODE_ID_BYTES: u64 = 8;

/// What an entry of an inbox has beside the user's id, in bytes.
const INBOX_ENTRY_BYTES: u64 = 45;

/// What a shard has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    /// Requests that came together on one connection count as one pipeline.
    pub(crate) pipelines: u64,
    pub(crate) beats: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    /// Writes that were refused.
    pub(crate) refused: u64,
    pub(crate) pages: u64,
    /// All others: burials, openings, floors, and what concerns nodes that leave and overrides.
    pub(crate) others: u64,
    pub(crate) beat_bytes: u64,
    pub(crate) page_bytes: u64,
    pub(crate) other_bytes: u64,
}

impl Traffic {
    /// Adds a request and its answer.
    pub(crate) fn count(&mut self, request: &Request, answer: &AnswerBody) {
        let bytes = REQUEST_BYTES + sent_bytes(request) + answer_bytes(answer);
        let (number, sum) = match request {
            Request::Beat { .. } => (&mut self.beats, &mut self.beat_bytes),
            Request::Scan { .. } => (&mut self.pages, &mut self.page_bytes),
            Request::Read(_) => (&mut self.reads, &mut self.other_bytes),
            Request::Write(_) => (&mut self.writes, &mut self.other_bytes),
            Request::Bury { .. }
            | Request::Open(_)
            | Request::Leave { .. }
            | Request::Forget { .. }
            | Request::RaiseFloor { .. }
            | Request::ReadOverrides
            | Request::WriteOverrides(_)
            | Request::RestoreOverrides { .. } => (&mut self.others, &mut self.other_bytes),
        };
        *number += 1;
        *sum += bytes;
        let is_refused = matches!(answer, AnswerBody::Record(answer) if !answer.is_written);
        self.refused += u64::from(is_refused && matches!(request, Request::Write(_)));
    }

    /// All requests but beats.
    pub(crate) const fn work(&self) -> u64 {
        self.reads + self.writes + self.pages + self.others
    }

    /// The bytes of all requests but beats.
    pub(crate) const fn work_bytes(&self) -> u64 {
        self.page_bytes + self.other_bytes
    }
}

fn record_bytes(record: &UserRecord) -> u64 {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes.len() as u64
}

fn stored_bytes(stored: &StoredRecord) -> u64 {
    stored.as_ref().map_or(0, |(_, record)| record_bytes(record))
}

fn sent_bytes(request: &Request) -> u64 {
    if let Request::Write(write) = request {
        stored_bytes(&write.record)
    } else if let Request::Scan { except, .. } = request {
        except.len() as u64 * NODE_ID_BYTES
    } else {
        // No overrides are restored here.
        0
    }
}

fn answer_bytes(answer: &AnswerBody) -> u64 {
    match answer {
        AnswerBody::Beat(answer) => {
            let inbox = answer.inbox.iter().map(|(user, _)| user.as_str().len() as u64 + INBOX_ENTRY_BYTES);
            answer.nodes.len() as u64 * NODE_BYTES + inbox.sum::<u64>()
        }
        // A write that was done needs no record in its answer: the node has it.
        AnswerBody::Record(answer) if !answer.is_written => stored_bytes(&answer.record),
        AnswerBody::Page(page) => {
            page.records.iter().map(|(user, _, record)| user.as_str().len() as u64 + record_bytes(record)).sum()
        }
        AnswerBody::Record(_) | AnswerBody::Overrides(_) | AnswerBody::Done(_) | AnswerBody::Failed(_) => 0,
    }
}

impl Traffic {
    /// Each figure of both.
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            pipelines: with(self.pipelines, other.pipelines),
            beats: with(self.beats, other.beats),
            reads: with(self.reads, other.reads),
            writes: with(self.writes, other.writes),
            refused: with(self.refused, other.refused),
            pages: with(self.pages, other.pages),
            others: with(self.others, other.others),
            beat_bytes: with(self.beat_bytes, other.beat_bytes),
            page_bytes: with(self.page_bytes, other.page_bytes),
            other_bytes: with(self.other_bytes, other.other_bytes),
        }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, |one, other| one + other)
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, |one, other| one - other)
    }
}
