//! The messages of the server.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::SUBPROTOCOL;
use super::error::{AuthenticateFailure, EvictedCode, RequestError};
use crate::id::{DisplayName, SessionId, SlotId, UserId};
use crate::ledger::{NotResumed, Resumption, SessionRecord, SessionStatus, SlotLimit, SlotUsage};
use crate::resume_token::ResumeToken;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The first message on every connection.
    Hello,
    /// The same, for a client that selected the subprotocol.
    HelloDetailed(Greeting),
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
    /// The answer to a [`Ping`](super::ClientMessage::Ping).
    Pong,
    /// Another session or the operator ended this session. Says who, in words. The server closes.
    Evicted(Box<str>),
    /// The same, for a client that speaks at length.
    EvictedDetailed(Box<EvictedDetails>),
    /// The client's message is invalid, or cannot be served now.
    Error(RequestError),
    /// The same, for a client that speaks at length.
    ErrorDetailed(Box<ErrorDetails>),
}

/// What the server says of itself to a client that selected the subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// How long the client may take to authenticate, in whole milliseconds.
    pub authenticate_within: Duration,
}

impl Greeting {
    /// What this version can do beyond the plain protocol, for a client that wants to know before it asks.
    pub const FEATURES: [&str; 5] = ["object", "slots", "resume", "evict", "ping"];
}

/// Why a session was ended, for a client that speaks at length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictedDetails {
    /// Who ended it, in words.
    pub message: Box<str>,
    /// Why.
    pub code: EvictedCode,
    /// The label of the session that ended it or took its slot.
    pub label: Option<DisplayName>,
    /// The device of that session.
    pub device: Option<DisplayName>,
}

/// Why a message is not served, for a client that speaks at length. On the wire also [`RequestError::code`] and
/// [`RequestError::field`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorDetails {
    /// Why.
    pub error: RequestError,
    /// The sessions of the user, if the one that the client named is not among them any more.
    pub sessions: Option<Box<[SessionSummary]>>,
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
    /// The id of the session on this connection. It is not a secret.
    pub session: SessionId,
    /// The name of its slot, which stays when the session is resumed. Other sessions end it by this name. It is not a secret.
    pub slot: SlotId,
    /// When the slot was taken, in milliseconds since the Unix epoch.
    pub since: u64,
    /// What became of the resume token that the client sent.
    pub resumption: Resumption,
    /// The token with which the client can resume the session on another connection.
    pub resume: Option<ResumeToken>,
    /// The grace period after the session is lost, in whole milliseconds.
    pub linger: Duration,
    /// How long the client may be silent before the server sends a ping, in whole milliseconds.
    pub ping_interval: Duration,
    /// How long it may stay silent after that, in whole milliseconds.
    pub pong_timeout: Duration,
    /// The client's label, if it was too long and was cut to this.
    pub cut_label: Option<DisplayName>,
    /// The sessions that were ended for this one.
    pub ended: Box<[EvictedSummary]>,
    /// The keys of the request that the server ignored, as far as it says so.
    pub ignored: Box<[Box<str>]>,
}

/// A session that was ended for another one, as that one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictedSummary {
    /// The slot that it had.
    #[serde(with = "hexadecimal")]
    pub slot: SlotId,
    /// The device, if the client named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DisplayName>,
    /// The label, if the client gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<DisplayName>,
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
    /// How long the client has to authenticate again on this connection, in whole milliseconds. Then the server closes with
    /// [`NotChosen`](super::CloseReason::NotChosen).
    pub choose_within: Option<Duration>,
}

impl AuthenticateFailureDetails {
    /// A failure that says nothing about the user's sessions.
    #[must_use]
    pub const fn new(reason: AuthenticateFailure) -> Self {
        Self {
            reason,
            limit: None,
            connections: None,
            sessions: None,
            retry_after: None,
            client_choice: false,
            choose_within: None,
        }
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
    /// The name of its slot, which stays when the session is resumed. Only a client that speaks at length is told.
    #[serde(default, with = "optional_hexadecimal", skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// Whether it is the session of the client that asks. Only a client that speaks at length is told.
    #[serde(rename = "self", default, skip_serializing_if = "core::ops::Not::not")]
    pub is_own: bool,
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
        let (id, since) = (record.session, record.since.millis());
        Self { id, slot: None, is_own: false, device, label, since, state, until }
    }
}

impl SessionSummary {
    /// A session as a client that speaks at length sees it. `asker` is the session of that client.
    #[must_use]
    pub fn detailed(record: &SessionRecord, asker: SessionId) -> Self {
        Self { slot: Some(record.slot), is_own: record.session == asker, ..Self::from(record) }
    }
}

impl From<SessionId> for SlotId {
    fn from(first: SessionId) -> Self {
        Self::new(first)
    }
}

