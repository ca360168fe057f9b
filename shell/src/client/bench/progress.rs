//! Progress of a run: a bar on a terminal, otherwise a line each second.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::time::{Duration, Instant};

use humantime::format_duration;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use smol::Timer;

use super::format::per_second;
use super::load::{Counts, LoadStats};
use crate::client::output::write_line;

/// The phase of a run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Checking that the server answers.
    Reaching,
    /// Opening this many sessions.
    Opening(u32),
    /// Running cycles since this time, for this long.
    Cycling(Instant, Duration),
    /// Holding sessions since this time, for this long.
    Holding(Instant, Duration),
    /// Waiting for active cycles.
    Ending,
}

/// Shows the progress of a run.
pub(super) struct Progress<'a> {
    bar: ProgressBar,
    /// The output for lines if there is no terminal.
    lines: Option<RefCell<&'a mut dyn Write>>,
    phase: Cell<Phase>,
}

const STEPS: u64 = 1000;

impl<'a> Progress<'a> {
    /// Draws on standard error if that is a terminal. Otherwise prints lines to `err`, unless `silent`.
    pub(super) fn new(err: &'a mut dyn Write, silent: bool) -> Self {
        let style = ProgressStyle::with_template("{bar:8} {msg}").expect("a good template");
        let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr()).with_style(style);
        let lines = (bar.is_hidden() && !silent).then(|| RefCell::new(err));
        Self { bar, lines, phase: Cell::new(Phase::Reaching) }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// Shows progress as long as it is polled.
    pub(super) async fn watch<T>(&self, stats: &LoadStats) -> T {
        const REDRAWN: Duration = Duration::from_millis(100);
        const SECOND: Duration = Duration::from_secs(1);

        let (mut at, mut before) = (Instant::now(), stats.counts());
        loop {
            Timer::after(REDRAWN).await;
            let now = Instant::now();
            if now - at >= SECOND {
                let counts = stats.counts();
                self.show(&format_line(self.phase.get(), now, &counts, &before, now - at));
                (at, before) = (now, counts);
            }
            if !self.bar.is_hidden() {
                self.bar.set_position(self.position(now, stats));
            }
        }
    }

    /// Removes the bar before the report is printed.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self, line: &str) {
        if self.bar.message() == line {
            return;
        }
        self.bar.set_message(line.to_owned());
        if let Some(lines) = &self.lines {
            // The report is printed even if progress cannot be.
            let _ignored: std::io::Result<()> = write_line(*lines.borrow_mut(), line);
        }
    }

    fn position(&self, now: Instant, stats: &LoadStats) -> u64 {
        let end_with_bye = match self.phase.get() {
            Phase::Reaching => 0.0,
            Phase::Opening(sessions) => stats.cycles() as f64 / f64::from(sessions),
            Phase::Cycling(since, length) | Phase::Holding(since, length) => (now - since).div_duration_f64(length),
            Phase::Ending => 1.0,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 1000")]
        let step = (end_with_bye.min(1.0) * STEPS as f64) as u64;
        step
    }
}

