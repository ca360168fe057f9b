//! Users whose ids look like another one's.

use session_core::UserId;
use session_core::ledger::UserOverrides;

use super::service::AdminService;
use crate::runtime::user_id_form::look_alikes;
use crate::store::{PageRequest, Store, StoreFailure, UserState};

impl AdminService {
    /// The other spellings of this id that the store knows as users of their own. It looks up a bounded number of them, with
    /// questions that no session's command waits for. If the store does not answer in time, none is known.
    pub(super) async fn known_look_alikes(&self, user: &UserId) -> Vec<UserId> {
        let store = self.store();
        let looked_up = async {
            let mut known = Vec::new();
            for other in look_alikes(user) {
                if is_known(store, &other).await? {
                    known.push(other);
                }
            }
            Ok(known)
        };
        self.within_timeout(looked_up).await.unwrap_or_default()
    }
}

/// Whether the store has seen the user, or has overrides for the user, or the user holds slots.
async fn is_known(store: &dyn Store, user: &UserId) -> Result<bool, StoreFailure> {
    let UserState { overrides, seen } = store.find_user(user.clone()).await?;
    if seen.is_known() || overrides != UserOverrides::default() {
        return Ok(true);
    }
    // One who has just signed in may not be noted yet.
    Ok(!store.list_sessions(Some(user.clone()), PageRequest::first(1)).await?.items.is_empty())
}
