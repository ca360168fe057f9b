//! The messages of the server.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::error::{AuthenticateFailure, RequestError};
use crate::id::{DisplayName, SessionId, UserId};
use crate::ledger::{SessionRecord, SessionStatus, SlotLimit, SlotUsage};
use crate::resume_token::ResumeToken;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The first message on every connection.
    Hello,
    /// The session has a slot. With the user and the slots held, this one included.
    AuthenticateSuccess(UserSummary),
    /// The session has a slot, for a client that sent an object.
    AuthenticateSuccessDetailed(Box<AuthenticateSuccessDetails>),
    /// The session has no slot.
    AuthenticateFailure(AuthenticateFailure),
    /// The session has no slot, for a client that sent an object.
    AuthenticateFailureDetailed(Box<AuthenticateFailureDetails>),
    /// The release of the slot was submitted. The server closes.
    ByeSuccess,
    /// The user of the session, with the slots held.
    CheckConnectionsSuccess(UserSummary),
    /// The sessions that hold the slots of the session's user.
    ListSessionsSuccess(Box<SessionList>),
    /// The other session was ended. With the user and the slots held.
    EndSessionSuccess(UserSummary),
    /// Another session or the operator ended this session. Says who, in words. The server closes.
    Evicted(Box<str>),
    /// The client's message is invalid, or cannot be served now.
    Error(RequestError),
}

/// A user on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSummary {
    /// The user's id.
    pub id: UserId,
    /// The number of slots that the user holds.
    pub connections: u32,
}

/// The details of a grant, for a client that sent an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticateSuccessDetails {
    /// The user, with the slots held, this one included.
    pub user: UserSummary,
    /// The limit in force.
    pub limit: SlotLimit,
    /// The id of the session. Other sessions end it by this id. It is not a secret.
    pub session: SessionId,
    /// The token with which the client can resume the session on another connection.
    pub resume: Option<ResumeToken>,
    /// The grace period after the session is lost, in whole milliseconds.
    pub linger: Duration,
}

/// The details of a failure, for a client that sent an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticateFailureDetails {
    /// Why. On the wire in words and as [`AuthenticateFailure::code`].
    pub reason: AuthenticateFailure,
    /// The limit in force, if it was reached.
    pub limit: Option<SlotLimit>,
    /// The number of slots that the user holds, if the limit was reached.
    pub connections: Option<u32>,
    /// The sessions that hold them, oldest first. At most [`SessionList::MAX_SHOWN`]. `None` also if the last failure that
    /// listed them on this connection listed the same ones.
    pub sessions: Option<Box<[SessionSummary]>>,
    /// The time until a slot becomes free, if the server knows it, in whole milliseconds.
    pub retry_after: Option<Duration>,
    /// Whether the client may retry with [`Evict`](crate::ledger::Evict).
    pub client_choice: bool,
}

impl AuthenticateFailureDetails {
    /// A failure that says nothing about the user's sessions.
    #[must_use]
    pub const fn new(reason: AuthenticateFailure) -> Self {
        Self { reason, limit: None, connections: None, sessions: None, retry_after: None, client_choice: false }
    }
}

/// The sessions of a user on the wire. The ledger's [`SlotUsage`] in the words of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// The number of slots that the user may hold.
    pub limit: u32,
    /// The number of slots that the user holds.
    pub connections: u32,
    /// The sessions that hold them, oldest first. At most [`SessionList::MAX_SHOWN`].
    pub sessions: Box<[SessionSummary]>,
}

impl SessionList {
    /// The number of sessions shown.
    pub const MAX_SHOWN: usize = SlotUsage::MAX_SHOWN;
}

/// A session on the wire, as other sessions of its user see it. The ledger's [`SessionRecord`] without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionSummary {
    /// The id.
    #[serde(with = "hexadecimal")]
    pub id: SessionId,
    /// The device, if the client named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DisplayName>,
    /// The label, if the client gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<DisplayName>,
    /// When the session took its slot, in milliseconds since the Unix epoch.
    pub since: u64,
    /// Whether the session is live or lingers.
    pub state: StatusWord,
    /// When its grace period ends, if the session lingers, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// The word for a session's status on the wire. The ledger's [`SessionStatus`] also has the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusWord {
    /// It is connected.
    Live,
    /// It was lost, and its client can resume it.
    Lingering,
}

