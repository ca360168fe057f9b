//! Counts and times of a load, which all threads update.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::sign_in::SignInTiming;
use crate::client::Error;

/// The results so far. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Cycles started.
    pub begun: u64,
    /// Cycles of an open loop that were skipped at their time because too many were active.
    pub not_begun: u64,
    /// Cycles that succeeded.
    pub cycles: u64,
    /// Of these, those refused at the limit.
    pub refused: u64,
    /// Handshakes of TLS that resumed an earlier session.
    pub resumed: u64,
    /// Failures by message, with their counts. After 100 different messages the rest are counted together.
    pub failures: BTreeMap<String, u64>,
    /// Held sessions that were lost later. They are counted in `failures`, too. Zero for cycles.
    pub lost: u64,
    /// From AUTHENTICATE, or its scheduled time, to the answer.
    pub sign_in: Histogram<u64>,
    /// From the first packet to the last; in an open loop from the scheduled time, without the wait for the time to
    /// authenticate. For a held session, to its answer.
    pub cycle: Histogram<u64>,
    /// How late AUTHENTICATE was sent in an open loop because of the client. This delay is part of `sign_in`, too.
    pub late: Histogram<u64>,
}

/// [`Counts`] that all threads update.
#[derive(Debug)]
pub struct LoadStats(Mutex<Counts>);

/// The longest time that is recorded exactly: an hour, in nanoseconds.
const MAX_NANOS: u64 = 3_600_000_000_000;

/// How many different failures are counted. A server could send a different text to every client.
const MAX_KINDS: usize = 100;

const OTHERS: &str = "others";

impl Counts {
    /// All failures.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Cycles that were started and have not ended. For held sessions, those without an answer.
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
            resumed: 0,
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
    /// A copy of the counts, about a megabyte.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// How many cycles have succeeded.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.lock().cycles
    }

    /// Counts all active cycles as failed.
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

    pub(crate) fn record_resumption(&self) {
        self.lock().resumed += 1;
    }

    /// Records a cycle that succeeded, or a held session that was answered.
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

    /// Records a held session that was lost.
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

/// The error without the user's name, so that equal failures are counted together.
fn kind(error: &Error) -> String {
    match error {
        Error::Refused { reason, .. } => format!("refused: {reason}"),
        Error::BadUrl(_)
        | Error::Unreachable { .. }
        | Error::Handshake { .. }
        | Error::BadCa { .. }
        | Error::BadToken { .. }
        | Error::Denied { .. }
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
    fn failure_kinds_are_counted_and_bounded() {
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
    fn equal_failures_of_users_count_together() {
        let stats = LoadStats::default();
        for user in ["ada", "grace"] {
            stats.record_start();
            let reason = session_core::protocol::AuthenticateFailure::StoreTimedOut;
            stats.record_failure(&Error::Refused { user: Some(user.into()), reason, details: None });
        }
        assert_eq!(stats.counts().failures.into_values().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn active_cycles_can_be_counted_as_failed() {
        let stats = LoadStats::default();
        stats.stop_waiting("nobody is there");
        for _ in 0..4 {
            stats.record_start();
        }
        let (idle, latency) = (Duration::ZERO, Duration::from_millis(1));
        let timing = |is_refused| SignInTiming { is_refused, started_at: Instant::now(), idle, latency, late: None };
        stats.record_success(&timing(false));
        stats.record_success(&timing(true));
        // A held session is no longer active, and neither is a lost one.
        stats.record_loss(&Error::Lost("cut".into()));
        assert_eq!(stats.counts().under_way(), 2);
        stats.stop_waiting("no answer");
        let counts = stats.counts();
        assert_eq!((counts.under_way(), counts.failures["no answer"], counts.failed()), (0, 2, 3));
        assert_eq!((counts.cycles, counts.refused, counts.lost), (2, 1, 1));
    }
}
