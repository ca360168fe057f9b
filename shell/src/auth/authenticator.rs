//! Which user a credential belongs to.

use std::sync::Arc;

use session_core::protocol::{Credential, CredentialError};
use session_core::session::Identity;

/// Verifies credentials. It only computes and never blocks.
pub trait Authenticator: Send + Sync {
    /// The identity that the credential proves.
    ///
    /// # Errors
    /// Why the credential is invalid. The server tells the client.
    fn authenticate(&self, credential: &Credential) -> Result<Identity, CredentialError>;

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
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, CredentialError> {
        self.as_ref().authenticate(credential)
    }

    fn is_expensive(&self) -> bool {
        self.as_ref().is_expensive()
    }

    fn proves_user(&self) -> bool {
        self.as_ref().proves_user()
    }
}
