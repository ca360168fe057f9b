//! The parts of a token, and the strict reading of them.

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
    /// What was signed: the header and the claims with the point between them.
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

/// What a header says that matters. Keys that it brings along, or points to, do not.
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

/// What a token says about its user.
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

    /// A string, or any number of them (RFC 7519 §4.1.3).
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

    /// As JSON, for people.
    pub(super) fn pretty(&self) -> String {
        serde_json::to_string_pretty(&self.0).expect("what was JSON is JSON")
    }
}

fn whole_seconds(seconds: f64) -> Option<u64> {
    /// As far as an `f64` counts whole numbers: some hundred million years.
    const MOST: f64 = 9_007_199_254_740_992.0;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was looked at")]
    (0.0..=MOST).contains(&seconds).then_some(seconds as u64)
}

/// Whether this is, or was meant to be, a token: its first part, of three or more with points between them, has a JSON
/// object in it. No name that a person has chosen does.
pub(super) fn looks_like_token(text: &str) -> bool {
    // As it is in a header of HTTP, `Bearer` stands before it (RFC 6750 §2.1).
    let text = text.rsplit(char::is_whitespace).next().unwrap_or(text);
    let mut parts = text.split('.');
    let header = parts.next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    parts.count() >= 2 && header.is_some_and(|header| serde_json::from_slice::<Map<String, Value>>(&header).is_ok())
}

/// A JSON object in base64url (RFC 4648 §5) without padding. No key of it stands there twice, because two readers could
/// differ about which one counts (RFC 7519 §4, RFC 8725 §2.4).
fn object(encoded: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Malformed)?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(TokenError::Malformed);
    }
    match serde_json::from_slice(&bytes) {
        Ok(Unambiguous(object)) => Ok(object),
        Err(error) if error.classify() == Category::Data => Err(TokenError::DuplicateClaim),
        Err(_) => Err(TokenError::Malformed),
    }
}

/// An object without a key that stands there twice. What is inside its values is not looked at.
struct Unambiguous(Map<String, Value>);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Unambiguous;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unambiguous, A::Error> {
                let mut object = Map::new();
                while let Some(key) = entries.next_key::<String>()? {
                    if object.insert(key, entries.next_value()?).is_some() {
                        return Err(A::Error::custom("a key stands there twice"));
                    }
                }
                Ok(Unambiguous(object))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}
