//! Splits a token and reads its parts strictly.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};
use session_core::ledger::SlotLimit;
use session_core::protocol::{CredentialError, TokenError};

use crate::auth::authenticator::{InvalidClaim, InvalidCredential};
use crate::auth::claim_name::ClaimName;

/// The three parts of a token in its compact form (RFC 7515 §3.1), still encoded.
pub(super) struct TokenParts<'a> {
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
    /// The signed text: the header, a dot and the claims.
    pub(super) signed: &'a str,
}

impl<'a> TokenParts<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        // Five parts are an encrypted token (RFC 7516).
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        Ok(Self { header, claims, signature, signed })
    }
}

/// The relevant fields of a header. Keys that the header contains or links to are ignored.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    pub(super) is_critical: bool,
}

impl Header {
    pub(super) fn read(encoded: &str) -> Result<Self, TokenError> {
        let mut header = object(encoded)?;
        let mut text = |name| match header.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(TokenError::Malformed),
        };
        let (algorithm, key_id) = (text("alg")?.ok_or(TokenError::Malformed)?, text("kid")?);
        Ok(Self { algorithm, key_id, is_critical: header.contains_key("crit") })
    }
}

/// The claims of a token: an object.
#[derive(Debug)]
pub(super) struct Claims(Value);

impl Claims {
    pub(super) fn read(encoded: &str) -> Result<Self, TokenError> {
        object(encoded).map(|claims| Self(Value::Object(claims)))
    }

    /// The value of a claim. `null` means that the claim is not there.
    fn value(&self, name: &ClaimName) -> Option<&Value> {
        name.find(&self.0).filter(|value| !value.is_null())
    }

    /// The error about this claim.
    pub(super) fn invalid(&self, name: &ClaimName, error: CredentialError) -> InvalidCredential {
        let found = match name.find(&self.0) {
            None => "missing",
            Some(Value::Null) => "null",
            Some(Value::Bool(_)) => "boolean",
            Some(Value::Number(_)) => "number",
            Some(Value::String(_)) => "string",
            Some(Value::Array(_)) => "array",
            Some(Value::Object(_)) => "object",
        };
        InvalidCredential { error, claim: Some(InvalidClaim { name: name.as_str().into(), found }), user: None }
    }

    /// The same for an error of the token.
    pub(super) fn invalid_token(&self, name: &ClaimName, error: TokenError) -> InvalidCredential {
        self.invalid(name, CredentialError::Token(error))
    }

    fn wrong_type(&self, name: &ClaimName) -> InvalidCredential {
        self.invalid_token(name, TokenError::ClaimType)
    }

    pub(super) fn text(&self, name: &ClaimName) -> Result<Option<&str>, InvalidCredential> {
        self.value(name).map(|value| value.as_str().ok_or_else(|| self.wrong_type(name))).transpose()
    }

    /// The name of something: a string, or an integer as its decimal text. Databases give ids that are numbers.
    pub(super) fn name(&self, name: &ClaimName) -> Result<Option<Cow<'_, str>>, InvalidCredential> {
        self.value(name).map(|value| name_in(value).ok_or_else(|| self.wrong_type(name))).transpose()
    }

    /// A string, or an array of strings (RFC 7519 §4.1.3).
    pub(super) fn texts(&self, name: &ClaimName) -> Result<Vec<&str>, InvalidCredential> {
        let text = |value| Value::as_str(value).ok_or_else(|| self.wrong_type(name));
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(text).collect(),
            Some(value) => text(value).map(|text| vec![text]),
        }
    }

    /// A NumericDate (RFC 7519 §2), cut to whole seconds. Any number is one: those beyond a `u64` count as its bounds.
    pub(super) fn seconds(&self, name: &ClaimName) -> Result<Option<u64>, InvalidCredential> {
        let read = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(saturate));
        self.value(name).map(|value| read(value).ok_or_else(|| self.wrong_type(name))).transpose()
    }

    /// A number of slots: a whole number, `"unlimited"`, or a string that spells a whole number. Some providers make every
    /// claim a string. Numbers above the maximum mean "unlimited", too.
    pub(super) fn limit(&self, name: &ClaimName) -> Result<Option<SlotLimit>, InvalidCredential> {
        let read = |value: &Value| match value {
            Value::String(text) if text == "unlimited" => Some(SlotLimit::MAX),
            Value::String(text) => serde_json::from_str(text).ok().and_then(|number| capped(&number)),
            Value::Number(number) => capped(number),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let invalid = || self.invalid_token(name, TokenError::Limit);
        self.value(name).map(|value| read(value).ok_or_else(invalid)).transpose()
    }

    /// The claims as indented JSON.
    pub(super) fn pretty(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("parsed JSON serialises again")
    }
}

