//! Makes tokens, for development and tests: in production whoever knows the users does.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value};
use session_core::ledger::SlotLimit;
use session_core::{DisplayName, UnixSeconds, UserId};
use thiserror::Error;

use crate::auth::jwt::TokenValidation;
use crate::auth::keys::{Algorithm, KeyError, KeySource, Keys, Secret, read};

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// Whose it is.
    pub user: UserId,
    /// How long it lasts, in whole seconds.
    pub lasts: Duration,
    /// How many sessions the user may hold, if it is to say so.
    pub limit: Option<SlotLimit>,
    /// Which device it is for, if it is to say so.
    pub device: Option<DisplayName>,
    /// The key's id, where there are several.
    pub key_id: Option<String>,
    /// The private key in PEM (PKCS #8), for algorithms that need one.
    pub private_key: Option<PathBuf>,
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum MintError {
    /// The keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is only a public key.
    #[error("{0} needs a private key to sign with: give it as --private-key FILE")]
    NoPrivateKey(Algorithm),
    /// No claim is for the device.
    #[error("no claim names the device: say which one does in jwt_device_claim")]
    NoDeviceClaim,
    /// There is a private key that is not needed.
    #[error("{0} signs with the secret, not with a private key")]
    UnwantedPrivateKey(Algorithm),
    /// The private key is none.
    #[error("{path} is no private key in PEM (PKCS #8) of the kind that {algorithm} needs")]
    PrivateKey {
        /// Which file.
        path: PathBuf,
        /// The algorithm that is configured.
        algorithm: Algorithm,
    },
}

/// A signed token that says what `grant` does, and what the rules ask for.
///
/// # Errors
/// [`MintError`]: the keys are not there, or cannot sign.
pub fn mint(
    algorithm: Algorithm,
    source: &KeySource,
    rules: &TokenValidation,
    grant: &TokenRequest,
    now: UnixSeconds,
) -> Result<String, MintError> {
    let key = signing_key(algorithm, source, grant)?;
    let mut header = Header::new(algorithm.inner());
    header.kid.clone_from(&grant.key_id);
    let mut claims = Map::new();
    let now = now.unix_seconds();
    claims.insert(rules.user_claim.clone(), grant.user.as_str().into());
    claims.insert("iat".into(), now.into());
    claims.insert("exp".into(), now.saturating_add(grant.lasts.as_secs()).into());
    for (name, values) in [("aud", &rules.audiences), ("iss", &rules.issuers)] {
        if let Some(first) = values.first() {
            claims.insert(name.into(), first.as_str().into());
        }
    }
    if let Some(limit) = grant.limit {
        claims.insert(rules.limit_claim.clone(), limit.slots().into());
    }
    if let Some(device) = &grant.device {
        let claim = rules.device_claim.clone().ok_or(MintError::NoDeviceClaim)?;
        claims.insert(claim, device.as_str().into());
    }
    jsonwebtoken::encode(&header, &Value::Object(claims), &key)
        .map_err(|_| MintError::PrivateKey { path: grant.private_key.clone().unwrap_or_default(), algorithm })
}

fn signing_key(algorithm: Algorithm, source: &KeySource, grant: &TokenRequest) -> Result<EncodingKey, MintError> {
    if algorithm.is_symmetric() {
        if grant.private_key.is_some() {
            return Err(MintError::UnwantedPrivateKey(algorithm));
        }
        // A secret that the server would not take makes no good token.
        drop(Keys::load(algorithm, source)?);
        let secret = match source {
            KeySource::Secret(secret) => secret.clone(),
            KeySource::SecretFile(path) | KeySource::PublicKeyFile(path) | KeySource::KeySetFile(path) => {
                Secret::new(&read(path)?)
            }
        };
        return Ok(EncodingKey::from_secret(secret.bytes()));
    }
    let path = grant.private_key.clone().ok_or(MintError::NoPrivateKey(algorithm))?;
    let pem = fs::read(&path).map_err(|why| KeyError::Unreadable { path: path.clone(), why })?;
    let key = match algorithm.inner().family() {
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&pem),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&pem),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&pem),
        AlgorithmFamily::Hmac => unreachable!("a symmetric one was dealt with"),
    };
    key.map_err(|_| MintError::PrivateKey { path, algorithm })
}
