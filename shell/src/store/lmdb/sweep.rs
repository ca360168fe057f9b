//! Removes the sessions of dead nodes from the records of users who do not come back.
//!
//! Correctness does not depend on the sweep: a lapsed session holds no slot, and goes when its record is next changed. The
//! sweep only frees the room. It also writes down until when the sessions of dead nodes linger, so that another restart does
//! not extend that time. It goes in bounded steps: one pass after the environment was opened, and another later, as long as
//! sessions linger.
//!
//! # Records that cannot be read
//!
//! A command that meets one is rejected, releases included: they are retried until the server ends.
//!
//! A record that an earlier process left behind is removed by the first pass: another version of this software may have
//! written it, and all its sessions have lapsed. Nobody has to know of it. A record that this process has written may have
//! sessions that live. If it goes bad, nobody knows which, and without it their user would be admitted anew. So it is kept,
//! its user is rejected until the next server starts, and the log names the user. [`FirstPass`] tells the two apart.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use heed::RwTxn;
use session_core::SessionId;
use session_core::ledger::{self, RecordError, SessionStatus, UserRecord};

use super::apply_context::ApplyContext;
use super::environment::Environment;
use super::records::{self, Position, ReadRecord, StoredRecord};

/// How far a pass has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SweepPosition {
    /// It begins.
    Start,
    /// It has looked at all keys up to this one.
    After(Vec<u8>),
    /// It has ended.
    Over,
}

/// The next records of a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct SweepStep<'a> {
    pub(super) from: &'a SweepPosition,
    pub(super) records: usize,
}

/// The users whose records this process has written, until its first pass is over. From then on it may have written any.
#[derive(Debug)]
pub(super) struct FirstPass {
    /// Hashes of the keys. Two keys with one hash only keep a record that could be removed. `None` once the pass is over.
    written: Option<HashSet<u64>>,
    hasher: RandomState,
}

impl FirstPass {
    /// How many users are remembered. Beyond that no record counts as left behind: the pass is soon over.
    pub(super) const MAX_USERS: usize = 100_000;

    pub(super) fn new() -> Self {
        Self { written: Some(HashSet::new()), hasher: RandomState::new() }
    }

    /// Records that this process writes the record of this key.
    pub(super) fn wrote(&mut self, key: &[u8]) {
        if let Some(written) = &mut self.written {
            written.insert(self.hasher.hash_one(key));
            if written.len() > Self::MAX_USERS {
                self.written = None;
            }
        }
    }

    /// Ends the pass.
    pub(super) fn end(&mut self) {
        self.written = None;
    }

    /// Whether an earlier process wrote the record of this key, and this one certainly has not.
    pub(super) fn is_left_behind(&self, key: &[u8]) -> bool {
        self.written.as_ref().is_some_and(|written| !written.contains(&self.hasher.hash_one(key)))
    }
}

/// The result of a step.
#[derive(Debug)]
pub(super) struct SweepResult {
    /// How far the pass has come once the transaction is committed.
    pub(super) position: SweepPosition,
    /// How many records were removed or changed.
    pub(super) changed: usize,
    /// Whether sessions linger in some of the records.
    pub(super) lingers: bool,
    /// The key of a record that cannot be read, and why. It is kept.
    pub(super) unreadable: Option<(Vec<u8>, RecordError)>,
    /// The sessions that were removed, with the keys of their records.
    pub(super) lapsed: Vec<(Vec<u8>, SessionId)>,
}

impl SweepStep<'_> {
    /// Takes the step.
    pub(super) fn run(
        self,
        environment: &Environment,
        context: ApplyContext<'_>,
        first_pass: &FirstPass,
        txn: &mut RwTxn<'_>,
    ) -> heed::Result<SweepResult> {
        let mut position = match self.from {
            SweepPosition::Start => Position::first(),
            SweepPosition::After(key) => Position::behind(key),
            SweepPosition::Over => {
                let position = SweepPosition::Over;
                let lapsed = Vec::new();
                return Ok(SweepResult { position, changed: 0, lingers: false, unreadable: None, lapsed });
            }
        };
        let mut to_remove = Vec::new();
        let mut to_write = Vec::new();
        let mut last = None;
        let mut seen = 0;
        let mut lingers = false;
        let mut unreadable = None;
        let mut all_lapsed = Vec::new();
        while seen < self.records
            && let Some((key, record)) = records::next(environment, txn, &position)?
        {
            seen += 1;
            position = Position::behind(&key);
            match look(record, context) {
                Found::LeftOver(lapsed) => {
                    all_lapsed.extend(lapsed.into_iter().map(|session| (key.clone(), session)));
                    to_remove.push(key.clone());
                }
                Found::Unreadable(_) if first_pass.is_left_behind(&key) => to_remove.push(key.clone()),
                Found::Unreadable(error) => unreadable = Some((key.clone(), error)),
                Found::Lingering(lapsed, changed) => {
                    lingers = true;
                    all_lapsed.extend(lapsed.into_iter().map(|session| (key.clone(), session)));
                    if let Some(changed) = changed {
                        let (before, now) = *changed;
                        to_write.push((key.clone(), before, now));
                    }
                }
                Found::Live => {}
            }
            last = Some(key);
        }
        let mut bytes = Vec::new();
        for key in &to_remove {
            records::remove(environment, txn, key)?;
        }
        for (key, before, now) in &to_write {
            records::write(environment, txn, key, before, now, &mut bytes)?;
        }
        let sweep = match last {
            Some(key) if seen == self.records => SweepPosition::After(key),
            Some(_) | None => SweepPosition::Over,
        };
        let (changed, lapsed) = (to_remove.len() + to_write.len(), all_lapsed);
        Ok(SweepResult { position: sweep, changed, lingers, unreadable, lapsed })
    }
}

/// What the sweep finds in a record.
enum Found {
    /// Only lapsed sessions: these.
    LeftOver(Vec<SessionId>),
    /// Bytes that are no record.
    Unreadable(RecordError),
    /// A session that lingers, those that have lapsed, and the record as it is and as it must be written, if that changed.
    Lingering(Vec<SessionId>, Option<Box<(StoredRecord, UserRecord)>>),
    /// Only live sessions.
    Live,
}

fn look(record: ReadRecord, context: ApplyContext<'_>) -> Found {
    let before = match record {
        Ok(record) => record,
        Err(error) => return Found::Unreadable(error),
    };
    let mut now = before.record.clone();
    let lapsed = ledger::remove_lapsed(&mut now, context.now, |node| context.liveness(node));
    match now.sessions() {
        // A line without a slot beside it is about to move.
        [] if now.is_empty() => Found::LeftOver(lapsed),
        sessions if sessions.iter().any(|session| session.status != SessionStatus::Live) => {
            let is_changed = now != before.record;
            Found::Lingering(lapsed, is_changed.then(|| Box::new((before, now))))
        }
        _ => Found::Live,
    }
}
