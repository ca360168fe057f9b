//! What every store of a process needs: its node, the policy in force, whom to notify, and the process's clock and supervisor.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use session_core::ledger::{AdmissionPolicy, EndedSession, SessionHint, UserOverrides};
use session_core::{NodeId, SessionId, Timestamp, UserId};

use super::notifier::{NotifierSlot, SessionNotifier};
use super::user_slice::{UserRange, UserSlice};
use crate::runtime::clock::Clock;
use crate::runtime::process::Process;

/// What a store knows of the process that opened it. A clone shares all of it.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// The bits of the node id.
    node: Arc<AtomicU64>,
    policy: SharedPolicy,
    notifier: NotifierSlot,
    process: Process,
}

impl NodeContext {
    /// The context of this node in this process, with this policy and no overrides.
    #[must_use]
    pub fn new(node: NodeId, policy: AdmissionPolicy, process: Process) -> Self {
        Self::with_policy(node, SharedPolicy::new(policy, HashMap::new()), process)
    }

    pub(super) fn with_policy(node: NodeId, policy: SharedPolicy, process: Process) -> Self {
        // No other server runs on the stores that there are.
        policy.serve_since(process.clock.now());
        Self { node: Arc::new(node.bits().into()), policy, notifier: NotifierSlot::default(), process }
    }

    #[cfg(test)]
    pub(super) fn moved_to(self, process: Process) -> Self {
        Self { process, ..self }
    }

    /// The clock and the supervisor of the process. What serves sessions from this store uses the same.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.process.clock
    }

    /// This process, as the store's records name it. A store that servers share may give it another id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::new(self.node.load(Ordering::Relaxed))
    }

    /// Gives this process another id.
    pub(super) fn set_node(&self, node: NodeId) {
        self.node.store(node.bits(), Ordering::Relaxed);
        self.notifier.joins(node);
    }

    /// Cuts these sessions.
    pub(super) fn cut(&self, sessions: &[SessionId]) {
        self.notifier.cut(sessions);
    }

    /// Sets whom to notify.
    pub fn set_notifier(&self, notifier: Arc<dyn SessionNotifier>) {
        self.notifier.set(notifier);
    }

    /// Notifies these sessions of a user, if there are any and if a notifier is set. When a store must call this, and in
    /// which order, stands at [`SessionNotifier::notify`].
    pub fn notify(&self, user: &UserId, ended: Vec<EndedSession>) {
        self.notifier.notify(user, ended);
    }

    /// Passes these hints on, if there are any and if a notifier is set.
    pub fn hint(&self, hints: Vec<SessionHint>) {
        self.notifier.hint(hints);
    }

    /// Sets the policy for users without overrides. Its [`serving_since`](AdmissionPolicy::serving_since) does not count:
    /// this context knows it.
    pub fn set_policy(&self, policy: AdmissionPolicy) {
        self.policy.set(policy);
    }

    /// The policy for a user, with the user's overrides.
    #[must_use]
    pub fn policy_for(&self, user: &UserId) -> AdmissionPolicy {
        self.policy.for_user(user)
    }

    pub(super) fn policy(&self) -> &SharedPolicy {
        &self.policy
    }
}

/// The policy for all users, and the overrides of some. Either can change while commands are applied.
#[derive(Debug, Clone)]
pub(super) struct SharedPolicy(Arc<RwLock<Policies>>);

#[derive(Debug)]
struct Policies {
    policy: AdmissionPolicy,
    overrides: HashMap<UserId, UserOverrides>,
}

impl SharedPolicy {
    pub(super) fn new(policy: AdmissionPolicy, overrides: HashMap<UserId, UserOverrides>) -> Self {
        Self(Arc::new(RwLock::new(Policies { policy, overrides })))
    }

    /// Sets the policy for users without overrides. When the server began to serve stays.
    pub(super) fn set(&self, policy: AdmissionPolicy) {
        let held = &mut self.0.write().unwrap_or_else(PoisonError::into_inner).policy;
        *held = AdmissionPolicy { serving_since: held.serving_since, ..policy };
    }

    fn serve_since(&self, serving_since: Timestamp) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).policy.serving_since = serving_since;
    }

    /// How many users have overrides.
    pub(super) fn users_with_overrides(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).overrides.len()
    }

    /// The first users of a range who have overrides. Looks at all overrides: they are few, in a table of many users.
    pub(super) fn overrides_in(&self, range: &UserRange) -> UserSlice<UserOverrides> {
        let all = &self.0.read().unwrap_or_else(PoisonError::into_inner).overrides;
        range.first_of(all.iter().map(|(user, overrides)| (user, *overrides)))
    }

    /// Returns the overrides that were in force before.
    pub(super) fn set_overrides(&self, user: &UserId, overrides: UserOverrides) -> UserOverrides {
        let all = &mut self.0.write().unwrap_or_else(PoisonError::into_inner).overrides;
        let before = if overrides.is_empty() { all.remove(user) } else { all.insert(user.clone(), overrides) };
        before.unwrap_or_default()
    }

    /// The policy for users without overrides.
    pub(super) fn for_all(&self) -> AdmissionPolicy {
        self.0.read().unwrap_or_else(PoisonError::into_inner).policy
    }

    pub(super) fn for_user(&self, user: &UserId) -> AdmissionPolicy {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.policy.with_overrides(all.overrides.get(user).copied().unwrap_or_default())
    }

    pub(super) fn linger(&self) -> Duration {
        self.0.read().unwrap_or_else(PoisonError::into_inner).policy.linger
    }
}
