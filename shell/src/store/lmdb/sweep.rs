//! Removes what dead nodes have left in the records of users that nobody touches again.
//!
//! Nothing depends on it: a void slot counts for nothing, and goes when its record is next touched. It only gives the
//! room back, and writes down until when lingers what a dead node held, so that another restart does not begin anew. It
//! goes in bounded steps, in one pass after the environment was opened, and in another one after a while, if there were
//! slots that lingered.
//!
//! # Records that cannot be read
//!
//! The sweep removes them; a command that meets one is refused. That does not admit anybody beyond the limit: this
//! process writes only records that it can read, so such a record was there before it, and all its slots are void,
//! whatever they are. (It may be of another version of this software.) That reasoning trusts LMDB to give back what
//! was written, as every other read does. The pass is over once: a record that goes bad later is never removed, and
//! its user is refused until the next start.

use std::ops::Bound;

use heed::RwTxn;
use session_core::ledger::{self, SessionStatus, UserRecord};

use super::apply_context::ApplyContext;
use super::environment::Environment;

/// How far the pass has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SweepPosition {
    /// Nowhere.
    Start,
    /// Past this key.
    After(Vec<u8>),
    /// To the end.
    Over,
}

/// The next few records of a pass.
#[derive(Debug)]
pub(super) struct SweepStep<'a> {
    pub(super) from: &'a SweepPosition,
    pub(super) records: usize,
}

/// What a step came to.
#[derive(Debug)]
pub(super) struct SweepResult {
    /// Where the pass stands once the transaction is committed.
    pub(super) stands: SweepPosition,
    /// How many records went, or are others now.
    pub(super) changed: usize,
    /// Whether some remain in which a slot lingers.
    pub(super) lingers: bool,
}

impl SweepStep<'_> {
    /// Takes the step.
    pub(super) fn run(
        self,
        environment: &Environment,
        rule: ApplyContext<'_>,
        txn: &mut RwTxn<'_>,
    ) -> heed::Result<SweepResult> {
        let start = match self.from {
            SweepPosition::Start => Bound::Unbounded,
            SweepPosition::After(key) => Bound::Excluded(key.as_slice()),
            SweepPosition::Over => return Ok(SweepResult { stands: SweepPosition::Over, changed: 0, lingers: false }),
        };
        let mut left_over = Vec::new();
        let mut settled = Vec::new();
        let mut last = None;
        let mut seen = 0;
        let mut lingers = false;
        for entry in environment.records.range(txn, &(start, Bound::Unbounded))?.take(self.records) {
            let (key, bytes) = entry?;
            seen += 1;
            last = Some(key.to_vec());
            match look(bytes, rule) {
                Found::LeftOver => left_over.push(key.to_vec()),
                Found::Lingering(record) => {
                    lingers = true;
                    settled.extend(record.map(|record| (key.to_vec(), record)));
                }
                Found::Live => {}
            }
        }
        for key in &left_over {
            environment.records.delete(txn, key)?;
        }
        let mut bytes = Vec::new();
        for (key, record) in &settled {
            record.encode(&mut bytes);
            environment.records.put(txn, key, &bytes)?;
        }
        let sweep = match last {
            Some(key) if seen == self.records => SweepPosition::After(key),
            Some(_) | None => SweepPosition::Over,
        };
        Ok(SweepResult { stands: sweep, changed: left_over.len() + settled.len(), lingers })
    }
}

/// What a record has.
enum Found {
    /// Nothing that counts.
    LeftOver,
    /// A slot that lingers; and the record as it is to be written down, if it was not.
    Lingering(Option<UserRecord>),
    /// Slots that are held.
    Live,
}

fn look(bytes: &[u8], rule: ApplyContext<'_>) -> Found {
    let Ok(before) = UserRecord::decode(bytes) else { return Found::LeftOver };
    let mut record = before.clone();
    ledger::expire_sessions(&mut record, rule.now, |node| rule.liveness(node));
    match record.sessions() {
        [] => Found::LeftOver,
        holds if holds.iter().any(|hold| hold.status != SessionStatus::Live) => {
            Found::Lingering(Some(record).filter(|record| *record != before))
        }
        _ => Found::Live,
    }
}
