//! Points in time that print, snapshot and fuzz.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// A point in time, as the duration since the Unix epoch.
///
/// The caller supplies it. Within one process it never decreases: read the wall clock once at start, then add the time
/// that a monotonic clock measures. So a later correction of the wall clock has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The time that lies `since_epoch` after 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_epoch(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// The time since the Unix epoch.
    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Whole milliseconds since the Unix epoch, at most [`u64::MAX`].
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// The time since `earlier`. Zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A wall-clock time in whole seconds since the Unix epoch, such as the expiry of a token.
///
/// Unlike [`Timestamp`], the wall clock may be corrected at any time, in either direction. The core only passes it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(u64);

impl UnixSeconds {
    /// This number of seconds after 1970-01-01 00:00:00 UTC, as a NumericDate of [RFC 7519 §2] counts them.
    ///
    /// [RFC 7519 §2]: https://www.rfc-editor.org/rfc/rfc7519#section-2
    #[must_use]
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.0
    }
}

/// Later by a duration, saturating at the end of time.
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Seconds since the Unix epoch with milliseconds, as in `1700000000.250s`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn sums_saturate_and_differences_are_never_negative() {
        let end = Timestamp::from_epoch(Duration::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Timestamp::default().since(end), Duration::ZERO);
        assert_eq!(
            (Timestamp::default() + Duration::from_millis(5)).since(Timestamp::default()),
            Duration::from_millis(5)
        );
        assert_eq!(end.millis(), u64::MAX);
    }

    #[test]
    fn unix_seconds_count_from_the_epoch() {
        assert_eq!(UnixSeconds::from_unix_seconds(1_700_000_000).unix_seconds(), 1_700_000_000);
    }

    #[test]
    fn timestamps_print_seconds_and_milliseconds() {
        assert_eq!(Timestamp::from_epoch(Duration::from_millis(1_700_000_000_250)).to_string(), "1700000000.250s");
    }
}
