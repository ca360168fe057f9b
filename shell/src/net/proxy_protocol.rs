//! The header of the PROXY protocol, version 2: in it a proxy states the address of its client.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::v2::{Addresses, Header, Protocol};
use smol::io::{AsyncRead, AsyncReadExt as _};
use thiserror::Error;

/// Why the bytes are not a PROXY header.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    /// The stream failed or ended before the end of the header.
    #[error("it is incomplete: {0}")]
    Io(#[from] io::Error),
    /// The header is longer than 2048 bytes.
    #[error("it has {0} bytes, at most 2048 are allowed")]
    TooLong(usize),
    /// The bytes do not follow the protocol.
    #[error("{0}")]
    Malformed(String),
}

/// How many bytes may follow the first sixteen. Addresses need at most 216; the rest is for extensions.
const MAX_HEADER_BYTES: usize = 2048;

/// Reads a PROXY header of version 2, and not a byte more. Returns the client's address, or `None` if the proxy connects
/// for itself, for example to check whether the server is up.
///
/// # Errors
/// [`ProxyHeaderError`] if the bytes are not such a header. Any number of bytes may have been read then.
///
/// <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.
pub async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    const VERSION_2_LOCAL: u8 = 0x20;

    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(SIGNATURE) {
        return Err(ProxyHeaderError::Malformed("it does not begin with the signature".into()));
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
            (header(0x20, 0x00, &[0; MAX_HEADER_BYTES]), None),
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
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\r\n".to_vec(), "it does not begin with the signature"),
            ([b"\r\n\r\n\0\r\nQUIT!", &good[12..]].concat(), "it does not begin with the signature"),
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
        for cut in 0..good.len() {
            let (read, _) = read(&good[..cut]);
            assert!(read.is_err_and(|error| error.starts_with("it is incomplete")), "cut off at {cut}");
        }
    }
}
