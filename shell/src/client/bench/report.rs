//! What a run of `client bench` has measured.

use std::time::Duration;

use super::Settings;
use super::load::Counts;
use crate::client::ExitReason;

/// The results of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The options.
    pub settings: Settings,
    /// The counts. With `--hold` each sign-in counts as a cycle.
    pub counts: Counts,
    /// How long the cycles ran, or the opening of sessions.
    pub elapsed: Duration,
    /// How long sessions were held once all were open.
    pub held_for: Duration,
    /// How the run ended.
    pub end: RunEnd,
    /// The bound of cycles at once in an open loop.
    pub max_concurrent: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// After its duration.
    Complete,
    /// At Ctrl-C, after the active cycles had ended.
    Early,
    /// At the second Ctrl-C, without waiting.
    Immediately,
}

/// The reported quantiles and their names.
pub(super) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl Report {
    /// [`ExitReason::Goodbye`] if there were cycles or sessions, granted or refused at the limit, and none failed.
    #[must_use]
    pub fn exit_reason(&self) -> ExitReason {
        let counts = &self.counts;
        let is_well =
            counts.cycles > 0 && counts.failed() == 0 && counts.not_begun == 0 && self.end != RunEnd::Immediately;
        if is_well { ExitReason::Goodbye } else { ExitReason::Lost }
    }

    pub(super) fn per_second(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.counts.cycles as f64 / self.elapsed.as_secs_f64() }
    }

    pub(super) fn granted(&self) -> u64 {
        self.counts.cycles - self.counts.refused
    }
}
