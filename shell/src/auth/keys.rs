//! The keys that verify tokens: their sources, their requirements, and the check of a signature.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};

use serde_json::Value;
use session_core::UnixSeconds;
use session_core::protocol::TokenError;
use thiserror::Error;

use crate::auth::algorithm::{Algorithm, names};
use crate::auth::bound_key::BoundKey;
use crate::auth::discovery::configuration_url;
use crate::auth::fetched_set::FetchedSet;
use crate::auth::key_provider::{KeyEndpoint, KeyProvider};
use crate::auth::key_set::KeySet;
use crate::auth::pem_keys::pem_keys;
use crate::auth::provider_client::root_certificates;
use crate::runtime::access::{self, Right};
use crate::runtime::rfc3339::format_rfc3339;

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
    /// A file with public keys, or a certificate, in PEM.
    PublicKeyFile(PathBuf),
    /// A file with public keys and their ids, in JSON (RFC 7517 §5).
    KeySetFile(PathBuf),
    /// A key set that an identity provider publishes.
    Provider(KeyProvider),
}

impl KeySource {
    /// The file that the keys are read from, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Secret(_) | Self::Provider(_) => None,
            Self::SecretFile(path) | Self::PublicKeyFile(path) | Self::KeySetFile(path) => Some(path),
        }
    }
}

/// Why keys cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {path}: {}", access::explain(.why, .path, Right::Read))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        why: io::Error,
    },
    /// The key does not fit the algorithms.
    #[error("{what} cannot be used for {algorithms}: {why}")]
    Unusable {
        /// The file, or the environment.
        what: String,
        /// The configured algorithms.
        algorithms: String,
        /// The reason.
        why: String,
    },
    /// The provider's keys cannot be fetched.
    #[error("cannot get the keys of {provider}: {why}")]
    Provider {
        /// The configured URL.
        provider: String,
        /// The reason, with the URL at fault.
        why: String,
    },
}

/// Keys that verify signatures, each bound to its own algorithms. A clone shares the keys.
#[derive(Clone)]
pub struct Keys {
    algorithms: Vec<Algorithm>,
    known: Arc<KeyLookup>,
    origin: Origin,
}

/// Where keys are from.
#[derive(Clone)]
enum Origin {
    /// A secret or a file.
    Local,
    /// They have not come yet.
    Awaited(KeyProvider),
    Fetched(FetchedSet),
}

enum KeyLookup {
    /// A secret, or the public keys of a file. The key id in a token does not matter.
    Any(Vec<BoundKey>),
    Set(KeySet),
}

impl Keys {
    /// The maximum size of a key file in bytes.
    const MAX_FILE_BYTES: u64 = 1 << 20;

    /// The maximum number of keys from a provider.
    const MAX_FETCHED: usize = 64;

    /// Reads the keys of these algorithms. Either all of the algorithms use a secret, or none.
    /// Keys of a provider are not there yet: [`Keys::fetch`] gets them.
    ///
    /// # Errors
    /// [`KeyError`] with the reason. It never shows a key.
    pub fn load(algorithms: &[Algorithm], source: &KeySource) -> Result<Self, KeyError> {
        let what =
            source.file().map_or_else(|| "the secret in the environment".into(), |path| path.display().to_string());
        let unusable = |why: String| KeyError::Unusable { what, algorithms: names(algorithms), why };
        let mut origin = Origin::Local;
        let known = match source {
            KeySource::Secret(secret) => symmetric(algorithms, secret).map(KeyLookup::Any),
            KeySource::SecretFile(path) => symmetric(algorithms, &Secret::new(&read(path)?)).map(KeyLookup::Any),
            KeySource::PublicKeyFile(path) => pem_keys(algorithms, &read(path)?).map(KeyLookup::Any),
            KeySource::KeySetFile(path) => KeySet::read(algorithms, &read(path)?).map(KeyLookup::Set),
            KeySource::Provider(provider) => {
                // The operator should learn of a bad file at once. The system's authorities may be none: they are read later.
                let authorities = provider.ca.as_deref().map(|ca| root_certificates(Some(ca)));
                authorities.transpose().map_err(|why| Self::cannot_get(provider, why))?;
                origin = Origin::Awaited(provider.clone());
                Ok(KeyLookup::Any(Vec::new()))
            }
        };
        Ok(Self { algorithms: algorithms.into(), known: known.map_err(unusable)?.into(), origin })
    }