impl From<&SessionRecord> for SessionSummary {
    fn from(record: &SessionRecord) -> Self {
        let (state, until) = match record.status {
            SessionStatus::Live => (StatusWord::Live, None),
            SessionStatus::Lingering { until } => (StatusWord::Lingering, Some(until.millis())),
        };
        let (device, label) = (record.device().cloned(), record.label().cloned());
        Self { id: record.session, device, label, since: record.since.millis(), state, until }
    }
}

mod hexadecimal {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SessionId, D::Error> {
        let digits = Cow::<str>::deserialize(deserializer)?;
        SessionId::parse(&digits).ok_or_else(|| serde::de::Error::custom("not the id of a session"))
    }
}

/// Why a text is not a [`ServerMessage`].
#[derive(Debug, Error)]
pub enum ServerMessageError {
    /// Not JSON, or not an object with a `type` and a `payload`.
    #[error("not a message of the session protocol: {0}")]
    Malformed(serde_json::Error),
    /// A type that this version does not know.
    #[error("unknown message type {0:?}")]
    UnknownType(Box<str>),
}

/// A detailed grant on the wire. A grant without `session` is not detailed.
#[derive(Serialize, Deserialize)]
struct SuccessFields<'a> {
    id: UserId,
    connections: u32,
    limit: u32,
    session: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume: Option<Cow<'a, str>>,
    #[serde(default)]
    linger_ms: u64,
}

/// A detailed failure on the wire.
#[derive(Serialize, Deserialize)]
struct FailureFields<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    payload: Cow<'a, str>,
    code: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sessions: Option<Cow<'a, [SessionSummary]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    choice: bool,
}

