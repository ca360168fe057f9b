//! The end of a connection that gets no WebSocket: the response is written, and the client has time to read it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smol::Timer;
use smol::future::FutureExt as _;
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::net::yielding::YieldingStream;

/// How long a client has to read its answer and close, before the socket is taken away.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// How much of what a client goes on to send is thrown away, before the socket is taken away.
const MAX_DISCARDED_BYTES: usize = 2 << 20;

/// Says a last word, and waits a moment for the peer to have read it.
///
/// What is unread meanwhile is thrown away: to close a socket with unread data resets it, and takes the answer with it.
/// So much of it, and no more; and others have their turn.
pub(crate) async fn close_after_response<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, last_word: &[u8]) {
    let mut stream = YieldingStream::new(stream);
    let mut left = MAX_DISCARDED_BYTES;
    let goodbye = async {
        let written = stream.write_all(last_word).await;
        if written.is_ok() {
            drop(poll_fn(|cx| poll_discard(&mut stream, &mut left, cx)).await);
        }
    };
    let late = async {
        Timer::after(DISCARD_TIMEOUT).await;
    };
    goodbye.or(late).await;
}

fn poll_discard<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    left: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<()>> {
    ready!(Pin::new(&mut *stream).poll_close(cx))?;
    let mut unread = [0; 4096];
    while *left > 0 {
        let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread))?;
        *left = if read == 0 { 0 } else { left.saturating_sub(read) };
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that sends without an end, and never keeps anybody waiting.
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
    fn to_part_from_whoever_sends_without_an_end_gives_others_their_turn_and_ends() {
        let (mut flood, mut turns) = (Flood(0), 0);
        let mut parting = Box::pin(close_after_response(&mut flood, b"goodbye"));
        smol::block_on(poll_fn(|cx| {
            turns += 1;
            parting.as_mut().poll(cx)
        }));
        drop(parting);
        assert!(turns > 10, "{turns}");
        assert_eq!(flood.0, MAX_DISCARDED_BYTES);
    }
}
