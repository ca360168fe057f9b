//! Signed JSON Web Tokens (RFC 7519, RFC 7515) as credentials.
//!
//! The configuration fixes the algorithm and the keys; the token never chooses them. The signature is verified before the
//! claims are read. So a client with a forged token learns nothing about its claims.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use session_core::ledger::SlotLimit;
use session_core::protocol::{Credential, CredentialError, TokenError};
use session_core::session::Identity;
use session_core::{DisplayName, UnixSeconds, UserId};

use crate::auth::authenticator::Authenticator;
use crate::auth::claims::{Claims, Header, TokenParts};
use crate::auth::keys::Keys;
use crate::runtime::clock::Clock;

/// Which claims a token must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenValidation {
    /// The claim that names the user, `sub` by default.
    pub user_claim: String,
    /// The claim with the user's limit of sessions, `max_sessions` by default.
    pub limit_claim: String,
    /// The claim that names the device. None by default.
    pub device_claim: Option<String>,
    /// The accepted audiences (`aud`). If it is empty, any token is accepted.
    pub audiences: Vec<String>,
    /// The accepted issuers (`iss`). If it is empty, any token is accepted.
    pub issuers: Vec<String>,
    /// The allowed difference between this machine's clock and the issuer's. A token is valid from `nbf - leeway` until
    /// `exp + leeway`, in whole seconds, rounded up.
    pub leeway: Duration,
}

impl Default for TokenValidation {
    fn default() -> Self {
        Self {
            user_claim: "sub".into(),
            limit_claim: "max_sessions".into(),
            device_claim: None,
            audiences: Vec::new(),
            issuers: Vec::new(),
            leeway: Duration::ZERO,
        }
    }
}

/// Accepts valid tokens. Its keys and rules can be changed while it is in use.
pub struct JwtAuthenticator {
    clock: Clock,
    inner: RwLock<Arc<Verifier>>,
}

/// The keys and the rules. Together with the present time they decide about a token.
#[derive(Debug)]
pub struct Verifier {
    /// The keys that may sign.
    pub keys: Keys,
    /// The required claims.
    pub rules: TokenValidation,
}

impl JwtAuthenticator {
    /// An authenticator with this verifier and this clock.
    #[must_use]
    pub fn new(verifier: Verifier, clock: Clock) -> Self {
        Self { clock, inner: RwLock::new(Arc::new(verifier)) }
    }

    /// Changes the keys and rules. Sessions that are authenticated already stay.
    pub fn set(&self, verifier: Verifier) {
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
    }

    /// The keys and rules in force.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Authenticator for JwtAuthenticator {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, CredentialError> {
        let token = credential.token().ok_or(CredentialError::Token(TokenError::Missing))?;
        self.verifier().verify(token, self.clock.unix_seconds())
    }

    /// A signature with a public key takes up to a millisecond, one with a secret a few microseconds.
    fn is_expensive(&self) -> bool {
        !self.verifier().keys.algorithm().is_symmetric()
    }

    fn proves_user(&self) -> bool {
        true
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator").field("verifier", &self.verifier()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// The identity in the token, if the token is valid at this time of the wall clock.
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn verify(&self, token: &str, now: UnixSeconds) -> Result<Identity, CredentialError> {
        let claims = self.verify_signature(token).map_err(CredentialError::Token)?;
        let expires = self.check_expiry(&claims, now).and_then(|expires| {
            self.check_audience(&claims)?;
            Ok(expires)
        });
        let expires = expires.map_err(CredentialError::Token)?;
        let user = claims.text(&self.rules.user_claim).map_err(CredentialError::Token)?;
        let user = user.ok_or(CredentialError::Token(TokenError::NoUser))?;
        let user = UserId::parse(user).map_err(CredentialError::UserId)?;
        let limit = self.limit(&claims).map_err(CredentialError::Token)?;
        let device = self.device(&claims).map_err(CredentialError::Token)?;
        Ok(Identity { limit, expires: Some(expires), device, ..Identity::for_user(user) })
    }

    /// The claims of the token, if one of the keys signed it.
    fn verify_signature(&self, token: &str) -> Result<Claims, TokenError> {
        let parts = TokenParts::split(token)?;
        let header = Header::read(parts.header)?;
        if header.algorithm != self.keys.algorithm().name() {
            return Err(TokenError::Algorithm);
        }
        if header.is_critical {
            return Err(TokenError::Critical);
        }
        self.keys.verify(header.key_id.as_deref(), parts.signed.as_bytes(), parts.signature)?;
        Claims::read(parts.claims)
    }

    /// When the token expires. An error if it has expired or is not valid yet.
    fn check_expiry(&self, claims: &Claims, now: UnixSeconds) -> Result<UnixSeconds, TokenError> {
        let leeway = self.rules.leeway.as_secs() + u64::from(self.rules.leeway.subsec_nanos() > 0);
        let expires = claims.seconds("exp")?.ok_or(TokenError::NoExpiry)?.saturating_add(leeway);
        if expires <= now.unix_seconds() {
            return Err(TokenError::Expired);
        }
        if claims.seconds("nbf")?.is_some_and(|from| from > now.unix_seconds().saturating_add(leeway)) {
            return Err(TokenError::NotYetValid);
        }
        Ok(UnixSeconds::from_unix_seconds(expires))
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), TokenError> {
        let TokenValidation { audiences, issuers, .. } = &self.rules;
        let names_one_of = |accepted: &[String], claimed: &[&str]| {
            claimed.iter().any(|claim| accepted.iter().any(|name| name == claim))
        };
        if !audiences.is_empty() && !names_one_of(audiences, &claims.texts("aud")?) {
            return Err(TokenError::Audience);
        }
        if !issuers.is_empty() && !names_one_of(issuers, claims.text("iss")?.as_slice()) {
            return Err(TokenError::Issuer);
        }
        Ok(())
    }

    fn device(&self, claims: &Claims) -> Result<Option<DisplayName>, TokenError> {
        let Some(claim) = &self.rules.device_claim else { return Ok(None) };
        // The claim is required: without it the client would choose the device.
        let device = claims.text(claim)?.ok_or(TokenError::NoDevice)?;
        DisplayName::parse(device).map(Some).ok_or(TokenError::Device)
    }

    fn limit(&self, claims: &Claims) -> Result<Option<SlotLimit>, TokenError> {
        let Some(value) = claims.value(&self.rules.limit_claim) else { return Ok(None) };
        if value == "unlimited" {
            return Ok(Some(SlotLimit::MAX));
        }
        let slots = value.as_u64().and_then(|slots| u32::try_from(slots).ok());
        slots.and_then(|slots| SlotLimit::new(slots).ok()).map(Some).ok_or(TokenError::Limit)
    }
}
