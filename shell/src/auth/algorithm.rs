//! The algorithms that sign tokens.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::AlgorithmFamily;

/// A signature algorithm (RFC 7518 §3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm(jsonwebtoken::Algorithm);

impl Algorithm {
    /// The names of all algorithms.
    pub const NAMES: [&str; 12] =
        ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

    /// The name in a token's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        use jsonwebtoken::Algorithm as Known;
        match self.0 {
            Known::HS256 => "HS256",
            Known::HS384 => "HS384",
            Known::HS512 => "HS512",
            Known::RS256 => "RS256",
            Known::RS384 => "RS384",
            Known::RS512 => "RS512",
            Known::PS256 => "PS256",
            Known::PS384 => "PS384",
            Known::PS512 => "PS512",
            Known::ES256 => "ES256",
            Known::ES384 => "ES384",
            Known::EdDSA => "EdDSA",
            // The library may add algorithms. `from_str` accepts none of them.
            _ => "",
        }
    }

    /// Whether the same secret signs and verifies. Then everyone who can verify a token can also sign one.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        self.0.family() == AlgorithmFamily::Hmac
    }

    /// The kind of its keys.
    pub(super) fn family(self) -> AlgorithmFamily {
        self.0.family()
    }

    pub(super) const fn inner(self) -> jsonwebtoken::Algorithm {
        self.0
    }

    /// The minimum length of a secret in bytes: the length of the hash (RFC 7518 §3.2).
    pub(super) fn min_secret_bytes(self) -> usize {
        match self.name() {
            "HS384" => 48,
            "HS512" => 64,
            _ => 32,
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::NAMES.contains(&name).then(|| name.parse().ok()).flatten();
        known.map(Self).ok_or_else(|| format!("it must be one of {}", Self::NAMES.join(", ")))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The names of these algorithms, for people.
pub(super) fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
}
