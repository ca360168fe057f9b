//! Which addresses count as one client.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// One client, as a [`ConnectionLimiter`](super::ConnectionLimiter) counts: an IPv4 address, or an IPv6 /64.
///
/// An IPv4 address counts by itself, also in its IPv6 form `::ffff:192.0.2.1` (RFC 4291 §2.5.5.2). An IPv6 address counts
/// together with its whole /64. A customer gets at least a /64 (RFC 6177 §2) and can use a new address of it for every
/// connection (RFC 8981).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientPrefix(
    /// For IPv6 the first address of the /64.
    IpAddr,
);

impl From<IpAddr> for ClientPrefix {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

/// As in `192.0.2.1` and `2001:db8::/64`.
impl fmt::Display for ClientPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn ipv6_addresses_count_by_their_first_half() {
        for (address, client) in [
            ("0.0.0.0", "0.0.0.0"),
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::", "2001:db8:1:3::/64"),
            ("ffff:ffff:ffff:ffff::", "ffff:ffff:ffff:ffff::/64"),
            // Only the mapped form is IPv4.
            ("::192.0.2.1", "::/64"),
            ("::fffe:192.0.2.1", "::/64"),
            ("64:ff9b::192.0.2.1", "64:ff9b::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(ClientPrefix::from(address.parse::<IpAddr>().unwrap()).to_string(), client, "{address}");
        }
    }
}
