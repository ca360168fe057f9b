//! Forgets users who hold no slot and were granted none for long.
//!
//! The user writer scans in batches, in the transactions of its seen users. It looks at the next few thousand records, asks
//! the writer which of the old users hold slots, and deletes the others. After a pass over the whole table it rests.
//!
//! # When
//!
//! Never earlier than [`Retention::After`] says. `last_seen` is coarse, so an hour is added. A record then waits for its turn:
//! a rest (1/24 of the time, at most a day) and a pass (5 seconds for every 4096 records, 3.5 hours for ten million). A server
//! that restarts begins a new pass ten minutes later.
//!
//! The last grant that was noted counts. The end of a session is not noted. Nor is a grant while too many wait to be noted,
//! or less than an hour after the one that was noted.
//!
//! # Who is kept
//!
//! - Users who hold a slot, however old the session is. The writer is asked about them. They are then noted as if a slot had
//!   been granted now, so that a user who stays is not asked about in every pass. A user without an answer is kept.
//! - Users who are granted a slot meanwhile. The note of a grant comes after its commit. So either the writer's answer counts
//!   the slot, or the note is pending when the answers are back, or it comes later. Then the user is known anew, and the time
//!   when the user was first seen is lost.
//! - Records that this server cannot read. A later version may have written them, and they may hold more.
//!
//! Forgetting a user loses when it was first and last seen, and nothing else: slots are in `live/`.
//!
//! # Clocks that are wrong
//!
//! The wall clock is read once, at the start. It may be wrong then, and may have been wrong earlier:
//!
//! - A `last_seen` more than an hour ahead was written by a wrong clock, or this clock is wrong. It is only certain that the
//!   user was not seen since this server started, so only that time counts.
//! - If no user was seen for so long before the start that all users would be forgotten at once, the clock is ahead or no
//!   server ran. That time does not count.
//!
//! A clock that is ahead at two starts in a row, with a grant after the first, is trusted.

use std::ops::Bound;
use std::time::{Duration, Instant};

use heed::RwTxn;
use session_core::{Timestamp, UserId};

use super::known_user::KnownUser;
use super::overrides::FIRST_USER;
use super::slot_query::SlotQuery;
use crate::runtime::events::log_event;
use crate::store::lmdb::environment::Environment;

/// When a user who holds no slot is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Never.
    Never,
    /// This long after the last grant, and some hours; see [`LmdbConfig::forget_after`].
    ///
    /// [`LmdbConfig::forget_after`]: super::super::LmdbConfig::forget_after
    After(Duration),
}

