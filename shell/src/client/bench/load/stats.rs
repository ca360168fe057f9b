//! What load has come to: counts and times that all threads add to.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::sign_in::SignInTiming;
use crate::client::Error;

/// What came of it so far. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Cycles begun.
    pub begun: u64,
    /// Cycles of an open loop whose time came and that were not begun, because too many were under way.
    pub not_begun: u64,
    /// Cycles that ended well.
    pub cycles: u64,
    /// Those among them whose user was at the limit.
    pub refused: u64,
    /// What else became of those begun, in words, and how often. Of more than 100 kinds the last are counted as one.
    pub failures: BTreeMap<String, u64>,
    /// Sessions that were held and lost later; why is among the failures. None of full cycles.
    pub lost: u64,
    /// From AUTHENTICATE, or from when it was due, to its answer.
    pub sign_in: Histogram<u64>,
    /// From the first packet to the last, in an open loop from when it was due and without the wait for its time to
    /// authenticate. Of a held session, to its answer.
    pub cycle: Histogram<u64>,
    /// How late AUTHENTICATE was sent in an open loop by no fault of the server's. What is late here is late in
    /// `sign_in`, too.
    pub late: Histogram<u64>,
}

/// [`Counts`] that all threads add to.
#[derive(Debug)]
pub struct LoadStats(Mutex<Counts>);

/// The longest time that is told from longer ones: an hour, in nanoseconds.
const MAX_NANOS: u64 = 3_600_000_000_000;

/// How many kinds of failures are told apart: a server may have a word of its own for everybody.
const MAX_KINDS: usize = 100;

const OTHERS: &str = "others";

impl Counts {
    /// How many have failed, of all kinds.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// How many were begun and have neither ended nor, where sessions are held, been answered.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.begun.saturating_sub(self.cycles + self.failed() - self.lost)
    }

    fn fail(&mut self, reason: &str, times: u64) {
        let reason =
            if self.failures.len() < MAX_KINDS || self.failures.contains_key(reason) { reason } else { OTHERS };
        *self.failures.entry(reason.to_owned()).or_insert(0) += times;
    }
}

impl Default for Counts {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, MAX_NANOS, 3).expect("three digits are a precision that it has");
        Self {
            begun: 0,
            not_begun: 0,
            cycles: 0,
            refused: 0,
            failures: BTreeMap::new(),
            lost: 0,
            sign_in: histogram(),
            cycle: histogram(),
            late: histogram(),
        }
    }
}

impl Default for LoadStats {
    fn default() -> Self {
        Self(Mutex::new(Counts::default()))
    }
}

impl LoadStats {
    /// What was counted so far: a copy, of about a megabyte.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// So many cycles have ended well so far.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.lock().cycles
    }

    /// Counts all that are still under way as failed.
    pub fn stop_waiting(&self, reason: &str) {
        let mut counts = self.lock();
        let under_way = counts.under_way();
        if under_way > 0 {
            counts.fail(reason, under_way);
        }
    }

    pub(crate) fn record_start(&self) {
        self.lock().begun += 1;
    }

    pub(crate) fn skip(&self) {
        self.lock().not_begun += 1;
    }

    /// It has ended well, or begun well where it is held.
    pub(crate) fn record_success(&self, timing: &SignInTiming) {
        let mut counts = self.lock();
        counts.cycles += 1;
        counts.refused += u64::from(timing.is_refused);
        counts.sign_in.saturating_record(nanos(timing.latency));
        counts.cycle.saturating_record(nanos(timing.started_at.elapsed().saturating_sub(timing.idle)));
        if let Some(late) = timing.late {
            counts.late.saturating_record(nanos(late));
        }
    }

    pub(crate) fn record_failure(&self, error: &Error) {
        self.lock().fail(&kind(error), 1);
    }

    /// It was held, and did not end well.
    pub(crate) fn record_loss(&self, error: &Error) {
        let mut counts = self.lock();
        counts.fail(&kind(error), 1);
        counts.lost += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// The error without the name of the user it befell, so that the like are counted together.
fn kind(error: &Error) -> String {
    match error {
        Error::Refused { refusal, .. } => format!("refused: {refusal}"),
        Error::BadUrl(_)
        | Error::Unreachable { .. }
        | Error::Handshake { .. }
        | Error::BadCa { .. }
        | Error::BadToken { .. }
        | Error::LimitReached { .. }
        | Error::TokenTakenForName
        | Error::Evicted(_)
        | Error::BadResumeFile { .. }
        | Error::RequestFailed(_)
        | Error::Unexpected { .. }
        | Error::Closed { .. }
        | Error::Lost(_)
        | Error::TimedOut { .. }
        | Error::NotConnected { .. } => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn failures_are_counted_by_kind_and_kinds_are_bounded() {
        let stats = LoadStats::default();
        for number in 0..150 {
            stats.record_start();
            stats.record_failure(&Error::Lost(format!("{number:03}")));
        }
        stats.record_start();
        stats.record_failure(&Error::Lost("000".into()));
        let counts = stats.counts();
        assert_eq!((counts.failed(), counts.under_way()), (151, 0));
        assert_eq!(counts.failures.len(), MAX_KINDS + 1);
        assert_eq!(counts.failures["the connection is lost: 000; connect again"], 2);
        assert_eq!(counts.failures[OTHERS], 50);
    }

    #[test]
    fn the_like_are_counted_together_whoever_they_befell() {
        let stats = LoadStats::default();
        for user in ["ada", "grace"] {
            stats.record_start();
            let refusal = session_core::Refusal::StoreSilent;
            stats.record_failure(&Error::Refused { user: Some(user.into()), refusal, details: None });
        }
        assert_eq!(stats.counts().failures.into_values().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn whoever_is_under_way_can_be_given_up() {
        let stats = LoadStats::default();
        stats.stop_waiting("nobody is there");
        for _ in 0..4 {
            stats.record_start();
        }
        let (idle, latency) = (Duration::ZERO, Duration::from_millis(1));
        let timing = |is_refused| SignInTiming { is_refused, started_at: Instant::now(), idle, latency, late: None };
        stats.record_success(&timing(false));
        stats.record_success(&timing(true));
        // One that is held is no longer under way, and neither is it once it is lost.
        stats.record_loss(&Error::Lost("cut".into()));
        assert_eq!(stats.counts().under_way(), 2);
        stats.stop_waiting("no answer");
        let counts = stats.counts();
        assert_eq!((counts.under_way(), counts.failures["no answer"], counts.failed()), (0, 2, 3));
        assert_eq!((counts.cycles, counts.refused, counts.lost), (2, 1, 1));
    }
}
