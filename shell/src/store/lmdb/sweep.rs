//! Removes what dead nodes have left in the records of users that nobody touches again.
//!
//! Nothing depends on it: a void slot counts for nothing, and goes when its record is next touched. It only gives the
//! room back, in bounded steps, in one pass after the environment was opened.
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
use session_core::{Liveness, UserRecord};

use super::batch::Rule;
use super::environment::Environment;

/// How far the pass has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Nowhere.
    Start,
    /// Past this key.
    After(Vec<u8>),
    /// To the end.
    Over,
}

/// The next few records of a pass.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) from: &'a Sweep,
    pub(super) records: usize,
}

impl Step<'_> {
    /// Takes the step, and says where the pass then stands and how many records went. It stands there once the
    /// transaction is committed.
    pub(super) fn take(
        self,
        environment: &Environment,
        rule: Rule,
        txn: &mut RwTxn<'_>,
    ) -> heed::Result<(Sweep, usize)> {
        let start = match self.from {
            Sweep::Start => Bound::Unbounded,
            Sweep::After(key) => Bound::Excluded(key.as_slice()),
            Sweep::Over => return Ok((Sweep::Over, 0)),
        };
        let mut left_over = Vec::new();
        let mut last = None;
        let mut seen = 0;
        for entry in environment.records.range(txn, &(start, Bound::Unbounded))?.take(self.records) {
            let (key, bytes) = entry?;
            seen += 1;
            last = Some(key.to_vec());
            if is_left_over(bytes, rule) {
                left_over.push(key.to_vec());
            }
        }
        for key in &left_over {
            environment.records.delete(txn, key)?;
        }
        let sweep = match last {
            Some(key) if seen == self.records => Sweep::After(key),
            Some(_) | None => Sweep::Over,
        };
        Ok((sweep, left_over.len()))
    }
}

fn is_left_over(bytes: &[u8], rule: Rule) -> bool {
    match UserRecord::decode(bytes) {
        Ok(record) => record.slots().iter().all(|slot| rule.liveness(slot.session.node()) == Liveness::Dead),
        Err(_) => true,
    }
}