fn name_in(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => integer_text(number).map(Cow::Owned),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// 2^50. The parser rounds a number that is written with a fraction to within a few units in the last place. Below this
/// bound that is less than one, so no two integers become the same.
const FIRST_INEXACT: f64 = 1_125_899_906_842_624.0;

/// The decimal text of an integer, also of one that is written as `42.0`. `None` if the number was rounded when it was
/// parsed: two users would have the same id.
fn integer_text(number: &Number) -> Option<String> {
    if number.is_u64() || number.is_i64() {
        return Some(number.to_string());
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let exact = |number: f64| (number.fract() == 0.0 && number.abs() < FIRST_INEXACT).then_some(number as i64);
    number.as_f64().and_then(exact).map(|integer| integer.to_string())
}

/// A whole number as a limit, at most the maximum.
fn capped(number: &Number) -> Option<SlotLimit> {
    let whole = |number: f64| (number.fract() == 0.0 && number >= 0.0).then(|| saturate(number));
    let slots = number.as_u64().or_else(|| number.as_f64().and_then(whole))?;
    Some(u32::try_from(slots).ok().and_then(|slots| SlotLimit::new(slots).ok()).unwrap_or(SlotLimit::MAX))
}

/// The number without its fraction, from 0 to the maximum.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that is what it is for")]
fn saturate(number: f64) -> u64 {
    number as u64
}

/// Whether the text is, or was meant to be, a token, or has one in it. A token has three or more parts between dots, and the
/// first one decodes to a JSON object. A user id that a person chose does not.
pub(super) fn looks_like_token(text: &str) -> bool {
    // Words such as `Authorization: Bearer` may precede the token, quotation marks may enclose it, anything may follow it.
    text.split(|char: char| !(char.is_ascii_alphanumeric() || "-_.".contains(char))).any(is_token)
}

fn is_token(word: &str) -> bool {
    let mut parts = word.split('.');
    let header = parts.next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    parts.count() >= 2 && header.is_some_and(|header| serde_json::from_slice::<Map<String, Value>>(&header).is_ok())
}

/// Reads a JSON object in base64url (RFC 4648 §5) without padding. A duplicate key is an error, because two readers could
/// choose different values (RFC 7519 §4, RFC 8725 §2.4).
fn object(encoded: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Malformed)?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(TokenError::Malformed);
    }
    match serde_json::from_slice(&bytes) {
        Ok(UniqueKeys(Value::Object(object))) => Ok(object),
        Err(error) if error.classify() == Category::Data => Err(TokenError::DuplicateClaim),
        Ok(_) | Err(_) => Err(TokenError::Malformed),
    }
}

/// A JSON value without duplicate keys, also in the objects inside it: a nested claim may decide as well.
struct UniqueKeys(Value);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut array = Vec::new();
                while let Some(UniqueKeys(item)) = items.next_element()? {
                    array.push(item);
                }
                Ok(array.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((key, UniqueKeys(value))) = entries.next_entry()? {
                    if object.insert(key, value).is_some() {
                        return Err(A::Error::custom("duplicate key"));
                    }
                }
                Ok(object.into())
            }
        }

        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}
