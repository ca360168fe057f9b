//! A socket as a session sees it: messages in, frames out. The simulation implements it without a network.

use std::ops::Deref;
use std::task::{Context, Poll};

use session_core::Timestamp;
use session_core::protocol::CloseReason;
use session_core::session::{Frame, Violation};

/// A socket as a connection needs it: a stream of messages one way, of frames the other. It never waits.
pub trait MessageSocket {
    /// A text message.
    type Text: Deref<Target = str>;

    /// Moves the socket on. Ready with what the peer has to say; after a close only with [`SocketEvent::Gone`].
    ///
    /// With `read` false an open socket only writes.
    fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<SocketEvent<Self::Text>>;

    /// Buffers a frame, if the socket is open.
    fn send(&mut self, frame: Frame);

    /// Closes the socket after what is buffered. It still waits for the peer's close.
    fn close(&mut self, reason: CloseReason);

    /// When [`MessageSocket::abort`] is due.
    fn deadline(&self) -> Option<Timestamp>;

    /// Gives up on the peer.
    fn abort(&mut self);

    /// Whether the end has come.
    fn is_closed(&self) -> bool;
}

/// What comes from the peer.
#[derive(Debug)]
pub enum SocketEvent<Text> {
    /// A text message.
    Text(Text),
    /// A sign of life that is no message.
    Alive,
    /// What ends the connection.
    Violation(Violation),
    /// The peer's close frame, or the end of the stream.
    Gone,
}
