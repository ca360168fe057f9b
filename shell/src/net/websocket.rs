//! One WebSocket, from the end of its handshake to the end of its TCP connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Bytes, Error};
use futures_util::{Sink as _, Stream as _};
use session_core::Timestamp;
use session_core::protocol::CloseReason;
use session_core::session::{Frame, Violation};
use smol::io::{AsyncRead as _, AsyncWrite as _};

use crate::net::message_socket::{MessageSocket, SocketEvent};
use crate::net::settings::ConnectionSettings;
use crate::net::stream::Stream;
use crate::net::yielding::YieldingStream;
use crate::runtime::clock::Clock;

/// The server's end of a WebSocket. It never waits: what is sent is buffered, and polling moves it on.
pub(crate) struct WebSocket {
    stream: WebSocketStream<YieldingStream<Stream>>,
    clock: Clock,
    phase: Phase,
    /// Whether something may be left to write. While it is, nothing is read: a peer that does not read its replies
    /// is not listened to, so at most one reply and the pongs waits for it.
    unflushed: bool,
}

enum Phase {
    Open,
    /// A close frame was sent or answered; the peer's is awaited.
    Closing {
        until: Timestamp,
    },
    /// As closing, but the stream makes no sense any more: what is unread is thrown away, because closing a socket
    /// with unread data resets it, and the peer would see the reset instead of the reason (RFC 6455 §7.1.1).
    Discarding {
        until: Timestamp,
        shut: bool,
    },
    /// Writing failed; the session has not been told yet.
    Broken,
    Closed,
}

impl WebSocket {
    /// How long after a close the peer has to answer it.
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
    /// What tungstenite allocates for each connection for as long as it lives. Messages are short.
    const READ_BUFFER_BYTES: usize = 1024;
    /// Above this it writes before it is told to. Most replies are shorter, so each leaves as one segment, together with
    /// the close frame that follows it.
    const WRITE_BUFFER_BYTES: usize = 4 * 1024;
    /// More than ever waits here: one reply and a pong. The longest lists [`session_core::ledger::SlotListing::MAX`] sessions, of which each takes 360
    /// bytes at most: 100 for its id and its times, and twice 64 for each of two names of nothing but quotation marks. The
    /// rest waits in the kernel.
    const MAX_WRITE_BUFFER_BYTES: usize = 64 * 1024;

    /// The WebSocket on a stream whose handshake is done; `read` is what was read beyond it.
    pub(crate) async fn new(
        stream: YieldingStream<Stream>,
        read: Vec<u8>,
        settings: &ConnectionSettings,
        clock: Clock,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(Self::READ_BUFFER_BYTES)
            .write_buffer_size(Self::WRITE_BUFFER_BYTES)
            .max_write_buffer_size(Self::MAX_WRITE_BUFFER_BYTES)
            .max_message_size(Some(settings.max_message_bytes))
            .max_frame_size(Some(settings.max_message_bytes));
        let stream = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
        Self { stream, clock, phase: Phase::Open, unflushed: false }
    }

    fn feed(&mut self, message: Message) {
        match Pin::new(&mut self.stream).start_send(message) {
            Ok(()) => self.unflushed = true,
            // The stream is broken: nothing reaches the peer any more.
            Err(_) => self.phase = Phase::Broken,
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<SocketEvent<Utf8Bytes>> {
        Poll::Ready(match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(Ok(Message::Text(text))) => SocketEvent::Text(text),
            Some(Ok(Message::Binary(_))) => SocketEvent::Violation(Violation::BinaryMessage),
            Some(Ok(Message::Ping(_))) => {
                // The pong that tungstenite has queued leaves with the next flush.
                self.unflushed = true;
                SocketEvent::Alive
            }
            Some(Ok(Message::Pong(_))) => SocketEvent::Alive,
            Some(Ok(Message::Close(_))) => {
                // So does its answer to the close frame.
                self.unflushed = true;
                self.phase = Phase::Closing { until: self.clock.now() + Self::CLOSE_TIMEOUT };
                SocketEvent::Gone
            }
            Some(Err(Error::Utf8(_))) => SocketEvent::Violation(Violation::InvalidUtf8),
            Some(Err(Error::Capacity(_))) => SocketEvent::Violation(Violation::MessageTooBig),
            Some(Err(Error::Protocol(error))) if !is_end(&error) => SocketEvent::Violation(Violation::Protocol),
            Some(Err(_)) | None => return self.lost(),
            Some(Ok(Message::Frame(_))) => unreachable!("raw frames are only ever sent, says tungstenite"),
        })
    }

    fn lost(&mut self) -> Poll<SocketEvent<Utf8Bytes>> {
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

    /// What is buffered and the close frame leave as one segment where they fit.
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
                | CloseReason::MessageTooBig => Phase::Discarding { until, shut: false },
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
                | CloseReason::Resumed => Phase::Closing { until },
            };
        }
    }

    fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<SocketEvent<Utf8Bytes>> {
        if matches!(self.phase, Phase::Broken) {
            return self.lost();
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return self.lost(),
            }
        }
        match &mut self.phase {
            Phase::Open if read => self.poll_message(cx),
            Phase::Open | Phase::Broken | Phase::Closed => Poll::Pending,
            &mut Phase::Closing { until } => {
                // Nothing the peer says after our close counts, but for its own close.
                loop {
                    match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                        Some(Ok(Message::Close(_))) | None | Some(Err(Error::Io(_))) => return self.lost(),
                        Some(Ok(_)) => {}
                        Some(Err(_)) => break,
                    }
                }
                self.phase = Phase::Discarding { until, shut: false };
                self.poll(read, cx)
            }
            Phase::Discarding { shut, .. } => {
                let stream = self.stream.get_mut();
                if !*shut {
                    if ready!(Pin::new(&mut *stream).poll_close(cx)).is_err() {
                        return self.lost();
                    }
                    *shut = true;
                }
                let mut unread = [0; 4096];
                while let Ok(1..) = ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread)) {}
                self.lost()
            }
        }
    }
}

/// Whether a protocol error only says that the peer left without a close frame.
fn is_end(error: &async_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use async_tungstenite::tungstenite::error::ProtocolError;
    matches!(error, ProtocolError::ResetWithoutClosingHandshake)
}
