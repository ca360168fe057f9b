//! Who a credential belongs to.

use std::sync::Arc;

use session_core::protocol::{Credential, CredentialError};
use session_core::session::Identity;

/// Says who a credential belongs to, at once: it computes, and waits for nobody.
pub trait Authenticator: Send + Sync {
    /// The identity that the credential proves.
    ///
    /// # Errors
    /// Why it proves none. The client is told.
    fn authenticate(&self, credential: &Credential) -> Result<Identity, CredentialError>;
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, CredentialError> {
        self.as_ref().authenticate(credential)
    }
}
