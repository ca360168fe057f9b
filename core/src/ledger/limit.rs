//! The bounds that decide: how many slots, how long, how much nonsense.

use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;

use thiserror::Error;

/// How many slots a user may hold at once: 0 to [`Limit::MAX`]. With 0 nobody is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit(u16);

impl Limit {
    /// The highest limit: as many as a record can hold ([`UserRecord::MAX_HOLDS`](crate::UserRecord::MAX_HOLDS)).
    pub const MAX: Self = Self(1024);

    /// A limit of `slots`.
    ///
    /// # Errors
    /// When it is above [`Limit::MAX`].
    pub const fn new(slots: u32) -> Result<Self, LimitError> {
        if slots > Self::MAX.slots() {
            return Err(LimitError { slots });
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

impl Default for Limit {
    /// Three.
    fn default() -> Self {
        Self(3)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A limit above the hard ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a limit of {slots} sessions per user is too many, the most is {}", Limit::MAX)]
pub struct LimitError {
    slots: u32,
}

/// What bounds one session's patience with its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection may take to authenticate, counted from [`Session::new`](crate::Session::new).
    pub auth_timeout: Duration,
    /// How long an authenticated peer may be silent before it is sent a ping.
    pub ping_interval: Duration,
    /// How long after that ping the peer may still be silent before it counts as dead.
    pub pong_timeout: Duration,
    /// How many messages that make no sense a session may send before it is closed; `None`: any number.
    pub max_bad_messages: Option<u16>,
    /// How many messages and signs of life a peer may send in a second, and at once, before its session is closed;
    /// `None`: any number.
    pub max_message_rate: Option<NonZeroU32>,
}

impl Default for Limits {
    /// 10 s to authenticate, a ping after 30 s of silence and 10 s to answer it, 16 bad messages, 100 messages a second.
    fn default() -> Self {
        Self {
            auth_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(10),
            max_bad_messages: Some(16),
            max_message_rate: NonZeroU32::new(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_limit_is_bounded_by_the_ceiling() {
        assert_eq!(Limit::new(1024), Ok(Limit::MAX));
        assert_eq!(Limit::new(0).map(Limit::slots), Ok(0));
        let error = Limit::new(1025).unwrap_err();
        assert_eq!(error.to_string(), "a limit of 1025 sessions per user is too many, the most is 1024");
    }
}
