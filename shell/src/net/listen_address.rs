//! The address to listen on, as the configuration has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::{fmt, io};

/// A host and a port to listen on. [`ListenAddress::resolve`] looks the host up, and nothing before does: reading a
/// configuration needs no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// The socket addresses of the host. `localhost` is always 127.0.0.1 and ::1 and is not looked up, because hosts files
    /// differ.
    ///
    /// # Errors
    /// When the host has no address, or the lookup fails.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host == "localhost" {
            let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(hosts.map(|host| SocketAddr::new(host, self.port)).into());
        }
        Ok((&*self.host, self.port).to_socket_addrs()?.collect())
    }

    /// Whether the system chooses the port.
    #[must_use]
    pub const fn is_any_port(&self) -> bool {
        self.port == 0
    }

    /// Whether only this machine can reach the address. No name except `localhost` counts as local: names are not looked
    /// up.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = |why: &str| format!("{why}; it must be HOST:PORT, as in 127.0.0.1:3000");
        let (host, port) = text.rsplit_once(':').ok_or_else(|| invalid("it has no port"))?;
        let port = port.parse().map_err(|_| invalid("invalid port"))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bracketed.is_none() && host.contains(':') {
            return Err(invalid("an IPv6 address needs brackets"));
        }
        let host = bracketed.unwrap_or(host);
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(invalid("it has no host"));
        }
        Ok(Self { host: host.into(), port })
    }
}

/// The form that [`FromStr`] reads.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
