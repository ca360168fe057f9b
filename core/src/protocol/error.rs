//! What the server says no with: a refusal of a slot, a rejection of a credential, a complaint about a message.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::fmt;

use crate::id::UserIdError;
use crate::ledger::{EndReason, SlotLimit, StoreError};

/// Why an `AUTHENTICATE` was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticateFailure {
    /// The user holds as many slots as the limit allows.
    LimitReached,
    /// The device has as many sessions as one may.
    DeviceFull,
    /// The credential names no user.
    Credential(CredentialError),
    /// The credential is good, but of another user than the one whose session this is.
    AnotherUser,
    /// The store certainly did not take the slot, for this cause.
    Store(StoreError),
    /// The store did not say whether it took the slot: the session goes without, the slot goes back.
    StoreTimedOut,
    /// Words that this version does not know. A [`Session`](crate::Session) never says them; a client may hear them.
    Other(Box<str>),
}

/// Why a credential names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialError {
    /// It is missing, or not a string.
    NotText,
    /// It is not a user id.
    UserId(UserIdError),
    /// It is a token where user ids are asked for. Tokens are secrets, user ids are not: so it is not taken for one.
    UnwantedToken,
    /// It is no token that lets anybody in.
    Token(TokenError),
}

/// Why a token lets nobody in. The words help an honest developer and tell nothing about the server's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenError {
    /// There is none.
    Missing,
    /// It is not a JSON Web Signature in its compact form (RFC 7515 §3.1), or its parts are not what they must be.
    Malformed,
    /// Its header names another algorithm than the one that is configured, or none.
    Algorithm,
    /// Its header asks for an extension that this server does not have (RFC 7515 §4.1.11).
    Critical,
    /// Its header names no key, and there are several.
    NoKeyId,
    /// Its header names a key that is not here.
    UnknownKey,
    /// It was not signed with this key.
    Signature,
    /// A claim, or a parameter of its header, stands in it twice.
    DuplicateClaim,
    /// It has no `exp`.
    NoExpiry,
    /// Its time is over (RFC 7519 §4.1.4).
    Expired,
    /// Its time has not come (RFC 7519 §4.1.5).
    NotYetValid,
    /// It is meant for somebody else (RFC 7519 §4.1.3).
    Audience,
    /// It is from somebody else (RFC 7519 §4.1.1).
    Issuer,
    /// A claim does not have the type that it must have.
    ClaimType,
    /// The claim that is to name the user is not there.
    NoUser,
    /// The limit that it claims is neither a whole number from 0 to [`Limit::MAX`](crate::Limit::MAX) nor `"unlimited"`.
    Limit,
    /// The device that it names is no [`DisplayName`](crate::Name).
    Device,
    /// The claim that is to name the device is not there.
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
                "The device that the token names is not a string of 1 to 64 bytes without control characters"
            }
            Self::NoDevice => "Token does not say which device it is for",
        }
    }
}

impl CredentialError {
    /// Every rejection but those of tokens.
    const OPEN: [Self; 5] = [
        Self::NotText,
        Self::UnwantedToken,
        Self::UserId(UserIdError::Empty),
        Self::UserId(UserIdError::TooLong),
        Self::UserId(UserIdError::ControlCharacter),
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

/// What is wrong with a message.
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
    /// An `AUTHENTICATE` whose payload is an object that makes no sense.
    BadOptions(AuthenticateOptionsError),
    /// An `END_SESSION` without a session's id.
    BadSessionId,
    /// An `END_SESSION` of a session that the user does not have, or no longer.
    NoSuchSession,
    /// An `END_SESSION` of the session that says it.
    OwnSession,
    /// `AUTHENTICATE` on a session that has its slot.
    AlreadyAuthenticated,
    /// A request that needs a slot on a session without.
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
    /// The store did not take the question, for this cause; nothing has changed.
    Store(StoreError),
    /// The store did not answer the question; nothing has changed.
    StoreTimedOut,
    /// Words that this version does not know. A [`Session`](crate::Session) never says them; a client may hear them.
    Other(Box<str>),
}

/// What is wrong with the payload of an `AUTHENTICATE` that is an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthenticateOptionsError {
    /// It has both a user and a token.
    UserAndToken,
    /// `device` is no [`DisplayName`](crate::Name).
    Device,
    /// `label` is no [`DisplayName`](crate::Name).
    Label,
    /// `resume` is no [`ResumeToken`](crate::ResumeToken).
    Resume,
    /// `evict` is neither `"oldest"` nor a list of sessions.
    Evict,
}