impl ServerMessage {
    /// The message as a text frame.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Hello => r#"{"type":"HELLO","payload":"message from server"}"#.into(),
            Self::AuthenticateSuccess(user) => frame("AUTHENTICATE_SUCCESS", user),
            Self::AuthenticateSuccessDetailed(details) => {
                let AuthenticateSuccessDetails {
                    user: UserSummary { id, connections },
                    limit,
                    session,
                    resume,
                    linger,
                } = &**details;
                let fields = SuccessFields {
                    id: id.clone(),
                    connections: *connections,
                    limit: limit.slots(),
                    session: alloc::format!("{session}").into(),
                    resume: resume.map(|token| token.text().into()),
                    linger_ms: millis(*linger),
                };
                frame("AUTHENTICATE_SUCCESS", &fields)
            }
            Self::AuthenticateFailure(failure) => frame("AUTHENTICATE_FAILURE", &failure.message()),
            Self::AuthenticateFailureDetailed(details) => {
                let AuthenticateFailureDetails {
                    reason: failure,
                    limit,
                    connections,
                    sessions,
                    retry_after,
                    client_choice,
                } = &**details;
                let fields = FailureFields {
                    kind: "AUTHENTICATE_FAILURE",
                    payload: failure.message(),
                    code: failure.code(*limit).into(),
                    limit: limit.map(SlotLimit::slots),
                    connections: *connections,
                    sessions: sessions.as_deref().map(Cow::Borrowed),
                    retry_after_ms: retry_after.map(millis),
                    choice: *client_choice,
                };
                write(&fields)
            }
            Self::ByeSuccess => r#"{"type":"BYE_SUCCESS","payload":null}"#.into(),
            Self::CheckConnectionsSuccess(user) => frame("CHECK_CONNECTIONS_SUCCESS", user),
            Self::ListSessionsSuccess(sessions) => frame("LIST_SESSIONS_SUCCESS", sessions),
            Self::EndSessionSuccess(user) => frame("END_SESSION_SUCCESS", user),
            Self::Evicted(words) => frame("EVICTED", words),
            Self::Error(error) => frame("ERROR", &error.message()),
        }
    }

    /// Parses one text frame from a server, as a client does. Unknown keys are ignored.
    ///
    /// # Errors
    /// [`ServerMessageError`] if this version does not understand the message.
    pub fn parse(text: &str) -> Result<Self, ServerMessageError> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(default)]
            payload: serde_json::Value,
            #[serde(default)]
            code: Option<IgnoredAny>,
            #[serde(default)]
            limit: Option<u32>,
            #[serde(default)]
            connections: Option<u32>,
            #[serde(default)]
            sessions: Option<Box<[SessionSummary]>>,
            #[serde(default)]
            retry_after_ms: Option<u64>,
            #[serde(default)]
            choice: bool,
        }

        // Serde would accept an array for a struct.
        let an_object = || ServerMessageError::Malformed(serde::de::Error::custom("expected an object"));
        if !text.trim_start().starts_with('{') {
            return Err(an_object());
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(ServerMessageError::Malformed)?;
        let Envelope { kind, payload, code, limit, connections, sessions, retry_after_ms, choice: client_choice } =
            envelope;
        let is_object = payload.is_object();
        let of_object = || if is_object { Ok(()) } else { Err(an_object()) };
        let user = |payload| of_object().and_then(|()| read::<UserSummary>(payload));
        let words = read::<Box<str>>;
        match &*kind {
            "HELLO" => Ok(Self::Hello),
            "AUTHENTICATE_SUCCESS" if payload.get("session").is_some() => {
                parse_success(payload).map(|details| Self::AuthenticateSuccessDetailed(Box::new(details)))
            }
            "AUTHENTICATE_SUCCESS" => user(payload).map(Self::AuthenticateSuccess),
            "AUTHENTICATE_FAILURE" => {
                let failure = AuthenticateFailure::from_message(words(payload)?);
                if code.is_none() {
                    return Ok(Self::AuthenticateFailure(failure));
                }
                let limit = limit.map(SlotLimit::new).transpose().map_err(malformed)?;
                let retry_after = retry_after_ms.map(Duration::from_millis);
                Ok(Self::AuthenticateFailureDetailed(Box::new(AuthenticateFailureDetails {
                    reason: failure,
                    limit,
                    connections,
                    sessions,
                    retry_after,
                    client_choice,
                })))
            }
            "BYE_SUCCESS" => Ok(Self::ByeSuccess),
            "CHECK_CONNECTIONS_SUCCESS" => user(payload).map(Self::CheckConnectionsSuccess),
            "LIST_SESSIONS_SUCCESS" => of_object().and_then(|()| read(payload)).map(Self::ListSessionsSuccess),
            "END_SESSION_SUCCESS" => user(payload).map(Self::EndSessionSuccess),
            "EVICTED" => words(payload).map(Self::Evicted),
            "ERROR" => Ok(Self::Error(RequestError::from_message(words(payload)?))),
            _ => Err(ServerMessageError::UnknownType(kind.into())),
        }
    }
}

fn parse_success(payload: serde_json::Value) -> Result<AuthenticateSuccessDetails, ServerMessageError> {
    let SuccessFields { id, connections, limit, session, resume, linger_ms } = read(payload)?;
    let invalid = |what| malformed(alloc::format!("{what} makes no sense"));
    Ok(AuthenticateSuccessDetails {
        user: UserSummary { id, connections },
        limit: SlotLimit::new(limit).map_err(malformed)?,
        session: SessionId::parse(&session).ok_or_else(|| invalid("session"))?,
        resume: resume.map(|token| ResumeToken::parse(&token).ok_or_else(|| invalid("resume"))).transpose()?,
        linger: Duration::from_millis(linger_ms),
    })
}

fn read<T: DeserializeOwned>(payload: serde_json::Value) -> Result<T, ServerMessageError> {
    serde_json::from_value(payload).map_err(ServerMessageError::Malformed)
}

fn malformed(why: impl fmt::Display) -> ServerMessageError {
    ServerMessageError::Malformed(serde::de::Error::custom(why))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn frame(kind: &str, payload: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        #[serde(rename = "type")]
        kind: &'a str,
        payload: &'a T,
    }

    write(&Envelope { kind, payload })
}

fn write(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("strings and numbers always serialise")
}
