//! The web origins whose pages may connect.
//!
//! A browser lets any page open a WebSocket to any server, and names the page's origin in the header `Origin` (RFC 6454
//! §7, RFC 6455 §10.2). Without a check every page that a user visits could open sessions from that user's browser.
//! Other programs may send no `Origin` or any `Origin`, so the check only stops pages.
//!
//! Some programs send the server's own origin, and a page that the server's own host serves has it, too: it may connect. But
//! a page chooses the name in the URL, and its owner lets that name point to any address (DNS rebinding). `Origin` and `Host`
//! then agree, on a name of the page's owner. So the server's own origin is one with a host that is known to be the server's.

use std::net::{IpAddr, SocketAddr};
use std::str::{self, FromStr};

use http::Uri;

use crate::net::hosts::{Host, Hosts, host_and_port};

/// The origins that may connect, besides the server's own. By default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

/// One origin, or a pattern of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`: every origin.
    Any,
    /// `null`: browsers send it for a page without an origin, for example a file. Many pages can cause it.
    Null,
    /// `https://app.example.com`: this origin.
    One(WebOrigin),
    /// `https://*.example.com`: every host below this one, with the same scheme and port.
    Below(WebOrigin),
}

/// Scheme, host and port, which browsers compare (RFC 6454 §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    /// In lower case.
    scheme: String,
    /// In lower case.
    host: String,
    port: u16,
}

/// How a client reached the server: what its own origin depends on.
#[derive(Debug, Clone, Copy)]
pub struct RequestTarget<'a> {
    /// The header `Host`.
    pub host: Option<&'a [u8]>,
    /// What the client speaks: to the server, or to the proxy before it.
    pub scheme: Scheme,
    /// The address of the server to which the client is connected. `None` if a proxy forwards the request: that may have put
    /// another address into `Host` than the one which the client has asked for.
    pub local: Option<SocketAddr>,
    /// The names of the server.
    pub hosts: &'a Hosts,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Origins {
    /// Whether a request to this target, with this header, may connect. A request without the header may, and one with the
    /// server's own origin. An invalid origin may not, unless every origin may.
    #[must_use]
    pub fn allows(&self, header: Option<&[u8]>, target: &RequestTarget<'_>) -> bool {
        let Some(header) = header else { return true };
        if self.0.contains(&Origin::Any) {
            return true;
        }
        let Ok(header) = str::from_utf8(header) else { return false };
        if header == "null" {
            return self.0.contains(&Origin::Null);
        }
        let is_allowed = |page: WebOrigin| self.0.iter().any(|origin| origin.matches(&page)) || target.is_own(&page);
        WebOrigin::parse(header).is_ok_and(is_allowed)
    }
}

impl RequestTarget<'_> {
    /// Whether this origin is the server's own.
    fn is_own(&self, page: &WebOrigin) -> bool {
        let Some(host) = self.host.and_then(Host::from_header) else { return false };
        let port = host.port().unwrap_or(self.scheme.default_port());
        let is_target = page.scheme == self.scheme.name() && page.host == host.name() && page.port == port;
        is_target && (self.hosts.lists(&host) || self.local.is_some_and(|local| is_address(&host, port, local)))
    }
}

/// Whether this is the address `local`, or a name of this machine itself, and the same port.
fn is_address(host: &Host, port: u16, local: SocketAddr) -> bool {
    let ip = host.name().trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| ip.to_canonical());
    let is_name = match ip {
        Ok(ip) => ip.is_loopback() || ip == local.ip().to_canonical(),
        Err(_) => host.name() == "localhost",
    };
    is_name && port == local.port()
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl FromIterator<Origin> for Origins {
    fn from_iter<I: IntoIterator<Item = Origin>>(origins: I) -> Self {
        Self(origins.into_iter().collect())
    }
}

impl Origin {
    fn matches(&self, page: &WebOrigin) -> bool {
        match self {
            Self::Any => true,
            Self::Null => false,
            Self::One(one) => one == page,
            Self::Below(WebOrigin { scheme, host, port }) => {
                let below = page.host.strip_suffix(host.as_str()).and_then(|rest| rest.strip_suffix('.'));
                below.is_some_and(|name| !name.is_empty()) && *scheme == page.scheme && *port == page.port
            }
        }
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let origin = match text.split_once("://*.") {
            Some((scheme, host)) => WebOrigin::parse(&format!("{scheme}://{host}")).map(Self::Below),
            None => WebOrigin::parse(text).map(Self::One),
        };
        origin.map_err(|why| {
            format!(
                "{why}; write it as in https://app.example.com, http://localhost:8080, https://*.example.com, null or *"
            )
        })
    }
}