mod hexadecimal {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, T: From<SessionId>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let digits = Cow::<str>::deserialize(deserializer)?;
        let id = SessionId::parse(&digits).map(T::from);
        id.ok_or_else(|| serde::de::Error::custom("not the id of a session"))
    }
}

mod optional_hexadecimal {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &Option<SlotId>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SlotId>, D::Error> {
        hexadecimal::deserialize(deserializer).map(Some)
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
    /// A server of an earlier version does not say it, as all that follows but `resume` and `linger_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<Cow<'a, str>>,
    #[serde(default)]
    since: u64,
    #[serde(default)]
    resumed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_resumed: Option<NotResumed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume: Option<Cow<'a, str>>,
    #[serde(default)]
    linger_ms: u64,
    #[serde(default)]
    ping_interval_ms: u64,
    #[serde(default)]
    pong_timeout_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut_label: Option<Cow<'a, DisplayName>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    ended: Cow<'a, [EvictedSummary]>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    ignored: Cow<'a, [Box<str>]>,
}

/// A detailed greeting on the wire.
#[derive(Serialize)]
struct GreetingFields {
    #[serde(rename = "type")]
    kind: &'static str,
    payload: &'static str,
    protocol: &'static str,
    features: [&'static str; Greeting::FEATURES.len()],
    authenticate_within_ms: u64,
}

/// A detailed eviction on the wire.
#[derive(Serialize)]
struct EvictedFields<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    payload: &'a str,
    code: EvictedCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a DisplayName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a DisplayName>,
}

/// A detailed error on the wire.
#[derive(Serialize)]
struct ErrorFields<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    payload: Cow<'a, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<&'a [SessionSummary]>,
}

/// A detailed failure on the wire.
#[derive(Serialize)]
struct FailureFields<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    payload: Cow<'a, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_resumed: Option<NotResumed>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    choose_within_ms: Option<u64>,
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
                    slot,
                    since,
                    resumption,
                    resume,
                    linger,
                    ping_interval,
                    pong_timeout,
                    cut_label,
                    ended,
                    ignored,
                } = &**details;
                let (resumed, not_resumed) = match resumption {
                    Resumption::NotAsked => (false, None),
                    Resumption::Resumed => (true, None),
                    Resumption::Failed(why) => (false, Some(*why)),
                };
                let fields = SuccessFields {
                    id: id.clone(),
                    connections: *connections,
                    limit: limit.slots(),
                    session: alloc::format!("{session}").into(),
                    slot: Some(alloc::format!("{slot}").into()),
                    since: *since,
                    resumed,
                    not_resumed,
                    resume: resume.map(|token| token.text().into()),
                    linger_ms: millis(*linger),
                    ping_interval_ms: millis(*ping_interval),
                    pong_timeout_ms: millis(*pong_timeout),
                    cut_label: cut_label.as_ref().map(Cow::Borrowed),
                    ended: Cow::Borrowed(ended),
                    ignored: Cow::Borrowed(ignored),
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
                    choose_within,
                } = &**details;
                let (field, not_resumed) = match failure {
                    AuthenticateFailure::BadOptions(error) => (Some(error.field()), None),
                    AuthenticateFailure::NotResumed(why) => (None, Some(*why)),
                    AuthenticateFailure::LimitReached
                    | AuthenticateFailure::Banned
                    | AuthenticateFailure::DeviceFull
                    | AuthenticateFailure::Gone
                    | AuthenticateFailure::AlreadyAuthenticated
                    | AuthenticateFailure::Credential(_)
                    | AuthenticateFailure::AnotherUser
                    | AuthenticateFailure::AnotherDevice
                    | AuthenticateFailure::NotChecked
                    | AuthenticateFailure::Store(_)
                    | AuthenticateFailure::StoreTimedOut
                    | AuthenticateFailure::Other(_) => (None, None),
                };
                let fields = FailureFields {
                    kind: "AUTHENTICATE_FAILURE",
                    payload: failure.message(),
                    code: failure.code(),
                    field,
                    not_resumed,
                    limit: limit.map(SlotLimit::slots),
                    connections: *connections,
                    sessions: sessions.as_deref().map(Cow::Borrowed),
                    retry_after_ms: retry_after.map(millis),
                    choice: *client_choice,
                    choose_within_ms: choose_within.map(millis),
                };
                write(&fields)
            }
            Self::ByeSuccess => r#"{"type":"BYE_SUCCESS","payload":null}"#.into(),
            Self::CheckConnectionsSuccess(user) => frame("CHECK_CONNECTIONS_SUCCESS", user),
            Self::ListSessionsSuccess(sessions) => frame("LIST_SESSIONS_SUCCESS", sessions),
            Self::EndSessionSuccess(user) => frame("END_SESSION_SUCCESS", user),
            Self::Pong => r#"{"type":"PONG","payload":null}"#.into(),
            Self::Evicted(words) => frame("EVICTED", words),
            Self::EvictedDetailed(details) => {
                let EvictedDetails { message, code, label, device } = &**details;
                let (label, device) = (label.as_ref(), device.as_ref());
                write(&EvictedFields { kind: "EVICTED", payload: message, code: *code, label, device })
            }
            Self::Error(error) => frame("ERROR", &error.message()),
            Self::ErrorDetailed(details) => {
                let ErrorDetails { error, sessions } = &**details;
                write(&ErrorFields {
                    kind: "ERROR",
                    payload: error.message(),
                    code: error.code(),
                    field: error.field(),
                    sessions: sessions.as_deref(),
                })
            }
            Self::HelloDetailed(Greeting { authenticate_within }) => write(&GreetingFields {
                kind: "HELLO",
                payload: "message from server",
                protocol: SUBPROTOCOL,
                features: Greeting::FEATURES,
                authenticate_within_ms: millis(*authenticate_within),
            }),
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
            code: Option<serde_json::Value>,
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
            #[serde(default)]
            choose_within_ms: Option<u64>,
            #[serde(default)]
            label: Option<DisplayName>,
            #[serde(default)]
            device: Option<DisplayName>,
            #[serde(default)]
            authenticate_within_ms: Option<u64>,
        }

        // Serde would accept an array for a struct.
        let an_object = || ServerMessageError::Malformed(serde::de::Error::custom("expected an object"));
        if !text.trim_start().starts_with('{') {
            return Err(an_object());
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(ServerMessageError::Malformed)?;
        let Envelope { kind, payload, code, limit, connections, sessions, label, device, .. } = envelope;
        let Envelope { retry_after_ms, choice: client_choice, choose_within_ms, authenticate_within_ms, .. } = envelope;
        let is_object = payload.is_object();
        let of_object = || if is_object { Ok(()) } else { Err(an_object()) };
        let user = |payload| of_object().and_then(|()| read::<UserSummary>(payload));
        let words = read::<Box<str>>;
        match &*kind {
            "HELLO" => Ok(authenticate_within_ms.map_or(Self::Hello, |millis| {
                Self::HelloDetailed(Greeting { authenticate_within: Duration::from_millis(millis) })
            })),
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
                    choose_within: choose_within_ms.map(Duration::from_millis),
                })))
            }
            "BYE_SUCCESS" => Ok(Self::ByeSuccess),
            "CHECK_CONNECTIONS_SUCCESS" => user(payload).map(Self::CheckConnectionsSuccess),
            "LIST_SESSIONS_SUCCESS" => of_object().and_then(|()| read(payload)).map(Self::ListSessionsSuccess),
            "END_SESSION_SUCCESS" => user(payload).map(Self::EndSessionSuccess),
            "PONG" => Ok(Self::Pong),
            "EVICTED" => {
                let message = words(payload)?;
                // A code of a newer server says no more than the words.
                Ok(match code.and_then(|code| serde_json::from_value(code).ok()) {
                    Some(code) => Self::EvictedDetailed(Box::new(EvictedDetails { message, code, label, device })),
                    None => Self::Evicted(message),
                })
            }
            "ERROR" => {
                let error = RequestError::from_message(words(payload)?);
                Ok(match code {
                    Some(_) => Self::ErrorDetailed(Box::new(ErrorDetails { error, sessions })),
                    None => Self::Error(error),
                })
            }
            _ => Err(ServerMessageError::UnknownType(kind.into())),
        }
    }
}

