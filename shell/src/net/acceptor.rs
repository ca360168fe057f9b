//! Accepts TCP connections with as few system calls as the system allows.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use smol::Async;
use socket2::SockRef;

use crate::net::tcp::TcpSocket;

/// A listening socket whose connections send without delay (TCP_NODELAY): a message is not held back until the client has
/// acknowledged the one before it.
pub(crate) struct Acceptor(Async<TcpListener>);

impl Acceptor {
    /// # Errors
    /// When the listener's options cannot be set.
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        // On Linux a connection inherits the option when it comes, which may be before it is accepted. So `listen` has set it
        // already; another caller may not have.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        Ok(Self(Async::new(listener)?))
    }

    /// The next connection, and the address of its peer.
    ///
    /// # Errors
    /// When the client has left before it was accepted, or the system has no more file descriptors or memory.
    pub(crate) async fn accept(&self) -> io::Result<(TcpSocket, SocketAddr)> {
        let (stream, peer) = self.0.read_with(accept_nonblocking).await?;
        Ok((TcpSocket::new(Async::new_nonblocking(stream)?), peer))
    }
}

/// One system call instead of three.
#[cfg(target_os = "linux")]
fn accept_nonblocking(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    use rustix::io::retry_on_intr;
    use rustix::net::{SocketFlags, acceptfrom_with};

    let (socket, peer) = retry_on_intr(|| acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK))?;
    let peer = peer.ok_or_else(|| io::Error::other("an accepted socket has no peer"))?;
    Ok((TcpStream::from(socket), peer.try_into()?))
}

/// It is not certain that other systems have `accept4`, or that an accepted socket inherits the listener's options.
#[cfg(not(target_os = "linux"))]
fn accept_nonblocking(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;
    // It fails if the peer has left. Reading finds that out.
    let _may_be_gone = stream.set_nodelay(true);
    Ok((stream, peer))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::net::listener::listen;

    #[test]
    fn accepted_socket_is_nonblocking_and_sends_without_delay() {
        // The first client comes before the listener is handed over, the second after it.
        let listener = listen(&["127.0.0.1:0".parse().unwrap()], None).unwrap().remove(0);
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        check(&Acceptor::new(listener).unwrap(), &client);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(listener).unwrap();
        check(&acceptor, &TcpStream::connect(address).unwrap());
    }

    fn check(acceptor: &Acceptor, client: &TcpStream) {
        let (socket, peer) = smol::block_on(acceptor.accept()).unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(socket.local_addr().unwrap(), client.peer_addr().unwrap());
        assert!(socket.as_ref().nodelay().unwrap());
        let read = socket.as_ref().read(&mut [0]);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock, "it would block the thread");
    }
}
