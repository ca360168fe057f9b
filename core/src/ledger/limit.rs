//! How many slots a user may hold.

use core::fmt;

use thiserror::Error;

/// How many slots a user may hold at once: 0 to [`Limit::MAX`]. With 0 nobody is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotLimit(u16);

impl SlotLimit {
    /// The highest limit: as many as a record can hold ([`UserRecord::MAX_HOLDS`](crate::UserRecord::MAX_HOLDS)).
    pub const MAX: Self = Self(1024);

    /// A limit of `slots`.
    ///
    /// # Errors
    /// When it is above [`Limit::MAX`].
    pub const fn new(slots: u32) -> Result<Self, SlotLimitError> {
        if slots > Self::MAX.slots() {
            return Err(SlotLimitError { slots });
        }
        #[expect(clippy::cast_possible_truncation, reason = "it was looked at")]
        let few = slots as u16;
        Ok(Self(few))
    }

    /// The number of slots.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.0 as u32
    }
}

impl Default for SlotLimit {
    /// Three.
    fn default() -> Self {
        Self(3)
    }
}

impl fmt::Display for SlotLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A limit above the hard ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a limit of {slots} sessions per user is too many, the most is {}", SlotLimit::MAX)]
pub struct SlotLimitError {
    slots: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_limit_is_bounded_by_the_ceiling() {
        assert_eq!(SlotLimit::new(1024), Ok(SlotLimit::MAX));
        assert_eq!(SlotLimit::new(0).map(SlotLimit::slots), Ok(0));
        let error = SlotLimit::new(1025).unwrap_err();
        assert_eq!(error.to_string(), "a limit of 1025 sessions per user is too many, the most is 1024");
    }
}