fn parse_success(payload: serde_json::Value) -> Result<AuthenticateSuccessDetails, ServerMessageError> {
    let SuccessFields {
        id,
        connections,
        limit,
        session,
        slot,
        since,
        resumed,
        not_resumed,
        resume,
        linger_ms,
        ping_interval_ms,
        pong_timeout_ms,
        cut_label,
        ended,
        ignored,
    } = read(payload)?;
    let invalid = |what| malformed(alloc::format!("{what} makes no sense"));
    let session = SessionId::parse(&session).ok_or_else(|| invalid("session"))?;
    let slot = match slot {
        Some(slot) => SessionId::parse(&slot).ok_or_else(|| invalid("slot"))?,
        None => session,
    };
    let resumption = match not_resumed {
        Some(why) => Resumption::Failed(why),
        None if resumed => Resumption::Resumed,
        None => Resumption::NotAsked,
    };
    Ok(AuthenticateSuccessDetails {
        user: UserSummary { id, connections },
        limit: SlotLimit::new(limit).map_err(malformed)?,
        session,
        slot: SlotId::new(slot),
        since,
        resumption,
        resume: resume.map(|token| ResumeToken::parse(&token).ok_or_else(|| invalid("resume"))).transpose()?,
        linger: Duration::from_millis(linger_ms),
        ping_interval: Duration::from_millis(ping_interval_ms),
        pong_timeout: Duration::from_millis(pong_timeout_ms),
        cut_label: cut_label.map(Cow::into_owned),
        ended: ended.into_owned().into(),
        ignored: ignored.into_owned().into(),
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
