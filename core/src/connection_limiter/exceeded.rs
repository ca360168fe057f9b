//! Which limit a connection exceeds.

use core::fmt;
use core::time::Duration;

use super::client_prefix::ClientPrefix;

/// The limit of [`ConnectionLimits`](super::ConnectionLimits) that a connection exceeds.
///
/// Its `Display` is for the operator. It also names the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLimitExceeded {
    /// There are [`connections`](super::ConnectionLimits::connections) already.
    Total,
    /// There are [`unauthenticated`](super::ConnectionLimits::unauthenticated) connections already.
    Unauthenticated,
    /// The client has [`per_client`](super::ConnectionLimits::per_client) connections already.
    PerClient {
        /// The client.
        client: ClientPrefix,
    },
    /// The client opens connections faster than [`rate_per_client`](super::ConnectionLimits::rate_per_client).
    Rate {
        /// The client.
        client: ClientPrefix,
        /// When the next connection may come, if no other comes before it: more than zero, at most a second.
        retry_after: Duration,
    },
    /// The user has [`per_user`](super::ConnectionLimits::per_user) connections already. The client is told this as
    /// [`AuthenticateFailure::LimitReached`](crate::protocol::AuthenticateFailure::LimitReached).
    PerUser,
}

impl ConnectionLimitExceeded {
    /// The hint for clients that wait for another connection to end. When that will be is not known. A second keeps
    /// the cost of many retries low and leaves little room unused.
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
            Self::PerUser => "User has reached connection limit, no more connections allowed",
        }
    }

    /// How long the client should wait before it retries: more than zero, at most a second. Exact for
    /// [`ConnectionLimitExceeded::Rate`], if no other connection of the client comes first. Otherwise a hint of one second.
    #[must_use]
    pub const fn retry_after(self) -> Duration {
        match self {
            Self::Total | Self::Unauthenticated | Self::PerClient { .. } | Self::PerUser => Self::RETRY_AFTER,
            Self::Rate { retry_after, .. } => retry_after,
        }
    }
}

/// The message and, if one was counted, the client.
impl fmt::Display for ConnectionLimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        match self {
            Self::Total | Self::Unauthenticated | Self::PerUser => Ok(()),
            Self::PerClient { client } | Self::Rate { client, .. } => write!(f, ": {client}"),
        }
    }
}

impl core::error::Error for ConnectionLimitExceeded {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::AuthenticateFailure;
    use alloc::string::ToString;
    use core::net::IpAddr;

    #[test]
    fn display_adds_the_client_to_the_message() {
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
            (ConnectionLimitExceeded::PerUser, &*AuthenticateFailure::LimitReached.message(), "", second),
        ] {
            assert_eq!(exceeded.message(), client);
            assert_eq!(exceeded.to_string().strip_prefix(client), Some(operator));
            assert_eq!(exceeded.retry_after(), retry_after);
        }
    }
}
