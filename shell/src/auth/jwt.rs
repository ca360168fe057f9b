//! Signed JSON Web Tokens (RFC 7519, RFC 7515) as credentials.
//!
//! The configuration fixes the algorithms and the keys, and each key has its own algorithms. A token only says which of
//! them it was signed with. The signature is verified before the
//! claims are read. So a client with a forged token learns nothing about its claims.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use session_core::protocol::{Credential, CredentialError, TokenError};
use session_core::session::Identity;
use session_core::{DisplayName, Timestamp, UnixSeconds, UserId};

use crate::auth::algorithm::Algorithm;
use crate::auth::authenticator::{Authenticator, InvalidCredential, NewerKeys};
use crate::auth::claim_name::ClaimName;
use crate::auth::claims::{Claims, Header, TokenParts};
use crate::auth::keys::{KeyError, Keys};
use crate::auth::refresher::Refresher;
use crate::runtime::bare_token::bare_token;
use crate::runtime::clock::Clock;
use crate::runtime::user_id_form::UserIdForm;

/// Which claims a token must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenValidation {
    /// The claim that names the user, `sub` by default.
    pub user_claim: ClaimName,
    /// The form in which users' ids count.
    pub user_id_form: UserIdForm,
    /// The claim with the user's limit of sessions, `max_sessions` by default.
    pub limit_claim: ClaimName,
    /// The claim that names the device. None by default.
    pub device_claim: Option<ClaimName>,
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
            user_claim: ClaimName::SUB,
            user_id_form: UserIdForm::Exact,
            limit_claim: ClaimName::MAX_SESSIONS,
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
    /// How often the verifier has changed.
    version: AtomicU64,
    refresher: Refresher,
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
        let refresher = Refresher::new(&verifier.keys, clock.clone());
        Self { clock, inner: RwLock::new(Arc::new(verifier)), version: AtomicU64::new(0), refresher }
    }

    /// Keeps the last good keys of a provider in this file. Those that are in it serve if the first fetch fails. So a server
    /// that starts while the provider is down accepts tokens all the same.
    #[must_use]
    pub fn with_saved_keys(mut self, file: PathBuf) -> Self {
        let verifier = self.verifier();
        self.refresher.read_saved(file, &verifier.keys);
        self
    }

    /// Changes the keys and rules. Sessions that are authenticated already stay.
    ///
    /// If a set of the same provider is in force, its keys stay: it may have come since [`with_keys`](Self::with_keys).
    pub fn set(&self, verifier: Verifier) {
        self.refresher.reloaded(&verifier.keys);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let Verifier { keys, rules } = verifier;
        *inner = Arc::new(Verifier { keys: inner.keys.newer_than(keys), rules });
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Gives this verifier the keys of its provider, if it has one: those in force, or, of another provider, the ones that it
    /// publishes now. Then this blocks for some seconds at most.
    ///
    /// # Errors
    /// The keys cannot be fetched, or not be used for the algorithms.
    pub fn with_keys(&self, verifier: Verifier) -> Result<Verifier, KeyError> {
        let Verifier { keys, rules } = verifier;
        let in_force = self.verifier();
        let keys = match (keys.provider(), in_force.keys.fetched()) {
            (None, _) => keys,
            (Some(provider), Some(set)) if *provider == set.provider => Keys::from_set(keys.algorithms(), set)?,
            (Some(provider), _) if in_force.keys.provider() == Some(provider) => keys,
            (Some(provider), _) => Keys::fetch(keys.algorithms(), provider, self.clock.unix_seconds())?,
        };
        Ok(Verifier { keys, rules })
    }

    /// Fetches the keys of a provider, and keeps them fresh. Never ends by itself. After a panic it can run again.
    pub async fn refresh_keys(&self) {
        self.refresher.run(|| self.verifier().keys.clone(), |keys| self.set_fetched(keys)).await;
    }

    /// Puts keys in force that were fetched, unless others were configured meanwhile.
    fn set_fetched(&self, keys: Keys) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let is_configured = inner.keys.provider() == keys.provider() && inner.keys.algorithms() == keys.algorithms();
        if is_configured {
            *inner = Arc::new(Verifier { keys, rules: inner.rules.clone() });
            self.version.fetch_add(1, Ordering::SeqCst);
        }
        is_configured
    }

    /// The keys and rules in force.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

