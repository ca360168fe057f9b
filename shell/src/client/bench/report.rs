//! What `client bench` has found, for people and for scripts.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use humantime::format_duration;
use indicatif::HumanCount;

use super::load::{Counts, Pace, Users};
use super::warnings::warnings;
use super::{Settings, chart};
use crate::client::Verdict;
use crate::client::run::printer::shown;

/// What a run has come to.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    /// What was counted. Where sessions were held, a sign-in counts as a cycle.
    pub counts: Counts,
    /// How long cycles took from the first to the last, or sessions to be opened.
    pub took: Duration,
    /// For how long sessions were held once all were open.
    pub held: Duration,
    /// How it ended.
    pub end: End,
    /// How many cycles might be under way at once in an open loop.
    pub most_at_once: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// When its time was over.
    Whole,
    /// At Ctrl-C, and the cycles under way were waited for.
    Early,
    /// At the second Ctrl-C, and nobody was waited for.
    AtOnce,
}

/// The quantiles that are reported, with their names.
pub(super) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl Report {
    /// [`Verdict::Goodbye`] if cycles ended well, or sessions were granted or refused at the limit, and none failed.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let counts = &self.counts;
        let is_well = counts.cycles > 0 && counts.failed() == 0 && counts.not_begun == 0 && self.end != End::AtOnce;
        if is_well { Verdict::Goodbye } else { Verdict::Lost }
    }

    /// Text of 80 columns, but for the words of failures.
    #[must_use]
    pub fn words(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        let counts = &self.counts;
        let rate = format!("in {}, {}", seconds(self.took), self.rate_in_words());
        let lines = match self.settings.hold {
            None => vec![
                ("cycles", counts.cycles, rate),
                ("refused", counts.refused, "of these, at the limit".into()),
                ("failed", counts.failed(), String::new()),
            ],
            Some(_) => vec![
                ("answered", counts.cycles, rate),
                ("granted", self.granted(), format!("held for {}", seconds(self.held))),
                ("refused", counts.refused, "at the limit".into()),
                ("failed", counts.failed() - counts.lost, "to open".into()),
                ("lost", counts.lost, "while held, or at their BYE".into()),
            ],
        };
        for (name, count, rest) in lines {
            let count = HumanCount(count).to_string();
            line(&mut text, format_args!("{name:<10} {count:>11} {rest}"));
        }
        self.failures(&mut text);
        self.latencies(&mut text);
        for warning in warnings(self) {
            line(&mut text, format_args!("\nwarning: {warning}"));
        }
        text
    }

    fn headline(&self) -> String {
        let Settings { url, duration, hold, .. } = &self.settings;
        let Users(users) = self.settings.users();
        let users = format!("{} user{}", HumanCount(users.into()), if users == 1 { "" } else { "s" });
        let pace = match self.settings.pace() {
            Pace::Rate(_) => format!("open loop, {}/s", HumanCount(self.settings.rate.into())),
            Pace::Concurrency(at_once) => format!("closed loop, {} at once", HumanCount(at_once.into())),
        };
        let asked = match hold {
            None => format!("{users}, {pace}, for {}", format_duration(*duration)),
            Some(sessions) => format!(
                "{} sessions of {users}, {pace}, held for {}",
                HumanCount((*sessions).into()),
                format_duration(*duration)
            ),
        };
        let early = match self.end {
            End::Whole => "",
            End::Early => "\nended early, by a signal",
            End::AtOnce => "\nended at once, by a second signal",
        };
        format!("{url}\n{asked}{early}")
    }

    fn rate_in_words(&self) -> String {
        let achieved = per_second(self.per_second());
        match self.settings.pace() {
            Pace::Rate(asked) => format!("{achieved} of the {} asked for", per_second(asked)),
            Pace::Concurrency(_) => achieved,
        }
    }

    pub(super) fn per_second(&self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.counts.cycles as f64 / self.took.as_secs_f64() }
    }

    pub(super) fn granted(&self) -> u64 {
        self.counts.cycles - self.counts.refused
    }

    /// The most frequent kinds.
    fn failures(&self, text: &mut String) {
        const SHOWN: usize = 10;

        let mut failures: Vec<_> = self.counts.failures.iter().collect();
        failures.sort_by_key(|&(_, &times)| Reverse(times));
        for &(why, &times) in failures.iter().take(SHOWN) {
            let times = HumanCount(times).to_string();
            line(text, format_args!("{times:>22} × {}", shown(why)));
        }
        let rest: u64 = failures.iter().skip(SHOWN).map(|&(_, &times)| times).sum();
        if rest > 0 {
            let times = HumanCount(rest).to_string();
            line(text, format_args!("{times:>22} × of other kinds, which --json lists"));
        }
    }

    fn latencies(&self, text: &mut String) {
        let Counts { sign_in, cycle, late, .. } = &self.counts;
        if sign_in.is_empty() {
            return;
        }
        let whole = if self.settings.hold.is_some() { "with connecting" } else { "whole cycle" };
        let mut columns = vec![("sign-in", sign_in), (whole, cycle)];
        if !late.is_empty() {
            columns.push(("sent late", late));
        }
        let mut row = |name: &str, cell: &dyn Fn(&str, &Histogram<u64>) -> String| {
            let cells = columns.iter().map(|(name, of)| format!(" {:>15}", cell(name, of)));
            line(text, format_args!("{name:<11}{}", cells.collect::<String>()));
        };
        row("\nlatency, ms", &|name, _| name.into());
        row("min", &|_, of| millis(of.min()));
        row("mean", &|_, of| millis_of(of.mean()));
        for (name, quantile) in QUANTILES {
            row(name, &|_, of| millis(of.value_at_quantile(quantile)));
        }
        row("max", &|_, of| millis(of.max()));
        text.push('\n');
        chart::draw("sign-in, ms", sign_in, text);
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all");
    let end = text.trim_end().len();
    text.truncate(end);
    text.push('\n');
}

