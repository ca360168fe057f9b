//! Warnings about figures of a report that can mislead.

use std::time::Duration;

use indicatif::HumanCount;

use super::Report;
use super::format::millis;
use super::load::{Counts, LoadProfile, MAX_CONCURRENT};

/// The warnings. Each has a few lines.
pub(super) fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let Counts { not_begun, sign_in, late, lost, .. } = &report.counts;
    let failed = report.counts.failed() - lost;
    if failed > 0 && !sign_in.is_empty() {
        warnings.push(format!(
            "the latencies are those of successful cycles. How long the others\n\
             waited, {} that failed, is in no figure above.",
            HumanCount(failed)
        ));
    }
    if *not_begun > 0 {
        let advice = if report.max_concurrent < MAX_CONCURRENT {
            "\nThe limit of open files leaves no room for more: raise its hard limit\n(ulimit -Hn), which may need root."
        } else {
            ""
        };
        warnings.push(format!(
            "the rate was not kept. {} cycles were not begun when due,\n\
             because {} were under way. They are in no figure above: clients that had come\n\
             then would have waited longer than these figures say.{advice}",
            HumanCount(*not_begun),
            HumanCount(report.max_concurrent as u64),
        ));
    }
    let is_slow = match report.settings.profile() {
        LoadProfile::Rate(asked) => report.per_second() < 0.9 * asked,
        LoadProfile::Concurrency(_) => false,
    };
    if is_slow && *not_begun == 0 && report.counts.failed() == 0 && !sign_in.is_empty() {
        warnings.push(
            "the server was slower than the rate: later clients waited longer,\n\
             and in a longer run still longer. Ask for less to see how long a sign-in takes."
                .into(),
        );
    }
    // A smaller delay, or one that is small beside the server's latency, does not mislead.
    let misleads = |quantile, least: Duration| {
        let (late, sign_in) = (late.value_at_quantile(quantile), sign_in.value_at_quantile(quantile));
        u128::from(late) >= least.as_nanos() && late >= sign_in / 4
    };
    let which = if misleads(0.99, Duration::from_millis(1)) {
        Some(("one in a hundred was sent", late.value_at_quantile(0.99)))
    } else if misleads(1.0, Duration::from_millis(10)) {
        Some(("one was sent", late.max()))
    } else {
        None
    };
    if let Some((which, nanos)) = which {
        warnings.push(format!(
            "the load itself was late. Because of this client\n\
             {which} {} ms after its time or later, and the latencies\n\
             include that. Use another machine than the server's, or ask for less.",
            millis(nanos)
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;
    use crate::client::ExitReason;

    fn warnings_of(report: &Report) -> Vec<String> {
        report.text().split("\nwarning: ").skip(1).map(|warning| warning.trim_end().replace('\n', " ")).collect()
    }

    #[test]
    fn missed_rate_fails_with_a_warning() {
        let mut report = report(&[]);
        report.counts.not_begun = 1234;
        let kept = "the rate was not kept. 1,234 cycles were not begun when due, because 10,000 were under \
                    way. They are in no figure above: clients that had come then would have waited longer than these \
                    figures say.";
        assert_eq!(warnings_of(&report), [kept]);
        assert_eq!(report.exit_reason(), ExitReason::Lost);
        report.max_concurrent = 100;
        assert!(warnings_of(&report)[0].ends_with("which may need root."));
    }

    #[test]
    fn late_load_has_a_warning() {
        let late = |millis: u64, times| {
            let mut report = report(&[]);
            report.counts.late.record_n(millis * 1_000_000, times).expect("it is within an hour");
            warnings_of(&report)
        };
        let expected = |which| {
            format!(
                "the load itself was late. Because of this client {which} ms after its time or later, and the \
                 latencies include that. Use another machine than the server's, or ask for less."
            )
        };
        assert_eq!(late(3, 1000), [expected("one in a hundred was sent 3.000")]);
        assert_eq!(late(20, 1), [expected("one was sent 20.005")]);
        assert!(late(9, 1).is_empty(), "beside 40 ms it is little");
    }

    #[test]
    fn slow_server_has_a_warning() {
        let slow = |arguments| warnings_of(&Report { elapsed: Duration::from_secs(12), ..report(arguments) });
        let expected = "the server was slower than the rate: later clients waited longer, and in a longer run still \
                    longer. Ask for less to see how long a sign-in takes.";
        assert_eq!(slow(&[]), [expected]);
        assert!(slow(&["--concurrency", "7"]).is_empty(), "a closed loop has none");
    }

    #[test]
    fn failures_are_excluded_from_latency_with_warning() {
        let mut report = report(&[]);
        report.counts.failures.insert("no answer".into(), 7);
        let expected = "the latencies are those of successful cycles. How long the others waited, 7 that failed, is \
                    in no figure above.";
        assert_eq!(warnings_of(&report), [expected]);
    }

    #[test]
    fn warnings_fit_a_terminal() {
        let mut report = Report { max_concurrent: 9_999, ..report(&[]) };
        report.counts.not_begun = 9_999_999;
        report.counts.late.record_n(987_000_000, 5000).expect("it is within an hour");
        report.counts.failures.insert("no answer".into(), 9_999_999);
        let text = report.text();
        assert_eq!(text.matches("\nwarning: ").count(), 3);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
