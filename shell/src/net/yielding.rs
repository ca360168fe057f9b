//! A stream that yields to other tasks.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smol::io::{AsyncRead, AsyncWrite};

use crate::net::delegate_write::delegate_write;

/// Limits how often one task reads before other tasks on its thread, and its own timers, run.
///
/// Otherwise a peer that sends faster than the server reads keeps a reading loop busy without end, here or inside a
/// library: for example with a flood of pings or of empty fragments.
#[derive(Debug)]
pub(crate) struct YieldingStream<S> {
    stream: S,
    reads_left: u8,
}

impl<S> YieldingStream<S> {
    /// The number of consecutive reads before a pause. It is also how much one connection can read before its work is
    /// charged to its client. A message of the default maximum size takes five.
    const MAX_READS: u8 = 5;

    pub(crate) fn new(stream: S) -> Self {
        Self { stream, reads_left: Self::MAX_READS }
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for YieldingStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let Some(reads_left) = self.reads_left.checked_sub(1) else {
            self.reads_left = Self::MAX_READS;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.reads_left = if read.is_pending() { Self::MAX_READS } else { reads_left };
        Poll::Ready(ready!(read))
    }
}

delegate_write!(YieldingStream);

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn always_ready_stream_pauses_and_continues() {
        let mut stream = YieldingStream::new(smol::io::repeat(7));
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = [0; 1];
        let mut read = || Pin::new(&mut stream).poll_read(&mut cx, &mut buffer).is_ready();
        for _ in 0..3 {
            assert!((0..YieldingStream::<()>::MAX_READS).all(|_| read()));
            assert!(!read());
        }
    }
}
