//! How many connections each user has: in all, and behind each client.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::client_prefix::ClientPrefix;
use crate::id::UserId;

/// Counts connections by user. A user without connections is not remembered.
///
/// The users are shared with the permits, so that a permit stays small and a user with many connections is stored once.
#[derive(Debug, Default)]
pub(super) struct UserCounts {
    users: BTreeMap<Arc<UserId>, usize>,
    behind_clients: BTreeMap<(ClientPrefix, Arc<UserId>), usize>,
}

impl UserCounts {
    pub(super) const fn new() -> Self {
        Self { users: BTreeMap::new(), behind_clients: BTreeMap::new() }
    }

    pub(super) fn connections(&self, user: &UserId) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Counts one more connection of this user.
    pub(super) fn add(&mut self, user: &UserId) -> Arc<UserId> {
        let shared = match self.users.get_key_value(user) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(user.clone()),
        };
        *self.users.entry(Arc::clone(&shared)).or_default() += 1;
        shared
    }

    /// Counts one connection of this user less.
    pub(super) fn remove(&mut self, user: &Arc<UserId>) {
        let count = self.users.get_mut(user).expect("a user that has connections is counted");
        *count -= 1;
        if *count == 0 {
            self.users.remove(user);
        }
    }

    /// Counts one more connection of this user behind this client. True if it is the only one.
    pub(super) fn add_behind(&mut self, client: ClientPrefix, user: &Arc<UserId>) -> bool {
        let count = self.behind_clients.entry((client, Arc::clone(user))).or_default();
        *count += 1;
        *count == 1
    }

    /// Counts one connection of this user behind this client less. True if it was the only one.
    pub(super) fn remove_behind(&mut self, client: ClientPrefix, user: &Arc<UserId>) -> bool {
        let key = (client, Arc::clone(user));
        let count = self.behind_clients.get_mut(&key).expect("a user that has connections here is counted");
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.behind_clients.remove(&key);
        }
        is_last
    }
}
