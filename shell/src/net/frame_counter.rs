//! Counts the WebSocket frames in a stream of bytes, also those of a message that is not whole.
//!
//! A frame costs the library about the same whether it is empty or not, and the library shows only whole messages. So this
//! walks over the heads of the frames (RFC 6455 §5.2), and checks nothing: the library does.

use std::io::{IoSlice, Result};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use smol::io::{AsyncRead, AsyncWrite};

use crate::net::delegate_write::delegate_write;

/// Where in a frame the bytes are.
#[derive(Debug, Default, Clone, Copy)]
struct FrameCounter {
    /// The bytes of the frame that are still to come, after the head that is known.
    payload: u64,
    /// How many bytes of a head have come.
    head: u8,
    /// How many bytes of the head give the length, beyond the second byte.
    length_bytes: u8,
    /// How long the head is. Known from its second byte on.
    head_bytes: u8,
}

impl FrameCounter {
    /// How many heads end in these bytes, which follow those before.
    fn count(&mut self, mut bytes: &[u8]) -> u32 {
        let mut frames = 0;
        loop {
            if self.head == 0 && self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
            }
            let Some((&byte, rest)) = bytes.split_first() else { return frames };
            bytes = rest;
            self.head += 1;
            match self.head {
                1 => self.payload = 0,
                2 => {
                    let (mask, length) = (byte & 0x80 != 0, byte & 0x7f);
                    self.length_bytes = match length {
                        126 => 2,
                        127 => 8,
                        _ => 0,
                    };
                    if self.length_bytes == 0 {
                        self.payload = length.into();
                    }
                    self.head_bytes = 2 + self.length_bytes + if mask { 4 } else { 0 };
                }
                3.. if self.head - 2 <= self.length_bytes => self.payload = self.payload << 8 | u64::from(byte),
                _ => {}
            }
            if self.head >= 2 && self.head == self.head_bytes {
                self.head = 0;
                frames += 1;
            }
        }
    }
}

/// A stream of WebSocket frames that counts those it reads.
#[derive(Debug)]
pub(crate) struct FrameCountingStream<S> {
    stream: S,
    counter: FrameCounter,
    frames: u32,
}

impl<S> FrameCountingStream<S> {
    /// `read` holds bytes that were read from the stream before.
    pub(crate) fn new(stream: S, read: &[u8]) -> Self {
        let mut counter = FrameCounter::default();
        let frames = counter.count(read);
        Self { stream, counter, frames }
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The frames since the last call.
    pub(crate) fn take_frames(&mut self) -> u32 {
        mem::take(&mut self.frames)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameCountingStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(bytes)) = read {
            let frames = self.counter.count(&buffer[..bytes]);
            self.frames = self.frames.saturating_add(frames);
        }
        read
    }
}

delegate_write!(FrameCountingStream);

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame with a payload of zeros.
    fn frame(payload: usize, length: &[u8]) -> Vec<u8> {
        [&[0x01][..], length, &[0; 4], &vec![0xff; payload]].concat()
    }

    #[test]
    fn frames_are_counted_however_the_bytes_arrive() {
        let frames = [
            frame(0, &[0x80]),
            frame(1, &[0x81]),
            frame(125, &[0x80 | 125]),
            frame(126, &[0x80 | 126, 0, 126]),
            frame(70_000, &[0x80 | 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
            // Without a mask, which the library rejects.
            vec![0x81, 1, 7],
            frame(0, &[0x80]),
        ];
        let bytes = frames.concat();
        for chunk in [1, 2, 3, 7, 1024, bytes.len()] {
            let mut counter = FrameCounter::default();
            let counted: u32 = bytes.chunks(chunk).map(|chunk| counter.count(chunk)).sum();
            assert_eq!(counted as usize, frames.len(), "{chunk}");
        }
        let endless = [0x00, 0x80, 0, 0, 0, 0].repeat(1000);
        assert_eq!(FrameCounter::default().count(&endless), 1000);
        // A length of 2⁶⁴ - 1 overflows nothing.
        let longest = [&[0x82, 0xff][..], &[0xff; 8], &[0; 400]].concat();
        assert_eq!(FrameCounter::default().count(&longest), 1);
    }
}
