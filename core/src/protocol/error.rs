//! Why the server denies a slot, rejects a credential or does not serve a message; and what it tells an ended session.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::UserIdError;
use crate::ledger::{EndReason, NotResumed, SessionNames, StoreError};

/// Why an `AUTHENTICATE` failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticateFailure {
    /// The user holds as many slots as the limit allows.
    LimitReached,
    /// The user may hold no session: the limit is 0. To a client that sends plain strings it is [`Self::LimitReached`].
    Banned,
    /// The device has as many sessions as it may.
    DeviceFull,
    /// A session that the client chose to evict is not there any more, and no slot is free.
    Gone,
    /// The session cannot be resumed, and the client wants no other slot.
    NotResumed(NotResumed),
    /// The object of the `AUTHENTICATE` is invalid.
    BadOptions(AuthenticateOptionsError),
    /// The session has its slot, and a credential that needs no renewal.
    AlreadyAuthenticated,
    /// The credential was rejected.
    Credential(CredentialError),
    /// The credential is valid, but this session belongs to another user.
    AnotherUser,
    /// The credential is valid, but this session belongs to another device of the user.
    AnotherDevice,
    /// The credential was not checked: not in time, or the keys for it are not there yet. Nobody knows whether it is valid.
    NotChecked,
    /// The store rejected the command.
    Store(StoreError),
    /// The store did not answer in time. The session has no slot; if the store took one, it is released.
    StoreTimedOut,
    /// A text that this version does not know. Only a client gets it, from a newer server.
    Other(Box<str>),
}

/// Why a credential was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialError {
    /// It is missing or not a string.
    NotText,
    /// It is not a valid user id.
    UserId(UserIdError),
    /// It is a token, but the server expects user ids. A token is a secret and a user id is not, so it is not taken for one.
    UnwantedToken,
    /// It is a token that is not valid here.
    Token(TokenError),
}

/// Why a token is not valid. The messages help a developer and reveal nothing about the server's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenError {
    /// There is no token.
    Missing,
    /// It is not a JSON Web Signature in compact form (RFC 7515 §3.1), or one of its parts is malformed.
    Malformed,
    /// Its header does not name the configured algorithm.
    Algorithm,
    /// Its header requires an extension that this server does not have (RFC 7515 §4.1.11).
    Critical,
    /// Its header names no key, and the server has several.
    NoKeyId,
    /// Its header names an unknown key.
    UnknownKey,
    /// Its signature is not valid for the key.
    Signature,
    /// A claim or a header parameter is there twice.
    DuplicateClaim,
    /// It has no `exp` claim.
    NoExpiry,
    /// It has expired (RFC 7519 §4.1.4).
    Expired,
    /// It is not valid yet (RFC 7519 §4.1.5).
    NotYetValid,
    /// It is for another audience (RFC 7519 §4.1.3).
    Audience,
    /// It is from another issuer (RFC 7519 §4.1.1).
    Issuer,
    /// A claim has the wrong type.
    ClaimType,
    /// The claim that names the user is missing.
    NoUser,
    /// The claimed limit is neither a whole number from 0 to [`SlotLimit::MAX`](crate::ledger::SlotLimit::MAX) nor `"unlimited"`.
    Limit,
    /// The claimed device is not a [`DisplayName`](crate::DisplayName).
    Device,
    /// The claim that names the device is missing.
    NoDevice,
}

impl TokenError {
    /// Every error.
    pub const ALL: [Self; 18] = [
        Self::Missing,
        Self::Malformed,
        Self::Algorithm,
        Self::Critical,
        Self::NoKeyId,
        Self::UnknownKey,
        Self::Signature,
        Self::DuplicateClaim,
        Self::NoExpiry,
        Self::Expired,
        Self::NotYetValid,
        Self::Audience,
        Self::Issuer,
        Self::ClaimType,
        Self::NoUser,
        Self::Limit,
        Self::Device,
        Self::NoDevice,
    ];

    /// What a client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Missing => "AUTHENTICATE needs a token as its payload, a string or {\"token\": a string}",
            Self::Malformed => "Token is not a signed JSON Web Token",
            Self::Algorithm => "Token is not signed with the algorithm that this server accepts",
            Self::Critical => "Token needs an extension that this server does not have",
            Self::NoKeyId => "Token does not say which key it was signed with (kid)",
            Self::UnknownKey => "Token was signed with a key that this server does not know",
            Self::Signature => "Token's signature is not valid",
            Self::DuplicateClaim => "Token says the same thing twice",
            Self::NoExpiry => "Token does not say when it expires (exp)",
            Self::Expired => "Token has expired",
            Self::NotYetValid => "Token is not valid yet",
            Self::Audience => "Token is meant for another audience",
            Self::Issuer => "Token is from another issuer",
            Self::ClaimType => "A claim of the token has the wrong type",
            Self::NoUser => "Token does not say who its user is",
            Self::Limit => "The limit that the token claims is neither a whole number from 0 to 1024 nor \"unlimited\"",
            Self::Device => {
                "The device that the token names is not a string of 1 to 64 characters without control characters"
            }
            Self::NoDevice => "Token does not say which device it is for",
        }
    }
}

