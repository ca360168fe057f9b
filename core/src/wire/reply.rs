//! What the server says: replies, refusals and complaints.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::request::Rejection;
use crate::id::UserId;
use crate::ledger::Cause;

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

/// Why an `AUTHENTICATE` was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The user holds as many slots as the limit allows.
    LimitReached,
    /// The credential names no user.
    Credential(Rejection),
    /// The store certainly did not take the slot, for this cause.
    Store(Cause),
    /// The store did not say whether it took the slot: the session goes without, the slot goes back.
    StoreSilent,
    /// Words that this version does not know. A [`Session`](crate::Session) never says them; a client may hear them.
    Other(Box<str>),
}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// Not JSON (RFC 8259).
    NotJson,
    /// JSON, but not an object.
    NotAnObject,
    /// An object with `type` or `payload` given twice.
    KeyTwice,
    /// An object without a `type`.
    NoType,
    /// A `type` that is not a string.
    TypeNotText,
    /// A `type` that does not exist, cut to [`Complaint::SHOWN_CHARS`] characters.
    UnknownType(Box<str>),
    /// A payload on a message that takes none.
    UnwantedPayload,
    /// `AUTHENTICATE` on a session that has its slot.
    AlreadyAuthenticated,
    /// A request that needs a slot on a session without.
    NotAuthenticated,
    /// A message before the last one was answered.
    Impatient,
    /// A binary message.
    BinaryMessage,
    /// A frame against RFC 6455.
    ProtocolError,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// A message longer than the limit allows.
    MessageTooBig,
    /// The store did not take the question, for this cause; nothing has changed.
    Store(Cause),
    /// The store did not answer the question; nothing has changed.
    StoreSilent,
    /// Words that this version does not know. A [`Session`](crate::Session) never says them; a client may hear them.
    Other(Box<str>),
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

impl Refusal {
    /// What the client is told. [`Refusal::from_words`] reads it back.
    #[must_use]
    pub fn words(&self) -> Cow<'_, str> {
        match self {
            Self::LimitReached => "User has reached connection limit, no more connections allowed".into(),
            Self::Credential(rejection) => rejection.words().into(),
            Self::Store(cause) => cause.words().into(),
            Self::StoreSilent => "The session store did not answer in time, try again later".into(),
            Self::Other(words) => Cow::Borrowed(words),
        }
    }

    /// The refusal that says these words.
    #[must_use]
    pub fn from_words(words: Box<str>) -> Self {
        [Self::LimitReached, Self::StoreSilent]
            .into_iter()
            .chain(Cause::ALL.map(Self::Store))
            .chain(Rejection::ALL.map(Self::Credential))
            .find(|known| known.words() == *words)
            .unwrap_or(Self::Other(words))
    }
}

impl Complaint {
    /// How many characters of an unknown type are shown.
    pub const SHOWN_CHARS: usize = 64;

    /// The complaints whose words are fixed, but for those of a store.
    const FIXED: [Self; 14] = [
        Self::NotJson,
        Self::NotAnObject,
        Self::KeyTwice,
        Self::NoType,
        Self::TypeNotText,
        Self::UnwantedPayload,
        Self::AlreadyAuthenticated,
        Self::NotAuthenticated,
        Self::Impatient,
        Self::BinaryMessage,
        Self::ProtocolError,
        Self::InvalidUtf8,
        Self::MessageTooBig,
        Self::StoreSilent,
    ];

    const UNKNOWN_TYPE: &str = "No such event type ";

    /// The complaint about an unknown type, which it cuts.
    #[must_use]
    pub fn unknown_type(kind: &str) -> Self {
        Self::UnknownType(kind.chars().take(Self::SHOWN_CHARS).collect())
    }

    /// What the client is told. [`Complaint::from_words`] reads it back.
    #[must_use]
    pub fn words(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::NotJson => "Message is not valid JSON",
            Self::NotAnObject => "Message is not a JSON object",
            Self::KeyTwice => "Message has the same key twice",
            Self::NoType => "Message has no type",
            Self::TypeNotText => "Message type is not a string",
            Self::UnknownType(kind) => return alloc::format!("{}{kind}", Self::UNKNOWN_TYPE).into(),
            Self::UnwantedPayload => "This message takes no payload",
            Self::AlreadyAuthenticated => "This session is already authenticated",
            Self::NotAuthenticated => "This session is not authenticated",
            Self::Impatient => "The last message is not answered yet",
            Self::BinaryMessage => "Binary messages are not supported",
            Self::ProtocolError => "That breaks the WebSocket protocol",
            Self::InvalidUtf8 => "Text message is not valid UTF-8",
            Self::MessageTooBig => "Message is too big",
            Self::Store(cause) => cause.words(),
            Self::StoreSilent => "The session store did not answer, try again later",
            Self::Other(words) => words,
        })
    }

    /// The complaint that says these words.
    #[must_use]
    pub fn from_words(words: Box<str>) -> Self {
        if let Some(kind) = words.strip_prefix(Self::UNKNOWN_TYPE) {
            return Self::UnknownType(kind.into());
        }
        let mut known = Self::FIXED.into_iter().chain(Cause::ALL.map(Self::Store));
        known.find(|known| known.words() == *words).unwrap_or(Self::Other(words))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
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

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serialises")
}
