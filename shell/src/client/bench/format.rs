//! Numbers for people.

use std::time::Duration;

use indicatif::HumanCount;

/// At least three digits of milliseconds.
pub(super) fn millis(nanos: u64) -> String {
    millis_of(nanos as f64)
}

pub(super) fn millis_of(nanos: f64) -> String {
    match nanos / 1e6 {
        millis if millis < 100.0 => format!("{millis:.3}"),
        millis if millis < 1000.0 => format!("{millis:.1}"),
        millis => format!("{millis:.0}"),
    }
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A small rate has one decimal, a large one none.
pub(super) fn per_second(rate: f64) -> String {
    if rate < 100.0 {
        format!("{rate:.1}/s")
    } else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate that was counted fits")]
        let whole = rate.round() as u64;
        format!("{}/s", HumanCount(whole))
    }
}
