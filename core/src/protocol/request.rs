//! The messages of a client.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde_json::Map;
use serde_json::error::Category;

use self::reader::{Field, Fields, Frame, Value};
use super::error::{AuthenticateOptionsError, RequestError};
use crate::id::{DisplayName, ResumeToken, SessionId};
use crate::ledger::Evict;

mod options;
mod reader;

pub use self::options::AuthenticateOptions;

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// Asks for a slot. The payload is not an object.
    Authenticate(Credential),
    /// Asks for a slot with options. The payload is an object, so the credential is never [`Credential::Text`]. The answer is
    /// detailed.
    AuthenticateWith(Credential, Box<AuthenticateOptions>),
    /// Asks for the session's user and the number of slots held.
    CheckConnections,
    /// Asks for the sessions that hold the slots of the session's user. With `true` also to be told when they change
    /// ([`SessionsChanged`](super::ServerMessage::SessionsChanged)), with `false` not to be told any more.
    ListSessions(Option<bool>),
    /// Asks the server to end another session of the same user, named by its id or by its slot.
    EndSession(SessionId),
    /// Asks for a [`Pong`](super::ServerMessage::Pong), at any time. It never reaches the store.
    Ping,
    /// Gives the slot back and asks the server to close.
    Bye,
}

/// What a client authenticates with, not verified: a user id if authentication is open, else a token. The authenticator
/// verifies it.
///
/// It may be a secret, so it is never printed: `{:?}` shows only its length.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// None. The payload was missing, or was neither a string nor an object with a `user` or `token` string.
    None,
    /// The payload, if it was a string.
    Text(Box<str>),
    /// The `user` of the payload, if it was an object.
    User(Box<str>),
    /// The `token` of the payload, if it was an object.
    Token(Box<str>),
}

impl Credential {
    /// A credential from a plain string.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// The part that can be a user id: a string, or the `user` of an object.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Text(user) | Self::User(user) => Some(user),
            Self::None | Self::Token(_) => None,
        }
    }

    /// The part that can be a token: a string, or the `token` of an object.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Text(token) | Self::Token(token) => Some(token),
            Self::None | Self::User(_) => None,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("Credential(none)"),
            Self::Text(text) => write!(f, "Credential({} bytes)", text.len()),
            Self::User(user) => write!(f, "Credential(user, {} bytes)", user.len()),
            Self::Token(token) => write!(f, "Credential(token, {} bytes)", token.len()),
        }
    }
}

