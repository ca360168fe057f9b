//! What the rest of the server is made of, from the configuration.

use std::num::{NonZeroU32, NonZeroUsize};

use session_core::{DoorBounds, Limits};
use thiserror::Error;

use super::rule::Bound;
use super::{Authentication, Config};
use crate::policy::Policy;
use crate::store::LmdbConfig;
use crate::tls::{CertificateFiles, TlsError};
use crate::tokens::{KeyError, KeySource, Keys, Rules, Secret, Verifier};

/// Why tokens cannot be checked.
#[derive(Debug, Error)]
pub enum VerifierError {
    /// There is no key.
    #[error(
        "there is no secret that tokens are signed with: give it in the environment variable SESSIONS_JWT_SECRET, \
         or name its file in jwt_secret_file"
    )]
    NoSecret,
    /// There is one in the environment and one in a file.
    #[error("tokens are signed with one secret: SESSIONS_JWT_SECRET is set, and so is a file with keys")]
    TwoSecrets,
    /// The keys will not do.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl Config {
    /// How many descriptors stay free beside those of connections: for the store, the log, listeners, and for whoever is
    /// being told that there is no room.
    pub const SPARE_DESCRIPTORS: u64 = 128;

    /// What bounds a session.
    #[must_use]
    pub fn session_limits(&self) -> Limits {
        Limits {
            auth_timeout: self.auth_timeout,
            ping_interval: self.ping_interval,
            pong_timeout: self.pong_timeout,
            max_bad_messages: number(self.max_bad_messages).map(|most| u16::try_from(most.get()).unwrap_or(u16::MAX)),
            max_message_rate: number(self.max_message_rate),
        }
    }

    /// How many connections may come in, where so many files may be open.
    #[must_use]
    pub fn door_bounds(&self, descriptors: u64) -> DoorBounds {
        let fitting = usize::try_from(descriptors.saturating_sub(Self::SPARE_DESCRIPTORS)).unwrap_or(usize::MAX);
        let fitting = NonZeroUsize::new(fitting).unwrap_or(NonZeroUsize::MIN);
        DoorBounds {
            connections: size(self.max_connections).map(|most| most.min(fitting)),
            waiting: size(self.max_unauthenticated),
            per_address: size(self.max_connections_per_address),
            arrivals_per_address: number(self.max_connection_rate),
        }
    }

    /// What connections are treated by.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn policy(&self) -> Result<Policy, TlsError> {
        let certificate = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = certificate.map(|(certificate, key)| CertificateFiles { certificate, key }.load()).transpose()?;
        let bytes = |bound| size(bound).map_or(usize::MAX, NonZeroUsize::get);
        Ok(Policy {
            limits: self.session_limits(),
            max_message_bytes: bytes(self.max_message_bytes),
            header_timeout: self.header_timeout.unwrap_or(self.auth_timeout).min(self.auth_timeout),
            max_header_bytes: bytes(self.max_header_bytes),
            origins: self.allowed_origins.iter().cloned().collect(),
            hosts: self.allowed_hosts.iter().cloned().collect(),
            proxies: self.trusted_proxies.iter().copied().collect(),
            proxy_protocol: self.proxy_protocol,
            tls,
        })
    }

    /// What tokens are checked by.
    ///
    /// # Errors
    /// [`VerifierError`]: there are no keys, or they cannot be used.
    pub fn verifier(&self, secret: Option<Secret>) -> Result<Verifier, VerifierError> {
        let keys = Keys::load(self.jwt_algorithm, &self.key_source(secret)?)?;
        Ok(Verifier { keys, rules: self.token_rules() })
    }

    /// Where the keys of tokens come from.
    ///
    /// # Errors
    /// There are none, or too many.
    pub fn key_source(&self, secret: Option<Secret>) -> Result<KeySource, VerifierError> {
        let files = [
            self.jwt_secret_file.clone().map(KeySource::SecretFile),
            self.jwt_public_key_file.clone().map(KeySource::PublicKeyFile),
            self.jwt_key_set_file.clone().map(KeySource::KeySetFile),
        ];
        match (secret, files.into_iter().flatten().next()) {
            (Some(_), Some(KeySource::SecretFile(_))) => Err(VerifierError::TwoSecrets),
            // With a public key a secret is of no use, and does not harm.
            (_, Some(file)) => Ok(file),
            (Some(secret), None) => Ok(KeySource::Secret(secret)),
            (None, None) => Err(VerifierError::NoSecret),
        }
    }

    /// What a token must say.
    #[must_use]
    pub fn token_rules(&self) -> Rules {
        Rules {
            user_claim: self.jwt_user_claim.clone(),
            limit_claim: self.jwt_limit_claim.clone(),
            audiences: self.jwt_audience.clone(),
            issuers: self.jwt_issuer.clone(),
            leeway: self.jwt_leeway,
        }
    }

    /// How many bytes the kernel may keep for a client that does not read, if that is bounded.
    #[must_use]
    pub fn send_buffer_bytes(&self) -> Option<usize> {
        size(self.max_unsent_bytes).map(NonZeroUsize::get)
    }

    /// Where and how the store keeps its data, if that is LMDB.
    #[must_use]
    pub fn lmdb(&self) -> LmdbConfig {
        LmdbConfig { forget_after: self.forget_after, ..LmdbConfig::new(&self.data, self.limit) }
    }

    /// Whether anybody is taken for whom they say they are, also from beyond this machine.
    #[must_use]
    pub fn is_open_to_the_network(&self) -> bool {
        self.auth == Authentication::Open && self.listens_beyond()
    }

    /// Whether users show tokens to it over an open network that whoever is on the way can read.
    #[must_use]
    pub fn sends_tokens_in_the_clear(&self) -> bool {
        let is_covered = self.tls_cert.is_some() || !self.trusted_proxies.is_empty();
        self.auth == Authentication::Jwt && self.listens_beyond() && !is_covered
    }

    fn listens_beyond(&self) -> bool {
        self.listen.iter().any(|listen| !listen.is_local())
    }
}

fn number(bound: Bound) -> Option<NonZeroU32> {
    match bound {
        Bound::Unlimited => None,
        Bound::AtMost(most) => Some(most),
    }
}

fn size(bound: Bound) -> Option<NonZeroUsize> {
    number(bound).and_then(|most| NonZeroUsize::try_from(most).ok())
}
