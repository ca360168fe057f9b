//! Which claim of a token is meant.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// A claim: by its name, or by its place if it is nested.
///
/// A name that begins with `/` is a JSON Pointer (RFC 6901). Any other name is taken literally, with its dots and slashes:
/// providers name claims `custom:plan` and `https://example.com/plan`.
///
/// ```
/// use shell::auth::ClaimName;
///
/// assert!("https://example.com/plan".parse::<ClaimName>().is_ok());
/// assert!("/realm_access/plan".parse::<ClaimName>().is_ok());
/// assert!("/realm~access".parse::<ClaimName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimName(Cow<'static, str>);

impl ClaimName {
    pub(super) const SUB: Self = Self::literal("sub");
    pub(super) const MAX_SESSIONS: Self = Self::literal("max_sessions");
    pub(super) const EXP: Self = Self::literal("exp");
    pub(super) const NBF: Self = Self::literal("nbf");
    pub(super) const AUD: Self = Self::literal("aud");
    pub(super) const ISS: Self = Self::literal("iss");

    const fn literal(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name as it is configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_pointer(&self) -> bool {
        self.0.starts_with('/')
    }

    /// The value of the claim in these claims, an object.
    pub(super) fn find<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        if self.is_pointer() { claims.pointer(&self.0) } else { claims.get(&*self.0) }
    }

    /// Sets the claim, and creates the objects around it. `false` if a value on the way is no object.
    #[must_use]
    pub(super) fn set(&self, claims: &mut Map<String, Value>, value: Value) -> bool {
        let Some((parents, name)) = self.0.rsplit_once('/').filter(|_| self.is_pointer()) else {
            claims.insert(self.0.clone().into_owned(), value);
            return true;
        };
        let mut object = claims;
        for parent in parents.split('/').skip(1) {
            let inner = object.entry(unescaped(parent)).or_insert_with(|| Map::new().into());
            let Value::Object(inner) = inner else { return false };
            object = inner;
        }
        object.insert(unescaped(name), value);
        true
    }
}

/// A token of a pointer as the name that it stands for (RFC 6901 §4).
fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

impl FromStr for ClaimName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("it must not be empty".into());
        }
        let is_escape = |rest: &str| rest.starts_with(['0', '1']);
        if name.starts_with('/') && !name.split('~').skip(1).all(is_escape) {
            return Err(
                "it begins with / and so is a JSON Pointer, in which ~ is written ~0, and / in a name ~1".into()
            );
        }
        Ok(Self(name.to_owned().into()))
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claim_is_found_where_it_was_set() {
        for (name, expected) in [
            ("sub", json!({"sub": 7})),
            ("custom:plan", json!({"custom:plan": 7})),
            ("realm_access.plan", json!({"realm_access.plan": 7})),
            ("https://example.com/plan", json!({"https://example.com/plan": 7})),
            ("a~b", json!({"a~b": 7})),
            ("/realm_access/plan", json!({"realm_access": {"plan": 7}})),
            ("/~1plan", json!({"/plan": 7})),
            ("/~01/~10~0", json!({"~1": {"/0~": 7}})),
            ("/", json!({"": 7})),
        ] {
            let (claim, mut claims) = (name.parse::<ClaimName>().unwrap(), Map::new());
            assert!(claim.set(&mut claims, 7.into()), "{name}");
            let claims = Value::Object(claims);
            assert_eq!((&claims, claim.find(&claims)), (&expected, Some(&json!(7))), "{name}");
        }
        let plan: ClaimName = "/plans/1/seats".parse().unwrap();
        assert_eq!(plan.find(&json!({"plans": [{}, {"seats": 2}]})), Some(&json!(2)));
        for claims in [json!({}), json!({"plans": 1}), json!({"plans": [1, 2]}), json!({"/plans/1/seats": 2})] {
            assert_eq!(plan.find(&claims), None, "{claims}");
        }
        let mut claims = Map::from_iter([("plans".into(), json!("gold"))]);
        assert!(!plan.set(&mut claims, 2.into()), "a string has no claims");
    }

    #[test]
    fn pointer_with_an_unknown_escape_is_refused() {
        for name in ["/~", "/a~", "/a~2", "/~0~", "/a/~~1"] {
            assert!(name.parse::<ClaimName>().unwrap_err().contains("JSON Pointer"), "{name}");
        }
        assert_eq!("".parse::<ClaimName>().unwrap_err(), "it must not be empty");
    }
}
