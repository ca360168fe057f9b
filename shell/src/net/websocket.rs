//! The server's end of one WebSocket, from the handshake until the TCP connection ends.

use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_tungstenite::tungstenite;
use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error};
use session_core::Timestamp;
use session_core::connection_limiter::Work;
use session_core::protocol::CloseReason;
use session_core::session::{Frame, Violation};
use smol::io::{AsyncRead as _, AsyncWrite as _};

use crate::net::frame_counter::FrameCountingStream;
use crate::net::held::HoldingStream;
use crate::net::message_socket::{MessageSize, MessageSocket, SocketEvent};
use crate::net::settings::ConnectionSettings;
use crate::net::stream::Stream;
use crate::net::sync_stream::SyncStream;
use crate::net::yielding::YieldingStream;
use crate::runtime::clock::Clock;

/// The server's end of a WebSocket. Sending only buffers; [`MessageSocket::poll`] reads and writes.
pub(crate) struct WebSocket {
    frames: tungstenite::WebSocket<SyncStream<ByteStream>>,
    /// Whether reading has failed. The library must then not be asked again.
    is_ended: bool,
    clock: Clock,
    phase: Phase,
    /// Whether buffered data may be left to write. Until it is written the socket reads nothing. So if a peer does not
    /// read its replies, at most one reply and the pongs are buffered for it.
    unflushed: bool,
    is_paused: bool,
    max_message_bytes: MessageBound,
}

/// The bytes below the frames.
type ByteStream = FrameCountingStream<HoldingStream<YieldingStream<Stream>>>;

/// The bound of a message now, and from authentication on.
struct MessageBound {
    now: usize,
    authenticated: usize,
}

impl MessageBound {
    /// The event of a text message. A client that needs long messages to authenticate keeps their bound: its next token is
    /// about as long. It may be a little longer, so this begins well below the bound that it would have otherwise.
    fn event(&mut self, text: Utf8Bytes) -> SocketEvent<Utf8Bytes> {
        let Self { now: max, authenticated } = *self;
        match text.len() {
            bytes if bytes > max => return SocketEvent::TooBig(MessageSize { bytes, max }),
            bytes if bytes > authenticated / 2 => self.authenticated = authenticated.max(max),
            _ => {}
        }
        SocketEvent::Text(text)
    }
}

enum Phase {
    Open,
    /// A close frame was sent or answered. The socket waits for the peer's close.
    Closing {
        until: Timestamp,
    },
    /// As `Closing`, but what the peer sends can no longer be parsed, and is discarded. Closing a socket with unread data
    /// resets the connection, and the peer would see the reset instead of the close reason (RFC 6455 §7.1.1).
    Discarding {
        until: Timestamp,
        write_closed: bool,
    },
    /// Writing failed. The session does not know yet.
    Broken,
    Closed,
}

impl WebSocket {
    /// How long the peer may take to answer a close.
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
    /// Tungstenite allocates this for the whole life of a connection, and takes as much at a time from [`SyncStream`]. Most
    /// messages are shorter.
    const READ_BUFFER_BYTES: usize = 128;
    /// Tungstenite writes without a flush when the buffer is longer than this. Most replies are shorter, so a reply and the
    /// close frame after it are sent as one segment.
    const WRITE_BUFFER_BYTES: usize = 4 * 1024;
    /// Larger than the content ever is: one reply and a pong; the rest waits in the kernel. The longest reply lists
    /// [`session_core::ledger::SlotUsage::MAX_SHOWN`] sessions of at most 750 bytes each: 200 for ids and times, and 256 for each of the two names.
    const MAX_WRITE_BUFFER_BYTES: usize = 128 * 1024;