const UNKNOWN_KEY: CredentialError = CredentialError::Token(TokenError::UnknownKey);

impl Authenticator for JwtAuthenticator {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, InvalidCredential> {
        let token = credential.token().ok_or(TokenError::Missing)?;
        self.verifier().verify(bare_token(token), self.clock.unix_seconds())
    }

    /// A signature with a public key takes up to a millisecond, one with a secret a few microseconds.
    fn is_expensive(&self) -> bool {
        self.verifier().keys.algorithms().iter().any(|algorithm| !algorithm.is_symmetric())
    }

    fn proves_user(&self) -> bool {
        true
    }

    fn keys_version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    fn newer_keys(&self, error: CredentialError, than: u64, until: Timestamp) -> Option<NewerKeys> {
        let are_there = || self.keys_version() != than;
        if error == UNKNOWN_KEY { self.refresher.newer_keys(are_there, until) } else { None }
    }

    fn is_undecided(&self, error: CredentialError) -> bool {
        error == UNKNOWN_KEY && self.verifier().keys.are_awaited()
    }
}

fn names_one_of(accepted: &[String], claimed: &[&str]) -> bool {
    claimed.iter().any(|claim| accepted.iter().any(|name| name == claim))
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator").field("verifier", &self.verifier()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// The identity in the token, if the token is valid at this time of the wall clock. Nothing may precede or follow it.
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn verify(&self, token: &str, now: UnixSeconds) -> Result<Identity, InvalidCredential> {
        let claims = self.verify_signature(token)?;
        self.identity(&claims, now).map_err(|invalid| InvalidCredential { user: self.user(&claims).ok(), ..invalid })
    }

    fn identity(&self, claims: &Claims, now: UnixSeconds) -> Result<Identity, InvalidCredential> {
        let expires = self.check_expiry(claims, now)?;
        self.check_audience(claims)?;
        self.check_issuer(claims)?;
        let user = self.user(claims)?;
        let limit = claims.limit(&self.rules.limit_claim)?;
        let device = self.device(claims)?;
        Ok(Identity { limit, expires: Some(expires), device, ..Identity::for_user(user) })
    }

    /// The claims of the token, if one of the keys signed it.
    fn verify_signature(&self, token: &str) -> Result<Claims, TokenError> {
        let parts = TokenParts::split(token)?;
        let header = Header::read(parts.header)?;
        let algorithm = self.algorithm(&header)?;
        if header.is_critical {
            return Err(TokenError::Critical);
        }
        self.keys.verify(algorithm, header.key_id.as_deref(), parts.signed.as_bytes(), parts.signature)?;
        Claims::read(parts.claims)
    }

    /// The algorithm that the header names, if it is accepted.
    pub(super) fn algorithm(&self, header: &Header) -> Result<Algorithm, TokenError> {
        let mut accepted = self.keys.algorithms().iter();
        accepted.find(|algorithm| algorithm.name() == header.algorithm).copied().ok_or(TokenError::Algorithm)
    }

    /// When the token expires. An error if it has expired or is not valid yet.
    pub(super) fn check_expiry(&self, claims: &Claims, now: UnixSeconds) -> Result<UnixSeconds, InvalidCredential> {
        const EXP: &ClaimName = &ClaimName::EXP;
        const NBF: &ClaimName = &ClaimName::NBF;

        let leeway = self.rules.leeway.as_secs() + u64::from(self.rules.leeway.subsec_nanos() > 0);
        let expires = claims.seconds(EXP)?.ok_or_else(|| claims.invalid_token(EXP, TokenError::NoExpiry))?;
        let expires = expires.saturating_add(leeway);
        if expires <= now.unix_seconds() {
            return Err(claims.invalid_token(EXP, TokenError::Expired));
        }
        if claims.seconds(NBF)?.is_some_and(|from| from > now.unix_seconds().saturating_add(leeway)) {
            return Err(claims.invalid_token(NBF, TokenError::NotYetValid));
        }
        Ok(UnixSeconds::from_unix_seconds(expires))
    }

    pub(super) fn check_audience(&self, claims: &Claims) -> Result<(), InvalidCredential> {
        let audiences = &self.rules.audiences;
        if !audiences.is_empty() && !names_one_of(audiences, &claims.texts(&ClaimName::AUD)?) {
            return Err(claims.invalid_token(&ClaimName::AUD, TokenError::Audience));
        }
        Ok(())
    }

    pub(super) fn check_issuer(&self, claims: &Claims) -> Result<(), InvalidCredential> {
        let issuers = &self.rules.issuers;
        if !issuers.is_empty() && !names_one_of(issuers, claims.text(&ClaimName::ISS)?.as_slice()) {
            return Err(claims.invalid_token(&ClaimName::ISS, TokenError::Issuer));
        }
        Ok(())
    }

    pub(super) fn user(&self, claims: &Claims) -> Result<UserId, InvalidCredential> {
        let claim = &self.rules.user_claim;
        let user = claims.name(claim)?.ok_or_else(|| claims.invalid_token(claim, TokenError::NoUser))?;
        self.rules.user_id_form.parse(&user).map_err(|error| claims.invalid(claim, CredentialError::UserId(error)))
    }

    pub(super) fn device(&self, claims: &Claims) -> Result<Option<DisplayName>, InvalidCredential> {
        let Some(claim) = &self.rules.device_claim else { return Ok(None) };
        // The claim is required: without it the client would choose the device.
        let device = claims.name(claim)?.ok_or_else(|| claims.invalid_token(claim, TokenError::NoDevice))?;
        DisplayName::parse(&device).map(Some).ok_or_else(|| claims.invalid_token(claim, TokenError::Device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::fetched_set::FetchedSet;
    use crate::auth::key_provider::{KeyEndpoint, KeyProvider};
    use crate::auth::keys::KeySource;

    /// Otherwise a key that was just withdrawn would be in force again.
    #[test]
    fn keys_that_came_during_a_reload_stay() {
        let algorithms: [Algorithm; 1] = ["ES256".parse().unwrap()];
        let url: crate::auth::provider_url::ProviderUrl = "https://idp.example/keys".parse().unwrap();
        let provider = KeyProvider { endpoint: KeyEndpoint::KeySet(url.clone()), ca: None };
        let fetched = |id: &str| {
            // The key is from RFC 7517, appendix A.1.
            let json = format!(
                r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"{id}"}}]}}"#
            );
            let (json, at) = (json.into_bytes().into(), UnixSeconds::from_unix_seconds(7));
            let set = FetchedSet { provider: provider.clone(), url: url.clone(), json, at, lifetime: None };
            Keys::from_set(&algorithms, &set).unwrap()
        };
        let verifier = |keys| Verifier { keys, rules: TokenValidation::default() };
        let awaited = || Keys::load(&algorithms, &KeySource::Provider(provider.clone())).unwrap();
        for before in [fetched("old"), awaited()] {
            let tokens = JwtAuthenticator::new(verifier(before), Clock::manual(Arc::default()));
            let reloaded = tokens.with_keys(verifier(awaited())).unwrap();
            assert!(tokens.set_fetched(fetched("new")));
            tokens.set(reloaded);
            let keys = &tokens.verifier().keys;
            assert!(keys.has_key("new") && !keys.has_key("old"), "{keys:?}");
        }
    }
}
