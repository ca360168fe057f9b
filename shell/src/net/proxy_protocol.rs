//! The header of the PROXY protocol, version 1 or 2: in it a proxy states the address of its client.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use smol::io::{AsyncRead, AsyncReadExt as _};
use thiserror::Error;

/// Why the bytes are not a PROXY header.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    /// The stream failed or ended before the end of the header.
    #[error("it is incomplete: {0}")]
    Io(#[from] io::Error),
    /// A header of version 2 is longer than 2048 bytes.
    #[error("it has {0} bytes, at most 2048 are allowed")]
    TooLong(usize),
    /// The bytes do not follow the protocol.
    #[error("{0}")]
    Malformed(String),
}

/// How a header of version 1 begins.
const PREFIX_1: &[u8; 6] = b"PROXY ";
/// How a header of version 2 begins.
const PREFIX_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How many bytes decide whether a header follows.
pub const PREFIX_BYTES: usize = PREFIX_2.len();

/// Whether a stream that begins with these bytes, or continues them, may begin with a PROXY header. HTTP and TLS do not.
#[must_use]
pub fn begins_header(bytes: &[u8]) -> bool {
    let begins = |prefix: &[u8]| bytes.starts_with(prefix) || prefix.starts_with(bytes);
    !bytes.is_empty() && (begins(PREFIX_1) || begins(PREFIX_2))
}

/// Reads a PROXY header of either version, and not a byte more. Returns the client's address, or `None` if the header names
/// none: the proxy connects for itself, for example to check whether the server is up, or does not know its client.
///
/// # Errors
/// [`ProxyHeaderError`] if the bytes are no such header. Any number of bytes may have been read then.
pub async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    /// The shortest header: version 1 without addresses.
    const MIN_BYTES: usize = b"PROXY UNKNOWN\r\n".len();

    let mut header = vec![0; MIN_BYTES];
    stream.read_exact(&mut header).await?;
    if header.starts_with(PREFIX_1) {
        read_version_1(stream, header).await
    } else if header.starts_with(PREFIX_2) {
        read_version_2(stream, header).await
    } else {
        Err(ProxyHeaderError::Malformed("it does not begin as a header of version 1 or 2".into()))
    }
}

/// Section 2.1.
async fn read_version_1<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut header: Vec<u8>,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    const MAX_BYTES: usize = 107;
    const END: &[u8] = b"\r\n";

    while !header.ends_with(END) {
        let read = header.len();
        // As much as must follow in any case.
        let more = if header.ends_with(b"\r") { 1 } else { END.len() };
        if read + more > MAX_BYTES {
            return Err(ProxyHeaderError::Malformed(format!("it has no end within {MAX_BYTES} bytes")));
        }
        header.resize(read + more, 0);
        stream.read_exact(&mut header[read..]).await?;
    }
    // What follows UNKNOWN does not count, whatever it is.
    if [&b"PROXY UNKNOWN "[..], b"PROXY UNKNOWN\r"].iter().any(|unknown| header.starts_with(unknown)) {
        return Ok(None);
    }
    let header =
        v1::Header::try_from(&*header).map_err(|error| ProxyHeaderError::Malformed(format!("{error:?}, version 1")))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(pair) => Some(source(pair.source_address.into(), pair.source_port)),
        v1::Addresses::Tcp6(pair) => Some(source(pair.source_address.into(), pair.source_port)),
        v1::Addresses::Unknown => None,
    })
}

