//! The host names of this server, as clients may ask for it.

use std::fmt;
use std::str::{self, FromStr};

use http::uri::Authority;

/// The host names of this server. By default every name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Host>);

/// A host name with one port, or with any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// In lower case.
    host: String,
    port: Option<u16>,
}

impl Hosts {
    /// Whether a request with this header `Host` is for this server.
    #[must_use]
    pub fn allows(&self, header: Option<&[u8]>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        header.and_then(Host::from_header).is_some_and(|requested| self.lists(&requested))
    }

    /// Whether this name is one of those that are written down. None is if every name is allowed.
    pub(super) fn lists(&self, requested: &Host) -> bool {
        self.0.iter().any(|host| host.matches(requested))
    }
}

impl FromIterator<Host> for Hosts {
    fn from_iter<I: IntoIterator<Item = Host>>(hosts: I) -> Self {
        Self(hosts.into_iter().collect())
    }
}

impl Host {
    /// Reads the header `Host`.
    pub(super) fn from_header(header: &[u8]) -> Option<Self> {
        str::from_utf8(header).ok()?.parse().ok()
    }

    /// The name or the address, in lower case. An IPv6 address has its brackets.
    pub(super) fn name(&self) -> &str {
        &self.host
    }

    /// The port, if one is written.
    pub(super) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// A client omits the port if it is the default of the scheme. The scheme is unknown here, since a proxy may have ended
    /// TLS. So a request without a port matches both 80 and 443.
    fn matches(&self, requested: &Self) -> bool {
        let port_matches = match (self.port, requested.port) {
            (None, _) => true,
            (Some(port), Some(requested)) => port == requested,
            (Some(port), None) => matches!(port, 80 | 443),
        };
        port_matches && self.host == requested.host
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A port may be empty (RFC 3986 §3.2.3).
        let text = text.strip_suffix(':').unwrap_or(text);
        let authority = text.parse::<Authority>().map_err(|_| "it is not a host");
        let parsed = authority.and_then(|authority| host_and_port(&authority));
        let (host, port) =
            parsed.map_err(|why| format!("{why}; write it as in sessions.example.com or localhost:3000"))?;
        Ok(Self { host, port })
    }
}

/// The form that [`FromStr`] reads.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The host in lower case, and the port if there is one.
pub(super) fn host_and_port(authority: &Authority) -> Result<(String, Option<u16>), &'static str> {
    if authority.as_str().contains('@') {
        return Err("it has a user name");
    }
    let host = authority.host();
    if host.is_empty() {
        return Err("it has no host");
    }
    if host.contains('*') {
        return Err("`*` can only stand for the part of a host before its first dot");
    }
    let port = match authority.as_str().strip_prefix(host) {
        Some("") => None,
        _ => Some(authority.port_u16().ok_or("its port is not a number from 0 to 65535")?),
    };
    Ok((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_allows_any_host_list_only_its_own() {
        assert!(Hosts::default().allows(None) && Hosts::default().allows(Some(b"\xff")));
        let hosts: Hosts = ["sessions.example.com", "localhost:3000", "[::1]", "web.example.com:443"]
            .map(|text| text.parse::<Host>().unwrap())
            .into_iter()
            .collect();
        for (host, is_allowed) in [
            ("sessions.example.com", true),
            ("Sessions.Example.Com:8443", true),
            ("localhost:3000", true),
            ("localhost", false),
            ("localhost:3001", false),
            ("[::1]:3000", true),
            ("web.example.com", true),
            ("web.example.com:", true),
            ("web.example.com:443", true),
            ("web.example.com:80", false),
            ("evil.com", false),
            ("sessions.example.com.evil.com", false),
            ("evil.com:sessions.example.com", false),
            ("ada@sessions.example.com", false),
            ("", false),
            (",", false),
        ] {
            assert_eq!(hosts.allows(Some(host.as_bytes())), is_allowed, "{host}");
        }
        assert!(!hosts.allows(None));
        for text in ["", "*", "a b", "x:y", "x:99999", "ada@x"] {
            assert!(text.parse::<Host>().unwrap_err().contains("write it as in"), "{text}");
        }
        assert_eq!(["X:1", "y"].map(|text| text.parse::<Host>().unwrap().to_string()), ["x:1", "y"]);
    }
}
