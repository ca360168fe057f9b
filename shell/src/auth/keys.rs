//! The keys that verify tokens: their sources, their requirements, and the check of a signature.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs, io};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use session_core::protocol::TokenError;
use thiserror::Error;

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

    pub(super) const fn inner(self) -> jsonwebtoken::Algorithm {
        self.0
    }

    /// The minimum length of a secret in bytes: the length of the hash (RFC 7518 §3.2).
    fn min_secret_bytes(self) -> usize {
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

/// A secret. Its `Debug` output shows only the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The secret in these bytes, without one line break at the end: editors add one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        Self(bytes.strip_suffix(b"\r").unwrap_or(bytes).into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// The source of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A secret that is given directly, for example in the environment.
    Secret(Secret),
    /// A file with the secret.
    SecretFile(PathBuf),
    /// A file with a public key in PEM.
    PublicKeyFile(PathBuf),
    /// A file with public keys and their ids, in JSON (RFC 7517 §5).
    KeySetFile(PathBuf),
}

impl KeySource {
    /// The file that the keys are read from, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Secret(_) => None,
            Self::SecretFile(path) | Self::PublicKeyFile(path) | Self::KeySetFile(path) => Some(path),
        }
    }
}

/// Why keys cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        why: io::Error,
    },
    /// The key does not fit the algorithm.
    #[error("{what} cannot be used for {algorithm}: {why}")]
    Unusable {
        /// The file, or the environment.
        what: String,
        /// The configured algorithm.
        algorithm: Algorithm,
        /// The reason.
        why: String,
    },
}

/// Keys of one algorithm, which verify signatures.
pub struct Keys {
    algorithm: Algorithm,
    known: KeyLookup,
}

enum KeyLookup {
    /// One key. The key id in a token does not matter.
    One(DecodingKey),
    /// Keys by their ids, and keys without an id.
    Set { named: BTreeMap<String, DecodingKey>, unnamed: Vec<DecodingKey> },
}

impl Keys {
    /// The maximum size of a key file in bytes.
    const MAX_FILE_BYTES: u64 = 1 << 20;
    /// The maximum number of keys without an id in a set. For a token without a key id, each of them is tried.
    const MAX_UNNAMED: usize = 8;

    /// Reads the keys.
    ///
    /// # Errors
    /// [`KeyError`] with the reason. It never shows a key.
    pub fn load(algorithm: Algorithm, source: &KeySource) -> Result<Self, KeyError> {
        let what =
            source.file().map_or_else(|| "the secret in the environment".into(), |path| path.display().to_string());
        let unusable = |why: String| KeyError::Unusable { what, algorithm, why };
        let known = match source {
            KeySource::Secret(secret) => KeyLookup::One(symmetric(algorithm, secret).map_err(unusable)?),
            KeySource::SecretFile(path) => {
                KeyLookup::One(symmetric(algorithm, &Secret::new(&read(path)?)).map_err(unusable)?)
            }
            KeySource::PublicKeyFile(path) => KeyLookup::One(public_key(algorithm, &read(path)?).map_err(unusable)?),
            KeySource::KeySetFile(path) => key_set(algorithm, &read(path)?).map_err(unusable)?,
        };
        Ok(Self { algorithm, known })
    }

    /// The algorithm of the keys.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The number of keys.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.known {
            KeyLookup::One(_) => 1,
            KeyLookup::Set { named, unnamed } => named.len() + unnamed.len(),
        }
    }

    pub(super) fn verify(&self, key_id: Option<&str>, signed: &[u8], signature: &str) -> Result<(), TokenError> {
        let verifies = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(signature, signed, key, self.algorithm.0).is_ok_and(|is_valid| is_valid)
        };
        let is_authentic = match (&self.known, key_id) {
            (KeyLookup::One(key), _) => verifies(key),
            (KeyLookup::Set { named, .. }, Some(id)) => verifies(named.get(id).ok_or(TokenError::UnknownKey)?),
            (KeyLookup::Set { named, unnamed }, None) if unnamed.is_empty() => {
                let mut keys = named.values();
                let (Some(only), None) = (keys.next(), keys.next()) else { return Err(TokenError::NoKeyId) };
                verifies(only)
            }
            (KeyLookup::Set { unnamed, .. }, None) => unnamed.iter().any(verifies),
        };
        if is_authentic { Ok(()) } else { Err(TokenError::Signature) }
    }
}

/// Shows the number of keys and the algorithm, never a key.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} of {})", self.count(), self.algorithm)
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let unreadable = |why| KeyError::Unreadable { path: path.into(), why };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > Keys::MAX_FILE_BYTES {
        return Err(unreadable(io::Error::other("it is larger than 1 MiB")));
    }
    fs::read(path).map_err(unreadable)
}