    /// Fetches the keys from their provider. Blocks for some seconds at most.
    ///
    /// # Errors
    /// [`KeyError::Provider`] with the reason: the provider does not answer, or with something else than keys for these
    /// algorithms.
    pub fn fetch(algorithms: &[Algorithm], provider: &KeyProvider, now: UnixSeconds) -> Result<Self, KeyError> {
        let set = FetchedSet::fetch(provider, now).map_err(|why| Self::cannot_get(provider, why))?;
        Self::from_set(algorithms, &set)
    }

    /// The keys of a set that was fetched.
    pub(super) fn from_set(algorithms: &[Algorithm], set: &FetchedSet) -> Result<Self, KeyError> {
        let no_good = |why: String| Self::cannot_get(&set.provider, set.provider.error_at(&set.url, &why));
        let known = KeyLookup::Set(KeySet::read(algorithms, &set.json).map_err(no_good)?).into();
        let keys = Self { algorithms: algorithms.into(), known, origin: Origin::Fetched(set.clone()) };
        if keys.count() > Self::MAX_FETCHED {
            return Err(no_good(format!("it has more than {} keys", Self::MAX_FETCHED)));
        }
        Ok(keys)
    }

    /// The keys of a newer set. What has not changed is not read again, so it is not logged again either.
    pub(super) fn renewed(&self, set: FetchedSet) -> Result<Self, KeyError> {
        if self.fetched().is_some_and(|before| before.json == set.json) {
            Ok(Self { origin: Origin::Fetched(set), ..self.clone() })
        } else {
            Self::from_set(&self.algorithms, &set)
        }
    }

    /// Those, or the ones of this set if it is of the same provider. This set is the newer one.
    pub(super) fn newer_than(&self, others: Self) -> Self {
        let is_same = |set: &&FetchedSet| others.fetched().is_some_and(|other| other.json == set.json);
        let newer = self.fetched().filter(|set| others.provider() == Some(&set.provider)).filter(|set| !is_same(set));
        newer.and_then(|set| Self::from_set(&others.algorithms, set).ok()).unwrap_or(others)
    }

    pub(super) fn cannot_get(provider: &KeyProvider, why: String) -> KeyError {
        KeyError::Provider { provider: provider.to_string(), why }
    }

    /// Who publishes them, if they are neither a secret nor in a file.
    #[must_use]
    pub const fn provider(&self) -> Option<&KeyProvider> {
        match &self.origin {
            Origin::Local => None,
            Origin::Awaited(provider) | Origin::Fetched(FetchedSet { provider, .. }) => Some(provider),
        }
    }

    /// The set that they are from, if it came from a provider.
    pub(super) const fn fetched(&self) -> Option<&FetchedSet> {
        match &self.origin {
            Origin::Local | Origin::Awaited(_) => None,
            Origin::Fetched(set) => Some(set),
        }
    }

    /// Whether no set of the provider has come yet. Then nobody knows whether a token is valid.
    #[must_use]
    pub const fn are_awaited(&self) -> bool {
        matches!(self.origin, Origin::Awaited(_))
    }

    /// The accepted algorithms.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// The names of the accepted algorithms, for people.
    #[must_use]
    pub fn algorithm_names(&self) -> String {
        names(&self.algorithms)
    }

    /// The number of keys.
    #[must_use]
    pub fn count(&self) -> usize {
        match &*self.known {
            KeyLookup::Any(keys) => keys.len(),
            KeyLookup::Set(KeySet { named, unnamed }) => named.values().map(Vec::len).sum::<usize>() + unnamed.len(),
        }
    }

    /// Whether a key has this id.
    pub(super) fn has_key(&self, id: &str) -> bool {
        match &*self.known {
            KeyLookup::Any(_) => false,
            KeyLookup::Set(KeySet { named, .. }) => named.contains_key(id),
        }
    }