impl AuthenticateOptionsError {
    /// Every error.
    pub const ALL: [Self; 5] = [Self::UserAndToken, Self::Device, Self::Label, Self::Resume, Self::Evict];

    /// What a client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::UserAndToken => "AUTHENTICATE takes a user or a token, not both",
            Self::Device => "device must be a string of 1 to 64 bytes without control characters",
            Self::Label => "label must be a string of 1 to 64 bytes without control characters",
            Self::Resume => "resume must be a token from an earlier grant, 64 hexadecimal digits",
            Self::Evict => "evict must be \"oldest\", \"nobody\" or a list of 1 to 100 session ids",
        }
    }
}

impl AuthenticateFailure {
    /// What the client is told. [`AuthenticateFailure::from_words`] reads it back.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::LimitReached => "User has reached connection limit, no more connections allowed".into(),
            Self::DeviceFull => "This device has as many sessions as one may".into(),
            Self::Credential(error) => error.message().into(),
            Self::AnotherUser => "This session belongs to another user".into(),
            Self::Store(cause) => cause.message().into(),
            Self::StoreTimedOut => "The session store did not answer in time, try again later".into(),
            Self::Other(words) => Cow::Borrowed(words),
        }
    }

    /// The same for a program. `limit` is the limit in force, where it is known.
    #[must_use]
    pub fn code(&self, limit: Option<SlotLimit>) -> &'static str {
        match self {
            Self::LimitReached if limit.is_some_and(|limit| limit.slots() == 0) => "banned",
            Self::LimitReached => "limit_reached",
            Self::DeviceFull => "device_full",
            Self::Credential(_) => "credential_refused",
            Self::AnotherUser => "another_user",
            Self::Store(_) | Self::StoreTimedOut => "store_unavailable",
            Self::Other(_) => "other",
        }
    }

    /// The refusal that says these words.
    #[must_use]
    pub fn from_message(words: Box<str>) -> Self {
        let tokens = TokenError::ALL.map(CredentialError::Token);
        [Self::LimitReached, Self::DeviceFull, Self::StoreTimedOut, Self::AnotherUser]
            .into_iter()
            .chain(StoreError::ALL.map(Self::Store))
            .chain(CredentialError::OPEN.into_iter().chain(tokens).map(Self::Credential))
            .find(|known| known.message() == *words)
            .unwrap_or(Self::Other(words))
    }
}

impl RequestError {
    /// How many characters of an unknown type are shown.
    pub const SHOWN_CHARS: usize = 64;

    /// The complaints whose words are fixed, but for those of a store.
    const FIXED: [Self; 17] = [
        Self::NotJson,
        Self::NotAnObject,
        Self::DuplicateKey,
        Self::NoType,
        Self::TypeNotText,
        Self::UnwantedPayload,
        Self::BadSessionId,
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

    /// The complaint about an unknown type, which it cuts.
    #[must_use]
    pub fn unknown_type(kind: &str) -> Self {
        Self::UnknownType(kind.chars().take(Self::SHOWN_CHARS).collect())
    }

    /// What the client is told. [`RequestError::from_words`] reads it back.
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
            Self::NoSuchSession => "This user has no such session",
            Self::OwnSession => "A session ends itself with BYE",
            Self::AlreadyAuthenticated => "This session is already authenticated",
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

    /// The complaint that says these words.
    #[must_use]
    pub fn from_message(words: Box<str>) -> Self {
        if let Some(kind) = words.strip_prefix(Self::UNKNOWN_TYPE) {
            return Self::UnknownType(kind.into());
        }
        let asks = AuthenticateOptionsError::ALL.map(Self::BadOptions);
        let mut known = Self::FIXED.into_iter().chain(StoreError::ALL.map(Self::Store)).chain(asks);
        known.find(|known| known.message() == *words).unwrap_or(Self::Other(words))
    }
}

impl fmt::Display for AuthenticateFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl EndReason {
    /// What the client is told whose session has lost its slot.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::TakenOver(Some(by)) => alloc::format!("{by} has taken the place of this session").into(),
            Self::TakenOver(None) => "Another session of this user has taken the place of this one".into(),
            Self::ByUser(Some(by)) => alloc::format!("{by} has ended this session").into(),
            Self::ByUser(None) => "Another session of this user has ended this one".into(),
            Self::ByOperator => "The operator has ended this session".into(),
            Self::Resumed => "This session goes on on another connection".into(),
        }
    }
}
