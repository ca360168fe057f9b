//! What a client may say, and the total parser of it.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::refusal::Complaint;

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Asks for a slot.
    Authenticate(Credential),
    /// Asks who the session's user is and how many slots that user holds.
    CheckConnections,
    /// Gives the slot back and asks to be closed.
    Bye,
}

/// What a client shows to be let in, not yet verified: a user id where authentication is open, else a token. Whether
/// it is any good is for the authenticator to say.
///
/// It may be a secret, so it is never printed: `{:?}` shows its length alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// None: the payload was missing, or neither a string nor an object with a `token` that is one.
    None,
    /// The payload, a string.
    Text(Box<str>),
    /// The payload, an object: its `token`.
    Token(Box<str>),
}

impl Credential {
    /// The credential `text`, whatever it says, as a plain string.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// What the client sent, if it was a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::None | Self::Token(_) => None,
        }
    }

    /// What the client sent, if it can be a token: a string, or the `token` of an object.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Text(token) | Self::Token(token) => Some(token),
            Self::None => None,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("Credential(none)"),
            Self::Text(text) => write!(f, "Credential({} bytes)", text.len()),
            Self::Token(token) => write!(f, "Credential(token, {} bytes)", token.len()),
        }
    }
}

impl Request {
    /// Parses one text frame.
    ///
    /// Keys other than `type` and `payload` are ignored. One of these two given twice is refused, because two readers
    /// could differ about which one counts.
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
            Value::Object { .. } | Value::Other => return Err(Complaint::TypeNotText),
        };
        match (&*kind, payload) {
            ("AUTHENTICATE", Value::Text(text)) => Ok(Self::Authenticate(Credential::new(&text))),
            ("AUTHENTICATE", Value::Object { token: Some(token) }) => {
                Ok(Self::Authenticate(Credential::Token(token.into())))
            }
            ("AUTHENTICATE", Value::Missing | Value::Null | Value::Object { token: None } | Value::Other) => {
                Ok(Self::Authenticate(Credential::None))
            }
            ("CHECK_CONNECTIONS", Value::Missing | Value::Null) => Ok(Self::CheckConnections),
            ("CHECK_CONNECTIONS", Value::Text(_) | Value::Object { .. } | Value::Other) => {
                Err(Complaint::UnwantedPayload)
            }
            ("BYE", Value::Missing | Value::Null) => Ok(Self::Bye),
            ("BYE", Value::Text(_) | Value::Object { .. } | Value::Other) => Err(Complaint::UnwantedPayload),
            (unknown, _) => Err(Complaint::unknown_type(unknown)),
        }
    }

    /// The text frame that says this.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Authenticate(credential) => {
                let payload = match credential {
                    Credential::None => serde_json::Value::Null,
                    Credential::Text(text) => serde_json::json!(text),
                    Credential::Token(token) => serde_json::json!({ "token": token }),
                };
                alloc::format!(r#"{{"type":"AUTHENTICATE","payload":{payload}}}"#)
            }
            Self::CheckConnections => r#"{"type":"CHECK_CONNECTIONS","payload":null}"#.into(),
            Self::Bye => r#"{"type":"BYE","payload":null}"#.into(),
        }
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
    /// An object, and its `token` if that is a string.
    Object {
        token: Option<Cow<'a, str>>,
    },
    Other,
}

/// Implements the `visit_*` methods of every kind of JSON value that is of no interest.
macro_rules! visit_rest_as {
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

        /// `IgnoredAny` is skipped without recursion, so nesting costs no stack.
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok($other)
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

            visit_rest_as!(Frame::Other);

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
        deserializer.deserialize_any(ValueVisitor { looks_inside: true })
    }
}

struct ValueVisitor {
    /// Whether to look for a `token` in an object. One level deep, so nesting costs no stack.
    looks_inside: bool,
}

impl<'de> DeserializeSeed<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    visit_rest_as!(Value::Other);

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.into())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut token = Value::Missing;
        while let Some(Text(key)) = entries.next_key()? {
            if !self.looks_inside || key != "token" {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            if !matches!(token, Value::Missing) {
                return Err(A::Error::custom("key given twice"));
            }
            token = entries.next_value_seed(Self { looks_inside: false })?;
        }
        let token = if let Value::Text(token) = token { Some(token) } else { None };
        Ok(Value::Object { token })
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
