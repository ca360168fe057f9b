//! Who a credential belongs to.

use session_core::{Complaint, Credential, Identity, UserId};

/// Open authentication: whoever asks is who they say they are, the credential is the user id.
pub(crate) fn authenticate(credential: &Credential) -> Result<Identity, Complaint> {
    UserId::parse(credential.as_str()).map(|user| Identity { user }).map_err(Complaint::UserId)
}
