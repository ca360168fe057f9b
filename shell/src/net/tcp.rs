//! A TCP connection.

use std::io::{IoSlice, Result};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};

/// A connected TCP socket.
///
/// Smaller than the library's own, which can be cloned.
#[derive(Debug)]
pub(crate) struct TcpSocket {
    io: Async<TcpStream>,
}

impl TcpSocket {
    pub(crate) const fn new(io: Async<TcpStream>) -> Self {
        Self { io }
    }

    /// The address of this end.
    ///
    /// # Errors
    /// When the system does not know it.
    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        self.as_ref().local_addr()
    }

    /// Waits for data and copies its beginning. Reading returns the same again.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) async fn peek(&self, buffer: &mut [u8]) -> Result<usize> {
        self.io.peek(buffer).await
    }

    /// Ends the connection in both directions.
    ///
    /// # Errors
    /// When it has ended already.
    pub(crate) fn shutdown(&self) -> Result<()> {
        self.io.get_ref().shutdown(Shutdown::Both)
    }

    /// Whether the peer has closed its side, or the connection is lost. What it sent before may still be unread, so
    /// reading does not find it out.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_ended_by_peer(&self) -> bool {
        use std::os::fd::AsFd as _;

        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let mut fds = [PollFd::from_borrowed_fd(self.io.as_fd(), PollFlags::RDHUP)];
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().intersects(gone)
    }

    /// Other systems have no such question. There reading finds it out.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn is_ended_by_peer(&self) -> bool {
        false
    }
}

impl AsRef<TcpStream> for TcpSocket {
    fn as_ref(&self) -> &TcpStream {
        self.io.get_ref()
    }
}

impl AsyncRead for TcpSocket {
    /// Reads before it waits for the reactor. On a busy server the next message has come by then, and the wait costs five
    /// system calls.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        Pin::new(&mut &self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TcpSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Ends the sending side. The library's socket would only flush.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.io.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A client, and the server's end of its connection.
    fn pair() -> (TcpStream, TcpSocket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, TcpSocket::new(Async::new(listener.accept().unwrap().0).unwrap()))
    }

    #[test]
    fn everything_is_read_however_it_arrives() {
        let (mut client, mut socket) = pair();
        smol::block_on(async {
            let mut buffer = [0; 4];
            for text in ["abcdefghij", "k", "lmno", "pqrstuvw"] {
                client.write_all(text.as_bytes()).unwrap();
                let mut read = Vec::new();
                while read.len() < text.len() {
                    let bytes = socket.read(&mut buffer).await.unwrap();
                    read.extend_from_slice(&buffer[..bytes]);
                }
                assert_eq!(read, text.as_bytes());
            }
            client.write_all(b"xy").unwrap();
            drop(client);
            assert_eq!((socket.read(&mut buffer).await.unwrap(), &buffer[..2]), (2, &b"xy"[..]));
            assert_eq!(socket.read(&mut buffer).await.unwrap(), 0, "the end follows a short read");
            assert_eq!(socket.read(&mut buffer).await.unwrap(), 0, "the end stays");
        });
    }

    #[test]
    fn closed_socket_ends_the_stream() {
        let (mut client, mut socket) = pair();
        smol::block_on(async {
            socket.write_all(b"goodbye").await.unwrap();
            socket.close().await.unwrap();
        });
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "goodbye");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn peer_that_left_is_gone_even_with_unread_data() {
        let (mut client, socket) = pair();
        client.write_all(b"hello").unwrap();
        smol::block_on(socket.peek(&mut [0])).unwrap();
        assert!(!socket.is_ended_by_peer());
        client.shutdown(Shutdown::Write).unwrap();
        while !socket.is_ended_by_peer() {}
    }
}