impl Default for Retention {
    /// After 30 days.
    fn default() -> Self {
        Self::After(30 * DAY)
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many records a batch looks at. They are neighbours, on about a hundred pages.
const RECORDS: usize = 4096;

/// How long after the start the first pass begins, at most. By then the users who held slots before are back.
const FIRST_REST: Duration = Duration::from_secs(600);

/// The passes over the table.
#[derive(Debug)]
pub(super) struct RetentionScan {
    ages: AgeRule,
    slot_query: SlotQuery,
    rest: Duration,
    /// When the next batch is due. Within a pass that is always.
    due: Instant,
    /// The next batch begins after this key. `None` at the beginning of a pass.
    past: Option<Vec<u8>>,
    /// How many records the next batch looks at.
    records: usize,
    /// How many users this pass has forgotten.
    forgotten: usize,
}

/// What one batch of the scan found.
#[derive(Debug)]
pub(super) struct RetentionBatch {
    pub(super) now: Timestamp,
    ages: AgeRule,
    /// Old users who held no slot when the writer was asked.
    pub(super) forgettable: Vec<UserId>,
    /// Old users who hold slots.
    pub(super) holding: Vec<UserId>,
    /// The key after which the pass goes on. `None` at its end.
    past: Option<Vec<u8>>,
}

impl RetentionScan {
    /// A scan for a server that has started `now`. `None` if users are never forgotten.
    pub(super) fn new(retention: Retention, slot_query: SlotQuery, now: Timestamp) -> Option<Self> {
        let forget_after = match retention {
            Retention::Never => return None,
            Retention::After(forget_after) => forget_after,
        };
        let rest = (forget_after / 24).min(DAY);
        Some(Self {
            ages: AgeRule { forget_after, started: now, latest_before: Timestamp::default() },
            slot_query,
            rest,
            due: Instant::now() + rest.min(FIRST_REST),
            past: None,
            records: RECORDS,
            forgotten: 0,
        })
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Looks at the next records, and asks about the old users. No transaction is open while it waits for the answers.
    pub(super) fn next_batch(&mut self, environment: &Environment, now: Timestamp) -> heed::Result<RetentionBatch> {
        let (old, past) = self.scan(environment, now)?;
        let result = self.slot_query.run(&old);
        Ok(RetentionBatch { now, ages: self.ages, forgettable: result.without, holding: result.with_slots, past })
    }

    /// The old users of the next records, and the key after which the batch after that begins.
    fn scan(&mut self, environment: &Environment, now: Timestamp) -> heed::Result<(Vec<UserId>, Option<Vec<u8>>)> {
        let start = self.past.as_deref().map_or(Bound::Included(FIRST_USER), Bound::Excluded);
        let txn = environment.write()?;
        let mut records = Vec::new();
        for entry in environment.records.range(&txn, &(start, Bound::Unbounded))?.take(self.records) {
            let (key, bytes) = entry?;
            records.push((key, KnownUser::decode(bytes)));
        }
        let readable = || records.iter().filter_map(|(key, user)| Some((key, user.ok()?)));
        readable().for_each(|(_, user)| self.ages.observe(user.last_seen));
        let old = readable().filter(|&(_, user)| self.ages.is_old(user, now));
        let ids = old.filter_map(|(key, _)| UserId::parse(std::str::from_utf8(key).ok()?).ok());
        let past = records.last().filter(|_| records.len() == self.records).map(|(key, _)| key.to_vec());
        Ok((ids.collect(), past))
    }

    /// The batch is in the store. It has forgotten `forgotten` users, and `left` are known now.
    pub(super) fn finish_batch(&mut self, step: RetentionBatch, forgotten: usize, left: usize) {
        self.records = RECORDS;
        self.forgotten += forgotten;
        self.past = step.past;
        if self.past.is_none() {
            if self.forgotten > 0 {
                log_event!(users_forgotten { forgotten: self.forgotten, known_users: left });
            }
            self.forgotten = 0;
            self.due = Instant::now() + self.rest;
        }
    }

    /// The batch failed, and is tried again with fewer records: a delete needs room, and there may be enough for few.
    pub(super) fn batch_failed(&mut self) {
        self.records = (self.records / 2).max(1);
    }
}

impl RetentionBatch {
    /// Deletes the users who are still old, and returns how many. It runs in the transaction that notes seen users, and checks
    /// each record again, which may have changed since the scan.
    pub(super) fn delete(&self, environment: &Environment, txn: &mut RwTxn<'_>) -> heed::Result<usize> {
        let mut forgotten = 0;
        for user in &self.forgettable {
            let key = user.as_str().as_bytes();
            let known = environment.records.get(txn, key)?.map(KnownUser::decode);
            if let Some(Ok(user)) = known
                && self.ages.is_old(user, self.now)
            {
                environment.records.delete(txn, key)?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }
}

/// Decides which users are old, with clocks that may be wrong.
#[derive(Debug, Clone, Copy)]
struct AgeRule {
    forget_after: Duration,
    started: Timestamp,
    /// The latest time before the start at which a user was seen, in the part of the table that was scanned. If it is earlier
    /// than the one of the whole table, more users are kept.
    latest_before: Timestamp,
}

impl AgeRule {
    fn observe(&mut self, last_seen: Timestamp) {
        if last_seen < self.started {
            self.latest_before = self.latest_before.max(last_seen);
        }
    }

    fn is_old(&self, user: KnownUser, now: Timestamp) -> bool {
        self.unseen_for(user.last_seen, now) >= self.forget_after.saturating_add(KnownUser::GRANULARITY)
    }

    /// For how long the user was certainly not seen.
    fn unseen_for(&self, last_seen: Timestamp, now: Timestamp) -> Duration {
        let up = now.since(self.started);
        if last_seen > now + KnownUser::GRANULARITY {
            up
        } else if last_seen < self.started && self.started.since(self.latest_before) >= self.forget_after {
            self.latest_before.since(last_seen) + up
        } else {
            now.since(last_seen)
        }
    }
}

#[cfg(test)]
mod tests;