/// The totals, and the rate and latency since `before`.
fn format_line(phase: Phase, now: Instant, counts: &Counts, before: &Counts, over: Duration) -> String {
    let time_text = |since: Instant, length| match now - since {
        passed if passed > length => "ending".into(),
        passed => format!("{:.0}s/{}", passed.as_secs_f64(), format_duration(length)),
    };
    let (phase, count) = match phase {
        Phase::Reaching => return "reaching the server".into(),
        Phase::Opening(_) => ("opening".into(), format!("{} answered", HumanCount(counts.cycles))),
        Phase::Cycling(since, length) => (time_text(since, length), format!("{} cycles", HumanCount(counts.cycles))),
        Phase::Holding(since, length) => {
            let held = counts.cycles.saturating_sub(counts.refused + counts.lost);
            return format!(
                "{}  {} held  {} refused  {} lost",
                time_text(since, length),
                HumanCount(held),
                counts.refused,
                counts.lost
            );
        }
        Phase::Ending => {
            let [failed, open] = [counts.failed(), counts.under_way()].map(HumanCount);
            return format!("ending  {failed} failed  {open} open");
        }
    };
    let rate = per_second((counts.cycles - before.cycles) as f64 / over.as_secs_f64());
    let mut recent = counts.sign_in.clone();
    // `before` is an earlier state of the same histogram.
    let p99 = match recent.subtract(&before.sign_in) {
        Ok(()) if !recent.is_empty() => format!("p99 {}", short_millis(recent.value_at_quantile(0.99))),
        Ok(()) | Err(_) => "p99 -".into(),
    };
    let [refused, failed, open, not_begun] =
        [counts.refused, counts.failed(), counts.under_way(), counts.not_begun].map(HumanCount);
    let mut line = format!("{phase}  {count}  {rate}  {p99}  {refused} refused  {failed} failed  {open} open");
    if counts.not_begun > 0 {
        line += &format!("  {not_begun} not begun");
    }
    line
}

/// At least two digits of milliseconds.
fn short_millis(nanos: u64) -> String {
    let millis = nanos as f64 / 1e6;
    if millis < 9.95 { format!("{millis:.1}ms") } else { format!("{millis:.0}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cycles: u64, millis: u64) -> Counts {
        let mut counts = Counts { begun: cycles + 20, cycles, refused: 3, ..Counts::default() };
        counts.sign_in.record_n(millis * 1_000_000, cycles).expect("it is within an hour");
        counts
    }

    #[test]
    fn line_has_last_second_and_totals() {
        let since = Instant::now();
        let second = Duration::from_secs(1);
        let before = counts(1000, 1);
        let mut now = before.clone();
        now.sign_in.record_n(7_000_000, 2000).expect("it is within an hour");
        (now.begun, now.cycles) = (3021, 3000);
        now.failures.insert("cut".into(), 5);
        let line_at = |phase, passed| format_line(phase, since + second * passed, &now, &before, second * 2);
        let cycling = Phase::Cycling(since, second * 10);
        assert_eq!(line_at(cycling, 3), "3s/10s  3,000 cycles  1,000/s  p99 7.0ms  3 refused  5 failed  16 open");
        assert_eq!(line_at(cycling, 11), "ending  3,000 cycles  1,000/s  p99 7.0ms  3 refused  5 failed  16 open");
        assert_eq!(
            line_at(Phase::Opening(9000), 3),
            "opening  3,000 answered  1,000/s  p99 7.0ms  3 refused  5 failed  16 open"
        );
        assert_eq!(line_at(Phase::Holding(since, second * 10), 3), "3s/10s  2,997 held  3 refused  0 lost");
        assert_eq!(line_at(Phase::Reaching, 3), "reaching the server");
        now.not_begun = 4000;
        let line_at = format_line(cycling, since, &now, &before, second);
        assert!(line_at.ends_with("  5 failed  16 open  4,000 not begun"), "{line_at}");
    }

    #[test]
    fn latency_has_few_digits() {
        assert_eq!(
            [40_000, 9_940_000, 9_960_000, 2_074_123_456].map(short_millis),
            ["0.0ms", "9.9ms", "10ms", "2074ms"]
        );
    }

    #[test]
    fn second_without_answers_has_no_latency() {
        let (now, counts) = (Instant::now(), counts(10, 1));
        let line_at = |phase| format_line(phase, now, &counts, &counts, Duration::from_secs(1));
        let cycling = Phase::Cycling(now, Duration::from_secs(90));
        assert_eq!(line_at(cycling), "0s/1m 30s  10 cycles  0.0/s  p99 -  3 refused  0 failed  20 open");
        assert_eq!(line_at(Phase::Ending), "ending  0 failed  20 open");
    }
}
