//! Speak the protocol: JSON text frames `{"type": …, "payload": …}`, keys in that order.
//!
//! | direction | type | payload |
//! |---|---|---|
//! | server | `HELLO` | `"message from server"` |
//! | client | `AUTHENTICATE` | the credential, a string; or an object with `user` or `token`, and the [options](AuthenticateOptions) `device`, `label`, `resume`, `if_not_resumed`, `wait_ms`, `evict` |
//! | server | `AUTHENTICATE_SUCCESS` | the user, `{"id":"…","connections":n}`; with [details](AuthenticateSuccessDetails) if the client sent an object |
//! | server | `AUTHENTICATE_WAITING` | the [place in line](WaitingDetails) of a client that asked to wait; a success or a failure follows |
//! | server | `AUTHENTICATE_FAILURE` | the [reason](AuthenticateFailure) in words; with [details](AuthenticateFailureDetails) if the client sent an object |
//! | client | `BYE` | `null`, or no payload |
//! | server | `BYE_SUCCESS` | `null`, then the server closes |
//! | client | `CHECK_CONNECTIONS` | `null`, or no payload |
//! | server | `CHECK_CONNECTIONS_SUCCESS` | the user |
//! | client | `LIST_SESSIONS` | `null`, or no payload; or `{"watch":true}` or `{"watch":false}`, to be told of changes or not |
//! | server | `LIST_SESSIONS_SUCCESS` | the [sessions](SessionList) that hold the user's slots |
//! | server | `SESSIONS_CHANGED` | the sessions, for a client that watches |
//! | client | `END_SESSION` | the slot, or the id, of another session of the user |
//! | server | `END_SESSION_SUCCESS` | the user |
//! | client | `PING` | `null`, or no payload |
//! | server | `PONG` | `null` |
//! | server | `EVICTED` | who ended the session, in words; with [details](EvictedDetails) to a client that speaks at length; then the server closes |
//! | server | `ERROR` | the [error](RequestError) in words; with [details](ErrorDetails) to a client that speaks at length |
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
mod close;

pub use close::{CloseReason, Reconnect, SlotAfter};
pub use error::{
    AuthenticateFailure, AuthenticateOptionsError, CredentialError, EvictedCode, RequestError, TokenError,
};
pub use reply::{
    AuthenticateFailureDetails, AuthenticateSuccessDetails, ErrorDetails, EvictedDetails, EvictedSummary, Greeting,
    SUBPROTOCOL, ServerMessage, ServerMessageError, SessionList, SessionSummary, StatusWord, UserSummary,
    WaitingDetails,
};
pub use request::{AuthenticateOptions, ClientMessage, Credential};
