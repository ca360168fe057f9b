//! The URL of a server.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, io};

use futures_rustls::pki_types::ServerName;
use http::Uri;
use thiserror::Error;

/// The URL of a server: `ws://host[:port][/path][?query]`, or `wss://` for TLS (RFC 6455 §3). The default port is 80,
/// or 443 for TLS; the default path is `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
    /// The name that the server's certificate must have. `None` without TLS.
    server_name: Option<ServerName<'static>>,
    /// The host's addresses, if they were looked up once for all connections.
    addresses: Option<Arc<[SocketAddr]>>,
}

/// A text that is not the URL of a server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("bad URL {url:?}: {why}; write it as in ws://localhost:3000")]
pub struct UrlError {
    url: String,
    why: &'static str,
}

impl Url {
    /// Looks up the host now and keeps its addresses, so that no connection looks them up again.
    ///
    /// # Errors
    /// When the host has no address.
    pub async fn look_up(&self) -> io::Result<Self> {
        let addresses = Some(self.resolve().await?.into());
        Ok(Self { addresses, ..self.clone() })
    }

    /// The addresses to connect to, in the order to try them.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.addresses {
            Some(addresses) => Ok(addresses.to_vec()),
            None => smol::net::resolve((self.host(), self.port())).await,
        }
    }

    /// The name or address to connect to.
    fn host(&self) -> &str {
        host(&self.uri)
    }

    fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.server_name.is_some() { 443 } else { 80 })
    }

    /// The name or address that the server's certificate must have. `None` without TLS.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        self.server_name.clone()
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        parse(text)
            .map(|(uri, server_name)| Self { uri, server_name, addresses: None })
            .map_err(|why| UrlError { url: text.into(), why })
    }
}

fn parse(text: &str) -> Result<(Uri, Option<ServerName<'static>>), &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_secure = match &*scheme {
        "ws" => false,
        "wss" => true,
        _ => return Err("only ws and wss are supported"),
    };
    if rest.contains('#') {
        return Err("a WebSocket URL has no fragment");
    }
    let (ca, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    let uri: Uri = format!("{scheme}://{ca}{slash}{path}").parse().map_err(|_| "it is not a valid URL")?;
    if ca.contains('@') {
        return Err("a WebSocket URL has no user name");
    }
    let with_brackets = uri.host().unwrap_or_default();
    if with_brackets.is_empty() {
        return Err("it has no host");
    }
    // The `http` crate reports a port outside 0 to 65535 as no port.
    if ca != with_brackets && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("its port is not a number from 1 to 65535");
    }
    let server_name = if is_secure {
        let server_name =
            ServerName::try_from(host(&uri)).map_err(|_| "its host is no name that a certificate can have")?;
        Some(server_name.to_owned())
    } else {
        None
    };
    Ok((uri, server_name))
}

/// An IPv6 address without its brackets.
fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Always with a path.
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
        assert_eq!(read("WSS://h"), ("h".into(), 443, "wss://h/".into()));
        assert_eq!(read("wss://h:80/a"), ("h".into(), 80, "wss://h:80/a".into()));
        assert_eq!(read("ws://[::1]:9/a?b"), ("::1".into(), 9, "ws://[::1]:9/a?b".into()));
    }

    #[test]
    fn certificate_name_is_the_host() {
        let server_name = |text: &str| {
            let url: Url = text.parse().expect("a good URL");
            url.server_name().map(|server_name| server_name.to_str().into_owned())
        };
        assert_eq!(server_name("wss://example.org:9/a").as_deref(), Some("example.org"));
        assert_eq!(server_name("wss://127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(server_name("wss://[::1]:9").as_deref(), Some("::1"));
        assert_eq!(server_name("ws://example.org"), None);
    }

    #[test]
    fn looked_up_url_keeps_its_host() {
        let url: Url = "ws://localhost:9/a".parse().expect("a good URL");
        let found = smol::block_on(url.look_up()).expect("every machine knows localhost");
        let addresses = smol::block_on(found.resolve()).expect("they are known");
        assert!(!addresses.is_empty() && addresses.iter().all(|address| address.port() == 9), "{addresses:?}");
        assert_eq!((found.to_string(), found.host()), ("ws://localhost:9/a".into(), "localhost"));
    }

    #[test]
    fn bad_url_error_names_the_broken_rule() {
        let why = |text: &str| text.parse::<Url>().expect_err("a bad URL").to_string();
        assert_eq!(
            why("https://example.org"),
            "bad URL \"https://example.org\": only ws and wss are supported; write it as in ws://localhost:3000"
        );
        for (text, expected) in [
            ("", "no scheme"),
            ("localhost:3000", "no scheme"),
            ("http://localhost:3000", "only ws and wss are supported"),
            ("wss://a..b", "no name that a certificate can have"),
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
            assert!(why(text).contains(expected), "{text:?}: {}", why(text));
        }
    }
}
