//! Speak the protocol: JSON text frames `{"type": …, "payload": …}`, keys in that order.
//!
#![doc = include_str!("messages.md")]
//!
//! The types of the payloads: [`UserSummary`], [`SessionList`], [`AuthenticateOptions`]; and for a client that speaks at length
//! [`AuthenticateSuccessDetails`], [`AuthenticateFailureDetails`], [`WaitingDetails`], [`EvictedDetails`] and [`ErrorDetails`]. The
//! table is in code: [`MESSAGES`].
//!
//! A client *speaks at length* once it has sent an `AUTHENTICATE` with an object, or if it selected the subprotocol
//! [`SUBPROTOCOL`]; then the `HELLO` is a [`Greeting`] too. Every other client gets the same bytes as from the first version.
//!
//! A user's id is a [`UserId`](crate::UserId). Every byte of it counts, so ids that look alike are different users, unless
//! the server maps them to one. It answers with the id that counts. The [`CloseReason`] says whether a client reconnects.
//!
//! A client writes [`ClientMessage`]s and parses [`ServerMessage`]s; a server does the reverse. Both directions are here, so
//! that server and client cannot disagree. Parsing is total: any text gives a message or an error, in time and space linear
//! in its length.

mod request;
mod reply;
mod error;
mod failure_codes;
mod close;
mod messages;

pub use close::{CloseReason, Reconnect, SlotAfter};
pub use error::{
    AuthenticateFailure, AuthenticateOptionsError, CredentialError, EvictedCode, RequestError, TokenError,
};
pub use messages::{MESSAGES, MessageType, Sender};
pub use reply::{
    AuthenticateFailureDetails, AuthenticateSuccessDetails, ErrorDetails, EvictedDetails, EvictedSummary, Greeting,
    SUBPROTOCOL, ServerMessage, ServerMessageError, SessionList, SessionSummary, StatusWord, UserSummary,
    WaitingDetails,
};
pub use request::{AuthenticateOptions, ClientMessage, Credential};
