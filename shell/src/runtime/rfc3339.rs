//! Times as people read them (RFC 3339).

use std::time::{Duration, UNIX_EPOCH};

/// A number of milliseconds after 1970 as a date and a time, or as the number if that is impossible.
pub(crate) fn format_rfc3339(millis: u64) -> String {
    try_format(Duration::from_millis(millis)).unwrap_or_else(|| format!("{millis} ms after 1970"))
}

/// A time after 1970, cut to whole seconds. `None` beyond the year 9999: RFC 3339 has four digits for the year.
pub(crate) fn try_format(since_epoch: Duration) -> Option<String> {
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

    let time = UNIX_EPOCH.checked_add(since_epoch).filter(|_| since_epoch < YEAR_10000);
    time.map(|time| humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_of_five_digits_stays_a_number() {
        assert_eq!(format_rfc3339(1999), "1970-01-01T00:00:01Z");
        assert_eq!(format_rfc3339(253_402_300_799_999), "9999-12-31T23:59:59Z");
        assert_eq!(format_rfc3339(253_402_300_800_000), "253402300800000 ms after 1970");
        assert_eq!(try_format(Duration::MAX), None);
    }
}