    /// A WebSocket on a stream whose handshake is done, except for the `response`: it leaves with the first frame, and in any
    /// case with the first poll. `read` holds the bytes that were read after the request.
    pub(crate) fn new(
        stream: YieldingStream<Stream>,
        read: Vec<u8>,
        response: Vec<u8>,
        settings: &ConnectionSettings,
        clock: Clock,
    ) -> Self {
        let max_message_bytes = MessageBound {
            now: settings.max_unauthenticated_message_bytes.unwrap_or(settings.max_message_bytes),
            authenticated: settings.max_message_bytes,
        };
        // The library reads as much as ever may come. It cannot change its bound.
        let max = max_message_bytes.now.max(max_message_bytes.authenticated);
        let config = WebSocketConfig::default()
            .read_buffer_size(Self::READ_BUFFER_BYTES)
            .write_buffer_size(Self::WRITE_BUFFER_BYTES)
            .max_write_buffer_size(Self::MAX_WRITE_BUFFER_BYTES)
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let stream = FrameCountingStream::new(HoldingStream::new(stream, response), &read);
        let stream = SyncStream::new(stream);
        let frames = tungstenite::WebSocket::from_partially_read(stream, read, Role::Server, Some(config));
        Self {
            frames,
            is_ended: false,
            clock,
            phase: Phase::Open,
            unflushed: true,
            is_paused: false,
            max_message_bytes,
        }
    }

    fn feed(&mut self, message: Message) {
        match self.frames.write(message) {
            Ok(()) => self.unflushed = true,
            // It is in the buffer.
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => self.unflushed = true,
            Err(_) => self.phase = Phase::Broken,
        }
    }

    /// The next message. `None` at the end.
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        self.frames.get_mut().set_waker(cx);
        Poll::Ready(match self.frames.read() {
            Ok(message) => Some(Ok(message)),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => {
                self.is_ended = true;
                if matches!(error, Error::ConnectionClosed | Error::AlreadyClosed) { None } else { Some(Err(error)) }
            }
        })
    }

    /// Writes what is buffered.
    fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.frames.get_mut().set_waker(cx);
        match self.frames.flush() {
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            Ok(()) => Poll::Ready(Ok(())),
            // It has closed, and everything is written. But the library has not flushed: TLS may still keep the close frame.
            Err(Error::ConnectionClosed) => {
                let mut cx = Context::from_waker(cx.waker());
                Pin::new(self.frame_stream()).poll_flush(&mut cx).map_err(Error::Io)
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_message(&mut self, cx: &Context<'_>) -> Poll<SocketEvent<Utf8Bytes>> {
        Poll::Ready(match ready!(self.poll_next(cx)) {
            Some(Ok(Message::Text(text))) => self.max_message_bytes.event(text),
            Some(Ok(Message::Binary(_))) => SocketEvent::Violation(Violation::BinaryMessage),
            Some(Ok(Message::Ping(_))) => {
                // Tungstenite has queued the pong; the next flush sends it.
                self.unflushed = true;
                SocketEvent::Alive
            }
            Some(Ok(Message::Pong(_))) => SocketEvent::Alive,
            Some(Ok(Message::Close(_))) => {
                // Tungstenite has queued the answer to the close frame; the next flush sends it.
                self.unflushed = true;
                self.phase = Phase::Closing { until: self.clock.now() + Self::CLOSE_TIMEOUT };
                SocketEvent::Gone
            }
            Some(Err(Error::Utf8(_))) => SocketEvent::Violation(Violation::InvalidUtf8),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, max_size: _ }))) => {
                SocketEvent::TooBig(MessageSize { bytes: size, max: self.max_message_bytes.now })
            }
            Some(Err(Error::Capacity(CapacityError::TooManyHeaders))) => SocketEvent::Violation(Violation::Protocol),
            Some(Err(Error::Protocol(error))) if !is_end_of_stream(&error) => {
                SocketEvent::Violation(Violation::Protocol)
            }
            Some(Err(_)) | None => return self.set_closed(),
            Some(Ok(Message::Frame(_))) => unreachable!("tungstenite never reads raw frames"),
        })
    }

    fn byte_stream(&mut self) -> &mut Stream {
        self.frame_stream().get_mut().get_mut().get_mut()
    }

    fn frame_stream(&mut self) -> &mut ByteStream {
        self.frames.get_mut().get_mut()
    }

    fn set_closed(&mut self) -> Poll<SocketEvent<Utf8Bytes>> {
        self.phase = Phase::Closed;
        Poll::Ready(SocketEvent::Gone)
    }
}

