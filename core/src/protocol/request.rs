//! What a client may say, and the total parser of it.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Map;
use serde_json::error::Category;

use super::error::{AskError, Complaint};
use crate::id::{Name, SessionId};
use crate::ledger::Evict;
use crate::resume_token::ResumeToken;

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Asks for a slot. The payload is no object.
    Authenticate(Credential),
    /// Asks for a slot, and for more than that: the payload is an object, and so the credential is no
    /// [`Credential::Text`]. Whoever says so is answered at more length.
    AuthenticateWith(Credential, Box<Ask>),
    /// Asks who the session's user is and how many slots that user holds.
    CheckConnections,
    /// Asks who holds the slots of the session's user.
    ListSessions,
    /// Asks for another session of the same user to be ended.
    EndSession(SessionId),
    /// Gives the slot back and asks to be closed.
    Bye,
}

/// What a client shows to be let in, not yet verified: a user id where authentication is open, else a token. Whether
/// it is any good is for the authenticator to say.
///
/// It may be a secret, so it is never printed: `{:?}` shows its length alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// None: the payload was missing, or neither a string nor an object with a `user` or a `token` that is one.
    None,
    /// The payload, a string.
    Text(Box<str>),
    /// The payload, an object: its `user`.
    User(Box<str>),
    /// The payload, an object: its `token`.
    Token(Box<str>),
}

/// What a client asks for beside a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ask {
    /// Which device it runs on.
    pub device: Option<Name>,
    /// What it calls itself, for people.
    pub label: Option<Name>,
    /// The token of a slot that it wants to take up again.
    pub resume: Option<ResumeToken>,
    /// Whom to end, if there is no other way.
    pub evict: Option<Evict>,
}

impl Credential {
    /// The credential `text`, whatever it says, as a plain string.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// What the client sent, if it can be a user id: a string, or the `user` of an object.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Text(user) | Self::User(user) => Some(user),
            Self::None | Self::Token(_) => None,
        }
    }

    /// What the client sent, if it can be a token: a string, or the `token` of an object.
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

impl Request {
    /// Parses one text frame.
    ///
    /// Keys other than `type` and `payload`, and those of a payload that mean nothing, are ignored. One that means something
    /// and is given twice is refused, because two readers could differ about which one counts.
    ///
    /// # Errors
    /// The complaint to answer with.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
            Category::Data => Complaint::KeyTwice,
            Category::Io | Category::Syntax | Category::Eof => Complaint::NotJson,
        })?;
        let Frame::Object { kind, payload } = frame else { return Err(Complaint::NotAnObject) };
        let kind = match kind {
            Value::Missing | Value::Null => return Err(Complaint::NoType),
            Value::Text(kind) => kind,
            Value::Object(_) | Value::Other => return Err(Complaint::TypeNotText),
        };
        let has_payload = !matches!(payload, Value::Missing | Value::Null);
        match &*kind {
            "AUTHENTICATE" => match payload {
                Value::Text(text) => Ok(Self::Authenticate(Credential::new(&text))),
                Value::Object(fields) => fields.read().map_err(Complaint::BadAsk),
                Value::Missing | Value::Null | Value::Other => Ok(Self::Authenticate(Credential::None)),
            },
            "END_SESSION" => match payload {
                Value::Text(id) => SessionId::parse(&id).map(Self::EndSession).ok_or(Complaint::BadSessionId),
                Value::Missing | Value::Null | Value::Object(_) | Value::Other => Err(Complaint::BadSessionId),
            },
            "CHECK_CONNECTIONS" | "LIST_SESSIONS" | "BYE" if has_payload => Err(Complaint::UnwantedPayload),
            "CHECK_CONNECTIONS" => Ok(Self::CheckConnections),
            "LIST_SESSIONS" => Ok(Self::ListSessions),
            "BYE" => Ok(Self::Bye),
            unknown => Err(Complaint::unknown_type(unknown)),
        }
    }

    /// The text frame that says this.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Authenticate(credential) => authenticate(&credential.encode()),
            Self::AuthenticateWith(credential, ask) => {
                let payload = credential.encode();
                let mut fields = if let serde_json::Value::Object(fields) = payload { fields } else { Map::new() };
                ask.encode(&mut fields);
                authenticate(&fields.into())
            }
            Self::CheckConnections => r#"{"type":"CHECK_CONNECTIONS","payload":null}"#.into(),
            Self::ListSessions => r#"{"type":"LIST_SESSIONS","payload":null}"#.into(),
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

impl Ask {
    fn encode(&self, fields: &mut Map<String, serde_json::Value>) {
        let Self { device, label, resume, evict } = self;
        for (key, name) in [("device", device), ("label", label)] {
            if let Some(name) = name {
                fields.insert(key.into(), name.as_str().into());
            }
        }
        if let Some(resume) = resume {
            fields.insert("resume".into(), resume.text().into());
        }
        match evict {
            None => {}
            Some(Evict::Oldest) => {
                fields.insert("evict".into(), "oldest".into());
            }
            Some(Evict::Nobody) => {
                fields.insert("evict".into(), "nobody".into());
            }
            Some(Evict::These(sessions)) => {
                let sessions: Vec<_> =
                    sessions.iter().map(|session| serde_json::json!(alloc::format!("{session}"))).collect();
                fields.insert("evict".into(), sessions.into());
            }
        }
    }
}

/// The fields of an object that mean something.
#[derive(Default)]
struct Fields<'a> {
    user: Field<'a>,
    token: Field<'a>,
    device: Field<'a>,
    label: Field<'a>,
    resume: Field<'a>,
    evict: Field<'a>,
}

