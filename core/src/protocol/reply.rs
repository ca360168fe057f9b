//! The messages of the server.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::error::{AuthenticateFailure, EvictedCode, RequestError};
use crate::id::{DisplayName, ResumeToken, SessionId, SlotId, UserId};
use crate::ledger::{Resumption, SessionRecord, SessionStatus, SlotLimit, SlotUsage};

mod encoding;

/// The name of the WebSocket subprotocol (RFC 6455 §1.9). A client that offers it reads the details of each message. A later
/// version would have another name: a client offers those that it speaks, and the server selects the first that it knows.
pub const SUBPROTOCOL: &str = "sessions.v1";

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
    /// The session has no slot yet, and waits in line for one. Comes again when its place or the user's sessions change. A
    /// success or a failure follows.
    AuthenticateWaiting(Box<WaitingDetails>),
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
    /// The user's sessions have changed, for a client that [watches](super::ClientMessage::ListSessions). At most once in
    /// [`Session::WATCH_INTERVAL`](crate::session::Session::WATCH_INTERVAL).
    SessionsChanged(Box<SessionList>),
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
    pub const FEATURES: [&str; 7] = ["object", "slots", "resume", "evict", "ping", "wait", "watch"];
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
    /// Keys of the request that the server ignored. It does not name more than a few.
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
    /// How many sessions wait in line, if the limit was reached.
    pub waiting: u16,
    /// Whether the client wanted to wait in line, and as many wait as may.
    pub is_line_full: bool,
}

/// The place of a client in line, and the slots that it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDetails {
    /// Its place. The first in line has place 1.
    pub place: u16,
    /// How long it may still wait, in whole milliseconds. Then a failure follows.
    pub wait: Duration,
    /// The limit in force.
    pub limit: SlotLimit,
    /// The number of slots that the user holds.
    pub connections: u32,
    /// The sessions that hold them, as in [`AuthenticateFailureDetails::sessions`].
    pub sessions: Option<Box<[SessionSummary]>>,
    /// The time until a slot becomes free by itself, if the server knows it, in whole milliseconds.
    pub retry_after: Option<Duration>,
    /// Whether the client may authenticate again with [`Evict`](crate::ledger::Evict).
    pub client_choice: bool,
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
            waiting: 0,
            is_line_full: false,
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
    /// How many sessions wait in line for a slot. Only a client that speaks at length is told, and only if there are any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u16,
    /// The sessions that hold them, oldest first. At most [`SessionList::MAX_SHOWN`].
    pub sessions: Box<[SessionSummary]>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u16) -> bool {
    *number == 0
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
    /// A session as a client that speaks at length sees it, or an operator. `asker` is the session of that client.
    #[must_use]
    pub fn detailed(record: &SessionRecord, asker: Option<SessionId>) -> Self {
        Self { slot: Some(record.slot), is_own: asker == Some(record.session), ..Self::from(record) }
    }
}

impl SessionSummary {
    /// What to name the session by: its slot, or its id if the server does not tell the slot.
    #[must_use]
    pub fn name(&self) -> SessionId {
        self.slot.map_or(self.id, SlotId::first_session)
    }

    /// Whether this id names the session: by its id, or by its slot.
    #[must_use]
    pub fn is_named(&self, id: SessionId) -> bool {
        self.id == id || self.name() == id
    }
}

impl AuthenticateSuccessDetails {
    /// A grant of a slot that cannot be resumed, and that says nothing else.
    #[must_use]
    pub fn new(user: UserSummary, limit: SlotLimit, session: SessionId) -> Self {
        Self {
            user,
            limit,
            session,
            slot: SlotId::new(session),
            since: 0,
            resumption: Resumption::NotAsked,
            resume: None,
            linger: Duration::ZERO,
            ping_interval: Duration::ZERO,
            pong_timeout: Duration::ZERO,
            cut_label: None,
            ended: Box::default(),
            ignored: Box::default(),
        }
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
