//! The report for people.

use std::cmp::Reverse;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use humantime::format_duration;
use indicatif::HumanCount;

use super::format::{millis, millis_of, per_second, seconds};
use super::load::{Counts, LoadProfile, Users};
use super::report::QUANTILES;
use super::warnings::warnings;
use super::{Report, RunEnd, Settings, chart};
use crate::client::output::escape;

impl Report {
    /// Text of 80 columns. Only failure messages can be longer.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        let counts = &self.counts;
        let rate = format!("in {}, {}", seconds(self.elapsed), self.rate_text());
        let lines = match self.settings.hold {
            None => vec![
                ("cycles", counts.cycles, rate),
                ("refused", counts.refused, "of these, at the limit".into()),
                ("failed", counts.failed(), String::new()),
            ],
            Some(_) => vec![
                ("answered", counts.cycles, rate),
                ("granted", self.granted(), format!("held for {}", seconds(self.held_for))),
                ("refused", counts.refused, "at the limit".into()),
                ("failed", counts.failed() - counts.lost, "to open".into()),
                ("lost", counts.lost, "while held, or at their BYE".into()),
            ],
        };
        for (name, count, rest) in lines {
            let count = HumanCount(count).to_string();
            push_line(&mut text, format_args!("{name:<10} {count:>11} {rest}"));
        }
        self.failures(&mut text);
        self.latencies(&mut text);
        for warning in warnings(self) {
            push_line(&mut text, format_args!("\nwarning: {warning}"));
        }
        text
    }

    fn headline(&self) -> String {
        let Settings { url, duration, hold, .. } = &self.settings;
        let Users(users) = self.settings.users();
        let users = format!("{} user{}", HumanCount(users.into()), if users == 1 { "" } else { "s" });
        let profile = match self.settings.profile() {
            LoadProfile::Rate(_) => format!("open loop, {}/s", HumanCount(self.settings.rate.into())),
            LoadProfile::Concurrency(at_once) => format!("closed loop, {} at once", HumanCount(at_once.into())),
        };
        let asked = match hold {
            None => format!("{users}, {profile}, for {}", format_duration(*duration)),
            Some(sessions) => format!(
                "{} sessions of {users}, {profile}, held for {}",
                HumanCount((*sessions).into()),
                format_duration(*duration)
            ),
        };
        let early = match self.end {
            RunEnd::Complete => "",
            RunEnd::Early => "\nended early, by a signal",
            RunEnd::Immediately => "\nended at once, by a second signal",
        };
        format!("{url}\n{asked}{early}")
    }

    fn rate_text(&self) -> String {
        let achieved = per_second(self.per_second());
        match self.settings.profile() {
            LoadProfile::Rate(asked) => format!("{achieved} of the {} asked for", per_second(asked)),
            LoadProfile::Concurrency(_) => achieved,
        }
    }

    /// Adds the most frequent failures.
    fn failures(&self, text: &mut String) {
        const SHOWN: usize = 10;

        let mut failures: Vec<_> = self.counts.failures.iter().collect();
        failures.sort_by_key(|&(_, &times)| Reverse(times));
        for &(reason, &times) in failures.iter().take(SHOWN) {
            let times = HumanCount(times).to_string();
            push_line(text, format_args!("{times:>22} × {}", escape(reason)));
        }
        let rest: u64 = failures.iter().skip(SHOWN).map(|&(_, &times)| times).sum();
        if rest > 0 {
            let times = HumanCount(rest).to_string();
            push_line(text, format_args!("{times:>22} × of other kinds, which --json lists"));
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
            let cells = columns.iter().map(|(name, times)| format!(" {:>15}", cell(name, times)));
            push_line(text, format_args!("{name:<11}{}", cells.collect::<String>()));
        };
        row("\nlatency, ms", &|name, _| name.into());
        row("min", &|_, times| millis(times.min()));
        row("mean", &|_, times| millis_of(times.mean()));
        for (name, quantile) in QUANTILES {
            row(name, &|_, times| millis(times.value_at_quantile(quantile)));
        }
        row("max", &|_, times| millis(times.max()));
        text.push('\n');
        chart::draw("sign-in, ms", sign_in, text);
    }
}

fn push_line(text: &mut String, push_line: std::fmt::Arguments<'_>) {
    writeln!(text, "{push_line}").expect("a string takes all");
    let end = text.trim_end().len();
    text.truncate(end);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::report;
    use super::*;
    use crate::client::ExitReason;

    #[test]
    fn open_loop_report_text() {
        let report = report(&[]);
        assert_eq!(
            report.text(),
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
        assert_eq!(report.exit_reason(), ExitReason::Goodbye);
    }

    #[test]
    fn held_sessions_report_text() {
        let mut report = report(&["--hold", "12000", "--concurrency", "64", "--duration", "1m"]);
        report.end = RunEnd::Early;
        report.counts.lost = 2;
        report.counts.failures = [("cut\u{1b}[2J".to_owned(), 3), ("closed".to_owned(), 10)].into();
        let text = report.text();
        assert!(
            text.starts_with(
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
            "{text}"
        );
        assert_eq!(report.exit_reason(), ExitReason::Lost);
    }

    #[test]
    fn rare_failures_are_summed_up() {
        let mut report = report(&[]);
        report.counts.failures = (0..13).map(|number| (format!("words {number}"), 100 - number)).collect();
        let text = report.text();
        assert!(text.contains("91 × words 9\n") && !text.contains("words 10"), "{text}");
        assert!(text.contains("267 × of other kinds, which --json lists\n"), "{text}");
    }

    #[test]
    fn empty_run_fails_without_latencies() {
        let report = Report { counts: Counts::default(), elapsed: Duration::ZERO, ..report(&[]) };
        assert_eq!(report.exit_reason(), ExitReason::Lost);
        let text = report.text();
        assert!(text.ends_with("failed               0\n") && text.contains("0.0/s of the 1,000/s"), "{text}");
    }

    #[test]
    fn second_signal_is_no_success() {
        let report = Report { end: RunEnd::Immediately, ..report(&[]) };
        assert_eq!(report.exit_reason(), ExitReason::Lost);
        assert!(report.text().contains("ended at once, by a second signal\n"));
    }
}
