//! Where to listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// One place to listen: the addresses its host stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What was asked for.
    pub text: String,
    /// At least one address.
    pub addresses: Vec<SocketAddr>,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let localhost = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
        let addresses: Vec<_> = if let Some(port) = localhost {
            // Not looked up: machines differ about what their hosts file says of it.
            let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            hosts.map(|host| SocketAddr::new(host, port)).into()
        } else {
            text.to_socket_addrs()
                .map_err(|error| format!("{error}; it must be HOST:PORT, as in 0.0.0.0:3000"))?
                .collect()
        };
        if addresses.is_empty() {
            return Err("this name has no address".into());
        }
        Ok(Self { text: text.into(), addresses })
    }
}