fn symmetric(algorithm: Algorithm, secret: &Secret) -> Result<DecodingKey, String> {
    if !algorithm.is_symmetric() {
        return Err("it needs a public key, not a secret".into());
    }
    // A public key in place of the secret: everyone may know it, and could sign tokens with it.
    if secret.0.starts_with(b"-----BEGIN") {
        return Err("it is a key in PEM, a secret is needed; to check signatures by a public key choose RS256, ES256 or the like".into());
    }
    let min = algorithm.min_secret_bytes();
    if secret.0.len() < min {
        let length = secret.0.len();
        return Err(format!(
            "it has {length} bytes, at least {min} are needed (RFC 7518, 3.2); `openssl rand -hex {min}` makes a good one"
        ));
    }
    Ok(DecodingKey::from_secret(&secret.0))
}

fn public_key(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, String> {
    let has = |tag: &str| pem.windows(tag.len()).any(|window| window == tag.as_bytes());
    if algorithm.is_symmetric() {
        return Err("it needs a secret, not a public key".into());
    }
    if has("PRIVATE KEY") {
        return Err(
            "it is a private key, which should not be on this machine; `openssl pkey -pubout` derives the public key"
                .into(),
        );
    }
    if has("BEGIN CERTIFICATE") {
        return Err("it is a certificate; `openssl x509 -pubkey -noout` extracts the public key".into());
    }
    let key = match algorithm.0.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
        AlgorithmFamily::Hmac => unreachable!("symmetric algorithms returned above"),
    };
    let key = key.map_err(|_| format!("it is not a public key in PEM of the kind that {algorithm} needs"))?;
    check_key_fits(algorithm, &key).map(|()| key)
}

/// An error if the key does not have the size or the curve of the algorithm.
fn check_key_fits(algorithm: Algorithm, key: &DecodingKey) -> Result<(), String> {
    let fits = match (key.kind(), algorithm.name()) {
        // An uncompressed point of the curve: one byte and two coordinates.
        (DecodingKeyKind::SecretOrDer(point), "ES256") => point.len() == 65,
        (DecodingKeyKind::SecretOrDer(point), "ES384") => point.len() == 97,
        (DecodingKeyKind::SecretOrDer(point), "EdDSA") => point.len() == 32,
        // A sequence that begins with the modulus (RFC 8017, A.1.1), whose first byte is zero if it has 2048 bits.
        (DecodingKeyKind::SecretOrDer(der), _) => {
            matches!(**der, [0x30, 0x82, _, _, 2, 0x82, high, low, ..] if u16::from_be_bytes([high, low]) > 256)
        }
        (DecodingKeyKind::RsaModulusExponent { n, e: _ }, _) => {
            n.iter().skip_while(|&&byte| byte == 0).count() >= 256 && algorithm.0.family() == AlgorithmFamily::Rsa
        }
    };
    if fits {
        return Ok(());
    }
    Err(match algorithm.0.family() {
        AlgorithmFamily::Rsa => "its modulus is shorter than 2048 bits".into(),
        AlgorithmFamily::Ec | AlgorithmFamily::Ed | AlgorithmFamily::Hmac => "it belongs to another curve".into(),
    })
}

/// The keys of this algorithm in a key set. It skips other keys and unknown kinds of keys, as RFC 7517 §5 requires, and
/// logs a warning for keys that are unusable.
fn key_set(algorithm: Algorithm, json: &[u8]) -> Result<KeyLookup, String> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<serde_json::Value>,
    }

    if algorithm.is_symmetric() {
        return Err("a key set must not contain secrets".into());
    }
    let set: KeySet = serde_json::from_slice(json).map_err(|error| format!("it is not a JSON Web Key Set: {error}"))?;
    let (mut named, mut unnamed) = (BTreeMap::new(), Vec::new());
    for key in set.keys {
        let Ok(key) = serde_json::from_value::<Jwk>(key) else { continue };
        if !is_for(algorithm, &key) {
            continue;
        }
        let id = key.common.key_id.clone();
        let usable = DecodingKey::from_jwk(&key).map_err(|error| error.to_string());
        match (usable.and_then(|key| check_key_fits(algorithm, &key).map(|()| key)), id) {
            (Ok(key), None) => unnamed.push(key),
            (Ok(key), Some(id)) => {
                if named.insert(id.clone(), key).is_some() {
                    return Err(format!("two of its keys have the id {id:?}"));
                }
            }
            (Err(why), id) => tracing::warn!(id, "skipped a key of the set: {why}"),
        }
    }
    if named.is_empty() && unnamed.is_empty() {
        return Err("none of its keys can be used for that algorithm".into());
    }
    if unnamed.len() > Keys::MAX_UNNAMED {
        return Err(format!("more than {} of its keys have no id", Keys::MAX_UNNAMED));
    }
    Ok(KeyLookup::Set { named, unnamed })
}

fn is_for(algorithm: Algorithm, key: &Jwk) -> bool {
    let common = &key.common;
    let named = common.key_algorithm.is_none_or(|named| named.to_string() == algorithm.name());
    let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let fits = match (&key.algorithm, algorithm.name()) {
        (AlgorithmParameters::RSA(_), _) => algorithm.0.family() == AlgorithmFamily::Rsa,
        (AlgorithmParameters::EllipticCurve(key), "ES256") => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), "ES384") => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), "EdDSA") => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    named && signs && verifies && fits
}
