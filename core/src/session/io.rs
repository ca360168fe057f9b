//! What goes into a session, and what comes out of it.

use crate::id::{DisplayName, UserId};
use crate::ledger::{self, EndReason, Outcome, SlotLimit};
use crate::protocol::{CloseReason, Credential, CredentialError, ServerMessage};
use crate::resume_token::ResumeToken;
use crate::time::UnixSeconds;

/// What can happen to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The WebSocket is open. Comes first.
    Connected,
    /// A text message. Not to be delivered while [`Session::is_busy`](super::Session::is_busy).
    Text(&'a str),
    /// The peer gave a sign of life that is no message: a ping or a pong.
    Alive,
    /// The peer did what the protocol forbids.
    Violation(Violation),
    /// The authenticator's answer to [`Command::Verify`].
    Verified(Result<Identity, CredentialError>),
    /// The store's answer to [`Command::Store`], for every ledger command but a release.
    Stored(Outcome),
    /// The slot was taken away, or the session goes on on another connection. It comes from whoever applied the command
    /// that did it, perhaps before the answer to the session's own.
    Ended(EndReason),
    /// The wall clock has reached [`Session::expires_at`](super::Session::expires_at).
    Expired,
    /// The server is going down.
    Draining,
    /// The peer has left: its close frame arrived, or the socket is lost.
    Disconnected,
    /// The [`Session::deadline`](super::Session::deadline) has passed. An early tick does nothing.
    Tick,
}

/// What a peer may do that ends the connection. After any of these the stream cannot be read any further, but can
/// still be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A frame against RFC 6455: reserved bits, an unmasked frame, a stray continuation, …
    Protocol,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// A message above the configured size.
    MessageTooBig,
    /// A binary message, which this protocol has no use for.
    BinaryMessage,
}

/// Who a verified credential belongs to, and what it says about its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// How many sessions the user may hold, if the credential says so.
    pub limit: Option<SlotLimit>,
    /// When the credential runs out, and with it a session that was let in with it. Only one that runs out can be
    /// followed by another.
    pub expires: Option<UnixSeconds>,
    /// Which device it was made for. It goes before what the client says.
    pub device: Option<DisplayName>,
    /// What the slot can be taken up with: drawn at random by whoever drives the session, for a client that says more than
    /// who it is. Without it the slot cannot be.
    pub resume_token: Option<ResumeToken>,
}

impl Identity {
    /// The identity that is nothing but a user: for as long as the connection lasts, under whatever limit is in force.
    #[must_use]
    pub const fn for_user(user: UserId) -> Self {
        Self { user, limit: None, expires: None, device: None, resume_token: None }
    }
}

/// What is to be done, in this order: submit the command, send the frame, close.
///
/// Destructure it whole, so that a field added later does not compile until it is served.
#[must_use = "actions not carried out are lost"]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actions {
    /// To submit, not to await: its answer comes back as an event. A release has no answer.
    pub effect: Option<Effect>,
    /// To send.
    pub send: Option<Frame>,
    /// To close the connection with, after what was sent. Nothing is sent after it.
    pub close: Option<CloseReason>,
}

/// Work for somebody else than the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the authenticator who this is. Answered by [`Event::Verified`].
    Verify(Credential),
    /// Ask the store. Answered by [`Event::Stored`], but for a release, or a slot that is to linger: those are handed over
    /// for good ([`ledger::Command::gives_up`]), whatever becomes of them is for [`ReleaseTracker`](crate::Debts).
    Store(ledger::StoreCommand),
}

/// What goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Message(ServerMessage),
    /// A WebSocket ping (RFC 6455 §5.5.2) without data.
    Ping,
}
