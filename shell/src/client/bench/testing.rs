//! A report for unit tests.

use std::time::Duration;

use clap::Parser;

use super::load::{Counts, MAX_CONCURRENT};
use super::{Report, RunEnd, Settings};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

/// The report of 10,000 cycles with these options.
pub(super) fn report(arguments: &[&str]) -> Report {
    let arguments = ["bench", "--url", "ws://h:1", "--threads", "2"].iter().chain(arguments);
    let mut counts = Counts { begun: 10_013, cycles: 10_000, refused: 12, ..Counts::default() };
    for (millis, times) in [(1, 9_000), (2, 990), (40, 10)] {
        counts.sign_in.record_n(millis * 1_000_000, times).expect("it is within an hour");
        counts.cycle.record_n(millis * 3_000_000, times).expect("it is within an hour");
        counts.late.record_n(millis * 10_000, times).expect("it is within an hour");
    }
    Report {
        settings: Cli::parse_from(arguments).settings,
        counts,
        elapsed: Duration::from_secs(10),
        held_for: Duration::from_secs(7),
        end: RunEnd::Complete,
        max_concurrent: MAX_CONCURRENT,
    }
}