impl CredentialError {
    /// Every error except those of tokens.
    const OPEN: [Self; 6] = [
        Self::NotText,
        Self::UnwantedToken,
        Self::UserId(UserIdError::Empty),
        Self::UserId(UserIdError::TooLong),
        Self::UserId(UserIdError::ControlCharacter),
        Self::UserId(UserIdError::NotUsername),
    ];

    /// What a client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::NotText => "AUTHENTICATE needs a user id as its payload, a string",
            Self::UserId(error) => error.message(),
            Self::UnwantedToken => "This server takes user ids, not tokens: its authentication is open",
            Self::Token(error) => error.message(),
        }
    }
}

/// Why the server does not serve a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// Not JSON (RFC 8259).
    NotJson,
    /// JSON, but not an object.
    NotAnObject,
    /// An object with `type` or `payload` given twice.
    DuplicateKey,
    /// An object without a `type`.
    NoType,
    /// A `type` that is not a string.
    TypeNotText,
    /// A `type` that does not exist, cut to [`RequestError::SHOWN_CHARS`] characters.
    UnknownType(Box<str>),
    /// A payload on a message that takes none.
    UnwantedPayload,
    /// An `AUTHENTICATE` with an invalid object.
    BadOptions(AuthenticateOptionsError),
    /// An `END_SESSION` without a session id.
    BadSessionId,
    /// A `LIST_SESSIONS` whose `watch` is neither true nor false.
    BadWatch,
    /// An `END_SESSION` of a session that the user does not have.
    NoSuchSession,
    /// An `END_SESSION` of the session that sends it.
    OwnSession,
    /// `AUTHENTICATE` on a session that has its slot.
    AlreadyAuthenticated,
    /// A request that needs a slot, on a session without one.
    NotAuthenticated,
    /// A message before the last one was answered.
    RequestPending,
    /// A binary message.
    BinaryMessage,
    /// A frame against RFC 6455.
    ProtocolError,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// A message longer than the limit allows.
    MessageTooBig,
    /// The store rejected the command. Nothing has changed.
    Store(StoreError),
    /// The store did not answer in time.
    StoreTimedOut,
    /// A text that this version does not know. Only a client gets it, from a newer server.
    Other(Box<str>),
}

/// What is wrong with the object of an `AUTHENTICATE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthenticateOptionsError {
    /// It has a user and a token.
    UserAndToken,
    /// `device` is not a [`DisplayName`](crate::DisplayName).
    Device,
    /// `label` is not a [`DisplayName`](crate::DisplayName).
    Label,
    /// `resume` is not a [`ResumeToken`](crate::ResumeToken).
    Resume,
    /// `evict` is not `"oldest"`, `"nobody"` or a list of sessions.
    Evict,
    /// `if_not_resumed` is neither `"refuse"` nor `"acquire"`.
    IfNotResumed,
    /// `wait_ms` is not a whole number.
    WaitMs,
}

impl AuthenticateOptionsError {
    /// Every error.
    pub const ALL: [Self; 7] =
        [Self::UserAndToken, Self::Device, Self::Label, Self::Resume, Self::Evict, Self::IfNotResumed, Self::WaitMs];

    /// The field that is wrong.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::UserAndToken => "token",
            Self::Device => "device",
            Self::Label => "label",
            Self::Resume => "resume",
            Self::Evict => "evict",
            Self::IfNotResumed => "if_not_resumed",
            Self::WaitMs => "wait_ms",
        }
    }

    /// What a client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::UserAndToken => "AUTHENTICATE takes a user or a token, not both",
            Self::Device => "device must be a string of 1 to 64 characters without control characters",
            Self::Label => "label must be a string without control characters, and not empty",
            Self::Resume => "resume must be a token from an earlier grant, 64 hexadecimal digits",
            Self::Evict => "evict must be \"oldest\", \"nobody\" or a list of 1 to 100 ids of slots or sessions",
            Self::IfNotResumed => "if_not_resumed must be \"refuse\" or \"acquire\"",
            Self::WaitMs => "wait_ms must be a whole number of milliseconds",
        }
    }
}

