//! A rate limit.

use core::num::NonZeroU32;
use core::time::Duration;

use crate::time::Timestamp;

/// A token bucket that holds one second's worth. Each arrival takes a token, and time refills the bucket.
///
/// It counts in billionths of a token. A nanosecond refills as many of these as a second refills tokens. So nothing is ever
/// rounded.
#[derive(Debug, Default)]
pub(crate) struct TokenBucket {
    /// How much was missing at `at`, in billionths of a token.
    missing: u64,
    at: Timestamp,
}

impl TokenBucket {
    const TOKEN: u64 = 1_000_000_000;

    /// Takes a token. If there is none, returns the time until there is one: at most a second, exact to the nanosecond.
    pub(crate) fn take(&mut self, rate: NonZeroU32, now: Timestamp) -> Result<(), Duration> {
        let missing = self.missing(rate, now) + Self::TOKEN;
        match missing.saturating_sub(capacity(rate)) {
            0 => {
                *self = Self { missing, at: now };
                Ok(())
            }
            lacking => Err(Duration::from_nanos(lacking.div_ceil(u64::from(rate.get())))),
        }
    }

    /// Whether the bucket is full.
    pub(crate) fn is_full(&self, rate: NonZeroU32, now: Timestamp) -> bool {
        self.missing(rate, now) == 0
    }

    fn missing(&self, rate: NonZeroU32, now: Timestamp) -> u64 {
        let nanos = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        // The rate may have changed. No more than the capacity can be missing.
        self.missing.min(capacity(rate)).saturating_sub(nanos.saturating_mul(u64::from(rate.get())))
    }
}

/// The capacity in billionths of a token. At most 2³² tokens, which is less than 2⁶² billionths.
fn capacity(rate: NonZeroU32) -> u64 {
    u64::from(rate.get()) * TokenBucket::TOKEN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_nanos(nanos))
    }

    fn wait(nanos: u64) -> Result<(), Duration> {
        Err(Duration::from_nanos(nanos))
    }

    #[test]
    fn rates_that_divide_no_nanosecond_are_exact() {
        let (mut bucket, rate) = (TokenBucket::default(), rate(3));
        assert_eq!([0; 4].map(|now| bucket.take(rate, at(now))), [Ok(()), Ok(()), Ok(()), wait(333_333_334)]);
        for third in 1..=3_000_u64 {
            let due = (third * 1_000_000_000).div_ceil(3);
            assert_eq!(bucket.take(rate, at(due - 1)), wait(1), "{third}");
            assert_eq!(bucket.take(rate, at(due)), Ok(()), "{third}");
        }
    }

    #[test]
    fn an_empty_bucket_is_full_after_a_second() {
        let (mut bucket, rate) = (TokenBucket::default(), rate(5));
        assert!(bucket.is_full(rate, at(7)));
        for start in [0, 1_000_000_000, 9_000_000_000] {
            assert_eq!([start; 5].map(|now| bucket.take(rate, at(now))), [Ok(()); 5]);
            assert_eq!(bucket.take(rate, at(start)), wait(200_000_000));
            assert!(!bucket.is_full(rate, at(start + 999_999_999)));
            assert!(bucket.is_full(rate, at(start + 1_000_000_000)));
        }
    }

    #[test]
    fn a_lower_rate_caps_what_is_missing() {
        let mut bucket = TokenBucket::default();
        assert_eq!([0; 5].map(|now| bucket.take(rate(5), at(now))), [Ok(()); 5]);
        assert_eq!(bucket.take(rate(2), at(0)), wait(500_000_000));
        assert!(bucket.is_full(rate(2), at(1_000_000_000)));
        assert_eq!(bucket.take(rate(6), at(0)), Ok(()), "and a higher one has room for more at once");
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let end = Timestamp::from_epoch(Duration::MAX);
        let mut bucket = TokenBucket { missing: capacity(NonZeroU32::MAX), at: at(0) };
        assert_eq!(bucket.take(NonZeroU32::MAX, at(0)), wait(1));
        assert_eq!(bucket.take(NonZeroU32::MAX, at(1)), Ok(()));
        assert_eq!(bucket.take(NonZeroU32::MIN, at(1)), wait(1_000_000_000));
        assert!(bucket.is_full(NonZeroU32::MAX, at((1 << 32) + 3)), "where the product no longer fits");
        assert!(bucket.is_full(NonZeroU32::MAX, end));
        assert_eq!(bucket.take(NonZeroU32::MIN, end), Ok(()));
        assert_eq!(bucket.take(NonZeroU32::MIN, end), wait(1_000_000_000));
    }
}
