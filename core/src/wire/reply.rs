//! What the server says.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::refusal::{Complaint, Refusal};
use crate::id::UserId;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The first message on every connection.
    Hello,
    /// The session has a slot; the user with the slots held, this one included.
    AuthenticateSuccess(User),
    /// The session has no slot.
    AuthenticateFailure(Refusal),
    /// The slot is given back; the server closes.
    ByeSuccess,
    /// The user of the session with the slots held.
    CheckConnectionsSuccess(User),
    /// The client's message was not understood, or cannot be served now.
    Error(Complaint),
}

/// A user as the wire shows one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// How many slots the user holds.
    pub connections: u32,
}

/// Why a text is not a [`Reply`].
#[derive(Debug, Error)]
pub enum ReplyError {
    /// Not JSON, or not an object with a `type` and a `payload`.
    #[error("not a message of the session protocol: {0}")]
    Malformed(serde_json::Error),
    /// A type this version does not know.
    #[error("unknown message type {0:?}")]
    UnknownType(Box<str>),
}

impl Reply {
    /// The text frame that says this.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Hello => r#"{"type":"HELLO","payload":"message from server"}"#.into(),
            Self::AuthenticateSuccess(user) => frame("AUTHENTICATE_SUCCESS", user),
            Self::AuthenticateFailure(refusal) => frame("AUTHENTICATE_FAILURE", &refusal.words()),
            Self::ByeSuccess => r#"{"type":"BYE_SUCCESS","payload":null}"#.into(),
            Self::CheckConnectionsSuccess(user) => frame("CHECK_CONNECTIONS_SUCCESS", user),
            Self::Error(complaint) => frame("ERROR", &complaint.words()),
        }
    }

    /// Parses one text frame from a server, as a client does. Unknown keys are ignored.
    ///
    /// # Errors
    /// [`ReplyError`] when it is not a message this version understands.
    pub fn parse(text: &str) -> Result<Self, ReplyError> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(default)]
            payload: serde_json::Value,
        }

        // To serde an array is as good as a struct.
        let an_object = || ReplyError::Malformed(serde::de::Error::custom("expected an object"));
        if !text.trim_start().starts_with('{') {
            return Err(an_object());
        }
        let Envelope { kind, payload } = serde_json::from_str(text).map_err(ReplyError::Malformed)?;
        let user = |payload: serde_json::Value| {
            if !payload.is_object() {
                return Err(an_object());
            }
            serde_json::from_value::<User>(payload).map_err(ReplyError::Malformed)
        };
        let words = |payload| serde_json::from_value::<Box<str>>(payload).map_err(ReplyError::Malformed);
        match &*kind {
            "HELLO" => Ok(Self::Hello),
            "AUTHENTICATE_SUCCESS" => user(payload).map(Self::AuthenticateSuccess),
            "AUTHENTICATE_FAILURE" => Ok(Self::AuthenticateFailure(Refusal::from_words(words(payload)?))),
            "BYE_SUCCESS" => Ok(Self::ByeSuccess),
            "CHECK_CONNECTIONS_SUCCESS" => user(payload).map(Self::CheckConnectionsSuccess),
            "ERROR" => Ok(Self::Error(Complaint::from_words(words(payload)?))),
            _ => Err(ReplyError::UnknownType(kind.into())),
        }
    }
}

fn frame(kind: &str, payload: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        #[serde(rename = "type")]
        kind: &'a str,
        payload: &'a T,
    }

    serde_json::to_string(&Envelope { kind, payload }).expect("strings and numbers always serialise")
}
