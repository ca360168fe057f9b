//! What a client may say, and the total parser of it.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
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

/// What a client shows to be let in, not yet verified: with open authentication, the user id itself. Whether it is
/// any good is for the authenticator to say.
///
/// It may be a secret, so it is never printed: `{:?}` shows its length alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Option<Box<str>>);

impl Credential {
    /// No credential: the payload was missing, or not a string.
    pub const NONE: Self = Self(None);

    /// The credential `text`, whatever it says.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Some(text.into()))
    }

    /// What the client sent, if it was a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => write!(f, "Credential({} bytes)", text.len()),
            None => f.write_str("Credential(none)"),
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
            Value::Other => return Err(Complaint::TypeNotText),
        };
        match (&*kind, payload) {
            ("AUTHENTICATE", Value::Text(text)) => Ok(Self::Authenticate(Credential::new(&text))),
            ("AUTHENTICATE", Value::Missing | Value::Null | Value::Other) => Ok(Self::Authenticate(Credential::NONE)),
            ("CHECK_CONNECTIONS", Value::Missing | Value::Null) => Ok(Self::CheckConnections),
            ("CHECK_CONNECTIONS", Value::Text(_) | Value::Other) => Err(Complaint::UnwantedPayload),
            ("BYE", Value::Missing | Value::Null) => Ok(Self::Bye),
            ("BYE", Value::Text(_) | Value::Other) => Err(Complaint::UnwantedPayload),
            (unknown, _) => Err(Complaint::unknown_type(unknown)),
        }
    }

    /// The text frame that says this.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Authenticate(credential) => {
                let payload = serde_json::json!(credential.text());
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
        struct ValueVisitor;

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
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }
        }

        deserializer.deserialize_any(ValueVisitor)
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
