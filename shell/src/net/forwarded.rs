//! The headers in which a proxy names its client.
//!
//! A trusted proxy names the client from which it has the request, and what that client speaks. Of a header that is a list,
//! every proxy appends an entry of its own. Only entries that a trusted proxy appended count, so a list is read from its end.
//! An entry that names no address ends the reading: the entries before it are not trusted.
//!
//! Only one header counts. A proxy passes on the others as the client has sent them.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use http::header::{self, HeaderMap, HeaderName};

use crate::net::origins::Scheme;
use crate::net::peer::Peer;
use crate::net::trusted_proxies::TrustedProxies;

/// The header in which trusted proxies name their clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ForwardedHeader {
    /// A list of addresses. X-Forwarded-Proto says what the client speaks.
    #[default]
    XForwardedFor,
    /// RFC 7239. It also says what the client speaks.
    Forwarded,
    /// One address. X-Forwarded-Proto says what the client speaks.
    XRealIp,
}

/// The client of a request, as the proxies before the server name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardedClient {
    /// The address of the client, or of the last proxy that names none.
    pub address: IpAddr,
    /// What the client speaks, if a trusted proxy says so.
    pub scheme: Option<Scheme>,
}

/// What one proxy states about its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Entry {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
}

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

impl ForwardedHeader {
    /// The client of a request with these headers.
    #[must_use]
    pub fn client(self, proxies: &TrustedProxies, peer: &Peer, headers: &HeaderMap) -> ForwardedClient {
        if !proxies.is_trusted(peer.socket) {
            return ForwardedClient { address: peer.address, scheme: None };
        }
        match self {
            Self::XForwardedFor => {
                let scheme = x_forwarded_proto(headers);
                let entries = lines(headers, X_FORWARDED_FOR).flat_map(|line| line.rsplit(','));
                walk(proxies, peer, entries.map(|entry| Entry { address: parse_address(entry.trim()), scheme }), scheme)
            }
            Self::Forwarded => {
                let entries = lines(headers, header::FORWARDED).flat_map(rsplit_elements);
                walk(proxies, peer, entries.map(parse_element), None)
            }
            Self::XRealIp => {
                let scheme = x_forwarded_proto(headers);
                // It is no list. Of several lines, the last is the one that the proxy has added.
                let last = lines(headers, X_REAL_IP).next();
                let entry = last.map(|line| Entry { address: parse_address(line.trim()), scheme });
                walk(proxies, peer, entry.into_iter(), scheme)
            }
        }
    }
}

/// Reads the entries backwards, and stops at the first one that no trusted proxy wrote.
fn walk(
    proxies: &TrustedProxies,
    peer: &Peer,
    entries: impl Iterator<Item = Entry>,
    mut scheme: Option<Scheme>,
) -> ForwardedClient {
    let mut address = peer.address;
    let may_name_client = peer.may_name_client && proxies.is_trusted(address);
    for entry in entries {
        scheme = entry.scheme;
        let Some(named) = entry.address.filter(|_| may_name_client) else { break };
        address = named;
        if !proxies.is_trusted(named) {
            break;
        }
    }
    ForwardedClient { address, scheme }
}

/// The lines of a header, from the last one. A line that is not text counts as an entry that names no address: skipping it
/// would trust the entry before it.
fn lines(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    lines.into_iter().rev()
}

/// What the client speaks, if all values agree. A proxy that talks WebSocket may name its scheme, too.
fn x_forwarded_proto(headers: &HeaderMap) -> Option<Scheme> {
    let mut schemes = lines(headers, X_FORWARDED_PROTO).flat_map(|line| line.split(',')).map(parse_scheme);
    let first = schemes.next()?;
    first.filter(|_| schemes.all(|other| other == first))
}

fn parse_scheme(text: &str) -> Option<Scheme> {
    let text = text.trim();
    let is_one_of = |names: [&str; 2]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
    if is_one_of(["https", "wss"]) {
        Some(Scheme::Https)
    } else if is_one_of(["http", "ws"]) {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// The address in an entry. Some proxies add a port.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let address = entry.parse().ok().or_else(bracketed);
    address
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

/// The elements of a line of `Forwarded` (RFC 7239 §4), from the last one.
///
/// It is split from its end, too: an opening quote that a client has sent must not hide what the proxy has appended.
fn rsplit_elements(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut is_quoted = false;
        let comma = line.bytes().enumerate().rev().find_map(|(at, byte)| {
            if byte == b'"' {
                let backslashes = line[..at].bytes().rev().take_while(|&byte| byte == b'\\').count();
                // Outside, the quote from this side is the closing one. Inside, a quote after a backslash is an ordinary one.
                is_quoted = !is_quoted || backslashes % 2 == 1;
            }
            (byte == b',' && !is_quoted).then_some(at)
        });
        rest = comma.map(|comma| &line[..comma]);
        Some(comma.map_or(line, |comma| &line[comma + 1..]))
    })
}

/// Reads one element of `Forwarded`: pairs between semicolons. One that is malformed, or has a name twice, states nothing.
fn parse_element(element: &str) -> Entry {
    let (mut address, mut scheme) = (None, None);
    let mut rest = element.trim();
    while !rest.is_empty() {
        let Some((name, value, after)) = split_pair(rest) else { return Entry::default() };
        let is_repeated = if name.eq_ignore_ascii_case("for") {
            address.replace(parse_node(&value)).is_some()
        } else if name.eq_ignore_ascii_case("proto") {
            scheme.replace(parse_scheme(&value)).is_some()
        } else {
            false
        };
        if is_repeated {
            return Entry::default();
        }
        rest = after;
    }
    Entry { address: address.flatten(), scheme: scheme.flatten() }
}

/// Splits `name=value;rest`, where the value is a token or a quoted string.
fn split_pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(characters.next()?.1),
                    (_, character) => value.push(character),
                }
            };
            (value, quoted[end..].trim_start())
        }
        None => {
            let end = rest.find(';').unwrap_or(rest.len());
            (rest[..end].trim_end().to_owned(), &rest[end..])
        }
    };
    match rest.strip_prefix(';') {
        Some(rest) => Some((name.trim(), value, rest.trim_start())),
        None => rest.is_empty().then_some((name.trim(), value, "")),
    }
}

/// The address of a node (RFC 7239 §6). Its port may be obfuscated. `unknown` and obfuscated names are no addresses.
fn parse_node(node: &str) -> Option<IpAddr> {
    let is_obfuscated_port = |port: &str| {
        port.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()))
    };
    let without_port = node.rsplit_once(':').filter(|(_, port)| is_obfuscated_port(port)).map(|(node, _)| node);
    parse_address(without_port.unwrap_or(node))
}

#[cfg(test)]
mod tests;
