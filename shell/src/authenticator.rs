//! Who a credential belongs to.

use session_core::{Credential, Identity, Rejection, UserId};

/// Open authentication: whoever asks is who they say they are, the credential is the user id.
pub(crate) fn authenticate(credential: &Credential) -> Result<Identity, Rejection> {
    let id = credential.text().ok_or(Rejection::NotText)?;
    let user = UserId::parse(id).map_err(Rejection::UserId)?;
    Ok(Identity { user })
}