/// Section 2.2.
async fn read_version_2<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut header: Vec<u8>,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    /// The part before the addresses.
    const FIXED_BYTES: usize = 16;
    /// How many bytes may follow. Addresses need at most 216; the rest is for extensions.
    const MAX_BYTES: usize = 2048;
    const LOCAL: u8 = 0x20;

    let read = header.len();
    header.resize(FIXED_BYTES, 0);
    stream.read_exact(&mut header[read..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > MAX_BYTES {
        return Err(ProxyHeaderError::TooLong(length));
    }
    header.resize(FIXED_BYTES + length, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    if header[12] == LOCAL {
        return Ok(None);
    }
    let header = v2::Header::try_from(&*header).map_err(|error| ProxyHeaderError::Malformed(error.to_string()))?;
    if header.protocol != v2::Protocol::Stream {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(pair) => Some(source(pair.source_address.into(), pair.source_port)),
        v2::Addresses::IPv6(pair) => Some(source(pair.source_address.into(), pair.source_port)),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    })
}

fn source(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = PREFIX_2;

    const LONG: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";

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
    fn header_is_read_exactly_to_its_end() {
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
            // UDP cannot be the protocol of this connection.
            (header(0x21, 0x12, &v4), None),
            (header(0x21, 0x10, &v4), None),
            (header(0x21, 0x00, &[]), None),
            // LOCAL: the proxy connects for itself. What follows does not count.
            (header(0x20, 0x11, &v4), None),
            (header(0x20, 0x00, &[]), None),
            (header(0x20, 0x77, b"anything"), None),
            (header(0x20, 0x00, &[0; 2048]), None),
            // Version 1.
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\r\n".to_vec(), Some("203.0.113.9:4660")),
            (b"PROXY TCP4 2.2.2.2 1.1.1.1 1 1\r\n".to_vec(), Some("2.2.2.2:1")),
            (b"PROXY TCP4 22.2.2.2 1.1.1.1 1 1\r\n".to_vec(), Some("22.2.2.2:1")),
            (b"PROXY TCP6 2001:db9::9 ::1 4660 80\r\n".to_vec(), Some("[2001:db9::9]:4660")),
            (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4660 80\r\n".to_vec(), Some("203.0.113.9:4660")),
            (format!("PROXY TCP6 {LONG} {LONG} 65535 65535\r\n").into_bytes(), Some(&*format!("[{LONG}]:65535"))),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever this is, it has no meaning\r\n".to_vec(), None),
            (format!("PROXY UNKNOWN {LONG} {LONG} 65535 65535\r\n").into_bytes(), None),
        ] {
            let follows = b"GET / HTTP/1.1";
            let (read, unread) = read(&[&bytes[..], follows].concat());
            assert_eq!((read, unread), (Ok(source.map(Into::into)), follows.len()), "{bytes:?}");
        }
    }

    #[test]
    fn invalid_headers_are_explained() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let good = header(0x21, 0x11, &v4);
        let too_long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[0; 65535]].concat();
        for (bytes, message) in [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "it does not begin as"),
            (b"POST / HTTP/1.1\r\n\r\n".to_vec(), "it does not begin as"),
            ([b"\r\n\r\n\0\r\nQUIT!", &good[12..]].concat(), "it does not begin as"),
            (b"proxy TCP4 203.0.113.9 10.0.0.1 4660 80\r\n".to_vec(), "it does not begin as"),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660\r\n".to_vec(), "version 1"),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80 5\r\n".to_vec(), "version 1"),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\n\r\n".to_vec(), "version 1"),
            (b"PROXY TCP4 203.0.113.999 10.0.0.1 4660 80\r\n".to_vec(), "version 1"),
            (b"PROXY TCP4 ::1 ::1 4660 80\r\n".to_vec(), "version 1"),
            (b"PROXY TCP4\r\nGET / HTTP/1.1\r\n\r\n".to_vec(), "version 1"),
            (b"PROXY UDP4 203.0.113.9 10.0.0.1 4660 80\r\n".to_vec(), "version 1"),
            (b"PROXY UNKNOWNS\r\n".to_vec(), "version 1"),
            ([b"PROXY UNKNOWN", &[b' '; 93][..], b"\r\n"].concat(), "no end within 107 bytes"),
            ([b"PROXY TCP4 ", &[b'1'; 4000][..]].concat(), "no end within 107 bytes"),
            (header(0x11, 0x11, &v4), "version"),
            (header(0x22, 0x11, &v4), "command"),
            (header(0x21, 0x41, &v4), "Address Family"),
            (header(0x21, 0x13, &v4), "protocol"),
            (header(0x21, 0x11, &v4[..11]), "cannot store"),
            (header(0x21, 0x21, &v4), "cannot store"),
            (header(0x21, 0x31, &v4), "cannot store"),
            (too_long, "it has 65535 bytes, at most 2048"),
        ] {
            let (read, _) = read(&bytes);
            assert!(read.clone().is_err_and(|error| error.contains(message)), "{message}: {read:?}");
        }
        for good in [&good[..], b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\r\n", b"PROXY UNKNOWN\r\n"] {
            for cut in 0..good.len() {
                let (read, _) = read(&good[..cut]);
                assert!(read.is_err_and(|error| error.starts_with("it is incomplete")), "cut off at {cut}");
            }
        }
    }

    #[test]
    fn version_1_is_read_to_107_bytes_at_most() {
        let (read, unread) = read(&[&b"PROXY TCP4 "[..], &[b'1'; 4000]].concat());
        assert!(read.is_err() && unread >= 4011 - 107, "{unread}");
    }

    #[test]
    fn header_is_known_by_its_first_bytes() {
        for (bytes, begins) in [
            (&b"PROXY TCP4 "[..], true),
            (b"PROXY ", true),
            (b"P", true),
            (b"PR", true),
            (b"\r", true),
            (b"\r\n\r\n\0\r\nQUIT\n", true),
            (b"", false),
            (b"PROXY\t", false),
            (b"POST / HTTP/", false),
            (b"PRI * HTTP/2", false),
            (b"PROPFIND / H", false),
            (b"GET / HTTP/1", false),
            (b"\r\nGET / HTT", false),
            (b"\x16\x03\x01", false),
        ] {
            assert_eq!(begins_header(bytes), begins, "{bytes:?}");
        }
    }
}
