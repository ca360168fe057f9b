//! The end of a connection that gets no WebSocket: the server sends its response and gives the client time to read it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smol::Timer;
use smol::future::FutureExt as _;
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::net::yielding::YieldingStream;

/// How long a client has to read the response and close. Then the server closes the socket.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// How many bytes from the client the server discards before it closes the socket.
const MAX_DISCARDED_BYTES: usize = 2 << 20;

/// Sends a response, ends the sending side, and waits until the client has closed, but at most [`DISCARD_TIMEOUT`].
///
/// Meanwhile it discards what the client sends, up to [`MAX_DISCARDED_BYTES`]. Closing a socket with unread data resets
/// the connection, and the client may lose the response. The task yields between reads.
pub(crate) async fn close_after_response<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, response: &[u8]) {
    let mut stream = YieldingStream::new(stream);
    let mut remaining = MAX_DISCARDED_BYTES;
    let respond = async {
        let written = stream.write_all(response).await;
        if written.is_ok() {
            drop(poll_fn(|cx| poll_discard(&mut stream, &mut remaining, cx)).await);
        }
    };
    let timeout = async {
        Timer::after(DISCARD_TIMEOUT).await;
    };
    respond.or(timeout).await;
}

fn poll_discard<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    remaining: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<()>> {
    ready!(Pin::new(&mut *stream).poll_close(cx))?;
    let mut unread = [0; 4096];
    while *remaining > 0 {
        let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread))?;
        *remaining = if read == 0 { 0 } else { remaining.saturating_sub(read) };
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that sends without end and is always ready.
    struct Flood(usize);

    impl AsyncRead for Flood {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<usize>> {
            self.0 += buffer.len();
            Poll::Ready(Ok(buffer.len()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn close_of_an_endless_sender_yields_and_ends() {
        let (mut flood, mut polls) = (Flood(0), 0);
        let mut closing = Box::pin(close_after_response(&mut flood, b"goodbye"));
        smol::block_on(poll_fn(|cx| {
            polls += 1;
            closing.as_mut().poll(cx)
        }));
        drop(closing);
        assert!(polls > 10, "{polls}");
        assert_eq!(flood.0, MAX_DISCARDED_BYTES);
    }
}
