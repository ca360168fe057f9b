//! Random choices of a seed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds, times and skipped tests are to be seen")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers that look random and are those of the seed (xorshift64).
pub(super) struct Random(u64);

impl Random {
    /// Of the seed that is asked for, or of the time. It is printed, for `CRASH_SEED`.
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

    /// A number from 0 to `bound`, which it is not.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn index<T>(&mut self, items: &[T]) -> usize {
        usize::try_from(self.below(items.len() as u64)).unwrap()
    }

    /// Other numbers, of the same seed.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

pub(super) fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
}
