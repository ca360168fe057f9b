//! Timeouts and message limits of a session.

use core::num::NonZeroU32;
use core::time::Duration;

/// Timeouts and message limits of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// How long a connection may take to authenticate, counted from [`Session::new`](super::Session::new).
    pub auth_timeout: Duration,
    /// How long an authenticated peer may be silent before the session sends a ping.
    pub ping_interval: Duration,
    /// How long the peer may stay silent after the ping before it counts as dead.
    pub pong_timeout: Duration,
    /// How many bad messages a client may send; one more closes the connection. `None`: no limit.
    pub max_bad_messages: Option<u16>,
    /// How many messages, pings and pongs a peer may send per second, and at once; one more closes the connection.
    /// `None`: no limit.
    pub max_message_rate: Option<NonZeroU32>,
}

/// The settings that a session needs after its start. Fewer than all, to keep the session small.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunningSettings {
    pub(super) ping_interval: Duration,
    pub(super) pong_timeout: Duration,
    pub(super) max_bad_messages: Option<u16>,
    pub(super) max_message_rate: Option<NonZeroU32>,
}

impl From<&SessionSettings> for RunningSettings {
    fn from(settings: &SessionSettings) -> Self {
        let &SessionSettings { auth_timeout: _, ping_interval, pong_timeout, max_bad_messages, max_message_rate } =
            settings;
        Self { ping_interval, pong_timeout, max_bad_messages, max_message_rate }
    }
}

impl Default for SessionSettings {
    /// 10 s to authenticate, a ping after 30 s of silence, 10 s to answer it, 16 bad messages, 100 messages per second.
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
