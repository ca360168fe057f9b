//! Keys, tokens and verifiers for the tests.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::EncodingKey;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use serde_json::{Value, json};
use session_core::protocol::{CredentialError, TokenError};
use session_core::session::Identity;
use session_core::{UnixSeconds, UserId};
use shell::auth::{KeySource, Keys, Secret, TokenRequest, TokenValidation, Verifier};
use tempfile::TempDir;

pub(super) const SECRET: &[u8] = b"a secret that is long enough even for HS512, which wants sixty-four bytes";
pub(super) const NOW: u64 = 1_700_000_000;

/// A temporary directory with key files.
pub(super) struct KeyDirectory(pub(super) TempDir);

impl KeyDirectory {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A new key pair for this algorithm: the source of the public key, and the file of the private key.
    pub(super) fn key_pair(&self, name: &str) -> (KeySource, Option<PathBuf>) {
        let kind: &SignatureAlgorithm = match name {
            "ES256" => &PKCS_ECDSA_P256_SHA256,
            "ES384" => &PKCS_ECDSA_P384_SHA384,
            "EdDSA" => &PKCS_ED25519,
            _ => &PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let number = fs::read_dir(self.0.path()).unwrap().count();
        let public = self.write(&format!("{number}.pub"), pair.public_key_pem().as_bytes());
        let private = self.write(&format!("{number}.key"), pair.serialize_pem().as_bytes());
        (KeySource::PublicKeyFile(public), Some(private))
    }
}

pub(super) fn token_request() -> TokenRequest {
    TokenRequest {
        user: UserId::parse("ada").unwrap(),
        lifetime: Duration::from_secs(3600),
        limit: None,
        device: None,
        key_id: None,
        private_key: None,
    }
}

pub(super) fn verifier(name: &str) -> Verifier {
    let keys = Keys::load(&[name.parse().unwrap()], &KeySource::Secret(Secret::new(SECRET))).unwrap();
    Verifier { keys, rules: TokenValidation::default() }
}

/// What the client is told about a token.
pub(super) trait Verdict {
    fn verdict(&self, token: &str, now: UnixSeconds) -> Result<Identity, CredentialError>;
}

impl Verdict for Verifier {
    fn verdict(&self, token: &str, now: UnixSeconds) -> Result<Identity, CredentialError> {
        self.verify(token, now).map_err(|invalid| invalid.error)
    }
}

pub(super) fn at(second: u64) -> UnixSeconds {
    UnixSeconds::from_unix_seconds(second)
}

pub(super) fn refused<T>(error: TokenError) -> Result<T, CredentialError> {
    Err(CredentialError::Token(error))
}

pub(super) fn encoded(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

/// A token with the usual header and a valid signature.
pub(super) fn signed(claims: &Value) -> String {
    signed_with(SECRET, claims)
}

pub(super) fn signed_with(secret: &[u8], claims: &Value) -> String {
    sign(secret, &format!("{}.{}", encoded(&json!({"alg": "HS256"})), encoded(claims)))
}

/// A token with any header and a valid HS256 signature.
pub(super) fn token(header: &Value, claims: &Value) -> String {
    text_token(&header.to_string(), &claims.to_string())
}

pub(super) fn text_token(header: &str, claims: &str) -> String {
    sign(SECRET, &format!("{}.{}", BASE64.encode(header), BASE64.encode(claims)))
}

pub(super) fn sign(secret: &[u8], text: &str) -> String {
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{text}.{signature}")
}
