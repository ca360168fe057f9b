//! Where a server is.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, io};

use http::Uri;

use super::Error;

/// The URL of a server: `ws://host[:port][/path][?query]` (RFC 6455 §3), port 80 and path `/` unless it says otherwise.
///
/// `wss://` is not supported by this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
    /// Where its host is, if that was looked up for good.
    addresses: Option<Arc<[SocketAddr]>>,
}

impl Url {
    const DEFAULT_PORT: u16 = 80;

    /// The same URL, but with the addresses that its host has now, so that no connection looks them up again.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: the host has none.
    pub async fn look_up(self) -> Result<Self, Error> {
        match self.resolve().await {
            Ok(addresses) => Ok(Self { addresses: Some(addresses.into()), ..self }),
            Err(why) => Err(Error::Unreachable { url: Box::new(self), why }),
        }
    }

    /// The addresses to connect to, in the order in which they are to be tried.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.addresses {
            Some(addresses) => Ok(addresses.to_vec()),
            None => smol::net::resolve((self.host(), self.port())).await,
        }
    }

    /// The name or address to connect to, an IPv6 address without its brackets.
    fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(Self::DEFAULT_PORT)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text)
            .map(|uri| Self { uri, addresses: None })
            .map_err(|why| Error::BadUrl { url: text.into(), why: why.into() })
    }
}

fn parse(text: &str) -> Result<Uri, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    if scheme.eq_ignore_ascii_case("wss") {
        return Err("wss is not supported by this version, only ws");
    }
    if !scheme.eq_ignore_ascii_case("ws") {
        return Err("only ws is supported");
    }
    if rest.contains('#') {
        return Err("a WebSocket URL has no fragment");
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    let uri: Uri = format!("ws://{authority}{slash}{path}").parse().map_err(|_| "it is not a valid URL")?;
    if authority.contains('@') {
        return Err("a WebSocket URL has no user name");
    }
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return Err("it has no host");
    }
    // `http` takes a port that is no number between 0 and 65535 for none at all.
    if authority != host && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("its port is not a number from 1 to 65535");
    }
    Ok(uri)
}

/// With the path, even where it was left out.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_path_have_defaults() {
        let read = |text: &str| {
            let url: Url = text.parse().expect("a good URL");
            (url.host().to_owned(), url.port(), url.to_string())
        };
        assert_eq!(read("ws://localhost:3000"), ("localhost".into(), 3000, "ws://localhost:3000/".into()));
        assert_eq!(read("WS://example.org"), ("example.org".into(), 80, "ws://example.org/".into()));
        assert_eq!(read("ws://h?a=b"), ("h".into(), 80, "ws://h/?a=b".into()));
        assert_eq!(read("ws://[::1]:9/a?b"), ("::1".into(), 9, "ws://[::1]:9/a?b".into()));
    }

    #[test]
    fn a_name_is_looked_up_once_and_stays_the_host() {
        let url: Url = "ws://localhost:9/a".parse().expect("a good URL");
        let found = smol::block_on(url.look_up()).expect("every machine knows localhost");
        let addresses = smol::block_on(found.resolve()).expect("they are known");
        assert!(!addresses.is_empty() && addresses.iter().all(|address| address.port() == 9), "{addresses:?}");
        assert_eq!((found.to_string(), found.host()), ("ws://localhost:9/a".into(), "localhost"));
    }

    #[test]
    fn what_is_no_ws_url_is_refused_in_words() {
        let why = |text: &str| text.parse::<Url>().expect_err("a bad URL").to_string();
        assert_eq!(
            why("wss://example.org"),
            "bad URL \"wss://example.org\": wss is not supported by this version, only ws; \
             write it as in ws://localhost:3000"
        );
        for (text, words) in [
            ("", "no scheme"),
            ("localhost:3000", "no scheme"),
            ("http://localhost:3000", "only ws is supported"),
            ("ws://", "not a valid URL"),
            ("ws:///path", "not a valid URL"),
            ("ws://a b", "not a valid URL"),
            ("ws://:3000", "no host"),
            ("ws://ada@h:1", "no user name"),
            ("ws://h#f", "no fragment"),
            ("ws://h:", "not a number"),
            ("ws://h:0", "not a number"),
            ("ws://h:65536", "not a number"),
        ] {
            assert!(why(text).contains(words), "{text:?}: {}", why(text));
        }
    }
}