impl WebOrigin {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        if rest.contains(['/', '?', '#']) {
            return Err("an origin has no path and no slash at its end");
        }
        let uri: Uri = text.parse().map_err(|_| "it is not an origin")?;
        let authority = uri.authority().ok_or("it has no host")?;
        let scheme = scheme.to_ascii_lowercase();
        let known = [Scheme::Http, Scheme::Https].into_iter().find(|known| known.name() == scheme);
        let default_port = known.map(Scheme::default_port);
        let (host, port) = host_and_port(authority)?;
        let port = port.or(default_port).ok_or("this scheme needs a port")?;
        Ok(Self { scheme, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Origins {
        texts.iter().map(|text| text.parse::<Origin>().unwrap()).collect()
    }

    /// Whether this origin may connect that is not the server's own.
    fn allows(origins: &Origins, header: &[u8]) -> bool {
        let target = RequestTarget { host: None, scheme: Scheme::Http, local: None, hosts: &Hosts::default() };
        origins.allows(Some(header), &target)
    }

    #[test]
    fn default_allows_programs_and_no_page() {
        let target = RequestTarget { host: None, scheme: Scheme::Http, local: None, hosts: &Hosts::default() };
        assert!(Origins::default().allows(None, &target));
        for origin in ["https://app.example.com", "null", "", "http://localhost"] {
            assert!(!allows(&Origins::default(), origin.as_bytes()), "{origin}");
        }
    }

    /// Host, scheme, local address, origin, and whether that may connect to a server with no list.
    type OwnCase = (&'static str, Scheme, Option<&'static str>, &'static str, bool);

    fn check_own(hosts: &Hosts, cases: &[OwnCase]) {
        for &(host, scheme, local, origin, is_allowed) in cases {
            let local = local.map(|local| local.parse().unwrap());
            let target = RequestTarget { host: Some(host.as_bytes()), scheme, local, hosts };
            let case = format!("{origin} asks for {host} at {local:?}");
            assert_eq!(Origins::default().allows(Some(origin.as_bytes()), &target), is_allowed, "{case}");
        }
    }

    #[test]
    fn own_address_is_an_origin_that_may_connect() {
        use Scheme::{Http, Https};
        let local = Some("127.0.0.1:3000");
        check_own(
            &Hosts::default(),
            &[
                ("127.0.0.1:3000", Http, local, "http://127.0.0.1:3000", true),
                ("localhost:3000", Http, local, "http://localhost:3000", true),
                ("LocalHost:3000", Http, local, "http://LOCALHOST:3000", true),
                ("127.9.9.9:3000", Http, local, "http://127.9.9.9:3000", true),
                ("[::1]:3000", Http, Some("[::1]:3000"), "http://[::1]:3000", true),
                ("127.0.0.1:3000", Https, local, "https://127.0.0.1:3000", true),
                ("127.0.0.1:3000", Https, local, "http://127.0.0.1:3000", false),
                ("127.0.0.1:3000", Http, local, "https://127.0.0.1:3000", false),
                ("127.0.0.1:3000", Http, local, "ws://127.0.0.1:3000", false),
                // Default ports.
                ("192.0.2.7", Http, Some("192.0.2.7:80"), "http://192.0.2.7", true),
                ("192.0.2.7", Https, Some("192.0.2.7:443"), "https://192.0.2.7:443", true),
                ("192.0.2.7:443", Https, Some("192.0.2.7:443"), "https://192.0.2.7", true),
                ("192.0.2.7", Https, Some("192.0.2.7:80"), "https://192.0.2.7", false),
                // An address that the server listens on, but not where this client came in.
                ("192.0.2.8:3000", Http, Some("192.0.2.7:3000"), "http://192.0.2.8:3000", false),
                // A page of another server on this machine.
                ("localhost:3000", Http, local, "http://localhost:8080", false),
                ("localhost:3000", Http, local, "http://localhost", false),
                ("localhost:8080", Http, local, "http://localhost:8080", false),
                ("localhost:3000", Http, local, "http://127.0.0.1:3000", false),
                ("0.0.0.0:3000", Http, local, "http://0.0.0.0:3000", false),
                // DNS rebinding: a name of the page's owner that points to the server.
                ("evil.example:3000", Http, local, "http://evil.example:3000", false),
                ("localhost.evil.example:3000", Http, local, "http://localhost.evil.example:3000", false),
                ("127.0.0.1.evil.example:3000", Http, local, "http://127.0.0.1.evil.example:3000", false),
                ("evil.example", Http, Some("192.0.2.7:80"), "http://evil.example", false),
                // Behind a proxy, Host may be what the proxy calls the server.
                ("127.0.0.1:3000", Http, None, "http://127.0.0.1:3000", false),
                ("", Http, local, "http://", false),
                ("ada@localhost:3000", Http, local, "http://localhost:3000", false),
            ],
        );
    }

    #[test]
    fn own_name_is_an_origin_that_may_connect() {
        use Scheme::{Http, Https};
        let hosts = ["sessions.example.com", "web.example.com:8443"].map(|host| host.parse().unwrap());
        check_own(
            &hosts.into_iter().collect(),
            &[
                ("sessions.example.com", Https, None, "https://sessions.example.com", true),
                ("sessions.example.com:8443", Https, None, "https://sessions.example.com:8443", true),
                ("sessions.example.com", Http, None, "https://sessions.example.com", false),
                ("sessions.example.com", Https, None, "http://sessions.example.com", false),
                ("sessions.example.com", Https, None, "https://sessions.example.com:8443", false),
                ("sessions.example.com", Https, None, "https://web.example.com:8443", false),
                ("web.example.com:8443", Https, None, "https://web.example.com:8443", true),
                ("web.example.com:8444", Https, None, "https://web.example.com:8444", false),
                ("app.sessions.example.com", Https, None, "https://app.sessions.example.com", false),
            ],
        );
    }

    #[test]
    fn origin_is_scheme_host_and_port() {
        let allowed = origins(&["https://app.example.com", "HTTP://LocalHost:8080", "http://[::1]:3000", "app://x:1"]);
        for (origin, is_allowed) in [
            ("https://app.example.com", true),
            ("https://app.example.com:443", true),
            ("HTTPS://APP.Example.COM", true),
            ("http://app.example.com", false),
            ("https://app.example.com:8443", false),
            ("https://app.example.com.", false),
            ("https://app.example.com.evil.com", false),
            ("https://evil.com/https://app.example.com", false),
            ("https://evilapp.example.com", false),
            ("https://example.com", false),
            ("https://app.example.com/", false),
            ("https://ada@app.example.com", false),
            ("https://app.example.com:99999", false),
            ("https://app.example.com:", false),
            ("https://app.example.com https://evil.com", false),
            ("http://localhost:8080", true),
            ("http://localhost", false),
            ("http://[::1]:3000", true),
            ("http://[::1]", false),
            ("app://x:1", true),
            ("null", false),
            ("*", false),
            (",", false),
            ("", false),
        ] {
            assert_eq!(allows(&allowed, origin.as_bytes()), is_allowed, "{origin}");
        }
        assert!(!allows(&allowed, b"https://app.example.com\xff"));
    }

    #[test]
    fn star_matches_subdomains_or_every_origin() {
        let below = origins(&["https://*.example.com", "http://*.localhost:8080"]);
        for (origin, is_allowed) in [
            ("https://app.example.com", true),
            ("https://a.b.example.com:443", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://evilexample.com", false),
            ("http://app.example.com", false),
            ("https://app.example.com:8443", false),
            ("http://app.localhost:8080", true),
        ] {
            assert_eq!(allows(&below, origin.as_bytes()), is_allowed, "{origin}");
        }
        for origin in ["https://anything.example", "null", "", "\u{e9}"] {
            assert!(allows(&origins(&["*"]), origin.as_bytes()), "{origin}");
        }
        assert!(allows(&origins(&["null"]), b"null") && !allows(&origins(&["null"]), b"https://x.example"));
    }

    #[test]
    fn invalid_origins_are_explained() {
        for (text, message) in [
            ("", "no scheme"),
            ("app.example.com", "no scheme"),
            ("https://", "it is not an origin"),
            ("https://app.example.com/", "no slash at its end"),
            ("https://app.example.com/chess", "an origin has no path"),
            ("https://app.example.com?x", "an origin has no path"),
            ("https://ada@app.example.com", "a user name"),
            ("https://app.*.com", "only stand for"),
            ("https://*", "only stand for"),
            ("https://*.*.com", "only stand for"),
            ("https://a b", "it is not an origin"),
            ("https://app.example.com:x", "its port is not a number"),
            ("https://app.example.com:99999", "its port is not a number"),
            ("app://x", "needs a port"),
        ] {
            let error = text.parse::<Origin>().unwrap_err();
            assert!(error.contains(message) && error.contains("write it as in"), "{text}: {error}");
        }
    }
}
