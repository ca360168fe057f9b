//! Points in time that print, snapshot and fuzz.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// A point in time, as the duration since the Unix epoch.
///
/// Whoever drives the core supplies it, and within one process it never decreases: read the wall clock once at
/// start, then add what a monotonic clock says has passed. A correction of the wall clock is therefore not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The time that lies `since_epoch` after 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_epoch(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// How long after the Unix epoch this is.
    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Whole milliseconds since the Unix epoch, at most [`u64::MAX`].
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the wall clock shows, in whole seconds since the Unix epoch: the calendar by which tokens run out.
///
/// Unlike [`Timestamp`] it may be corrected at any time, in either direction. The core only passes it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(u64);

impl UnixSeconds {
    /// So many seconds after 1970-01-01 00:00:00 UTC, as a NumericDate of [RFC 7519 §2] counts them.
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
    fn adding_saturates_and_difference_is_never_negative() {
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
    fn the_wall_clock_counts_as_unix_does() {
        assert_eq!(UnixSeconds::from_unix_seconds(1_700_000_000).unix_seconds(), 1_700_000_000);
    }

    #[test]
    fn prints_seconds_and_milliseconds() {
        assert_eq!(Timestamp::from_epoch(Duration::from_millis(1_700_000_000_250)).to_string(), "1700000000.250s");
    }
}
