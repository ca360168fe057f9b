//! Opens the listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::net::listen_address::ListenAddress;

/// How many connections the kernel may complete before they are accepted, if it is allowed that many
/// (`net.core.somaxconn`). With the 128 of the standard library the slowest of 1,000 at once waited a second.
const BACKLOG: i32 = 4096;

/// What cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// An address.
    #[error("cannot listen on {address}: {why}{}", hint(.why))]
    Address {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// A name.
    #[error("cannot listen on {host}: {why}")]
    Name {
        /// Which, and the port.
        host: ListenAddress,
        /// What the system says.
        why: io::Error,
    },
}

/// Binds every address of these hosts. One that this machine does not have is left out, as long as another of its host
/// remains. The kernel may keep `send_buffer` bytes for each peer that does not read; Linux doubles it. `None`: what it
/// thinks fit, which may be megabytes.
///
/// # Errors
/// [`ListenError`] with the address that is taken, forbidden or missing, or the name that has none.
pub fn listen(hosts: &[ListenAddress], send_buffer: Option<usize>) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    for host in hosts {
        let addresses = host.resolve().map_err(|why| ListenError::Name { host: host.clone(), why })?;
        listeners.extend(listen_on(&addresses, send_buffer)?);
    }
    Ok(listeners)
}

/// The addresses of one host.
fn listen_on(addresses: &[SocketAddr], send_buffer: Option<usize>) -> Result<Vec<TcpListener>, ListenError> {
    let (mut bound, mut missing) = (Vec::new(), None);
    for &address in addresses {
        match bind(address, send_buffer) {
            Ok(listener) => bound.push(listener),
            Err(why) if is_missing(&why) => missing = Some(ListenError::Address { address, why }),
            Err(why) => return Err(ListenError::Address { address, why }),
        }
    }
    match missing {
        Some(error) if bound.is_empty() => Err(error),
        Some(_) | None => Ok(bound),
    }
}

/// What the kernel may buffer of what peers send, in bytes for each; Linux doubles it. Messages are short.
const RECEIVE_BUFFER: usize = 32 * 1024;

fn bind(address: SocketAddr, send_buffer: Option<usize>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Else a restarted server could not listen while connections of its predecessor are in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these.
    if let Some(bytes) = send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether this machine has no such address, or none of that family.
fn is_missing(error: &io::Error) -> bool {
    // Errors for a family the kernel lacks have no `ErrorKind` of their own: EAFNOSUPPORT is 97 on Linux, 47 on macOS.
    error.kind() == io::ErrorKind::AddrNotAvailable || matches!(error.raw_os_error(), Some(97 | 47))
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; another program listens there, or the address is given twice: choose another with --listen"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "; ports below 1024 need privileges, choose another with --listen"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_it() {
        let first = listen(&["127.0.0.1:0".parse().unwrap()], None).unwrap();
        let address = first[0].local_addr().unwrap();
        let error = listen(&[address.to_string().parse().unwrap()], None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}")), "{error}");
        assert!(error.contains("--listen"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_an_error_unless_its_host_has_another() {
        // 192.0.2.0/24 belongs to nobody (RFC 5737).
        let elsewhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
        assert!(listen(&["192.0.2.1:0".parse().unwrap()], None).is_err());
        assert_eq!(listen_on(&[elsewhere, "127.0.0.1:0".parse().unwrap()], None).unwrap().len(), 1);
        assert!(listen_on(&[], None).unwrap().is_empty());
    }
}
