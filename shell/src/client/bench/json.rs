//! The report as JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{LoadProfile, Users};
use super::report::QUANTILES;
use super::{Report, RunEnd};

impl Report {
    /// One JSON object on one line. Times are in microseconds or seconds, as their names say, and with a fraction.
    ///
    /// | key | |
    /// |---|---|
    /// | `url`, `users`, `threads` | as asked for |
    /// | `asked_per_second` | the rate of an open loop, else null |
    /// | `concurrency` | of a closed loop, else null |
    /// | `asked_seconds` | for how long to begin cycles, or to hold sessions |
    /// | `interrupted` | whether it was ended early |
    /// | `seconds` | how long it took, from the first cycle to the last; with `--hold`, to open all sessions |
    /// | `cycles` | that ended well; with `--hold`, sign-ins that were answered |
    /// | `per_second` | `cycles` in `seconds` |
    /// | `refused` | of `cycles`, those at the limit |
    /// | `failed`, `failures` | the others that were begun; the same by kind, an object from words to numbers |
    /// | `not_begun` | cycles of an open loop whose time came while too many were under way |
    /// | `hold` | with `--hold` an object, else null: `sessions` asked for, `granted`, `lost` (they are among the failed), `seconds` held |
    /// | `sign_in` | from when AUTHENTICATE was due to its answer |
    /// | `cycle` | from when a cycle was due to its close, without the wait for its time to authenticate; with `--hold`, to the answer |
    /// | `late` | how late AUTHENTICATE was sent by no fault of the server's, null of a closed loop |
    ///
    /// The last three are objects: `count`, `min_micros`, `mean_micros`, `p50_micros`, `p90_micros`, `p99_micros`,
    /// `p99_9_micros`, `p99_99_micros`, `max_micros`.
    #[must_use]
    pub fn json(&self) -> String {
        let Self { settings, counts, .. } = self;
        let (asked_per_second, concurrency) = match settings.profile() {
            LoadProfile::Rate(rate) => (Some(rate), None),
            LoadProfile::Concurrency(at_once) => (None, Some(at_once)),
        };
        let Users(users) = settings.users();
        let hold = settings.hold.map(|sessions| Hold {
            sessions,
            granted: self.granted(),
            lost: counts.lost,
            seconds: self.held_for.as_secs_f64(),
        });
        encode(&Json {
            url: settings.url.to_string(),
            users,
            threads: settings.threads(),
            asked_per_second,
            concurrency,
            asked_seconds: settings.duration.as_secs_f64(),
            interrupted: self.end != RunEnd::Complete,
            seconds: self.elapsed.as_secs_f64(),
            cycles: counts.cycles,
            per_second: self.per_second(),
            refused: counts.refused,
            failed: counts.failed(),
            failures: &counts.failures,
            not_begun: counts.not_begun,
            hold,
            sign_in: Times::from_histogram(&counts.sign_in),
            cycle: Times::from_histogram(&counts.cycle),
            late: asked_per_second.map(|_| Times::from_histogram(&counts.late)),
        })
    }
}

#[derive(Serialize)]
struct Json<'a> {
    url: String,
    users: u32,
    threads: u16,
    asked_per_second: Option<f64>,
    concurrency: Option<u16>,
    asked_seconds: f64,
    interrupted: bool,
    seconds: f64,
    cycles: u64,
    per_second: f64,
    refused: u64,
    failed: u64,
    failures: &'a BTreeMap<String, u64>,
    not_begun: u64,
    hold: Option<Hold>,
    sign_in: Times,
    cycle: Times,
    late: Option<Times>,
}

#[derive(Serialize)]
struct Hold {
    sessions: u32,
    granted: u64,
    lost: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Times {
    count: u64,
    min_micros: f64,
    mean_micros: f64,
    p50_micros: f64,
    p90_micros: f64,
    p99_micros: f64,
    p99_9_micros: f64,
    p99_99_micros: f64,
    max_micros: f64,
}

fn encode(json: &Json<'_>) -> String {
    serde_json::to_string(json).expect("numbers and strings always serialise")
}

impl Times {
    fn from_histogram(histogram: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let [p50_micros, p90_micros, p99_micros, p99_9_micros, p99_99_micros] =
            QUANTILES.map(|(_, quantile)| micros(histogram.value_at_quantile(quantile)));
        Self {
            count: histogram.len(),
            min_micros: micros(histogram.min()),
            mean_micros: histogram.mean().round() / 1e3,
            p50_micros,
            p90_micros,
            p99_micros,
            p99_9_micros,
            p99_99_micros,
            max_micros: micros(histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;

    #[test]
    fn open_loop_json_has_rate_and_late() {
        let mut report = report(&["--users", "5"]);
        report.counts.failures.insert("cut".into(), 2);
        let parts = [
            r#"{"url":"ws://h:1/","users":5,"threads":2,"asked_per_second":1000.0,"concurrency":null,"#,
            r#""asked_seconds":10.0,"interrupted":false,"seconds":10.0,"cycles":10000,"per_second":1000.0,"#,
            r#""refused":12,"failed":2,"failures":{"cut":2},"not_begun":0,"hold":null,"#,
            r#""sign_in":{"count":10000,"min_micros":999.936,"mean_micros":1138.204,"p50_micros":1000.447,"#,
            r#""p90_micros":1000.447,"p99_micros":2000.895,"p99_9_micros":2000.895,"#,
            r#""p99_99_micros":40009.727,"max_micros":40009.727},"#,
            r#""cycle":{"count":10000,"min_micros":2998.272,"mean_micros":3413.256,"p50_micros":3000.319,"#,
            r#""p90_micros":3000.319,"p99_micros":6000.639,"p99_9_micros":6000.639,"#,
            r#""p99_99_micros":120061.951,"max_micros":120061.951},"#,
            r#""late":{"count":10000,"min_micros":10.0,"mean_micros":11.384,"p50_micros":10.007,"#,
            r#""p90_micros":10.007,"p99_micros":20.015,"p99_9_micros":20.015,"#,
            r#""p99_99_micros":400.127,"max_micros":400.127}}"#,
        ];
        assert_eq!(report.json(), parts.concat());
    }

    #[test]
    fn closed_loop_json_has_neither() {
        let report = report(&["--hold", "12000", "--concurrency", "64"]);
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!((&json["asked_per_second"], &json["late"]), (&serde_json::Value::Null, &serde_json::Value::Null));
        assert_eq!((json["concurrency"].as_u64(), json["users"].as_u64()), (Some(64), Some(4000)));
        assert_eq!(json["hold"].to_string(), r#"{"granted":9988,"lost":0,"seconds":7.0,"sessions":12000}"#);
    }
}
