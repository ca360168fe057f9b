//! Random choices from a seed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds, times and skipped tests are to be seen")]

use std::time::{SystemTime, UNIX_EPOCH};

/// A pseudorandom generator (xorshift64).
pub(super) struct Random(u64);

impl Random {
    /// With the seed in `CRASH_SEED`, or one from the time. Prints the seed.
    pub(super) fn from_environment() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed: u64 = from_environment("CRASH_SEED").unwrap_or_else(now);
        println!("CRASH_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn index<T>(&mut self, items: &[T]) -> usize {
        usize::try_from(self.below(items.len() as u64)).unwrap()
    }

    /// A generator with other numbers from the same seed.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

pub(super) fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
}
