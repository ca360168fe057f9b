//! The wire protocol: JSON text frames `{"type": …, "payload": …}`, keys in that order.
//!
//! | direction | type | payload |
//! |---|---|---|
//! | server | `HELLO` | `"message from server"` |
//! | client | `AUTHENTICATE` | the credential, a string; or an object ([`AuthenticateOptions`]) with `user` or `token`, and `device`, `label`, `resume`, `evict` |
//! | server | `AUTHENTICATE_SUCCESS` | the user, `{"id":"…","connections":n}`; to whom sent an object more of it ([`AuthenticateSuccessDetails`]) |
//! | server | `AUTHENTICATE_FAILURE` | why, in words ([`AuthenticateFailure`]); to whom sent an object more beside it ([`AuthenticateFailureDetails`]) |
//! | client | `BYE` | `null`, or none |
//! | server | `BYE_SUCCESS` | `null`, then the server closes |
//! | client | `CHECK_CONNECTIONS` | `null`, or none |
//! | server | `CHECK_CONNECTIONS_SUCCESS` | the user |
//! | client | `LIST_SESSIONS` | `null`, or none |
//! | server | `LIST_SESSIONS_SUCCESS` | who holds the user's slots ([`SessionList`]) |
//! | client | `END_SESSION` | the id of another session of the user |
//! | server | `END_SESSION_SUCCESS` | the user |
//! | server | `EVICTED` | who took the slot away, in words; then the server closes |
//! | server | `ERROR` | what was wrong, in words ([`RequestError`]) |
//!
//! Both directions are parsed and written here, so that a server and a client cannot disagree. Parsing is total:
//! any text gives a message or a [`RequestError`], in time and space linear in its length.

mod request;
mod reply;
mod error;
mod close;

pub use close::CloseReason;
pub use error::{AuthenticateFailure, AuthenticateOptionsError, CredentialError, RequestError, TokenError};
pub use reply::{
    AuthenticateFailureDetails, AuthenticateSuccessDetails, ServerMessage, ServerMessageError, SessionInfo,
    SessionList, SessionState, UserSummary,
};
pub use request::{AuthenticateOptions, ClientMessage, Credential};
