//! The number of slots that a user may hold.

use core::fmt;

use thiserror::Error;

/// The number of slots that a user may hold at once: 0 to [`SlotLimit::MAX`]. 0 admits no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotLimit(u16);

impl SlotLimit {
    /// The highest limit: the number of sessions that a record can hold
    /// ([`UserRecord::MAX_SESSIONS`](super::UserRecord::MAX_SESSIONS)).
    pub const MAX: Self = Self(1024);

    /// A limit of `slots`.
    ///
    /// # Errors
    /// [`SlotLimitError`] above [`SlotLimit::MAX`].
    pub const fn new(slots: u32) -> Result<Self, SlotLimitError> {
        if slots > Self::MAX.slots() {
            return Err(SlotLimitError { slots });
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is at most MAX")]
        let slots = slots as u16;
        Ok(Self(slots))
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

/// A limit above [`SlotLimit::MAX`].
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
