//! The proxies that may state a client's address. What any other peer states is ignored.

use std::net::IpAddr;
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
}
