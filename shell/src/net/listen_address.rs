//! Where to listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::{fmt, io};

/// One place to listen: a host and a port. A name is looked up when it is listened on, and not before: to read a
/// configuration takes no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// The addresses that its host stands for, with its port. `localhost` is not looked up: machines differ about what
    /// their hosts file says of it.
    ///
    /// # Errors
    /// The host has none, or nobody can say.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host == "localhost" {
            let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(hosts.map(|host| SocketAddr::new(host, self.port)).into());
        }
        Ok((&*self.host, self.port).to_socket_addrs()?.collect())
    }

    /// Whether the system is to choose the port.
    #[must_use]
    pub const fn is_any_port(&self) -> bool {
        self.port == 0
    }

    /// Whether nobody can reach it but from this machine, as far as that can be told without a look at any name but
    /// `localhost`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = |why: &str| format!("{why}; it must be HOST:PORT, as in 127.0.0.1:3000");
        let (host, port) = text.rsplit_once(':').ok_or_else(|| words("it has no port"))?;
        let port = port.parse().map_err(|_| words("invalid port"))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bracketed.is_none() && host.contains(':') {
            return Err(words("an address of IPv6 needs brackets"));
        }
        let host = bracketed.unwrap_or(host);
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(words("it has no host"));
        }
        Ok(Self { host: host.into(), port })
    }
}

/// As it is written in a configuration.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
