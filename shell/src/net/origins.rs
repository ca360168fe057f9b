//! The web origins whose pages may connect.
//!
//! A browser lets any page open a WebSocket to any server, and names the page's origin in the header `Origin` (RFC 6454
//! §7, RFC 6455 §10.2). Without a check every page that a user visits could open sessions from that user's browser.
//! Other programs may send no `Origin` or any `Origin`, so the check only stops pages.

use std::str::{self, FromStr};

use http::Uri;

use crate::net::hosts::host_and_port;

/// The origins that may connect. By default none.
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

impl Origins {
    /// Whether a request with this header may connect. A request without the header may. An invalid origin may not, unless
    /// every origin may.
    #[must_use]
    pub fn allows(&self, header: Option<&[u8]>) -> bool {
        let Some(header) = header else { return true };
        if self.0.contains(&Origin::Any) {
            return true;
        }
        let Ok(header) = str::from_utf8(header) else { return false };
        if header == "null" {
            return self.0.contains(&Origin::Null);
        }
        WebOrigin::parse(header).is_ok_and(|page| self.0.iter().any(|origin| origin.matches(&page)))
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
        let default_port = match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
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

    #[test]
    fn default_allows_programs_and_no_page() {
        assert!(Origins::default().allows(None));
        for origin in ["https://app.example.com", "null", "", "http://localhost"] {
            assert!(!Origins::default().allows(Some(origin.as_bytes())), "{origin}");
        }
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
            assert_eq!(allowed.allows(Some(origin.as_bytes())), is_allowed, "{origin}");
        }
        assert!(!allowed.allows(Some(b"https://app.example.com\xff")));
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
            assert_eq!(below.allows(Some(origin.as_bytes())), is_allowed, "{origin}");
        }
        for origin in ["https://anything.example", "null", "", "\u{e9}"] {
            assert!(origins(&["*"]).allows(Some(origin.as_bytes())), "{origin}");
        }
        assert!(origins(&["null"]).allows(Some(b"null")) && !origins(&["null"]).allows(Some(b"https://x.example")));
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
