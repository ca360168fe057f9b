//! What every store of a process needs: whom to notify, and the policy in force.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, EndedSession, UserOverrides};

use super::api::SessionNotifier;

/// The router of a store, once it has one.
#[derive(Clone, Default)]
pub(crate) struct NotifierSlot(Arc<OnceLock<Arc<dyn SessionNotifier>>>);

impl NotifierSlot {
    pub(crate) fn set(&self, router: Arc<dyn SessionNotifier>) {
        let is_first = self.0.set(router).is_ok();
        debug_assert!(is_first, "a store has one router");
    }

    pub(crate) fn deliver(&self, ended: Vec<EndedSession>) {
        if let Some(router) = self.0.get().filter(|_| !ended.is_empty()) {
            router.notify(ended);
        }
    }
}

/// The terms that all users are admitted on, and what is set for some, which can be changed while others go by them.
#[derive(Debug, Clone)]
pub(crate) struct SharedPolicy(Arc<RwLock<Policies>>);

#[derive(Debug)]
struct Policies {
    policy: AdmissionPolicy,
    overrides: HashMap<UserId, UserOverrides>,
}

impl SharedPolicy {
    pub(crate) fn new(policy: AdmissionPolicy, overrides: HashMap<UserId, UserOverrides>) -> Self {
        Self(Arc::new(RwLock::new(Policies { policy, overrides })))
    }

    pub(crate) fn set(&self, policy: AdmissionPolicy) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).policy = policy;
    }

    /// How many users something is set for.
    pub(crate) fn users_with_overrides(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).overrides.len()
    }

    pub(crate) fn set_overrides(&self, user: &UserId, overrides: UserOverrides) {
        let all = &mut self.0.write().unwrap_or_else(PoisonError::into_inner).overrides;
        if overrides.is_empty() {
            all.remove(user);
        } else {
            all.insert(user.clone(), overrides);
        }
    }

    /// The terms for a user.
    pub(crate) fn for_user(&self, user: &UserId) -> AdmissionPolicy {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.policy.with_overrides(all.overrides.get(user).copied().unwrap_or_default())
    }

    pub(crate) fn linger(&self) -> Duration {
        self.0.read().unwrap_or_else(PoisonError::into_inner).policy.linger
    }
}
