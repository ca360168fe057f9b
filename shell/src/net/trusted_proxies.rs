//! Proxies that may say where a client really is: by X-Forwarded-For, or by a header of the PROXY protocol, version 2.
//!
//! What anybody else says about where they are is ignored. Of X-Forwarded-For, to which every proxy appends whom it was
//! asked by, only what trusted proxies have appended counts: it is read from its end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use ppp::v2::{Addresses, Header, Protocol};
use smol::io::{AsyncRead, AsyncReadExt as _};
use thiserror::Error;

/// The proxies that are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<ProxyNetwork>);

/// One of them, or a network full of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyNetwork(IpNet);

impl TrustedProxies {
    /// Whether whoever is at this address is one of them.
    #[must_use]
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|ProxyNetwork(network)| network.contains(&address))
    }

    /// Where the client is that asks from `peer`, with these lines of X-Forwarded-For in their order.
    ///
    /// An entry that is no address ends it: what stands before that is not to be trusted.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, forwarded: &[&str]) -> IpAddr {
        if !self.is_trusted(peer) {
            return peer;
        }
        let mut client = peer;
        for entry in forwarded.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(address) = address_of(entry.trim()) else { break };
            client = address;
            if !self.is_trusted(address) {
                break;
            }
        }
        client
    }
}

impl FromIterator<ProxyNetwork> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = ProxyNetwork>>(proxies: I) -> Self {
        Self(proxies.into_iter().collect())
    }
}

/// An address, or a network by its first address and the number of its leading bits, as in `10.0.0.0/8`.
impl FromStr for ProxyNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet =
            text.parse().map_err(|_| "it must be an address or a network, as in 10.1.2.3 or 10.0.0.0/8".to_owned())?;
        if network.addr() != network.network() {
            return Err(format!("it does not begin with its network's first address, as {} does", network.trunc()));
        }
        Ok(Self(network))
    }
}

