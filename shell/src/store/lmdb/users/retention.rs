//! Forgets users who hold no slot and were not granted one for long.
//!
//! The recorder takes the steps, beside its notes and in their transaction: it looks at the next few thousand records,
//! asks the writer which of the old ones are of users who hold a slot, and deletes the others. After a pass over the
//! whole table it rests.
//!
//! # When
//!
//! Never earlier than [`Retention::After`] says. `last_seen` is coarse, so an hour is added; a record then waits for its
//! turn, which takes a rest (a twenty-fourth of the time, a day at most) and a pass (5 seconds for every 4096 records,
//! three and a half hours for ten million). A server that is started anew begins a new pass ten minutes later.
//!
//! What counts is the last grant that was noted. When a session ends is not noted, nor is every grant: `users` says
//! which ones are not.
//!
//! # Who is kept
//!
//! - Whoever holds a slot, however old the session is. That is asked of the writer, and noted as if a slot had been
//!   granted now, so that nobody who stays is asked about in every pass. Whoever the writer says nothing about is kept.
//! - Whoever is granted a slot meanwhile. The note of a grant comes after its commit. So either the writer's answer
//!   counts the slot, or the note lies on the desk when the answers are back, or it comes later still: then the user
//!   is known anew, and when it was first seen before is lost.
//! - Records that this server does not read. They may be of a later version, and hold what must not be lost.
//!
//! Forgetting a user loses when it was first and last seen, and nothing else: slots are in `live/`.
//!
//! # Clocks that are wrong
//!
//! The wall clock is read once, at the start. It may be wrong then, and may have been wrong before:
//!
//! - A `last_seen` more than an hour ahead was written by a wrong clock, this one or that one. All that is certain is
//!   that the user was not seen since this server has started, and so only that time counts.
//! - If nobody at all was seen for so long before the start that everybody would be forgotten at once, then the clock
//!   is ahead or no server ran. That time does not count.
//!
//! A clock that is ahead at two starts in a row, with users granted a slot after the first, is believed.

use std::ops::Bound;
use std::time::{Duration, Instant};

use heed::RwTxn;
use session_core::{Timestamp, UserId};

use super::known_user::KnownUser;
use super::overrides::FIRST_USER;
use super::slot_query::SlotQuery;
use crate::store::lmdb::environment::Environment;

/// When a user who holds no slot is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Never.
    Never,
    /// So long after it was last granted one, and some hours; see [`LmdbConfig::forget_after`].
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

/// How many records a step looks at. They are neighbours, on a hundred pages or so.
const RECORDS: usize = 4096;

/// How long after the start the first pass begins, at most: whoever held a slot before is back by then.
const FIRST_REST: Duration = Duration::from_secs(600);

/// The passes over the table.
#[derive(Debug)]
pub(super) struct RetentionScan {
    ages: AgeRule,
    slot_query: SlotQuery,
    rest: Duration,
    /// When the next step is due. Within a pass it always is.
    due: Instant,
    /// The key past which the next step begins; none at the beginning of a pass.
    past: Option<Vec<u8>>,
    /// How many records the next step looks at.
    records: usize,
    /// How many users this pass has forgotten.
    forgotten: usize,
}

/// One step: what it found, until that is in the store.
#[derive(Debug)]
pub(super) struct RetentionBatch {
    pub(super) now: Timestamp,
    ages: AgeRule,
    /// Old, and without a slot when the writer was asked.
    pub(super) forgettable: Vec<UserId>,
    /// Old, and with a slot.
    pub(super) holding: Vec<UserId>,
    /// Where the pass then stands; none at its end.
    past: Option<Vec<u8>>,
}

impl RetentionScan {
    /// For a server that has started `now`. Nothing, if nobody is ever forgotten.
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

    /// Looks at the next records and asks about those that are old. No transaction is open while it waits for answers.
    pub(super) fn next_batch(&mut self, environment: &Environment, now: Timestamp) -> heed::Result<RetentionBatch> {
        let (old, past) = self.scan(environment, now)?;
        let result = self.slot_query.run(&old);
        Ok(RetentionBatch { now, ages: self.ages, forgettable: result.without, holding: result.with_slots, past })
    }

    /// Who of the next records is old, and past which key the one after that begins.
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

    /// The step is in the store: it has forgotten so many, and so many are left.
    pub(super) fn finish_batch(&mut self, step: RetentionBatch, forgotten: usize, left: usize) {
        self.records = RECORDS;
        self.forgotten += forgotten;
        self.past = step.past;
        if self.past.is_none() {
            if self.forgotten > 0 {
                tracing::info!(forgotten = self.forgotten, known_users = left, "forgot users who were long not seen");
            }
            self.forgotten = 0;
            self.due = Instant::now() + self.rest;
        }
    }

    /// The step failed, and is taken again with fewer records: to delete needs room, and there may be some for few.
    pub(super) fn batch_failed(&mut self) {
        self.records = (self.records / 2).max(1);
    }
}

impl RetentionBatch {
    /// Deletes who is still old, and says how many that were. In the transaction in which others were noted: a record
    /// that has changed since it was looked at is judged anew.
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

/// Who is old, by clocks that may be wrong.
#[derive(Debug, Clone, Copy)]
struct AgeRule {
    forget_after: Duration,
    started: Timestamp,
    /// The latest time before the start at which anybody was seen, as far as the table was looked at. If it is earlier
    /// than it would be with the whole table, more is kept.
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

    /// How long it is certain that the user was not seen.
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