impl<'a> Fields<'a> {
    fn named(&mut self, key: &str) -> Option<&mut Field<'a>> {
        match key {
            "user" => Some(&mut self.user),
            "token" => Some(&mut self.token),
            "device" => Some(&mut self.device),
            "label" => Some(&mut self.label),
            "resume" => Some(&mut self.resume),
            "evict" => Some(&mut self.evict),
            _ => None,
        }
    }

    fn read(self) -> Result<Request, AskError> {
        let credential = match (self.user, self.token) {
            (Field::Text(_), Field::Text(_)) => return Err(AskError::UserAndToken),
            (Field::Text(user), _) => Credential::User(user.into()),
            (_, Field::Text(token)) => Credential::Token(token.into()),
            (_, _) => Credential::None,
        };
        let name = |field: Field<'_>, error| match field {
            Field::Missing | Field::Null => Ok(None),
            Field::Text(text) => Name::parse(&text).map(Some).ok_or(error),
            Field::List(_) | Field::Other => Err(error),
        };
        let (device, label) = (name(self.device, AskError::Device)?, name(self.label, AskError::Label)?);
        let resume = match self.resume {
            Field::Missing | Field::Null => None,
            Field::Text(text) => Some(ResumeToken::parse(&text).ok_or(AskError::Resume)?),
            Field::List(_) | Field::Other => return Err(AskError::Resume),
        };
        let evict = match self.evict {
            Field::Missing | Field::Null => None,
            Field::Text(text) if text == "oldest" => Some(Evict::Oldest),
            Field::Text(text) if text == "nobody" => Some(Evict::Nobody),
            Field::List(ids) => {
                let ids: Option<Box<[_]>> = ids.iter().map(|id| SessionId::parse(id.as_deref()?)).collect();
                Some(Evict::These(ids.filter(|ids| !ids.is_empty()).ok_or(AskError::Evict)?))
            }
            Field::Text(_) | Field::Other => return Err(AskError::Evict),
        };
        Ok(Request::AuthenticateWith(credential, Box::new(Ask { device, label, resume, evict })))
    }
}

/// The outermost JSON value of a frame.
enum Frame<'a> {
    Object { kind: Value<'a>, payload: Value<'a> },
    Other,
}

/// A JSON value as far as this protocol looks into it.
enum Value<'a> {
    Missing,
    Null,
    Text(Cow<'a, str>),
    Object(Box<Fields<'a>>),
    Other,
}

/// A field of a payload, one level deeper.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Missing,
    Null,
    Text(Cow<'a, str>),
    /// An array: its items, where they are strings. One that is too long is [`Field::Other`].
    List(Vec<Option<Cow<'a, str>>>),
    Other,
}

/// Implements the `visit_*` methods of scalar kinds of JSON values, which are of no interest.
macro_rules! visit_scalars_as {
    ($other:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($other)
        }
    };
}

/// The same for arrays.
macro_rules! visit_items_as {
    ($other:expr) => {
        /// `IgnoredAny` is skipped without recursion, so nesting costs no stack.
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok($other)
        }
    };
}

/// The same for objects.
macro_rules! visit_entries_as {
    ($other:expr) => {
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($other)
        }
    };
}

/// The same for strings, borrowed if they can be, and null.
macro_rules! visit_texts_as {
    ($text:expr, $null:expr) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($null)
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok($text(Cow::Owned(text.into())))
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok($text(Cow::Borrowed(text)))
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Frame<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FrameVisitor;

        impl<'de> Visitor<'de> for FrameVisitor {
            type Value = Frame<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON")
            }

            visit_scalars_as!(Frame::Other);
            visit_items_as!(Frame::Other);

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Frame::Other)
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Frame::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let (mut kind, mut payload) = (Value::Missing, Value::Missing);
                while let Some(Text(key)) = entries.next_key()? {
                    let seen = match &*key {
                        "type" => &mut kind,
                        "payload" => &mut payload,
                        _ => {
                            entries.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if !matches!(seen, Value::Missing) {
                        return Err(A::Error::custom("key given twice"));
                    }
                    *seen = entries.next_value()?;
                }
                Ok(Frame::Object { kind, payload })
            }
        }

        deserializer.deserialize_any(FrameVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            visit_scalars_as!(Value::Other);
            visit_items_as!(Value::Other);
            visit_texts_as!(Value::Text, Value::Null);

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut fields = Box::<Fields<'de>>::default();
                while let Some(Text(key)) = entries.next_key()? {
                    let Some(field) = fields.named(&key) else {
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if !matches!(field, Field::Missing) {
                        return Err(A::Error::custom("key given twice"));
                    }
                    *field = entries.next_value()?;
                }
                Ok(Value::Object(fields))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Field<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            visit_scalars_as!(Field::Other);
            visit_entries_as!(Field::Other);
            visit_texts_as!(Field::Text, Field::Null);

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while texts.len() < Evict::MOST
                    && let Some(Item(text)) = items.next_element()?
                {
                    texts.push(text);
                }
                let is_longer = items.next_element::<IgnoredAny>()?.is_some();
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(if is_longer { Field::Other } else { Field::List(texts) })
            }
        }

        deserializer.deserialize_any(FieldVisitor)
    }
}

/// An item of an array, if it is a string.
struct Item<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;

        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            visit_scalars_as!(Item(None));
            visit_items_as!(Item(None));
            visit_entries_as!(Item(None));
            visit_texts_as!(|text| Item(Some(text)), Item(None));
        }

        deserializer.deserialize_any(ItemVisitor)
    }
}

/// A string, borrowed from the input unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.into())))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}
