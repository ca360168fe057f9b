//! Which user a credential belongs to.

use std::pin::Pin;
use std::sync::Arc;

use session_core::protocol::{Credential, CredentialError, TokenError};
use session_core::session::Identity;
use session_core::{Timestamp, UserId};

/// Verifies credentials. It only computes and never blocks.
pub trait Authenticator: Send + Sync {
    /// The identity that the credential proves.
    ///
    /// # Errors
    /// Why the credential is invalid. The server tells the client.
    fn authenticate(&self, credential: &Credential) -> Result<Identity, InvalidCredential>;

    /// Whether it takes so long that the server must not do it where it serves other connections. As a rule: more than some
    /// ten microseconds.
    fn is_expensive(&self) -> bool {
        false
    }

    /// Whether a valid credential proves its user. Otherwise any client can name any user, and the server does not count
    /// connections by user.
    fn proves_user(&self) -> bool {
        false
    }

    /// The version of the keys in force. Each change gives them another one.
    fn keys_version(&self) -> u64 {
        0
    }

    /// Waits for newer keys than those of this version, if they may come before `until` and may accept a credential that was refused
    /// with this error. Read the version before the credential is checked: the keys may change in between.
    fn newer_keys(&self, error: CredentialError, than: u64, until: Timestamp) -> Option<NewerKeys> {
        let _ = (error, than, until);
        None
    }

    /// Whether a refusal with this error only means that it has no keys yet, so that nobody knows whether the credential is
    /// valid.
    fn is_undecided(&self, error: CredentialError) -> bool {
        let _ = error;
        false
    }
}

/// Ends when keys have been fetched, or could not be; at once if there are newer ones already.
pub type NewerKeys = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, InvalidCredential> {
        self.as_ref().authenticate(credential)
    }

    fn is_expensive(&self) -> bool {
        self.as_ref().is_expensive()
    }

    fn proves_user(&self) -> bool {
        self.as_ref().proves_user()
    }

    fn keys_version(&self) -> u64 {
        self.as_ref().keys_version()
    }

    fn newer_keys(&self, error: CredentialError, than: u64, until: Timestamp) -> Option<NewerKeys> {
        self.as_ref().newer_keys(error, than, until)
    }

    fn is_undecided(&self, error: CredentialError) -> bool {
        self.as_ref().is_undecided(error)
    }
}

/// Why a credential is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidCredential {
    /// What the client is told.
    pub error: CredentialError,
    /// The claim at fault. Only the log and `server check-token` show it: the names of claims are the operator's business.
    pub claim: Option<InvalidClaim>,
    /// The user whom the credential names, if its signature is valid. Only the log shows it.
    pub user: Option<UserId>,
}

/// A claim that has the wrong type or value, or is missing. It never holds the value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidClaim {
    /// The name, or the JSON Pointer, as it is configured.
    pub name: Box<str>,
    /// The type of its JSON value, or `missing`.
    pub found: &'static str,
}

impl From<CredentialError> for InvalidCredential {
    fn from(error: CredentialError) -> Self {
        Self { error, claim: None, user: None }
    }
}

impl From<TokenError> for InvalidCredential {
    fn from(error: TokenError) -> Self {
        CredentialError::Token(error).into()
    }
}
