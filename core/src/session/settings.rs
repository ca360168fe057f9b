//! How long one session waits for its peer, and how much it puts up with.

use core::num::NonZeroU32;
use core::time::Duration;

/// What bounds one session's patience with its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
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

impl Default for SessionSettings {
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