impl AuthenticateFailure {
    /// What the client is told. [`AuthenticateFailure::from_message`] parses it.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::LimitReached => "User has reached connection limit, no more connections allowed".into(),
            Self::Banned => "This user may hold no session".into(),
            Self::DeviceFull => "This device has as many sessions as one may".into(),
            Self::Gone => "A session that was to be evicted is not there any more".into(),
            Self::NotResumed(NotResumed::Expired) => "Cannot resume: the grace period of the session is over".into(),
            Self::NotResumed(NotResumed::Taken) => "Cannot resume: the slot of the session was taken away".into(),
            Self::NotResumed(NotResumed::Unknown) => "Cannot resume: no session has this token".into(),
            Self::BadOptions(error) => error.message().into(),
            Self::AlreadyAuthenticated => RequestError::ALREADY_AUTHENTICATED.into(),
            Self::Credential(error) => error.message().into(),
            Self::NotChecked => "The credential cannot be checked now, try again later".into(),
            Self::AnotherUser => "This session belongs to another user".into(),
            Self::AnotherDevice => "This session belongs to another device".into(),
            Self::Store(cause) => cause.message().into(),
            Self::StoreTimedOut => "The session store did not answer in time, try again later".into(),
            Self::Other(words) => Cow::Borrowed(words),
        }
    }

    /// The failure as a code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LimitReached => "limit_reached",
            Self::Banned => "banned",
            Self::DeviceFull => "device_full",
            Self::Gone => "gone",
            Self::NotResumed(_) => "not_resumed",
            Self::BadOptions(_) => "bad_request",
            Self::AlreadyAuthenticated => "already_authenticated",
            Self::Credential(_) => "credential_refused",
            Self::NotChecked => "not_checked",
            Self::AnotherUser => "another_user",
            Self::AnotherDevice => "another_device",
            Self::Store(_) | Self::StoreTimedOut => "store_unavailable",
            Self::Other(_) => "other",
        }
    }

    /// The failure with this message.
    #[must_use]
    pub fn from_message(message: Box<str>) -> Self {
        let tokens = TokenError::ALL.map(CredentialError::Token);
        let plain = [
            Self::LimitReached,
            Self::Banned,
            Self::DeviceFull,
            Self::Gone,
            Self::AlreadyAuthenticated,
            Self::NotChecked,
            Self::StoreTimedOut,
            Self::AnotherUser,
            Self::AnotherDevice,
        ];
        plain
            .into_iter()
            .chain(NotResumed::ALL.map(Self::NotResumed))
            .chain(AuthenticateOptionsError::ALL.map(Self::BadOptions))
            .chain(StoreError::ALL.map(Self::Store))
            .chain(CredentialError::OPEN.into_iter().chain(tokens).map(Self::Credential))
            .find(|known| known.message() == *message)
            .unwrap_or(Self::Other(message))
    }
}

impl RequestError {
    /// The number of characters of an unknown type that are shown.
    pub const SHOWN_CHARS: usize = 64;

    /// The errors with fixed messages, except those of a store.
    const FIXED: [Self; 18] = [
        Self::NotJson,
        Self::NotAnObject,
        Self::DuplicateKey,
        Self::NoType,
        Self::TypeNotText,
        Self::UnwantedPayload,
        Self::BadSessionId,
        Self::BadWatch,
        Self::NoSuchSession,
        Self::OwnSession,
        Self::AlreadyAuthenticated,
        Self::NotAuthenticated,
        Self::RequestPending,
        Self::BinaryMessage,
        Self::ProtocolError,
        Self::InvalidUtf8,
        Self::MessageTooBig,
        Self::StoreTimedOut,
    ];

    const UNKNOWN_TYPE: &str = "No such event type ";
    const ALREADY_AUTHENTICATED: &str = "This session is already authenticated";

    /// The error for an unknown type. Cuts the type to [`RequestError::SHOWN_CHARS`].
    #[must_use]
    pub fn unknown_type(kind: &str) -> Self {
        Self::UnknownType(kind.chars().take(Self::SHOWN_CHARS).collect())
    }

