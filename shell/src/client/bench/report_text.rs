//! The report for people.

use std::cmp::Reverse;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use humantime::format_duration;
use indicatif::HumanCount;

use super::format::{millis, millis_of, per_second, seconds};
use super::load::{Counts, Pace, Users};
use super::report::QUANTILES;
use super::warnings::warnings;
use super::{End, Report, Settings, chart};
use crate::client::output::shown;

impl Report {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::report;
    use super::*;
    use crate::client::Verdict;

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
