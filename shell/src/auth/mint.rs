//! Signs tokens for development and tests. In production the application that knows the users signs them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value};
use session_core::ledger::SlotLimit;
use session_core::{DisplayName, UnixSeconds, UserId};
use thiserror::Error;

use crate::auth::algorithm::Algorithm;
use crate::auth::claim_name::ClaimName;
use crate::auth::jwt::TokenValidation;
use crate::auth::keys::{KeyError, KeySource, Keys, Secret, read};
use crate::auth::pem_keys::with_line_breaks;

/// The content of a new token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The user.
    pub user: UserId,
    /// How long the token is valid, in whole seconds.
    pub lifetime: Duration,
    /// The user's limit of sessions. `None`: the token has no such claim.
    pub limit: Option<SlotLimit>,
    /// The user's device. `None`: the token has no such claim.
    pub device: Option<DisplayName>,
    /// The id of the key, if the server has several keys.
    pub key_id: Option<String>,
    /// The file of the private key in PEM (PKCS #8), for algorithms that need one.
    pub private_key: Option<PathBuf>,
}

/// Why no token was signed.
#[derive(Debug, Error)]
pub enum MintError {
    /// The keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The algorithm needs a private key, and none was given.
    #[error("{0} needs a private key to sign with: give it as --private-key FILE")]
    NoPrivateKey(Algorithm),
    /// No claim is configured for the device.
    #[error("no claim names the device: set jwt_device_claim")]
    NoDeviceClaim,
    /// A pointer leads into a claim that has a plain value.
    #[error("the claim {0} would be inside another claim, which is no object")]
    ClaimInsideAnother(ClaimName),
    /// A private key was given, but the algorithm uses a secret.
    #[error("{0} signs with the secret, not with a private key")]
    UnwantedPrivateKey(Algorithm),
    /// The algorithm signs with a secret, and there is none.
    #[error("{0} publishes public keys, and this algorithm signs with a secret")]
    NoSecret(String),
    /// The file holds no suitable private key.
    #[error("{path} is no private key in PEM (PKCS #8) of the kind that {algorithm} needs")]
    PrivateKey {
        /// The file.
        path: PathBuf,
        /// The configured algorithm.
        algorithm: Algorithm,
    },
}

/// Signs a token with the content of `request` and the claims that the rules require, with the first of the algorithms that
/// the key fits.
///
/// # Errors
/// [`MintError`], when the keys cannot be read or cannot sign.
///
/// # Panics
/// If there is no algorithm.
pub fn mint(
    algorithms: &[Algorithm],
    source: &KeySource,
    rules: &TokenValidation,
    request: &TokenRequest,
    now: UnixSeconds,
) -> Result<String, MintError> {
    let claims = claims(rules, request, now)?;
    let mut signed = algorithms.iter().map(|&algorithm| {
        let key = signing_key(algorithm, source, request)?;
        let header = Header { kid: request.key_id.clone(), ..Header::new(algorithm.inner()) };
        jsonwebtoken::encode(&header, &claims, &key)
            .map_err(|_| MintError::PrivateKey { path: request.private_key.clone().unwrap_or_default(), algorithm })
    });
    let first = signed.next().expect("at least one algorithm is configured");
    first.or_else(|error| signed.find_map(Result::ok).ok_or(error))
}

fn claims(rules: &TokenValidation, request: &TokenRequest, now: UnixSeconds) -> Result<Value, MintError> {
    let mut claims = Map::new();
    let now = now.unix_seconds();
    claims.insert("iat".into(), now.into());
    claims.insert("exp".into(), now.saturating_add(request.lifetime.as_secs()).into());
    for (name, values) in [("aud", &rules.audiences), ("iss", &rules.issuers)] {
        if let Some(first) = values.first() {
            claims.insert(name.into(), first.as_str().into());
        }
    }
    let mut set = |claim: &ClaimName, value: Value| {
        if claim.set(&mut claims, value) { Ok(()) } else { Err(MintError::ClaimInsideAnother(claim.clone())) }
    };
    set(&rules.user_claim, request.user.as_str().into())?;
    if let Some(limit) = request.limit {
        set(&rules.limit_claim, limit.slots().into())?;
    }
    if let Some(device) = &request.device {
        set(rules.device_claim.as_ref().ok_or(MintError::NoDeviceClaim)?, device.as_str().into())?;
    }
    Ok(Value::Object(claims))
}

fn signing_key(algorithm: Algorithm, source: &KeySource, request: &TokenRequest) -> Result<EncodingKey, MintError> {
    if algorithm.is_symmetric() {
        if request.private_key.is_some() {
            return Err(MintError::UnwantedPrivateKey(algorithm));
        }
        // A secret that the server does not accept must not sign a token either.
        drop(Keys::load(&[algorithm], source)?);
        let secret = match source {
            KeySource::Secret(secret) => secret.clone(),
            KeySource::SecretFile(path) | KeySource::PublicKeyFile(path) | KeySource::KeySetFile(path) => {
                Secret::new(&read(path)?)
            }
            KeySource::Provider(provider) => return Err(MintError::NoSecret(provider.to_string())),
        };
        return Ok(EncodingKey::from_secret(secret.bytes()));
    }
    let path = request.private_key.clone().ok_or(MintError::NoPrivateKey(algorithm))?;
    let pem = fs::read(&path).map_err(|why| KeyError::Unreadable { path: path.clone(), why })?;
    let pem = with_line_breaks(&pem);
    let key = match algorithm.family() {
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&pem),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&pem),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&pem),
        AlgorithmFamily::Hmac => unreachable!("symmetric algorithms returned above"),
    };
    key.map_err(|_| MintError::PrivateKey { path, algorithm })
}
