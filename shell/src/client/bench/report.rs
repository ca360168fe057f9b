//! What a run of `client bench` has measured.

use std::time::Duration;

use super::Settings;
use super::load::Counts;
use crate::client::ExitReason;

/// What a run has come to.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    /// What was counted. Where sessions were held, a sign-in counts as a cycle.
    pub counts: Counts,
    /// How long cycles took from the first to the last, or sessions to be opened.
    pub elapsed: Duration,
    /// For how long sessions were held once all were open.
    pub held_for: Duration,
    /// How it ended.
    pub end: RunEnd,
    /// How many cycles might be under way at once in an open loop.
    pub max_concurrent: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// When its time was over.
    Complete,
    /// At Ctrl-C, and the cycles under way were waited for.
    Early,
    /// At the second Ctrl-C, and nobody was waited for.
    Immediately,
}

/// The quantiles that are reported, with their names.
pub(super) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl Report {
    /// [`ExitReason::Goodbye`] if cycles ended well, or sessions were granted or refused at the limit, and none failed.
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
