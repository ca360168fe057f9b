//! A histogram of latencies for a terminal.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use indicatif::HumanCount;

/// The width of the longest bar in columns.
const WIDTH: usize = 38;

struct Row {
    /// The upper bound, in nanoseconds.
    most: u64,
    count: u64,
}

/// Adds a row for each bucket, from the first to the last that is not empty. Bounds are 1, 2 and 5 times the powers of
/// ten.
pub(super) fn draw(title: &str, times: &Histogram<u64>, text: &mut String) {
    let rows = build_rows(times);
    let longest = rows.iter().map(|row| row.count).max().unwrap_or_default();
    let mut so_far = 0;
    let mut add = |line: String| writeln!(text, "{}", line.trim_end()).expect("a string takes all");
    add(format!("{title:<13}{:>11} {:<WIDTH$} {:>14}", "count", "", "up to here"));
    for Row { most, count } in rows {
        so_far += count;
        let share = 100.0 * so_far as f64 / times.len() as f64;
        // Rounds down, so that only the last row shows 100 %.
        let share = if so_far < times.len() { (share * 1e3).floor() / 1e3 } else { share };
        let (most, count, bar) = (most as f64 / 1e6, HumanCount(count).to_string(), bar(count, longest));
        add(format!("≤ {most:<11}{count:>11} {bar:<WIDTH$} {share:>12.3} %"));
    }
}

fn build_rows(times: &Histogram<u64>) -> Vec<Row> {
    let mut bounds = (3..=18).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    let mut rows = vec![];
    let Some(mut most) = bounds.next() else { return rows };
    let mut count = 0;
    for value in times.iter_recorded() {
        while times.lowest_equivalent(value.value_iterated_to()) > most {
            if count > 0 || !rows.is_empty() {
                rows.push(Row { most, count });
                count = 0;
            }
            // The bounds go beyond every value of the histogram.
            most = bounds.next().unwrap_or(u64::MAX);
        }
        count += value.count_since_last_iteration();
    }
    rows.push(Row { most, count });
    rows
}

/// In eighths of a column, rounded up so that no count is invisible.
fn bar(count: u64, longest: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let width = u128::try_from(WIDTH * 8).unwrap_or_default();
    let eighths = (u128::from(count) * width).div_ceil(u128::from(longest.max(1)));
    let eighths = usize::try_from(eighths).unwrap_or_default();
    "█".repeat(eighths / 8) + EIGHTHS.get(eighths % 8).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_rows_in_between_are_shown() {
        let mut times = Histogram::new(3).expect("three digits");
        times.record_n(1_900_000, 9_000).expect("it resizes");
        times.record_n(2_100_000, 990).expect("it resizes");
        times.record_n(18_000_000, 10).expect("it resizes");
        let mut text = String::new();
        draw("sign-in, ms", &times, &mut text);
        assert_eq!(
            text,
            "sign-in, ms        count                                            up to here\n\
             ≤ 2                9,000 ██████████████████████████████████████       90.000 %\n\
             ≤ 5                  990 ████▎                                        99.900 %\n\
             ≤ 10                   0                                              99.900 %\n\
             ≤ 20                  10 ▏                                           100.000 %\n"
        );
    }

    #[test]
    fn extreme_times_have_rows() {
        let mut times = Histogram::new(3).expect("three digits");
        for nanos in [1, 3_600_000_000_000] {
            times.record(nanos).expect("it resizes");
        }
        let mut text = String::new();
        draw("all", &times, &mut text);
        assert_eq!(text.lines().nth(1).map(|line| &line[..20]), Some("≤ 0.001           "), "{text}");
        assert!(text.lines().last().is_some_and(|line| line.starts_with("≤ 5000000 ")), "{text}");
        assert!(text.ends_with(" 100.000 %\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
