//! The wire protocol: JSON text frames `{"type": …, "payload": …}`, keys in that order.
//!
//! | direction | type | payload |
//! |---|---|---|
//! | server | `HELLO` | `"message from server"` |
//! | client | `AUTHENTICATE` | the credential, a string or `{"token":"…"}` |
//! | server | `AUTHENTICATE_SUCCESS` | the user, `{"id":"…","connections":n}` |
//! | server | `AUTHENTICATE_FAILURE` | why, in words ([`Refusal`]) |
//! | client | `BYE` | `null`, or none |
//! | server | `BYE_SUCCESS` | `null`, then the server closes |
//! | client | `CHECK_CONNECTIONS` | `null`, or none |
//! | server | `CHECK_CONNECTIONS_SUCCESS` | the user |
//! | server | `ERROR` | what was wrong, in words ([`Complaint`]) |
//!
//! Both directions are parsed and written here, so that a server and a client cannot disagree. Parsing is total:
//! any text gives a message or a [`Complaint`], in time and space linear in its length.

mod request;
mod reply;
mod refusal;
mod close;

pub use close::CloseReason;
pub use refusal::{Complaint, Refusal, Rejection, TokenError};
pub use reply::{Reply, ReplyError, User};
pub use request::{Credential, Request};