impl MessageSocket for WebSocket {
    type Text = Utf8Bytes;

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Closing { until } | Phase::Discarding { until, .. } => Some(until),
            Phase::Open | Phase::Broken | Phase::Closed => None,
        }
    }

    fn abort(&mut self) {
        self.phase = Phase::Closed;
        // The session may have to wait for the store before it drops the socket. A socket that fails here is gone.
        let _already_gone = self.byte_stream().shutdown();
    }

    fn is_served(&self) -> bool {
        match self.phase {
            Phase::Open | Phase::Broken => true,
            Phase::Closing { .. } | Phase::Discarding { .. } => self.unflushed,
            Phase::Closed => false,
        }
    }

    fn take_work(&mut self) -> Work {
        let mut work = Work::frames(self.frame_stream().take_frames());
        work += self.byte_stream().take_work();
        work
    }

    fn has_unsent(&self) -> bool {
        self.unflushed
    }

    fn set_authenticated(&mut self) {
        self.max_message_bytes.now = self.max_message_bytes.authenticated;
    }

    fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    fn send(&mut self, frame: Frame) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let message = match frame {
            Frame::Message(reply) => Message::text(reply.encode()),
            Frame::Ping => Message::Ping(Bytes::new()),
        };
        self.feed(message);
    }

    /// The buffered frames and the close frame are sent as one segment if they fit.
    fn close(&mut self, reason: CloseReason) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let code = CloseCode::from(reason.code());
        self.feed(Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason.message()) })));
        if matches!(self.phase, Phase::Open) {
            let until = self.clock.now() + Self::CLOSE_TIMEOUT;
            self.phase = match reason {
                CloseReason::ProtocolError
                | CloseReason::BinaryMessage
                | CloseReason::InvalidUtf8
                | CloseReason::MessageTooBig => Phase::Discarding { until, write_closed: false },
                CloseReason::Bye
                | CloseReason::ShuttingDown
                | CloseReason::TooManyBadMessages
                | CloseReason::TooManyMessages
                | CloseReason::Internal
                | CloseReason::TryAgainLater
                | CloseReason::NotAuthenticated
                | CloseReason::TokenExpired
                | CloseReason::PeerSilent
                | CloseReason::Evicted
                | CloseReason::Resumed
                | CloseReason::NotChosen
                | CloseReason::Contested => Phase::Closing { until },
            };
        }
    }

    fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<SocketEvent<Utf8Bytes>> {
        if matches!(self.phase, Phase::Broken) {
            return self.set_closed();
        }
        if self.unflushed {
            match self.poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return self.set_closed(),
            }
        }
        if self.is_paused {
            let is_ended = self.byte_stream().is_ended_by_peer();
            return if is_ended { self.set_closed() } else { Poll::Pending };
        }
        match &mut self.phase {
            Phase::Open if read => self.poll_message(cx),
            Phase::Open | Phase::Broken | Phase::Closed => Poll::Pending,
            &mut Phase::Closing { until } => {
                // After the server's close only the peer's close counts.
                loop {
                    match ready!(self.poll_next(cx)) {
                        Some(Ok(Message::Close(_))) | None | Some(Err(Error::Io(_))) => return self.set_closed(),
                        Some(Ok(_)) => {}
                        Some(Err(_)) => break,
                    }
                }
                self.phase = Phase::Discarding { until, write_closed: false };
                self.poll(read, cx)
            }
            Phase::Discarding { write_closed, .. } => {
                let stream = self.frames.get_mut().get_mut();
                if !*write_closed {
                    if ready!(Pin::new(&mut *stream).poll_close(cx)).is_err() {
                        return self.set_closed();
                    }
                    *write_closed = true;
                }
                let mut unread = [0; 4096];
                while let Ok(1..) = ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread)) {}
                self.set_closed()
            }
        }
    }
}

/// Whether the error only means that the peer ended the stream without a close frame.
fn is_end_of_stream(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::ResetWithoutClosingHandshake)
}
