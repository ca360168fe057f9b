//! A stream for a library that reads and writes without waiting, with `WouldBlock` where it would have to.

use std::io::{ErrorKind, Read, Result, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use smol::io::{AsyncRead, AsyncWrite};

use crate::net::front::take_front;

/// How much is read at a time. A longer message takes several reads.
const READ_BYTES: usize = 1024;

/// Passes on the waker of the task that polls, and reads ahead.
///
/// The library keeps a buffer as long as it reads at a time. This reads more at a time, and keeps only what the library has
/// not taken yet. So an idle connection keeps next to nothing.
#[derive(Debug)]
pub(crate) struct SyncStream<S> {
    stream: S,
    waker: Waker,
    unread: Vec<u8>,
}

impl<S> SyncStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, waker: Waker::noop().clone(), unread: Vec::new() }
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// From now on this task is woken when the stream is ready.
    pub(crate) fn set_waker(&mut self, cx: &Context<'_>) {
        self.waker.clone_from(cx.waker());
    }
}

fn without_waiting<T>(result: Poll<Result<T>>) -> Result<T> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncRead + Unpin> Read for SyncStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.unread.is_empty() {
            let mut bytes = [0; READ_BYTES];
            let mut cx = Context::from_waker(&self.waker);
            let read = without_waiting(Pin::new(&mut self.stream).poll_read(&mut cx, &mut bytes))?;
            let (now, later) = bytes[..read].split_at(read.min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            if !later.is_empty() {
                self.unread = later.to_vec();
            }
            return Ok(now.len());
        }
        Ok(take_front(&mut self.unread, buffer))
    }
}

impl<S: AsyncWrite + Unpin> Write for SyncStream<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        without_waiting(Pin::new(&mut self.stream).poll_write(&mut Context::from_waker(&self.waker), bytes))
    }

    fn flush(&mut self) -> Result<()> {
        without_waiting(Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(&self.waker)))
    }
}

#[cfg(test)]
mod tests {
    use smol::io::Cursor;

    use super::*;
    use crate::net::yielding::YieldingStream;

    #[test]
    fn bytes_are_the_same_however_few_are_read_at_a_time() {
        let bytes: Vec<u8> = (0..5000_u32).map(|number| number.to_le_bytes()[0]).collect();
        for size in [1, 7, 1000, 1024, 1025, 6000] {
            let mut stream = SyncStream::new(Cursor::new(bytes.clone()));
            let (mut read, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                let length = stream.read(&mut buffer).unwrap();
                if length == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..length]);
            }
            assert_eq!(read, bytes, "{size}");
            assert_eq!(stream.unread.capacity(), 0, "it keeps a buffer");
        }
    }

    #[test]
    fn task_is_woken_that_polled_last() {
        let (waker, wakes) = crate::runtime::testing::counting_waker();
        let mut stream = SyncStream::new(YieldingStream::new(smol::io::repeat(7)));
        stream.set_waker(&Context::from_waker(&waker));
        let blocked = (0..9).find_map(|_| stream.read(&mut [0; 2000]).err()).unwrap();
        assert_eq!((blocked.kind(), wakes()), (ErrorKind::WouldBlock, 1));
    }
}
