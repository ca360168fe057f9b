//! A socket that never blocks: TCP, with TLS for `wss://`.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use futures_rustls::pki_types::ServerName;
use futures_rustls::rustls::{self, ClientConfig, ClientConnection, HandshakeKind};
use socket2::{Domain, Protocol, Type};

/// How to do TLS with the server.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
}

#[derive(Debug)]
pub(super) struct Socket {
    tcp: socket2::Socket,
    /// Boxed because it is large and most connections are plain.
    tls: Option<Box<ClientConnection>>,
    is_connected: bool,
    /// What the kernel did not take yet. Always empty with TLS, which keeps it itself.
    unsent: Vec<u8>,
}

/// Where bytes are read into: one for all sockets of a thread.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    received: Box<[u8]>,
    decrypted: Vec<u8>,
}

/// What a read has brought.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) bytes: &'a [u8],
    /// Nothing follows.
    pub(super) is_end: bool,
    /// The kernel has no more at the moment.
    pub(super) is_drained: bool,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self { received: vec![0; 16 * 1024].into(), decrypted: Vec::new() }
    }
}

impl Socket {
    /// Begins to connect. Everything may be sent at once.
    pub(super) fn connect(address: SocketAddr, tls: Option<&Tls>) -> io::Result<Self> {
        let tcp = nonblocking(Domain::for_address(address))?;
        // TCP_NODELAY is not needed: whatever is sent follows an answer, so nothing unacknowledged is before it.
        match tcp.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if is_pending(&error) => {}
            Err(error) => return Err(error),
        }
        let tls = match tls {
            Some(Tls { config, server_name }) => {
                let tls = ClientConnection::new(Arc::clone(config), server_name.clone()).map_err(io::Error::other)?;
                Some(Box::new(tls))
            }
            None => None,
        };
        Ok(Self { tcp, tls, is_connected: false, unsent: Vec::new() })
    }

    /// Whether the server has accepted the connection. Before that, an error is one of connecting.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether the handshake of TLS goes on. Then an error is one of TLS.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether the handshake of TLS has resumed an earlier session.
    pub(super) fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Sends this, now or once the kernel takes it.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return self.flush();
        }
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        match self.write(bytes)? {
            Some(sent) if sent == bytes.len() => {}
            sent => self.unsent.extend_from_slice(&bytes[sent.unwrap_or_default()..]),
        }
        Ok(())
    }

    /// Sends what the kernel takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            let sent = match &mut self.tls {
                Some(tls) => sent(tls.write_tls(&mut self.tcp), self.is_connected)?,
                None => {
                    let unsent = std::mem::take(&mut self.unsent);
                    let sent = self.write(&unsent)?;
                    self.unsent = unsent;
                    drop(self.unsent.drain(..sent.unwrap_or_default()));
                    sent
                }
            };
            if sent.is_none() {
                break;
            }
            self.is_connected = true;
        }
        Ok(())
    }

    /// Whether it waits for the kernel to take more.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls.as_ref().map_or(!self.unsent.is_empty(), |tls| tls.wants_write())
    }

    /// Reads once. `None` if there is nothing at the moment.
    pub(super) fn receive<'b>(&mut self, buffer: &'b mut ReadBuffer) -> io::Result<Option<Received<'b>>> {
        let ReadBuffer { received, decrypted } = buffer;
        let length = match self.tcp.read(received) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotConnected && !self.is_connected => return Ok(None),
            Err(error) => return Err(error),
        };
        self.is_connected = true;
        let is_drained = length < received.len();
        let Some(tls) = &mut self.tls else {
            return Ok(Some(Received { bytes: &received[..length], is_end: length == 0, is_drained }));
        };
        decrypted.clear();
        let read = decrypt(tls, &received[..length], decrypted);
        // An alert, too, if it has failed.
        let flushed = self.flush();
        read.and(flushed)?;
        Ok(Some(Received { bytes: decrypted, is_end: length == 0, is_drained }))
    }

    /// Why connecting has failed, if it has.
    pub(super) fn take_error(&self) -> io::Result<()> {
        self.tcp.take_error()?.map_or(Ok(()), Err)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let sent = sent(self.tcp.write(bytes), self.is_connected)?;
        self.is_connected |= sent.is_some();
        Ok(sent)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// Appends the text of what was received.
fn decrypt(tls: &mut ClientConnection, mut received: &[u8], decrypted: &mut Vec<u8>) -> io::Result<()> {
    while !received.is_empty() {
        let _taken: usize = tls.read_tls(&mut received)?;
        let state = tls.process_new_packets().map_err(invalid)?;
        if state.peer_has_closed() {
            break;
        }
        let begin = decrypted.len();
        decrypted.resize(begin + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut decrypted[begin..])?;
    }
    Ok(())
}

/// On Linux this saves two system calls for each connection.
fn nonblocking(domain: Domain) -> io::Result<socket2::Socket> {
    let (stream, tcp) = (Type::STREAM, Some(Protocol::TCP));
    #[cfg(target_os = "linux")]
    let socket = socket2::Socket::new(domain, stream.nonblocking(), tcp)?;
    #[cfg(not(target_os = "linux"))]
    let socket = {
        let socket = socket2::Socket::new(domain, stream, tcp)?;
        socket.set_nonblocking(true)?;
        socket
    };
    Ok(socket)
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn sent(written: io::Result<usize>, is_connected: bool) -> io::Result<Option<usize>> {
    match written {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // Some systems say so as long as it connects.
        Err(error) if error.kind() == io::ErrorKind::NotConnected && !is_connected => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `connect` goes on.
fn is_pending(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EINPROGRESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn bytes_that_wait_stay_in_order() {
        const PIECE: usize = 64 * 1024;

        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut socket = Socket::connect(listener.local_addr().expect("an address"), None).expect("a listener");
        let (mut peer, _) = listener.accept().expect("a connection");
        let (mut expected, mut waiting) = (Vec::new(), 0);
        // Some pieces more than the kernel takes.
        for number in (0..=u8::MAX).cycle() {
            let piece = [number; PIECE];
            socket.send(&piece).expect("a peer");
            expected.extend(piece);
            waiting += u32::from(socket.has_unsent());
            if waiting > 3 {
                break;
            }
        }
        let mut received = vec![0; expected.len()];
        let reader = thread::spawn(move || peer.read_exact(&mut received).map(|()| received));
        while socket.has_unsent() {
            socket.flush().expect("a reader");
            thread::yield_now();
        }
        assert!(reader.join().expect("a reader").expect("all bytes") == expected);
    }
}
