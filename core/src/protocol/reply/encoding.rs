//! The messages of the server as JSON, and back.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{
    AuthenticateFailureDetails, AuthenticateSuccessDetails, ErrorDetails, EvictedDetails, EvictedSummary, Greeting,
    SUBPROTOCOL, ServerMessage, ServerMessageError, SessionSummary, UserSummary, WaitingDetails, is_zero,
};
use crate::id::{DisplayName, ResumeToken, SessionId, SlotId, UserId};
use crate::ledger::{NotResumed, Resumption, SlotLimit};
use crate::protocol::error::{AuthenticateFailure, EvictedCode, RequestError};

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

/// A detailed failure or error on the wire.
#[derive(Default, Serialize)]
struct FailureFields<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    payload: Cow<'a, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_resumed: Option<NotResumed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<&'a [SessionSummary]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    choice: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    choose_within_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    waiting: u16,
    /// `"full"` if the client could not wait in line.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<&'static str>,
}

/// A place in line on the wire.
#[derive(Serialize, Deserialize)]
struct WaitingFields<'a> {
    place: u16,
    wait_ms: u64,
    limit: u32,
    connections: u32,
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
                    waiting,
                    is_line_full,
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
                    sessions: sessions.as_deref(),
                    retry_after_ms: retry_after.map(millis),
                    choice: *client_choice,
                    choose_within_ms: choose_within.map(millis),
                    waiting: *waiting,
                    line: is_line_full.then_some("full"),
                };
                write(&fields)
            }
            Self::ByeSuccess => r#"{"type":"BYE_SUCCESS","payload":null}"#.into(),
            Self::CheckConnectionsSuccess(user) => frame("CHECK_CONNECTIONS_SUCCESS", user),
            Self::ListSessionsSuccess(sessions) => frame("LIST_SESSIONS_SUCCESS", sessions),
            Self::SessionsChanged(sessions) => frame("SESSIONS_CHANGED", sessions),
            Self::AuthenticateWaiting(details) => {
                let WaitingDetails { place, wait, limit, connections, sessions, retry_after, client_choice } =
                    &**details;
                let fields = WaitingFields {
                    place: *place,
                    wait_ms: millis(*wait),
                    limit: limit.slots(),
                    connections: *connections,
                    sessions: sessions.as_deref().map(Cow::Borrowed),
                    retry_after_ms: retry_after.map(millis),
                    choice: *client_choice,
                };
                frame("AUTHENTICATE_WAITING", &fields)
            }
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
                write(&FailureFields {
                    kind: "ERROR",
                    payload: error.message(),
                    code: error.code(),
                    field: error.field(),
                    sessions: sessions.as_deref(),
                    ..FailureFields::default()
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
            waiting: u16,
            #[serde(default)]
            line: Option<serde_json::Value>,
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
        let Envelope {
            retry_after_ms,
            choice: client_choice,
            choose_within_ms,
            authenticate_within_ms,
            waiting,
            line,
            ..
        } = envelope;
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
                    waiting,
                    is_line_full: line.is_some_and(|line| line == "full"),
                })))
            }
            "BYE_SUCCESS" => Ok(Self::ByeSuccess),
            "CHECK_CONNECTIONS_SUCCESS" => user(payload).map(Self::CheckConnectionsSuccess),
            "LIST_SESSIONS_SUCCESS" => of_object().and_then(|()| read(payload)).map(Self::ListSessionsSuccess),
            "SESSIONS_CHANGED" => of_object().and_then(|()| read(payload)).map(Self::SessionsChanged),
            "AUTHENTICATE_WAITING" => {
                of_object()?;
                parse_waiting(payload).map(|details| Self::AuthenticateWaiting(Box::new(details)))
            }
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

fn parse_waiting(payload: serde_json::Value) -> Result<WaitingDetails, ServerMessageError> {
    let WaitingFields { place, wait_ms, limit, connections, sessions, retry_after_ms, choice } = read(payload)?;
    Ok(WaitingDetails {
        place,
        wait: Duration::from_millis(wait_ms),
        limit: SlotLimit::new(limit).map_err(malformed)?,
        connections,
        sessions: sessions.map(|sessions| sessions.into_owned().into()),
        retry_after: retry_after_ms.map(Duration::from_millis),
        client_choice: choice,
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
