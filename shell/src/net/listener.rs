//! Opens the listening sockets.

use std::net::{SocketAddr, TcpListener};
use std::{fs, io};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::net::listen_address::ListenAddress;
use crate::runtime::access::User;

/// How many connections the kernel completes before the server accepts them. `net.core.somaxconn` may limit it further.
/// With 128, as in the standard library, the slowest of 1,000 simultaneous connections waited a second.
const BACKLOG: i32 = 4096;

/// Why the server cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {why}{}", hint(.address.port(), .why))]
    Address {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        why: io::Error,
    },
    /// A host name has no address.
    #[error("cannot listen on {host}: {why}")]
    Name {
        /// The host and the port.
        host: ListenAddress,
        /// The error of the system.
        why: io::Error,
    },
}

/// Binds every address of these hosts. An address that this machine does not have is skipped if the host has another one.
///
/// The kernel buffers up to `send_buffer` bytes for each peer that does not read; Linux doubles it. With `None` the
/// kernel chooses, which may be megabytes.
///
/// # Errors
/// [`ListenError`] with the address that is in use, forbidden or missing, or with the host that cannot be looked up.
pub fn listen(hosts: &[ListenAddress], send_buffer: Option<usize>) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    for host in hosts {
        let addresses = host.resolve().map_err(|why| ListenError::Name { host: host.clone(), why })?;
        listeners.extend(listen_on(&addresses, send_buffer)?);
    }
    Ok(listeners)
}

/// Binds the addresses of one host.
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

/// How many received bytes the kernel may buffer for each peer; Linux doubles it. Messages are short.
const RECEIVE_BUFFER: usize = 32 * 1024;

fn bind(address: SocketAddr, send_buffer: Option<usize>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Otherwise a restarted server could not listen while connections of the previous process are in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit what follows; for other systems than Linux see `acceptor.rs`.
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether this machine lacks the address, or its whole address family.
fn is_missing(error: &io::Error) -> bool {
    // A missing family has no `ErrorKind` of its own: EAFNOSUPPORT is 97 on Linux, 47 on macOS.
    error.kind() == io::ErrorKind::AddrNotAvailable || matches!(error.raw_os_error(), Some(97 | 47))
}

fn hint(port: u16, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; another program uses it, or it is given twice: choose another with --listen".into()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        denied_port(port, first_free_port(), &User::effective())
    } else {
        String::new()
    }
}

/// The first port that a process without privileges may listen on.
fn first_free_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn denied_port(port: u16, first_free: u16, user: &User) -> String {
    if port < first_free {
        format!(
            "; {user} may not listen on ports below {first_free}: choose another with --listen, or give the server the \
             capability CAP_NET_BIND_SERVICE (AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit)"
        )
    } else {
        format!("; a policy of the system (SELinux, AppArmor, a sandbox) does not let {user} listen on this port")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_in_use_is_named() {
        let first = listen(&["127.0.0.1:0".parse().unwrap()], None).unwrap();
        let address = first[0].local_addr().unwrap();
        let error = listen(&[address.to_string().parse().unwrap()], None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}")), "{error}");
        assert!(error.contains("--listen"), "{error}");
    }

    #[test]
    fn denied_port_says_what_the_user_may_do() {
        let user = User::effective();
        let low = denied_port(443, 1024, &user);
        assert!(low.starts_with(&format!("; {user} may not listen on ports below 1024: choose another")), "{low}");
        assert!(low.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE"), "{low}");
        assert!(denied_port(1024, 1024, &user).contains("a policy of the system"), "the port is not the reason");
        assert!(denied_port(443, 80, &user).contains("a policy of the system"));
    }

    #[test]
    fn missing_address_is_skipped_if_another_remains() {
        // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
        let elsewhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
        assert!(listen(&["192.0.2.1:0".parse().unwrap()], None).is_err());
        assert_eq!(listen_on(&[elsewhere, "127.0.0.1:0".parse().unwrap()], None).unwrap().len(), 1);
        assert!(listen_on(&[], None).unwrap().is_empty());
    }
}
