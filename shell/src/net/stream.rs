//! The byte stream of a connection: TCP, or TLS over TCP.

use std::io::{IoSlice, Result};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use session_core::connection_limiter::Work;
use smol::io::{AsyncRead, AsyncWrite};

use crate::net::tcp::TcpSocket;
use crate::net::tls_stream::TlsStream;

/// The decrypted bytes of a connection.
pub(crate) enum Stream {
    Plain(MeteredStream<TcpSocket>),
    /// Boxed, so that a plain connection needs no more memory.
    Tls(Box<TlsStream<MeteredStream<TcpSocket>>>),
}

impl Stream {
    /// The traffic since the last call, as TCP carries it: with TLS also what that adds.
    pub(crate) fn take_work(&mut self) -> Work {
        match self {
            Self::Plain(stream) => stream.take_work(),
            Self::Tls(stream) => stream.get_mut().take_work(),
        }
    }
}

/// Counts the bytes and the reads of a stream. A peer that sends endless fragments, or one byte at a time, causes work long
/// before there is a message.
#[derive(Debug)]
pub(crate) struct MeteredStream<S> {
    stream: S,
    bytes: u32,
    reads: u32,
}

impl<S> MeteredStream<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, bytes: 0, reads: 0 }
    }

    pub(crate) const fn get_ref(&self) -> &S {
        &self.stream
    }

    fn take_work(&mut self) -> Work {
        Work::traffic(mem::take(&mut self.bytes), mem::take(&mut self.reads))
    }

    fn count(&mut self, carried: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = carried {
            self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        carried
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.reads = self.reads.saturating_add(u32::from(read.is_ready()));
        self.count(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Runs the same expression on either stream.
macro_rules! either {
    ($stream:expr, $inner:ident => $result:expr) => {
        match $stream.get_mut() {
            Stream::Plain($inner) => $result,
            Stream::Tls($inner) => $result,
        }
    };
}

impl Stream {
    /// Ends the TCP connection in both directions, without the words that TLS has for it.
    pub(crate) fn shutdown(&self) -> Result<()> {
        self.tcp().shutdown()
    }

    /// Whether the peer has ended the TCP connection. See [`TcpSocket::is_ended_by_peer`].
    pub(crate) fn is_ended_by_peer(&self) -> bool {
        self.tcp().is_ended_by_peer()
    }

    fn tcp(&self) -> &TcpSocket {
        match self {
            Self::Plain(tcp) => &tcp.stream,
            Self::Tls(tls) => &tls.get_ref().stream,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self, stream => Pin::new(stream).poll_close(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::io::{AsyncReadExt as _, AsyncWriteExt as _, Cursor};

    #[test]
    fn metered_stream_counts_bytes_and_reads() {
        smol::block_on(async {
            let mut stream = MeteredStream::new(Cursor::new(b"hello".to_vec()));
            assert_eq!(stream.read(&mut [0; 2]).await.unwrap(), 2);
            assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 3);
            assert_eq!(stream.take_work(), Work::traffic(5, 2));
            stream.write_all(b"goodbye").await.unwrap();
            assert_eq!(stream.take_work(), Work::traffic(7, 0));
            assert_eq!(stream.take_work(), Work::default());
        });
    }
}
