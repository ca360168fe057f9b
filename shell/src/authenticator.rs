//! Who a credential belongs to.

use std::sync::Arc;

use session_core::{Credential, Identity, Rejection, UserId};

/// Says who a credential belongs to, at once: it computes, and waits for nobody.
pub trait Authenticator: Send + Sync {
    /// The identity that the credential proves.
    ///
    /// # Errors
    /// Why it proves none. The client is told.
    fn authenticate(&self, credential: &Credential) -> Result<Identity, Rejection>;
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, Rejection> {
        self.as_ref().authenticate(credential)
    }
}

/// Open authentication: whoever asks is who they say they are, the credential is the user id.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Authenticator for Open {
    fn authenticate(&self, credential: &Credential) -> Result<Identity, Rejection> {
        let id = credential.text().ok_or(Rejection::NotText)?;
        UserId::parse(id).map(Identity::of).map_err(Rejection::UserId)
    }
}