    /// What the client is told. [`RequestError::from_message`] parses it.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::NotJson => "Message is not valid JSON",
            Self::NotAnObject => "Message is not a JSON object",
            Self::DuplicateKey => "Message has the same key twice",
            Self::NoType => "Message has no type",
            Self::TypeNotText => "Message type is not a string",
            Self::UnknownType(kind) => return alloc::format!("{}{kind}", Self::UNKNOWN_TYPE).into(),
            Self::UnwantedPayload => "This message takes no payload",
            Self::BadOptions(error) => error.message(),
            Self::BadSessionId => "END_SESSION needs the id of a session as its payload, 32 hexadecimal digits",
            Self::BadWatch => "watch must be true or false",
            Self::NoSuchSession => "This user has no such session",
            Self::OwnSession => "A session ends itself with BYE",
            Self::AlreadyAuthenticated => Self::ALREADY_AUTHENTICATED,
            Self::NotAuthenticated => "This session is not authenticated",
            Self::RequestPending => "The last message is not answered yet",
            Self::BinaryMessage => "Binary messages are not supported",
            Self::ProtocolError => "That breaks the WebSocket protocol",
            Self::InvalidUtf8 => "Text message is not valid UTF-8",
            Self::MessageTooBig => "Message is too big",
            Self::Store(cause) => cause.message(),
            Self::StoreTimedOut => "The session store did not answer, try again later",
            Self::Other(words) => words,
        })
    }

    /// The error as a code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateKey => "duplicate_key",
            Self::NoType => "no_type",
            Self::TypeNotText => "type_not_text",
            Self::UnknownType(_) => "unknown_type",
            Self::UnwantedPayload => "unwanted_payload",
            Self::BadOptions(_) => "bad_request",
            Self::BadSessionId => "bad_session_id",
            Self::BadWatch => "bad_request",
            Self::NoSuchSession => "gone",
            Self::OwnSession => "own_session",
            Self::AlreadyAuthenticated => "already_authenticated",
            Self::NotAuthenticated => "not_authenticated",
            Self::RequestPending => "request_pending",
            Self::BinaryMessage => "binary_message",
            Self::ProtocolError => "protocol_error",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MessageTooBig => "message_too_big",
            Self::Store(_) | Self::StoreTimedOut => "store_unavailable",
            Self::Other(_) => "other",
        }
    }

    /// The field of the message that is wrong, if it is one.
    #[must_use]
    pub const fn field(&self) -> Option<&'static str> {
        match self {
            Self::NoType | Self::TypeNotText | Self::UnknownType(_) => Some("type"),
            Self::UnwantedPayload | Self::BadSessionId => Some("payload"),
            Self::BadOptions(error) => Some(error.field()),
            Self::BadWatch => Some("watch"),
            Self::NotJson
            | Self::NotAnObject
            | Self::DuplicateKey
            | Self::NoSuchSession
            | Self::OwnSession
            | Self::AlreadyAuthenticated
            | Self::NotAuthenticated
            | Self::RequestPending
            | Self::BinaryMessage
            | Self::ProtocolError
            | Self::InvalidUtf8
            | Self::MessageTooBig
            | Self::Store(_)
            | Self::StoreTimedOut
            | Self::Other(_) => None,
        }
    }

    /// The error with this message.
    #[must_use]
    pub fn from_message(message: Box<str>) -> Self {
        if let Some(kind) = message.strip_prefix(Self::UNKNOWN_TYPE) {
            return Self::UnknownType(kind.into());
        }
        let asks = AuthenticateOptionsError::ALL.map(Self::BadOptions);
        let mut known = Self::FIXED.into_iter().chain(StoreError::ALL.map(Self::Store)).chain(asks);
        known.find(|known| known.message() == *message).unwrap_or(Self::Other(message))
    }
}

impl EndReason {
    /// What the client of the ended session is told.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match (self, self.names().and_then(SessionNames::display_name)) {
            (Self::TakenOver(_) | Self::DeviceFull(_), Some(by)) => {
                alloc::format!("{by} has taken the place of this session").into()
            }
            (Self::TakenOver(_) | Self::DeviceFull(_), None) => {
                "Another session of this user has taken the place of this one".into()
            }
            (Self::ByUser(_), Some(by)) => alloc::format!("{by} has ended this session").into(),
            (Self::ByUser(_), None) => "Another session of this user has ended this one".into(),
            (Self::ByOperator | Self::LimitLowered | Self::Banned, _) => "The operator has ended this session".into(),
            (Self::Resumed | Self::Contested, _) => "This session goes on on another connection".into(),
        }
    }

    /// The reason as a code for programs.
    #[must_use]
    pub const fn code(&self) -> EvictedCode {
        match self {
            Self::TakenOver(_) | Self::Resumed | Self::Contested => EvictedCode::Taken,
            Self::DeviceFull(_) => EvictedCode::DeviceFull,
            Self::ByUser(_) => EvictedCode::EndedByUser,
            Self::ByOperator => EvictedCode::Operator,
            Self::LimitLowered => EvictedCode::LimitLowered,
            Self::Banned => EvictedCode::Banned,
        }
    }
}

/// Why a session was ended, as a code for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvictedCode {
    /// Another session took the slot.
    Taken,
    /// Another session of the user ended this one.
    EndedByUser,
    /// The operator ended it.
    Operator,
    /// The operator has banned the user: the limit is 0 now.
    Banned,
    /// The operator has lowered the limit of the user.
    LimitLowered,
    /// Another session of its device took its place: the device had as many as it may.
    DeviceFull,
}

/// Each prints its message.
macro_rules! errors {
    ($($error:ty),+) => {$(
        impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.message())
            }
        }

        impl core::error::Error for $error {}
    )+};
}

errors!(AuthenticateFailure, CredentialError, TokenError, RequestError, AuthenticateOptionsError);
