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

use heed::RwTxn;
use session_core::ledger::{self, SessionStatus, UserRecord};

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
        let mut position = match self.from {
            SweepPosition::Start => Position::first(),
            SweepPosition::After(key) => Position::behind(key),
            SweepPosition::Over => {
                return Ok(SweepResult { position: SweepPosition::Over, changed: 0, lingers: false });
            }
        };
        let mut void = Vec::new();
        let mut expired = Vec::new();
        let mut last = None;
        let mut seen = 0;
        let mut lingers = false;
        while seen < self.records
            && let Some((key, record)) = records::next(environment, txn, &position)?
        {
            seen += 1;
            position = Position::behind(&key);
            match look(record, context) {
                Found::LeftOver => void.push(key.clone()),
                Found::Lingering(changed) => {
                    lingers = true;
                    expired.extend(changed.map(|(before, now)| (key.clone(), before, now)));
                }
                Found::Live => {}
            }
            last = Some(key);
        }
        let mut bytes = Vec::new();
        for key in &void {
            records::remove(environment, txn, key)?;
        }
        for (key, before, now) in &expired {
            records::write(environment, txn, key, before, now, &mut bytes)?;
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
    /// A session that lingers, and the record as it is and as it must be written, if that changed.
    Lingering(Option<(StoredRecord, UserRecord)>),
    /// Only live sessions.
    Live,
}

fn look(record: ReadRecord, context: ApplyContext<'_>) -> Found {
    let Ok(before) = record else { return Found::LeftOver };
    let mut now = before.record.clone();
    ledger::expire_sessions(&mut now, context.now, |node| context.liveness(node));
    match now.sessions() {
        [] => Found::LeftOver,
        sessions if sessions.iter().any(|session| session.status != SessionStatus::Live) => {
            let is_changed = now != before.record;
            Found::Lingering(is_changed.then_some((before, now)))
        }
        _ => Found::Live,
    }
}
