//! Splits a token and reads its parts strictly.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};
use session_core::protocol::TokenError;

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

/// The claims of a token.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn read(encoded: &str) -> Result<Self, TokenError> {
        object(encoded).map(Self)
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, TokenError> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(TokenError::ClaimType),
        }
    }

    /// A string, or an array of strings (RFC 7519 §4.1.3).
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&str>, TokenError> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or(TokenError::ClaimType)).collect(),
            Some(value) => value.as_str().map(|text| vec![text]).ok_or(TokenError::ClaimType),
        }
    }

    /// A NumericDate (RFC 7519 §2), cut to whole seconds.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<u64>, TokenError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| value.as_f64().and_then(whole_seconds));
        whole.map(Some).ok_or(TokenError::ClaimType)
    }

    /// The claims as indented JSON.
    pub(super) fn pretty(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("parsed JSON serialises again")
    }
}

fn whole_seconds(seconds: f64) -> Option<u64> {
    /// Up to here an `f64` holds every whole number: some hundred million years.
    const MAX: f64 = 9_007_199_254_740_992.0;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..=MAX).contains(&seconds).then_some(seconds as u64)
}

/// Whether the text is, or was meant to be, a token. It then has three or more parts between dots, and the first one
/// decodes to a JSON object. A user id that a person chose does not.
pub(super) fn looks_like_token(text: &str) -> bool {
    // In an HTTP header `Bearer` precedes the token (RFC 6750 §2.1).
    let text = text.rsplit(char::is_whitespace).next().unwrap_or(text);
    let mut parts = text.split('.');
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
        Ok(UniqueKeys(object)) => Ok(object),
        Err(error) if error.classify() == Category::Data => Err(TokenError::DuplicateClaim),
        Err(_) => Err(TokenError::Malformed),
    }
}

/// A JSON object without duplicate keys. Objects inside its values are not checked.
struct UniqueKeys(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = UniqueKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<UniqueKeys, A::Error> {
                let mut object = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    if object.insert(key, entries.next_value()?).is_some() {
                        return Err(A::Error::custom("duplicate key"));
                    }
                }
                Ok(UniqueKeys(object))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}