/// Three digits or more of milliseconds.
pub(super) fn millis(nanos: u64) -> String {
    millis_of(nanos as f64)
}

fn millis_of(nanos: f64) -> String {
    match nanos / 1e6 {
        millis if millis < 100.0 => format!("{millis:.3}"),
        millis if millis < 1000.0 => format!("{millis:.1}"),
        millis => format!("{millis:.0}"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Few digits of a small rate, no fraction of a large one.
pub(super) fn per_second(rate: f64) -> String {
    if rate < 100.0 {
        format!("{rate:.1}/s")
    } else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate that was counted fits")]
        let whole = rate.round() as u64;
        format!("{}/s", HumanCount(whole))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;
    use crate::client::bench::load::MOST_AT_ONCE;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    /// A run of 10,000 cycles that was asked for like this.
    pub(in super::super) fn report(arguments: &[&str]) -> Report {
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
            took: Duration::from_secs(10),
            held: Duration::from_secs(7),
            end: End::Whole,
            most_at_once: MOST_AT_ONCE,
        }
    }

    #[test]
    fn the_words_of_an_open_loop() {
        let report = report(&[]);
        assert_eq!(
            report.words(),
            "ws://h:1/\n\
             10,000 users, open loop, 1,000/s, for 10s\n\
             \n\
             cycles          10,000 in 10.00 s, 1,000/s of the 1,000/s asked for\n\
             refused             12 of these, at the limit\n\
             failed               0\n\
             \n\
             latency, ms         sign-in     whole cycle       sent late\n\
             min                   1.000           2.998           0.010\n\
             mean                  1.138           3.413           0.011\n\
             p50                   1.000           3.000           0.010\n\
             p90                   1.000           3.000           0.010\n\
             p99                   2.001           6.001           0.020\n\
             p99.9                 2.001           6.001           0.020\n\
             p99.99               40.010           120.1           0.400\n\
             max                  40.010           120.1           0.400\n\
             \n\
             sign-in, ms        count                                            up to here\n\
             ≤ 1                9,000 ██████████████████████████████████████       90.000 %\n\
             ≤ 2                  990 ████▎                                        99.900 %\n\
             ≤ 5                    0                                              99.900 %\n\
             ≤ 10                   0                                              99.900 %\n\
             ≤ 20                   0                                              99.900 %\n\
             ≤ 50                  10 ▏                                           100.000 %\n"
        );
        assert_eq!(report.verdict(), Verdict::Goodbye);
    }

    #[test]
    fn the_words_of_sessions_that_were_held() {
        let mut report = report(&["--hold", "12000", "--concurrency", "64", "--duration", "1m"]);
        report.end = End::Early;
        report.counts.lost = 2;
        report.counts.failures = [("cut\u{1b}[2J".to_owned(), 3), ("closed".to_owned(), 10)].into();
        let words = report.words();
        assert!(
            words.starts_with(
                "ws://h:1/\n\
                 12,000 sessions of 4,000 users, closed loop, 64 at once, held for 1m\n\
                 ended early, by a signal\n\
                 \n\
                 answered        10,000 in 10.00 s, 1,000/s\n\
                 granted          9,988 held for 7.00 s\n\
                 refused             12 at the limit\n\
                 failed              11 to open\n\
                 lost                 2 while held, or at their BYE\n\
                 \u{20}                   10 × closed\n\
                 \u{20}                    3 × cut\\u{1b}[2J\n\
                 \n\
                 latency, ms         sign-in with connecting"
            ),
            "{words}"
        );
        assert_eq!(report.verdict(), Verdict::Lost);
    }

    #[test]
    fn rare_kinds_of_failures_are_summed_up() {
        let mut report = report(&[]);
        report.counts.failures = (0..13).map(|number| (format!("words {number}"), 100 - number)).collect();
        let words = report.words();
        assert!(words.contains("91 × words 9\n") && !words.contains("words 10"), "{words}");
        assert!(words.contains("267 × of other kinds, which --json lists\n"), "{words}");
    }

    #[test]
    fn nothing_is_no_success_and_has_no_latencies() {
        let report = Report { counts: Counts::default(), took: Duration::ZERO, ..report(&[]) };
        assert_eq!(report.verdict(), Verdict::Lost);
        let words = report.words();
        assert!(words.ends_with("failed               0\n") && words.contains("0.0/s of the 1,000/s"), "{words}");
    }

    #[test]
    fn a_second_signal_is_no_success() {
        let report = Report { end: End::AtOnce, ..report(&[]) };
        assert_eq!(report.verdict(), Verdict::Lost);
        assert!(report.words().contains("ended at once, by a second signal\n"));
    }
}