/// Of an entry of X-Forwarded-For. Some proxies add a port.
fn address_of(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let address = entry.parse().ok().or_else(bracketed);
    address
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

/// Why there is no header of the PROXY protocol.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    /// The stream broke, or ended in the middle of it.
    #[error("it breaks off: {0}")]
    Io(#[from] io::Error),
    /// It is longer than any that makes sense.
    #[error("it has {0} bytes, 2048 are the most")]
    TooLong(usize),
    /// It is something else.
    #[error("{0}")]
    Malformed(String),
}

/// The most that may follow the first sixteen bytes. Addresses take 216 at most; the rest is for extensions.
const MAX_HEADER_BYTES: usize = 2048;

/// Reads a header of the PROXY protocol, version 2, and not a byte more: where the client is, or nothing if it is the
/// proxy itself that asks, to see whether anybody is there say.
///
/// # Errors
/// [`ProxyHeaderError`]: what came is no such header. How much of it was read is not told.
///
/// <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.
pub async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    const VERSION_2_LOCAL: u8 = 0x20;

    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(SIGNATURE) {
        return Err(ProxyHeaderError::Malformed("it does not begin as one".into()));
    }
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > MAX_HEADER_BYTES {
        return Err(ProxyHeaderError::TooLong(length));
    }
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).await?;
    if header[12] == VERSION_2_LOCAL {
        return Ok(None);
    }
    let header = Header::try_from(&*header).map_err(|error| ProxyHeaderError::Malformed(error.to_string()))?;
    if header.protocol != Protocol::Stream {
        return Ok(None);
    }
    Ok(match header.addresses {
        Addresses::IPv4(pair) => Some(SocketAddr::new(pair.source_address.into(), pair.source_port)),
        Addresses::IPv6(pair) => {
            Some(SocketAddr::new(IpAddr::from(pair.source_address).to_canonical(), pair.source_port))
        }
        Addresses::Unix(_) | Addresses::Unspecified => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        networks.iter().map(|network| network.parse::<ProxyNetwork>().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let trusted = proxies(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "::ffff:198.51.100.1"]);
        for (address, is_trusted) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("::1", true),
            ("::2", false),
            ("198.51.100.1", true),
        ] {
            assert_eq!(trusted.is_trusted(ip(address)), is_trusted, "{address}");
        }
        for (text, words) in [
            ("", "an address or a network"),
            ("proxy.example.com", "an address or a network"),
            ("10.0.0.0/33", "an address or a network"),
            ("10.0.0.1:80", "an address or a network"),
            ("10.1.2.3/8", "as 10.0.0.0/8 does"),
            ("2001:db8::1/32", "as 2001:db8::/32 does"),
        ] {
            let error = text.parse::<ProxyNetwork>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn x_forwarded_for_counts_as_far_as_trusted_proxies_have_written_it() {
        let trusted = proxies(&["10.0.0.0/8", "2001:db8::/32"]);
        for (peer, lines, client) in [
            // Whoever is not trusted is who they are.
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // The client wrote the first itself.
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2,10.0.0.3 "], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9", "10.0.0.2", "10.0.0.3"], "203.0.113.9"),
            // Nobody but proxies: the first of them.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Ports and brackets.
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db9::9]:4711"], "2001:db9::9"),
            ("10.0.0.1", &["[2001:db9::9]"], "2001:db9::9"),
            ("10.0.0.1", &["2001:db9::9, 2001:db8::1"], "2001:db9::9"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            // What is no address ends it.
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, , 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.2:, 10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.9\t"], "203.0.113.9"),
            ("10.0.0.1", &["", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9", ""], "10.0.0.1"),
        ] {
            assert_eq!(trusted.client_address(ip(peer), lines), ip(client), "{peer}, {lines:?}");
        }
        assert_eq!(TrustedProxies::default().client_address(ip("10.0.0.1"), &["203.0.113.9"]), ip("10.0.0.1"));
    }

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    /// A header with this version and command, family, and what follows.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn read(bytes: &[u8]) -> (Result<Option<String>, String>, usize) {
        let mut unread = bytes;
        let source = smol::block_on(read_header(&mut unread));
        (source.map(|source| source.map(|source| source.to_string())).map_err(|error| error.to_string()), unread.len())
    }

    #[test]
    fn a_header_of_the_proxy_protocol_is_read_to_its_end_and_no_further() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let v6 =
            [&[0x20, 1, 0xd, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 16], &[0x12, 0x34, 0, 80]].concat();
        let mapped =
            [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 9][..], &[0; 16], &[0, 1, 0, 80]].concat();
        let unix = [b'x'; 216];
        let with_extensions = [&v4[..], &[4, 0, 2, 7, 7], &[0xee, 0xff, 0xff]].concat();
        for (bytes, source) in [
            (header(0x21, 0x11, &v4), Some("203.0.113.9:4660")),
            (header(0x21, 0x11, &with_extensions), Some("203.0.113.9:4660")),
            (header(0x21, 0x21, &v6), Some("[2001:db9::9]:4660")),
            (header(0x21, 0x21, &mapped), Some("203.0.113.9:1")),
            (header(0x21, 0x31, &unix), None),
            // What came over UDP did not come here.
            (header(0x21, 0x12, &v4), None),
            (header(0x21, 0x10, &v4), None),
            (header(0x21, 0x00, &[]), None),
            // Of itself, whatever it says then.
            (header(0x20, 0x11, &v4), None),
            (header(0x20, 0x00, &[]), None),
            (header(0x20, 0x77, b"anything"), None),
            (header(0x20, 0x00, &[0; MAX_HEADER_BYTES]), None),
        ] {
            let follows = b"GET / HTTP/1.1";
            let (read, unread) = read(&[&bytes[..], follows].concat());
            assert_eq!((read, unread), (Ok(source.map(Into::into)), follows.len()), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_in_words() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let good = header(0x21, 0x11, &v4);
        let too_long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[0; 65535]].concat();
        for (bytes, words) in [
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\r\n".to_vec(), "it does not begin as one"),
            ([b"\r\n\r\n\0\r\nQUIT!", &good[12..]].concat(), "it does not begin as one"),
            (header(0x11, 0x11, &v4), "version"),
            (header(0x22, 0x11, &v4), "command"),
            (header(0x21, 0x41, &v4), "Address Family"),
            (header(0x21, 0x13, &v4), "protocol"),
            (header(0x21, 0x11, &v4[..11]), "cannot store"),
            (header(0x21, 0x21, &v4), "cannot store"),
            (header(0x21, 0x31, &v4), "cannot store"),
            (too_long, "it has 65535 bytes, 2048 are the most"),
        ] {
            let (read, _) = read(&bytes);
            assert!(read.clone().is_err_and(|error| error.contains(words)), "{words}: {read:?}");
        }
        for cut in 0..good.len() {
            let (read, _) = read(&good[..cut]);
            assert!(read.is_err_and(|error| error.starts_with("it breaks off")), "cut off at {cut}");
        }
    }
}
