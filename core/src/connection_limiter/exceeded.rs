//! Why a connection may not come in.

use core::fmt;
use core::time::Duration;

use super::client_prefix::Network;

/// Why a [`Door`](super::Door) turned a connection away: which bound of [`DoorBounds`](super::DoorBounds) it met.
///
/// Displayed, for the operator, it also names the address that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// There are as many connections as there may be.
    TooMany,
    /// As many connections wait to be authenticated as may.
    TooManyWaiting,
    /// As many connections as may come from its address, or rather from its network.
    TooManyOfAddress {
        /// Which is that.
        network: Network,
    },
    /// New connections from its address, or rather from its network, come faster than they may.
    TooFast {
        /// Which is that.
        network: Network,
        /// When the next one may come, if no other comes before it: more than zero, a second at most.
        retry_after: Duration,
    },
}

impl TurnedAway {
    /// What to tell those who wait for others to leave. Nobody knows when that will be; a second is long enough for a
    /// crowd that tries again to cost little, and short enough not to leave room unused.
    const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// What the client is told.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::TooMany => "The server has as many connections as it may, try again later",
            Self::TooManyWaiting => {
                "The server has as many connections that are not authenticated yet as it may, try again later"
            }
            Self::TooManyOfAddress { .. } => "Your address has as many connections as one may",
            Self::TooFast { .. } => "Your address opens connections faster than one may, try again later",
        }
    }

    /// How long the client had better wait before it tries again: more than zero, a second at most. Whoever came too
    /// fast is in time then, unless others of its address came before it. For the other reasons it is a hint, of one
    /// second.
    #[must_use]
    pub const fn retry_after(self) -> Duration {
        match self {
            Self::TooMany | Self::TooManyWaiting | Self::TooManyOfAddress { .. } => Self::RETRY_AFTER,
            Self::TooFast { retry_after, .. } => retry_after,
        }
    }
}

/// The words and, where one was counted, the address.
impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())?;
        match self {
            Self::TooMany | Self::TooManyWaiting => Ok(()),
            Self::TooManyOfAddress { network } | Self::TooFast { network, .. } => write!(f, ": {network}"),
        }
    }
}

impl core::error::Error for TurnedAway {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use core::net::IpAddr;

    #[test]
    fn each_says_why_to_the_client_and_to_the_operator_also_whom() {
        let network = Network::from("2001:db8::7".parse::<IpAddr>().unwrap());
        let (second, short) = (Duration::from_secs(1), Duration::from_nanos(7));
        for (turned_away, client, operator, retry_after) in [
            (TurnedAway::TooMany, "The server has as many connections as it may, try again later", "", second),
            (
                TurnedAway::TooManyWaiting,
                "The server has as many connections that are not authenticated yet as it may, try again later",
                "",
                second,
            ),
            (
                TurnedAway::TooManyOfAddress { network },
                "Your address has as many connections as one may",
                ": 2001:db8::/64",
                second,
            ),
            (
                TurnedAway::TooFast { network, retry_after: short },
                "Your address opens connections faster than one may, try again later",
                ": 2001:db8::/64",
                short,
            ),
        ] {
            assert_eq!(turned_away.words(), client);
            assert_eq!(turned_away.to_string().strip_prefix(client), Some(operator));
            assert_eq!(turned_away.retry_after(), retry_after);
        }
    }
}
