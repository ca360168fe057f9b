//! Parses the parts of a client's frame that the protocol knows: total, and without recursion.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::options::AuthenticateOptions;
use crate::ledger::Evict;
use crate::protocol::error::RequestError;

/// The outermost JSON value of a frame.
pub(super) enum Frame<'a> {
    Object { kind: Value<'a>, payload: Value<'a> },
    Other,
}

/// A JSON value, with the parts that the protocol knows.
pub(super) enum Value<'a> {
    Missing,
    Null,
    Text(Cow<'a, str>),
    Object(Box<Fields<'a>>),
    Other,
}

/// The known fields of an object.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) user: Field<'a>,
    pub(super) token: Field<'a>,
    pub(super) device: Field<'a>,
    pub(super) label: Field<'a>,
    pub(super) resume: Field<'a>,
    pub(super) evict: Field<'a>,
    pub(super) if_not_resumed: Field<'a>,
    pub(super) wait_ms: Field<'a>,
    pub(super) watch: Field<'a>,
    /// The first unknown keys.
    pub(super) ignored: Vec<Box<str>>,
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
            "if_not_resumed" => Some(&mut self.if_not_resumed),
            "wait_ms" => Some(&mut self.wait_ms),
            "watch" => Some(&mut self.watch),
            _ => None,
        }
    }

    fn ignore(&mut self, key: &str) {
        let shown: Box<str> = key.chars().take(RequestError::SHOWN_CHARS).collect();
        if self.ignored.len() < AuthenticateOptions::MAX_IGNORED && !self.ignored.contains(&shown) {
            self.ignored.push(shown);
        }
    }
}

/// A field of a payload, one level deeper.
#[derive(Default)]
pub(super) enum Field<'a> {
    #[default]
    Missing,
    Null,
    Bool(bool),
    /// A number that is whole and not negative.
    Number(u64),
    Text(Cow<'a, str>),
    /// An array, with `None` for each item that is not a string. An array that is too long is [`Field::Other`].
    List(Vec<Option<Cow<'a, str>>>),
    Other,
}

/// Implements the `visit_*` methods for scalars, which the protocol ignores, but perhaps for two kinds.
macro_rules! visit_scalars_as {
    ($other:expr) => {
        visit_scalars_as!($other, |_| $other, |_| $other);
    };
    ($other:expr, $bool:expr, $number:expr) => {
        fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
            Ok($bool(value))
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($other)
        }

        fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
            Ok($number(value))
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($other)
        }
    };
}

/// Implements `visit_seq`, which ignores the items.
macro_rules! visit_items_as {
    ($other:expr) => {
        /// `IgnoredAny` is skipped without recursion, so nesting costs no stack.
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok($other)
        }
    };
}

/// Implements `visit_map`, which ignores the entries.
macro_rules! visit_entries_as {
    ($other:expr) => {
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($other)
        }
    };
}

/// Implements the `visit_*` methods for null and strings, borrowed if possible.
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
                        fields.ignore(&key);
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

            visit_scalars_as!(Field::Other, Field::Bool, Field::Number);
            visit_entries_as!(Field::Other);
            visit_texts_as!(Field::Text, Field::Null);

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while texts.len() < Evict::MAX
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
