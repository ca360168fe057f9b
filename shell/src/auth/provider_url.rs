//! The URLs that keys are fetched from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// An absolute URL with `https`, or with `http` to this machine. Keys that come unencrypted over a network could be anybody's.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderUrl {
    text: String,
    is_https: bool,
    is_loopback: bool,
}

impl ProviderUrl {
    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Whether its host is this machine.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.is_loopback
    }
}

impl FromStr for ProviderUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "such as https://idp.example/keys";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("expected a URL, {example}"))?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(format!("expected a URL with https, {example}")),
        };
        if rest.contains('#') {
            return Err("the URL must have no fragment (#)".into());
        }
        let uri: Uri = text.parse().map_err(|_| format!("it is not a valid URL, {example}"))?;
        let authority = uri.authority().ok_or("the URL has no host")?;
        if authority.as_str().contains('@') {
            return Err("the URL must have no user name or password".into());
        }
        let host = authority.host();
        if host.is_empty() {
            return Err("the URL has no host".into());
        }
        // The `http` crate reports a port outside 0 to 65535 as no port.
        if authority.as_str() != host && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("the port of the URL is not a number from 1 to 65535".into());
        }
        let is_loopback = is_loopback(host);
        if !is_https && !is_loopback {
            return Err(
                "keys must come over https: anybody on the way could exchange them. http is only for this machine, such \
                 as http://127.0.0.1:8080/keys"
                    .into(),
            );
        }
        Ok(Self { text: text.into(), is_https, is_loopback })
    }
}

impl fmt::Display for ProviderUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ProviderUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse().map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for (text, is_https, is_loopback) in [
            ("https://idp.example/keys", true, false),
            ("HTTPS://idp.example:8443/a/b?c=d", true, false),
            ("https://idp.example", true, false),
            ("https://10.0.0.1/keys", true, false),
            ("https://[2001:db8::1]:1/keys", true, false),
            ("https://localhost/keys", true, true),
            ("http://localhost:8080/keys", false, true),
            ("http://127.0.0.1/keys", false, true),
            ("http://127.9.9.9/keys", false, true),
            ("http://[::1]:80/keys", false, true),
        ] {
            let url: ProviderUrl = text.parse().unwrap();
            assert_eq!((url.as_str(), url.is_https(), url.is_loopback()), (text, is_https, is_loopback));
        }
        for text in [
            "http://idp.example/keys",
            "http://10.0.0.1/keys",
            "http://0.0.0.0/keys",
            "http://[::2]/keys",
            "http://localhost.example/keys",
            "http://127.0.0.1.example/keys",
        ] {
            let error = text.parse::<ProviderUrl>().unwrap_err();
            assert!(error.starts_with("keys must come over https"), "{text}: {error}");
        }
    }

    #[test]
    fn other_texts_are_no_urls() {
        for (text, message) in [
            ("", "expected a URL, such as"),
            ("idp.example/keys", "expected a URL, such as"),
            ("/etc/keys.json", "expected a URL, such as"),
            ("file:///etc/keys.json", "expected a URL with https"),
            ("ws://idp.example", "expected a URL with https"),
            ("https://", "it is not a valid URL"),
            ("https:///keys", "it is not a valid URL"),
            ("https://:443/keys", "the URL has no host"),
            ("https://idp.example/a b", "it is not a valid URL"),
            ("https://user:secret@idp.example/keys", "no user name or password"),
            ("http://127.0.0.1@idp.example/keys", "no user name or password"),
            ("https://idp.example:0/keys", "the port of the URL"),
            ("https://idp.example:65536/keys", "the port of the URL"),
            ("https://idp.example/keys#first", "no fragment"),
        ] {
            let error = text.parse::<ProviderUrl>().unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