impl ClientMessage {
    /// Parses one text frame.
    ///
    /// Unknown keys are ignored. A known key that is given twice is an error, because two parsers could disagree about which
    /// one counts.
    ///
    /// # Errors
    /// [`RequestError`], to answer with.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
            Category::Data => RequestError::DuplicateKey,
            Category::Io | Category::Syntax | Category::Eof => RequestError::NotJson,
        })?;
        let Frame::Object { kind, payload } = frame else { return Err(RequestError::NotAnObject) };
        let kind = match kind {
            Value::Missing | Value::Null => return Err(RequestError::NoType),
            Value::Text(kind) => kind,
            Value::Object(_) | Value::Other => return Err(RequestError::TypeNotText),
        };
        let has_payload = !matches!(payload, Value::Missing | Value::Null);
        match &*kind {
            "AUTHENTICATE" => match payload {
                Value::Text(text) => Ok(Self::Authenticate(Credential::new(&text))),
                Value::Object(fields) => Self::authenticate_with(*fields).map_err(RequestError::BadOptions),
                Value::Missing | Value::Null | Value::Other => Ok(Self::Authenticate(Credential::None)),
            },
            "END_SESSION" => match payload {
                Value::Text(id) => SessionId::parse(&id).map(Self::EndSession).ok_or(RequestError::BadSessionId),
                Value::Missing | Value::Null | Value::Object(_) | Value::Other => Err(RequestError::BadSessionId),
            },
            "LIST_SESSIONS" => match payload {
                Value::Missing | Value::Null => Ok(Self::ListSessions(None)),
                Value::Object(fields) => match fields.watch {
                    Field::Missing | Field::Null => Ok(Self::ListSessions(None)),
                    Field::Bool(watch) => Ok(Self::ListSessions(Some(watch))),
                    Field::Text(_) | Field::Number(_) | Field::List(_) | Field::Other => Err(RequestError::BadWatch),
                },
                Value::Text(_) | Value::Other => Err(RequestError::UnwantedPayload),
            },
            "CHECK_CONNECTIONS" | "PING" | "BYE" if has_payload => Err(RequestError::UnwantedPayload),
            "CHECK_CONNECTIONS" => Ok(Self::CheckConnections),
            "PING" => Ok(Self::Ping),
            "BYE" => Ok(Self::Bye),
            unknown => Err(RequestError::unknown_type(unknown)),
        }
    }

    fn authenticate_with(fields: Fields<'_>) -> Result<Self, AuthenticateOptionsError> {
        let credential = match (fields.user, fields.token) {
            (Field::Text(_), Field::Text(_)) => return Err(AuthenticateOptionsError::UserAndToken),
            (Field::Text(user), _) => Credential::User(user.into()),
            (_, Field::Text(token)) => Credential::Token(token.into()),
            (_, _) => Credential::None,
        };
        let device = match fields.device {
            Field::Missing | Field::Null => None,
            // It says what counts together, so it is not cut.
            Field::Text(text) => Some(DisplayName::parse(&text).ok_or(AuthenticateOptionsError::Device)?),
            Field::Bool(_) | Field::Number(_) | Field::List(_) | Field::Other => {
                return Err(AuthenticateOptionsError::Device);
            }
        };
        let (label, is_label_cut) = match fields.label {
            Field::Missing | Field::Null => (None, false),
            Field::Text(text) => {
                let (label, is_cut) = DisplayName::parse_cut(&text).ok_or(AuthenticateOptionsError::Label)?;
                (Some(label), is_cut)
            }
            Field::Bool(_) | Field::Number(_) | Field::List(_) | Field::Other => {
                return Err(AuthenticateOptionsError::Label);
            }
        };
        let resume = match fields.resume {
            Field::Missing | Field::Null => None,
            Field::Text(text) => Some(ResumeToken::parse(&text).ok_or(AuthenticateOptionsError::Resume)?),
            Field::Bool(_) | Field::Number(_) | Field::List(_) | Field::Other => {
                return Err(AuthenticateOptionsError::Resume);
            }
        };
        let evict = match fields.evict {
            Field::Missing | Field::Null => None,
            Field::Text(text) if text == "oldest" => Some(Evict::Oldest),
            Field::Text(text) if text == "nobody" => Some(Evict::Nobody),
            Field::List(ids) => {
                let ids: Option<Box<[_]>> = ids.iter().map(|id| SessionId::parse(id.as_deref()?)).collect();
                Some(Evict::Sessions(ids.filter(|ids| !ids.is_empty()).ok_or(AuthenticateOptionsError::Evict)?))
            }
            Field::Bool(_) | Field::Number(_) | Field::Text(_) | Field::Other => {
                return Err(AuthenticateOptionsError::Evict);
            }
        };
        let must_resume = match fields.if_not_resumed {
            Field::Missing | Field::Null => false,
            Field::Text(text) if text == "acquire" => false,
            Field::Text(text) if text == "refuse" => true,
            Field::Bool(_) | Field::Number(_) | Field::Text(_) | Field::List(_) | Field::Other => {
                return Err(AuthenticateOptionsError::IfNotResumed);
            }
        };
        let wait = match fields.wait_ms {
            Field::Missing | Field::Null | Field::Number(0) => None,
            Field::Number(millis) => Some(Duration::from_millis(millis).min(AuthenticateOptions::MAX_WAIT)),
            Field::Bool(_) | Field::Text(_) | Field::List(_) | Field::Other => {
                return Err(AuthenticateOptionsError::WaitMs);
            }
        };
        let mut ignored = fields.ignored;
        if !matches!(fields.watch, Field::Missing) {
            ignored.push("watch".into());
        }
        let ignored = ignored.into();
        let options = AuthenticateOptions { device, label, resume, evict, must_resume, wait, is_label_cut, ignored };
        Ok(Self::AuthenticateWith(credential, Box::new(options)))
    }

    /// The message as a text frame.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Authenticate(credential) => authenticate(&credential.encode()),
            Self::AuthenticateWith(credential, options) => {
                let payload = credential.encode();
                let mut fields = if let serde_json::Value::Object(fields) = payload { fields } else { Map::new() };
                options.encode(&mut fields);
                authenticate(&fields.into())
            }
            Self::CheckConnections => r#"{"type":"CHECK_CONNECTIONS","payload":null}"#.into(),
            Self::ListSessions(None) => r#"{"type":"LIST_SESSIONS","payload":null}"#.into(),
            Self::ListSessions(Some(watch)) => {
                alloc::format!(r#"{{"type":"LIST_SESSIONS","payload":{{"watch":{watch}}}}}"#)
            }
            Self::Ping => r#"{"type":"PING","payload":null}"#.into(),
            Self::EndSession(id) => alloc::format!(r#"{{"type":"END_SESSION","payload":"{id}"}}"#),
            Self::Bye => r#"{"type":"BYE","payload":null}"#.into(),
        }
    }
}

fn authenticate(payload: &serde_json::Value) -> String {
    alloc::format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#)
}

impl Credential {
    fn encode(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Text(text) => serde_json::json!(text),
            Self::User(user) => serde_json::json!({ "user": user }),
            Self::Token(token) => serde_json::json!({ "token": token }),
        }
    }
}
