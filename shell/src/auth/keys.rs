//! The keys that tokens are signed with: where they are, what they must be, and how they are used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs, io};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use session_core::protocol::TokenError;
use thiserror::Error;

/// How tokens are signed (RFC 7518 §3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm(jsonwebtoken::Algorithm);

impl Algorithm {
    /// The names of all there are.
    pub const NAMES: [&str; 12] =
        ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

    /// As a token's header names it.
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
            // The library may come to know more; `from_str` takes none of them.
            _ => "",
        }
    }

    /// Whether whoever checks a signature could make it, too: with a secret that both share.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        self.0.family() == AlgorithmFamily::Hmac
    }

    pub(super) const fn inner(self) -> jsonwebtoken::Algorithm {
        self.0
    }

    /// The shortest secret, in bytes: as long as the hash (RFC 7518 §3.2).
    fn secret_bytes(self) -> usize {
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

/// What must not be told: it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The secret, as bytes. One line break at its end, such as an editor leaves, does not count.
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

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A secret that was given, in the environment say.
    Secret(Secret),
    /// A file that holds the secret.
    SecretFile(PathBuf),
    /// A public key in PEM.
    PublicKeyFile(PathBuf),
    /// Public keys with their ids, as JSON (RFC 7517 §5).
    KeySetFile(PathBuf),
}

impl KeySource {
    /// The file it is read from, if it is one.
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
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// It is no key that tokens of this algorithm could be signed with.
    #[error("{what} cannot be used for {algorithm}: {why}")]
    Unfit {
        /// Which file, or that it was the environment.
        what: String,
        /// The algorithm that is configured.
        algorithm: Algorithm,
        /// Why not.
        why: String,
    },
}

/// Checks signatures, all of one algorithm.
pub struct Keys {
    algorithm: Algorithm,
    known: KeyLookup,
}

enum KeyLookup {
    /// Whatever id a token names.
    One(DecodingKey),
    /// By their ids, and those that have none.
    Set { named: BTreeMap<String, DecodingKey>, nameless: Vec<DecodingKey> },
}

impl Keys {
    /// The largest file that is read, in bytes.
    const MAX_FILE_BYTES: u64 = 1 << 20;
    /// How many keys without an id a set may have: each of them is tried for a token that names none.
    const MAX_NAMELESS: usize = 8;

    /// Reads the keys.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with them, and never what they are.
    pub fn load(algorithm: Algorithm, source: &KeySource) -> Result<Self, KeyError> {
        let what =
            source.file().map_or_else(|| "the secret in the environment".into(), |path| path.display().to_string());
        let unfit = |why: String| KeyError::Unfit { what, algorithm, why };
        let known = match source {
            KeySource::Secret(secret) => KeyLookup::One(symmetric(algorithm, secret).map_err(unfit)?),
            KeySource::SecretFile(path) => {
                KeyLookup::One(symmetric(algorithm, &Secret::new(&read(path)?)).map_err(unfit)?)
            }
            KeySource::PublicKeyFile(path) => KeyLookup::One(public_key(algorithm, &read(path)?).map_err(unfit)?),
            KeySource::KeySetFile(path) => key_set(algorithm, &read(path)?).map_err(unfit)?,
        };
        Ok(Self { algorithm, known })
    }

    /// The algorithm of every signature.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.known {
            KeyLookup::One(_) => 1,
            KeyLookup::Set { named, nameless } => named.len() + nameless.len(),
        }
    }

    pub(super) fn verify(&self, key_id: Option<&str>, signed: &[u8], signature: &str) -> Result<(), TokenError> {
        let is_by = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(signature, signed, key, self.algorithm.0).is_ok_and(|is_valid| is_valid)
        };
        let is_authentic = match (&self.known, key_id) {
            (KeyLookup::One(key), _) => is_by(key),
            (KeyLookup::Set { named, .. }, Some(id)) => is_by(named.get(id).ok_or(TokenError::UnknownKey)?),
            (KeyLookup::Set { named, nameless }, None) if nameless.is_empty() => {
                let mut keys = named.values();
                let (Some(only), None) = (keys.next(), keys.next()) else { return Err(TokenError::NoKeyId) };
                is_by(only)
            }
            (KeyLookup::Set { nameless, .. }, None) => nameless.iter().any(is_by),
        };
        if is_authentic { Ok(()) } else { Err(TokenError::Signature) }
    }
}

/// How many, of which algorithm: never what they are.
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
    // Whoever has the public key, and that may be everybody, could sign with it.
    if secret.0.starts_with(b"-----BEGIN") {
        return Err("it is a key in PEM, a secret is needed; to check signatures by a public key choose RS256, ES256 or the like".into());
    }
    let least = algorithm.secret_bytes();
    if secret.0.len() < least {
        let length = secret.0.len();
        return Err(format!(
            "it has {length} bytes, {least} are the least (RFC 7518, 3.2); `openssl rand -hex {least}` makes a good one"
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
        return Err("it is a private key, which has no business on this machine; `openssl pkey -pubout` makes a public one of it".into());
    }
    if has("BEGIN CERTIFICATE") {
        return Err("it is a certificate; `openssl x509 -pubkey -noout` takes the public key out of it".into());
    }
    let key = match algorithm.0.family() {
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
        AlgorithmFamily::Hmac => unreachable!("a symmetric one has no public key"),
    };
    let key = key.map_err(|_| format!("it is no public key in PEM of the kind that {algorithm} needs"))?;
    check_key_fits(algorithm, &key).map(|()| key)
}

/// Whether the key is as long as the algorithm has it.
fn check_key_fits(algorithm: Algorithm, key: &DecodingKey) -> Result<(), String> {
    let fits = match (key.kind(), algorithm.name()) {
        // An uncompressed point of the curve: a byte and two coordinates.
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
        AlgorithmFamily::Ec | AlgorithmFamily::Ed | AlgorithmFamily::Hmac => "it is of another curve".into(),
    })
}

/// The keys of a set that are of this algorithm. Others, and those that this version does not understand, are passed
/// over, as RFC 7517 §5 asks; so are those that could not be used, with a warning.
fn key_set(algorithm: Algorithm, json: &[u8]) -> Result<KeyLookup, String> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<serde_json::Value>,
    }

    if algorithm.is_symmetric() {
        return Err("secrets do not belong into a key set".into());
    }
    let set: KeySet = serde_json::from_slice(json).map_err(|error| format!("it is no JSON Web Key Set: {error}"))?;
    let (mut named, mut nameless) = (BTreeMap::new(), Vec::new());
    for key in set.keys {
        let Ok(key) = serde_json::from_value::<Jwk>(key) else { continue };
        if !is_for(algorithm, &key) {
            continue;
        }
        let id = key.common.key_id.clone();
        let usable = DecodingKey::from_jwk(&key).map_err(|error| error.to_string());
        match (usable.and_then(|key| check_key_fits(algorithm, &key).map(|()| key)), id) {
            (Ok(key), None) => nameless.push(key),
            (Ok(key), Some(id)) => {
                if named.insert(id.clone(), key).is_some() {
                    return Err(format!("two of its keys have the id {id:?}"));
                }
            }
            (Err(why), id) => tracing::warn!(id, "passed over a key of the set: {why}"),
        }
    }
    if named.is_empty() && nameless.is_empty() {
        return Err("none of its keys can be used for that algorithm".into());
    }
    if nameless.len() > Keys::MAX_NAMELESS {
        return Err(format!("more than {} of its keys have no id", Keys::MAX_NAMELESS));
    }
    Ok(KeyLookup::Set { named, nameless })
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
