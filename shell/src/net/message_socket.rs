//! A socket as a session sees it: messages in, frames out. The simulation implements it without a network.

use std::ops::Deref;
use std::task::{Context, Poll};

use session_core::Timestamp;
use session_core::connection_limiter::Work;
use session_core::protocol::CloseReason;
use session_core::session::{Frame, Violation};

/// The socket of a connection: it receives messages and sends frames. No method blocks.
pub trait MessageSocket {
    /// A text message.
    type Text: Deref<Target = str>;

    /// Reads and writes. Ready with an event from the peer; after a close only with [`SocketEvent::Gone`].
    ///
    /// With `read` false an open socket only writes.
    fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<SocketEvent<Self::Text>>;

    /// Buffers a frame. Does nothing if the socket is not open.
    fn send(&mut self, frame: Frame);

    /// Closes the socket after the buffered frames. The socket then waits for the peer's close.
    fn close(&mut self, reason: CloseReason);

    /// When the caller must call [`MessageSocket::abort`].
    fn deadline(&self) -> Option<Timestamp>;

    /// Cuts the socket, whatever is left to write: it is closed.
    fn abort(&mut self);

    /// Whether the peer may still believe that its session goes on: no close frame has left the buffers of this process, and
    /// the socket is not closed.
    fn is_served(&self) -> bool;

    /// Whether the socket is closed.
    fn is_closed(&self) -> bool;

    /// Whether a frame has not left this process yet, because the peer takes no data.
    fn has_unsent(&self) -> bool;

    /// The traffic since the last call. A socket without a network has none.
    fn take_work(&mut self) -> Work {
        Work::default()
    }

    /// The client is authenticated, so another bound of its messages may apply.
    fn set_authenticated(&mut self) {}

    /// Whether the socket pauses: it does not read, also while it waits for the peer's close. Its client has caused more work
    /// than it may. Each poll still finds out whether the peer has ended the connection. Then what the peer sent before is
    /// lost. A socket that reports no work never has to pause.
    fn set_paused(&mut self, _is_paused: bool) {}
}

/// The size of a message that is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageSize {
    /// Its bytes. If it comes in several frames: of those up to the one that exceeds the bound.
    pub bytes: usize,
    /// The bound.
    pub max: usize,
}

/// An event from the peer.
#[derive(Debug)]
pub enum SocketEvent<Text> {
    /// A text message.
    Text(Text),
    /// A ping or pong: the peer is alive.
    Alive,
    /// A violation that ends the connection.
    Violation(Violation),
    /// A message that is longer than it may be. It ends the connection.
    TooBig(MessageSize),
    /// The peer's close frame, or the end of the stream.
    Gone,
}