    /// Where the keys of a provider came from, for people.
    pub(super) fn describe_origin(&self) -> Option<String> {
        let FetchedSet { provider, url, at, lifetime, .. } = self.fetched()?;
        let found = match &provider.endpoint {
            KeyEndpoint::KeySet(_) => String::new(),
            KeyEndpoint::Issuer(issuer) => format!(", where {} says", configuration_url(issuer)),
        };
        let at = format_rfc3339(at.unix_seconds().saturating_mul(1000));
        let lifetime = match lifetime {
            Some(lifetime) => format!("the provider lets them be kept for {}", humantime::format_duration(*lifetime)),
            None => "the provider does not say how long they may be kept".into(),
        };
        Some(format!("{} from {url}{found}, fetched at {at}; {lifetime}", self.count()))
    }

    /// Each key by its id, if it has one, with its algorithms. For people.
    pub(super) fn describe(&self) -> Vec<String> {
        let describe = |id: Option<&str>, key: &BoundKey| {
            let id = id.map_or("one without an id".into(), |id| format!("{id:?}"));
            format!("{id} ({})", names(key.algorithms()))
        };
        match &*self.known {
            KeyLookup::Any(keys) => keys.iter().map(|key| describe(None, key)).collect(),
            KeyLookup::Set(KeySet { named, unnamed }) => {
                let named = named.iter().flat_map(|(id, keys)| keys.iter().map(move |key| (Some(&**id), key)));
                named.chain(unnamed.iter().map(|key| (None, key))).map(|(id, key)| describe(id, key)).collect()
            }
        }
    }

    /// Verifies a signature that was made with this algorithm, one of the accepted ones.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        key_id: Option<&str>,
        signed: &[u8],
        signature: &str,
    ) -> Result<(), TokenError> {
        let verifies = |key: &BoundKey| key.verifies(algorithm, signed, signature);
        let is_for = |key: &&BoundKey| key.is_for(algorithm);
        let is_authentic = match (&*self.known, key_id) {
            (KeyLookup::Any(keys), _) if !keys.iter().any(|key| is_for(&key)) => return Err(TokenError::UnknownKey),
            (KeyLookup::Any(keys), _) => keys.iter().any(verifies),
            (KeyLookup::Set(KeySet { named, .. }), Some(id)) => {
                let keys = named.get(id).ok_or(TokenError::UnknownKey)?;
                if !keys.iter().any(|key| is_for(&key)) {
                    return Err(TokenError::Algorithm);
                }
                keys.iter().any(verifies)
            }
            (KeyLookup::Set(KeySet { named, unnamed }), None) if !unnamed.iter().any(|key| is_for(&key)) => {
                let mut keys = named.values().flatten().filter(is_for);
                match (keys.next(), keys.next()) {
                    (Some(only), None) => verifies(only),
                    (Some(_), Some(_)) => return Err(TokenError::NoKeyId),
                    (None, _) => return Err(TokenError::UnknownKey),
                }
            }
            (KeyLookup::Set(KeySet { unnamed, .. }), None) => unnamed.iter().any(verifies),
        };
        if is_authentic { Ok(()) } else { Err(TokenError::Signature) }
    }
}

/// Shows the number of keys and the algorithms, never a key.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} of {})", self.count(), self.algorithm_names())
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

const PEM_BEGIN: &[u8] = b"-----BEGIN ";

fn symmetric(algorithms: &[Algorithm], secret: &Secret) -> Result<Vec<BoundKey>, String> {
    if !algorithms.iter().all(|algorithm| algorithm.is_symmetric()) {
        return Err("it needs a public key, not a secret".into());
    }
    // A public key in place of the secret: everyone may know it, and could sign tokens with it. Some tools write a text before
    // the key.
    let is_pem = secret.0.windows(PEM_BEGIN.len()).any(|part| part == PEM_BEGIN);
    let is_key_set = || serde_json::from_slice::<Value>(&secret.0).is_ok_and(|set| set.get("keys").is_some());
    if is_pem || is_key_set() {
        let kind = if is_pem { "a key in PEM" } else { "a JSON Web Key Set" };
        return Err(format!(
            "it is {kind}, a secret is needed; to check signatures by a public key choose RS256, ES256 or the like"
        ));
    }
    let min = algorithms.iter().map(|algorithm| algorithm.min_secret_bytes()).max().unwrap_or_default();
    if secret.0.len() < min {
        let length = secret.0.len();
        return Err(format!(
            "it has {length} bytes, at least {min} are needed (RFC 7518, 3.2); `openssl rand -hex {min}` makes a good one"
        ));
    }
    Ok(vec![BoundKey::secret(&secret.0, algorithms)])
}
