//! What the server says.

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
use crate::ledger::{SessionRecord, SessionStatus, SlotLimit, SlotListing};
use crate::resume_token::ResumeToken;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The first message on every connection.
    Hello,
    /// The session has a slot; the user with the slots held, this one included.
    AuthenticateSuccess(UserSummary),
    /// The same, at length.
    AuthenticateSuccessDetailed(Box<AuthenticateSuccessDetails>),
    /// The session has no slot.
    AuthenticateFailure(AuthenticateFailure),
    /// The same, at length.
    AuthenticateFailureDetailed(Box<AuthenticateFailureDetails>),
    /// The slot is given back; the server closes.
    ByeSuccess,
    /// The user of the session with the slots held.
    CheckConnectionsSuccess(UserSummary),
    /// Who holds the slots of the session's user.
    ListSessionsSuccess(Box<SessionList>),
    /// The other session is ended; the user with the slots held.
    EndSessionSuccess(UserSummary),
    /// The slot was taken away, in words; the server closes.
    Evicted(Box<str>),
    /// The client's message was not understood, or cannot be served now.
    Error(RequestError),
}

/// A user as the wire shows one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSummary {
    /// The user's id.
    pub id: UserId,
    /// How many slots the user holds.
    pub connections: u32,
}

/// What a client is told of its slot that asked at length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticateSuccessDetails {
    /// The user with the slots held, this one included.
    pub user: UserSummary,
    /// The limit in force.
    pub limit: SlotLimit,
    /// The session's id: what others end it by, and no secret.
    pub session: SessionId,
    /// What another connection takes the session up with, once this one is lost.
    pub resume: Option<ResumeToken>,
    /// How long it can then, in whole milliseconds.
    pub linger: Duration,
}

/// What a client is told that asked at length and has no slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticateFailureDetails {
    /// Why. On the wire in words, and as [`AuthenticateFailure::code`].
    pub reason: AuthenticateFailure,
    /// The limit in force, where that is why.
    pub limit: Option<SlotLimit>,
    /// How many slots the user holds, where they are all taken.
    pub connections: Option<u32>,
    /// Who holds them, the oldest first and at most [`SessionList::MAX`].
    pub sessions: Option<Box<[SessionInfo]>>,
    /// When to come back, where a slot is known to be free then, in whole milliseconds.
    pub retry_after: Option<Duration>,
    /// Whether the client may choose whom of these to end, and ask again.
    pub client_choice: bool,
}

/// The sessions of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// How many slots the user may hold.
    pub limit: u32,
    /// How many the user holds.
    pub connections: u32,
    /// Who holds them, the oldest first, at most [`SessionList::MAX`].
    pub sessions: Box<[SessionInfo]>,
}

impl SessionList {
    /// How many are shown.
    pub const MAX_SHOWN: usize = SlotListing::MAX_SHOWN;
}

/// A session as the wire shows one to another of its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    #[serde(with = "hexadecimal")]
    pub id: SessionId,
    /// Which device it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DisplayName>,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<DisplayName>,
    /// When it took its slot, in milliseconds since the Unix epoch.
    pub since: u64,
    /// Whether its client is there.
    pub state: SessionState,
    /// When it will have lingered for its time, if it does, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// Whether the client of a session is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// It is.
    Live,
    /// It is lost, and may come back.
    Lingering,
}

impl From<&SessionRecord> for SessionInfo {
    fn from(hold: &SessionRecord) -> Self {
        let (state, until) = match hold.status {
            SessionStatus::Live => (SessionState::Live, None),
            SessionStatus::Lingering { until } => (SessionState::Lingering, Some(until.millis())),
        };
        let (device, label) = (hold.device().cloned(), hold.label().cloned());
        Self { id: hold.session, device, label, since: hold.since.millis(), state, until }
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
    /// A type this version does not know.
    #[error("unknown message type {0:?}")]
    UnknownType(Box<str>),
}

/// A grant at length, as it is on the wire. Without a `session` it is a short one.
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

/// What stands beside the words of a refusal at length.
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
    sessions: Option<Cow<'a, [SessionInfo]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    choice: bool,
}

impl ServerMessage {
    /// The text frame that says this.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Hello => r#"{"type":"HELLO","payload":"message from server"}"#.into(),
            Self::AuthenticateSuccess(user) => frame("AUTHENTICATE_SUCCESS", user),
            Self::AuthenticateSuccessDetailed(admission) => {
                let AuthenticateSuccessDetails {
                    user: UserSummary { id, connections },
                    limit,
                    session,
                    resume,
                    linger,
                } = &**admission;
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
            Self::AuthenticateFailureDetailed(denial) => {
                let AuthenticateFailureDetails {
                    reason: failure,
                    limit,
                    connections,
                    sessions,
                    retry_after,
                    client_choice: may_choose,
                } = &**denial;
                let fields = FailureFields {
                    kind: "AUTHENTICATE_FAILURE",
                    payload: failure.message(),
                    code: failure.code(*limit).into(),
                    limit: limit.map(SlotLimit::slots),
                    connections: *connections,
                    sessions: sessions.as_deref().map(Cow::Borrowed),
                    retry_after_ms: retry_after.map(millis),
                    choice: *may_choose,
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
    /// [`ReplyError`] when it is not a message this version understands.
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
            sessions: Option<Box<[SessionInfo]>>,
            #[serde(default)]
            retry_after_ms: Option<u64>,
            #[serde(default)]
            choice: bool,
        }

        // To serde an array is as good as a struct.
        let an_object = || ServerMessageError::Malformed(serde::de::Error::custom("expected an object"));
        if !text.trim_start().starts_with('{') {
            return Err(an_object());
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(ServerMessageError::Malformed)?;
        let Envelope { kind, payload, code, limit, connections, sessions, retry_after_ms, choice: may_choose } =
            envelope;
        let is_object = payload.is_object();
        let of_object = || if is_object { Ok(()) } else { Err(an_object()) };
        let user = |payload| of_object().and_then(|()| read::<UserSummary>(payload));
        let words = read::<Box<str>>;
        match &*kind {
            "HELLO" => Ok(Self::Hello),
            "AUTHENTICATE_SUCCESS" if payload.get("session").is_some() => {
                parse_success(payload).map(|admission| Self::AuthenticateSuccessDetailed(Box::new(admission)))
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
                    client_choice: may_choose,
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
    let no = |what| malformed(alloc::format!("{what} makes no sense"));
    Ok(AuthenticateSuccessDetails {
        user: UserSummary { id, connections },
        limit: SlotLimit::new(limit).map_err(malformed)?,
        session: SessionId::parse(&session).ok_or_else(|| no("session"))?,
        resume: resume.map(|token| ResumeToken::parse(&token).ok_or_else(|| no("resume"))).transpose()?,
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
