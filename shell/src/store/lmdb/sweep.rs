//! Removes the sessions of dead nodes from the records of users who do not come back.
//!
//! Correctness does not depend on the sweep: a void session holds no slot, and goes when its record is next changed. The
//! sweep only frees the room. It also writes down until when the sessions of dead nodes linger, so that another restart does
//! not extend that time. It goes in bounded steps: one pass after the environment was opened, and another later, as long as
//! sessions linger.
//!
//! # Records that cannot be read
//!
//! The sweep removes them; a command that meets one is rejected. Removing one admits no user beyond the limit: this process
//! writes only records that it can read, so the record is older than this process, and all its sessions are void. (Another
//! version of this software may have written it.) This assumes that LMDB returns what was written, as every other read does.
//! After the last pass a record that goes bad is not removed, and its user is rejected until the next start.

use std::ops::Bound;

use heed::RwTxn;
use session_core::ledger::{self, SessionStatus, UserRecord};

use super::apply_context::ApplyContext;
use super::environment::Environment;

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
#[derive(Debug)]
pub(super) struct SweepStep<'a> {
    pub(super) from: &'a SweepPosition,
    pub(super) records: usize,
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
}

impl SweepStep<'_> {
    /// Takes the step.
    pub(super) fn run(
        self,
        environment: &Environment,
        context: ApplyContext<'_>,
        txn: &mut RwTxn<'_>,
    ) -> heed::Result<SweepResult> {
        let start = match self.from {
            SweepPosition::Start => Bound::Unbounded,
            SweepPosition::After(key) => Bound::Excluded(key.as_slice()),
            SweepPosition::Over => {
                return Ok(SweepResult { position: SweepPosition::Over, changed: 0, lingers: false });
            }
        };
        let mut void = Vec::new();
        let mut expired = Vec::new();
        let mut last = None;
        let mut seen = 0;
        let mut lingers = false;
        for entry in environment.records.range(txn, &(start, Bound::Unbounded))?.take(self.records) {
            let (key, bytes) = entry?;
            seen += 1;
            last = Some(key.to_vec());
            match look(bytes, context) {
                Found::LeftOver => void.push(key.to_vec()),
                Found::Lingering(record) => {
                    lingers = true;
                    expired.extend(record.map(|record| (key.to_vec(), record)));
                }
                Found::Live => {}
            }
        }
        for key in &void {
            environment.records.delete(txn, key)?;
        }
        let mut bytes = Vec::new();
        for (key, record) in &expired {
            record.encode(&mut bytes);
            environment.records.put(txn, key, &bytes)?;
        }
        let sweep = match last {
            Some(key) if seen == self.records => SweepPosition::After(key),
            Some(_) | None => SweepPosition::Over,
        };
        Ok(SweepResult { position: sweep, changed: void.len() + expired.len(), lingers })
    }
}

/// What the sweep finds in a record.
enum Found {
    /// Only void sessions, or nothing that can be read.
    LeftOver,
    /// A session that lingers, and the record as it must be written, if that changed.
    Lingering(Option<UserRecord>),
    /// Only live sessions.
    Live,
}

fn look(bytes: &[u8], context: ApplyContext<'_>) -> Found {
    let Ok(before) = UserRecord::decode(bytes) else { return Found::LeftOver };
    let mut record = before.clone();
    ledger::expire_sessions(&mut record, context.now, |node| context.liveness(node));
    match record.sessions() {
        [] => Found::LeftOver,
        sessions if sessions.iter().any(|session| session.status != SessionStatus::Live) => {
            Found::Lingering(Some(record).filter(|record| *record != before))
        }
        _ => Found::Live,
    }
}
