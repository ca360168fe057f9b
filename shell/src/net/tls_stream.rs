//! The server's end of a TLS connection.
//!
//! It keeps no buffer while the connection is idle. The usual wrappers of rustls keep one of 4 KiB, which is more than all the
//! rest of a session takes. So this uses rustls without its buffers (`rustls::unbuffered`): whole records go in, and records
//! come out.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_rustls::rustls;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::server::UnbufferedServerConnection;
use futures_rustls::rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use smol::io::{AsyncRead, AsyncWrite};

use crate::net::front::{drop_front, take_front};

/// How much is read at a time.
const READ_BYTES: usize = 4096;
/// The most of what the peer sends that can be incomplete: a handshake message (RFC 8446 §4). A record is shorter.
const MAX_INCOMPLETE_BYTES: usize = 0xffff;
/// The most data in a record (RFC 8446 §5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;

/// TLS over a stream of bytes.
pub(crate) struct TlsStream<S> {
    stream: S,
    session: UnbufferedServerConnection,
    /// Records that are not whole.
    incoming: Vec<u8>,
    /// Decrypted data that nobody has read yet.
    data: Vec<u8>,
    /// Records that are not written yet.
    outgoing: Vec<u8>,
    /// Whether the peer has said that it sends nothing more.
    is_ended: bool,
    is_closed: bool,
    /// Whether the peer has violated the protocol. Its records must then not be looked at again.
    has_failed: bool,
}

/// What to send once the records of the peer are handled.
enum Output<'a> {
    Nothing,
    Data(&'a [u8]),
    CloseNotify,
}

impl<S> TlsStream<S> {
    /// The stream of a client that has sent nothing yet.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub(crate) fn new(stream: S, config: &Arc<ServerConfig>) -> std::result::Result<Self, rustls::Error> {
        Ok(Self {
            stream,
            session: UnbufferedServerConnection::new(Arc::clone(config))?,
            incoming: Vec::new(),
            data: Vec::new(),
            outgoing: Vec::new(),
            is_ended: false,
            is_closed: false,
            has_failed: false,
        })
    }

    pub(crate) const fn get_ref(&self) -> &S {
        &self.stream
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Handles the records that have come, then sends the output if the handshake is over. What is to be sent is in
    /// `outgoing` afterwards, also the alert that belongs to an error.
    fn handle(&mut self, output: Output<'_>) -> Result<()> {
        if self.has_failed {
            return Err(ErrorKind::InvalidData.into());
        }
        if let Err(error) = self.handle_records(output) {
            self.has_failed = true;
            // The alert that tells the peer, and what was ready before it.
            while self.session.wants_write()
                && let Ok(ConnectionState::EncodeTlsData(record)) = self.session.process_tls_records(&mut []).state
            {
                encode(record, &mut self.outgoing)?;
            }
            return Err(Error::new(ErrorKind::InvalidData, error));
        }
        self.incoming.shrink_to(if self.incoming.is_empty() { 0 } else { READ_BYTES });
        if self.incoming.len() > MAX_INCOMPLETE_BYTES {
            return Err(Error::new(ErrorKind::InvalidData, "a handshake message is too long"));
        }
        Ok(())
    }

    fn handle_records(&mut self, output: Output<'_>) -> std::result::Result<(), rustls::Error> {
        let mut output = output;
        loop {
            let UnbufferedStatus { mut discard, state } = self.session.process_tls_records(&mut self.incoming);
            let is_done = match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.data.extend_from_slice(record.payload);
                    }
                    false
                }
                ConnectionState::EncodeTlsData(record) => {
                    encode(record, &mut self.outgoing).map_err(|error| rustls::Error::General(error.to_string()))?;
                    false
                }
                // It is in `outgoing`, and leaves in order.
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    false
                }
                ConnectionState::PeerClosed => {
                    self.is_ended = true;
                    false
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    let outgoing = &mut self.outgoing;
                    match std::mem::replace(&mut output, Output::Nothing) {
                        Output::Nothing => {}
                        Output::Data(data) => append(outgoing, |room| traffic.encrypt(data, room))?,
                        Output::CloseNotify => append(outgoing, |room| traffic.queue_close_notify(room))?,
                    }
                    true
                }
                ConnectionState::BlockedHandshake | ConnectionState::Closed => true,
                // The configuration allows no early data, and rustls has no other state today.
                ConnectionState::ReadEarlyData(_) | _ => {
                    return Err(rustls::Error::General("an unexpected state of TLS".into()));
                }
            };
            self.incoming.drain(..discard);
            if is_done {
                return Ok(());
            }
        }
    }
}

