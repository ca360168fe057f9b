//! Input and output of a session: events, actions, and the types in them.

use crate::id::{DisplayName, ResumeToken, UserId};
use crate::ledger::{self, EndReason, Hint, Outcome, SlotLimit};
use crate::protocol::{CloseReason, Credential, CredentialError, ServerMessage};
use crate::time::UnixSeconds;

/// What can happen to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The WebSocket is open. This or [`Event::ConnectedV1`] is the first event.
    Connected,
    /// The WebSocket is open, and the client selected the subprotocol [`SUBPROTOCOL`](crate::protocol::SUBPROTOCOL). So it
    /// reads the details of every message.
    ConnectedV1,
    /// A text message. Hold it back while [`Session::is_busy`](super::Session::is_busy).
    Text(&'a str),
    /// The peer sent a ping or a pong.
    Alive,
    /// The peer violated the protocol.
    Violation(Violation),
    /// The authenticator's answer to [`Effect::Verify`].
    Verified(Result<Identity, CredentialError>),
    /// The store's answer to [`Effect::Store`]. Releases get no answer.
    Stored(Outcome),
    /// The session lost its slot: to another session, to an operator, or to its own client on a new connection. This
    /// can come before the answer to the session's own acquire.
    Ended(EndReason),
    /// The store has a hint for the session ([`ApplyResult::hints`](ledger::ApplyResult::hints)). It can come before the answer
    /// to the session's own acquire.
    Hinted(Hint),
    /// The wall clock has reached [`Session::expires_at`](super::Session::expires_at).
    Expired,
    /// The server is shutting down.
    Draining,
    /// The peer sent a close frame, or the socket is lost.
    Disconnected,
    /// The time is [`Session::deadline`](super::Session::deadline) or later. An early tick changes nothing.
    Tick,
    /// Instead of an answer to an acquire: the caller did not submit it, because its user has as many connections as one
    /// may ([`ConnectionLimits::per_user`](crate::connection_limiter::ConnectionLimits::per_user)).
    TooManyConnections,
    /// Instead of an answer to [`Effect::Verify`]: the authenticator did not answer in time, and nobody waits for it any more.
    VerifyTimedOut,
}

/// A protocol violation that ends the connection. Nothing more can be read from the connection, but it can still be
/// written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A frame that violates RFC 6455: reserved bits, an unmasked frame, a stray continuation, …
    Protocol,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// A message above the configured size.
    MessageTooBig,
    /// A binary message. This protocol has none.
    BinaryMessage,
}

/// A verified credential: its user, and what it says about that user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The limit of the user's slots that the credential claims, if it claims one.
    pub limit: Option<SlotLimit>,
    /// When the credential expires. The session expires with it, unless the client renews it with another credential. A
    /// credential that never expires cannot be renewed.
    pub expires: Option<UnixSeconds>,
    /// The device that the credential names. It overrides the device that the client sends.
    pub device: Option<DisplayName>,
    /// The token that a new slot can be resumed with, which the caller draws at random. Used only if the client
    /// authenticates with an object. `None`: a new slot cannot be resumed.
    pub resume_token: Option<ResumeToken>,
}

impl Identity {
    /// An identity without limit, expiry, device and resume token.
    #[must_use]
    pub const fn for_user(user: UserId) -> Self {
        Self { user, limit: None, expires: None, device: None, resume_token: None }
    }
}

/// What the caller must do, in this order: start the effect, send the frame, close.
///
/// Destructure it without `..`: a field added later then does not compile until the caller handles it.
#[must_use = "actions that are dropped are lost"]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actions {
    /// A call to start. Do not wait for it: its answer comes back as an event.
    pub effect: Option<Effect>,
    /// A frame to send.
    pub send: Option<Frame>,
    /// Close the connection for this reason, after the frame. The session sends nothing after that.
    pub close: Option<CloseReason>,
}

/// A call to the authenticator or to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Verify this credential. The authenticator answers with [`Event::Verified`].
    Verify(Credential),
    /// Submit this command to the store. The store answers with [`Event::Stored`].
    ///
    /// A release or linger ([`StoreCommand::is_release`](ledger::StoreCommand::is_release)) gets no answer. The
    /// [`ReleaseTracker`](crate::release_tracker::ReleaseTracker) retries it until the store confirms it.
    Store(ledger::StoreCommand),
}

/// What the session sends to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Message(ServerMessage),
    /// A WebSocket ping without data (RFC 6455 §5.5.2).
    Ping,
}
