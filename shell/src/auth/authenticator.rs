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
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, CredentialError> {
        self.as_ref().authenticate(credential)
    }
}
