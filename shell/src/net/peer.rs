//! The peer of a connection, before its request is read.

use std::net::{IpAddr, SocketAddr};

/// Who is at the other end of a connection: the client, or the last proxy before it.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address. If the socket's is a trusted proxy that sent a PROXY header: the address that this names.
    pub address: IpAddr,
    /// The address at the other end of the socket.
    pub socket: IpAddr,
    /// The address of the server at which it is connected.
    pub local: SocketAddr,
    /// Whether a header of its request may name its client, if it is a trusted proxy. Not if its PROXY header names none: the
    /// request may then come from a client that wrote the header.
    pub may_name_client: bool,
}

impl Peer {
    /// The peer of a socket without a PROXY header.
    #[must_use]
    pub fn of_socket(address: IpAddr, local: SocketAddr) -> Self {
        let address = address.to_canonical();
        Self { address, socket: address, local, may_name_client: true }
    }
}
