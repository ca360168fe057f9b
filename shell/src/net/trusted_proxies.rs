//! The proxies that may state a client's address, and the reading of `X-Forwarded-For`.
//!
//! The header of any other peer is ignored. Every proxy appends the address of its own client to `X-Forwarded-For`. Only
//! entries that a trusted proxy appended count, so the header is read from its end.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// The trusted proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<ProxyNetwork>);

/// The address of a proxy, or a network of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyNetwork(IpNet);

impl TrustedProxies {
    /// Whether the address is a trusted proxy.
    #[must_use]
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|ProxyNetwork(network)| network.contains(&address))
    }

    /// The client's address, for a request from `peer` with these lines of `X-Forwarded-For`, in their order.
    ///
    /// Reading ends at an entry that is no address: entries before it are not trusted.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, forwarded: &[&str]) -> IpAddr {
        if !self.is_trusted(peer) {
            return peer;
        }
        let mut client = peer;
        for entry in forwarded.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(address) = parse_entry(entry.trim()) else { break };
            client = address;
            if !self.is_trusted(address) {
                break;
            }
        }
        client
    }
}

impl FromIterator<ProxyNetwork> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = ProxyNetwork>>(proxies: I) -> Self {
        Self(proxies.into_iter().collect())
    }
}

/// Reads an address, or a network as in `10.0.0.0/8`: its first address, and the number of leading bits that all its
/// addresses share.
impl FromStr for ProxyNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet =
            text.parse().map_err(|_| "it must be an address or a network, as in 10.1.2.3 or 10.0.0.0/8".to_owned())?;
        if network.addr() != network.network() {
            return Err(format!("it does not begin with the first address of its network: write {}", network.trunc()));
        }
        Ok(Self(network))
    }
}

/// The address in an entry of `X-Forwarded-For`. Some proxies add a port.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let address = entry.parse().ok().or_else(bracketed);
    address
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        networks.iter().map(|network| network.parse::<ProxyNetwork>().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn proxy_is_an_address_or_a_network() {
        let trusted = proxies(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "::ffff:198.51.100.1"]);
        for (address, is_trusted) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("::1", true),
            ("::2", false),
            ("198.51.100.1", true),
        ] {
            assert_eq!(trusted.is_trusted(ip(address)), is_trusted, "{address}");
        }
        for (text, message) in [
            ("", "an address or a network"),
            ("proxy.example.com", "an address or a network"),
            ("10.0.0.0/33", "an address or a network"),
            ("10.0.0.1:80", "an address or a network"),
            ("10.1.2.3/8", "write 10.0.0.0/8"),
            ("2001:db8::1/32", "write 2001:db8::/32"),
        ] {
            let error = text.parse::<ProxyNetwork>().unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn x_forwarded_for_counts_only_from_trusted_proxies() {
        let trusted = proxies(&["10.0.0.0/8", "2001:db8::/32"]);
        for (peer, lines, client) in [
            // An untrusted peer is the client.
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // The client wrote the first itself.
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2,10.0.0.3 "], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9", "10.0.0.2", "10.0.0.3"], "203.0.113.9"),
            // Only proxies: the first of them.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Ports and brackets.
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db9::9]:4711"], "2001:db9::9"),
            ("10.0.0.1", &["[2001:db9::9]"], "2001:db9::9"),
            ("10.0.0.1", &["2001:db9::9, 2001:db8::1"], "2001:db9::9"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            // An entry that is no address ends the reading.
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.2:, 10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.9\t"], "203.0.113.9"),
            ("10.0.0.1", &["", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9", ""], "10.0.0.1"),
        ] {
            assert_eq!(trusted.client_address(ip(peer), lines), ip(client), "{peer}, {lines:?}");
        }
        assert_eq!(TrustedProxies::default().client_address(ip("10.0.0.1"), &["203.0.113.9"]), ip("10.0.0.1"));
    }
}
