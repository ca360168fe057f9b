//! Why a connection may not come in.

use core::fmt;
use core::time::Duration;

use super::client_prefix::ClientPrefix;

/// Why a [`ConnectionLimiter`](super::Door) turned a connection away: which bound of [`ConnectionLimits`](super::DoorBounds) it met.
///
/// Displayed, for the operator, it also names the address that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLimitExceeded {
    /// There are as many connections as there may be.
    Total,
    /// As many connections wait to be authenticated as may.
    Unauthenticated,
    /// As many connections as may come from its address, or rather from its network.
    PerClient {
        /// Which is that.
        client: ClientPrefix,
    },
    /// New connections from its address, or rather from its network, come faster than they may.
    Rate {
        /// Which is that.
        client: ClientPrefix,
        /// When the next one may come, if no other comes before it: more than zero, a second at most.
        retry_after: Duration,
    },
}

impl ConnectionLimitExceeded {
    /// What to tell those who wait for others to leave. Nobody knows when that will be; a second is long enough for a
    /// crowd that tries again to cost little, and short enough not to leave room unused.
    const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// What the client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Total => "The server has as many connections as it may, try again later",
            Self::Unauthenticated => {
                "The server has as many connections that are not authenticated yet as it may, try again later"
            }
            Self::PerClient { .. } => "Your address has as many connections as one may",
            Self::Rate { .. } => "Your address opens connections faster than one may, try again later",
        }
    }

    /// How long the client had better wait before it tries again: more than zero, a second at most. Whoever came too
    /// fast is in time then, unless others of its address came before it. For the other reasons it is a hint, of one
    /// second.
    #[must_use]
    pub const fn retry_after(self) -> Duration {
        match self {
            Self::Total | Self::Unauthenticated | Self::PerClient { .. } => Self::RETRY_AFTER,
            Self::Rate { retry_after, .. } => retry_after,
        }
    }
}

/// The words and, where one was counted, the address.
impl fmt::Display for ConnectionLimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        match self {
            Self::Total | Self::Unauthenticated => Ok(()),
            Self::PerClient { client } | Self::Rate { client, .. } => write!(f, ": {client}"),
        }
    }
}

impl core::error::Error for ConnectionLimitExceeded {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use core::net::IpAddr;

    #[test]
    fn each_says_why_to_the_client_and_to_the_operator_also_whom() {
        let client = ClientPrefix::from("2001:db8::7".parse::<IpAddr>().unwrap());
        let (second, short) = (Duration::from_secs(1), Duration::from_nanos(7));
        for (exceeded, client, operator, retry_after) in [
            (
                ConnectionLimitExceeded::Total,
                "The server has as many connections as it may, try again later",
                "",
                second,
            ),
            (
                ConnectionLimitExceeded::Unauthenticated,
                "The server has as many connections that are not authenticated yet as it may, try again later",
                "",
                second,
            ),
            (
                ConnectionLimitExceeded::PerClient { client },
                "Your address has as many connections as one may",
                ": 2001:db8::/64",
                second,
            ),
            (
                ConnectionLimitExceeded::Rate { client, retry_after: short },
                "Your address opens connections faster than one may, try again later",
                ": 2001:db8::/64",
                short,
            ),
        ] {
            assert_eq!(exceeded.message(), client);
            assert_eq!(exceeded.to_string().strip_prefix(client), Some(operator));
            assert_eq!(exceeded.retry_after(), retry_after);
        }
    }
}
