//! A stream that sends its first bytes together with those after them.

use std::io::{ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smol::io::{AsyncRead, AsyncWrite};

/// Holds bytes back until the first write, and sends both in one. If nothing is written, they leave with a flush.
///
/// So the response to the opening handshake takes no system call, no segment and no TLS record of its own.
#[derive(Debug)]
pub(crate) struct HoldingStream<S> {
    stream: S,
    held: Vec<u8>,
}

impl<S> HoldingStream<S> {
    pub(crate) fn new(stream: S, held: Vec<u8>) -> Self {
        Self { stream, held }
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncWrite + Unpin> HoldingStream<S> {
    /// Writes what is held, and `bytes` after it. Ready once nothing is held, with how many of `bytes` were written.
    fn poll_write_held(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        while !self.held.is_empty() {
            let held = self.held.len();
            self.held.extend_from_slice(bytes);
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.held);
            self.held.truncate(held);
            match ready!(written)? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                written if written < held => drop(self.held.drain(..written)),
                written => {
                    self.held = Vec::new();
                    if written > held {
                        return Poll::Ready(Ok(written - held));
                    }
                }
            }
        }
        if bytes.is_empty() { Poll::Ready(Ok(0)) } else { Pin::new(&mut self.stream).poll_write(cx, bytes) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HoldingStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HoldingStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_held(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_write_held(cx, &[]))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_write_held(cx, &[]))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use smol::future::block_on;
    use smol::io::AsyncWriteExt as _;

    use super::*;

    /// Takes at most `most` bytes at a time. Before each time it is busy once.
    #[derive(Default)]
    struct Sink {
        writes: Vec<Vec<u8>>,
        most: usize,
        is_busy: bool,
        is_closed: bool,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
            self.is_busy = !self.is_busy;
            if self.is_busy {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let written = bytes.len().min(self.most);
            self.writes.push(bytes[..written].to_vec());
            Poll::Ready(Ok(written))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            self.is_closed = true;
            Poll::Ready(Ok(()))
        }
    }

    fn holding(most: usize) -> HoldingStream<Sink> {
        HoldingStream::new(Sink { most, ..Sink::default() }, b"held".to_vec())
    }

    #[test]
    fn held_bytes_leave_with_the_first_write() {
        let mut stream = holding(99);
        block_on(stream.write_all(b"HELLO")).unwrap();
        block_on(stream.write_all(b"more")).unwrap();
        assert_eq!(stream.stream.writes, [&b"heldHELLO"[..], b"more"]);
    }

    #[test]
    fn every_byte_leaves_once_and_in_order() {
        for most in 1..12 {
            let mut stream = holding(most);
            block_on(stream.write_all(b"HELLO")).unwrap();
            block_on(stream.write_all(b"more")).unwrap();
            assert_eq!(stream.stream.writes.concat(), b"heldHELLOmore", "{most}");
        }
    }

    #[test]
    fn held_bytes_leave_without_a_write_as_well() {
        for most in [1, 99] {
            let mut flushed = holding(most);
            block_on(flushed.flush()).unwrap();
            block_on(flushed.flush()).unwrap();
            assert_eq!(flushed.stream.writes.concat(), b"held");
            let mut closed = holding(most);
            block_on(closed.close()).unwrap();
            assert_eq!((closed.stream.writes.concat(), closed.stream.is_closed), (b"held".to_vec(), true));
        }
    }
}