/// Appends a record of the handshake.
fn encode<Data>(mut record: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> Result<()> {
    append(outgoing, |room| {
        record.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => EncryptError::InsufficientSize(size),
            EncodeError::AlreadyEncoded => EncryptError::EncryptExhausted,
        })
    })
    .map_err(Error::other)
}

/// Appends what `write` writes, with as much room as that needs.
fn append(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> std::result::Result<usize, EncryptError>,
) -> std::result::Result<(), rustls::Error> {
    let before = outgoing.len();
    let written = match write(&mut []) {
        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
            outgoing.resize(before + required_size, 0);
            write(&mut outgoing[before..])
        }
        written => written,
    };
    outgoing.truncate(before + *written.as_ref().unwrap_or(&0));
    written.map(|_| ()).map_err(|error| rustls::Error::General(error.to_string()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Goes on with the handshake. Ready when it is over. The caller may go on in another task, or on another thread.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if !self.session.is_handshaking() {
                // In TLS 1.3 only tickets are left. They leave with the first response.
                let is_over = self.session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
                return if is_over { Poll::Ready(Ok(())) } else { self.poll_send(cx) };
            }
            // The peer may send before it has read.
            if let Poll::Ready(sent) = self.poll_send(cx) {
                sent?;
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(Error::new(ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
            if self.is_ended {
                return Poll::Ready(Err(Error::new(ErrorKind::UnexpectedEof, "tls handshake alert")));
            }
        }
    }

    /// Reads once and handles what comes. Ready with 0 at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut bytes = [0; READ_BYTES];
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut bytes))?;
        // Exactly, because a peer chooses how much is kept, and for how long.
        self.incoming.reserve_exact(read);
        self.incoming.extend_from_slice(&bytes[..read]);
        if read > 0
            && let Err(error) = self.handle(Output::Nothing)
        {
            // The alert, if there is room for it.
            let _unsent = self.poll_send(cx);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(read))
    }

    /// Writes the records that are ready.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                written => drop_front(&mut self.outgoing, written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        if self.data.is_empty() && !self.is_ended {
            // Without the farewell of TLS somebody else may have cut the stream (RFC 8446 §6.1).
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            // A peer can send records without data, and without end: rustls refuses many empty ones in a row, and many
            // new keys (RFC 8446 §4.6.3), but not both by turns. So other tasks run before the next read, also the timers
            // of this one, and the connection charges its client.
            if self.data.is_empty() && !self.is_ended {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(take_front(&mut self.data, buffer)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    /// Encrypts the bytes once the records before them are written. Flush to be sure that they are written as well.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        /// What may wait when the data is encrypted: a ticket, so that both leave together.
        const MAX_WAITING_BYTES: usize = 1024;

        if self.outgoing.len() > MAX_WAITING_BYTES {
            ready!(self.poll_send(cx))?;
        }
        let bytes = &bytes[..bytes.len().min(MAX_RECORD_BYTES)];
        self.handle(Output::Data(bytes))?;
        if let Poll::Ready(sent) = self.poll_send(cx) {
            sent?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.is_closed {
            self.is_closed = true;
            self.handle(Output::CloseNotify)?;
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
