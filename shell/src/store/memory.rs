//! A store that is a map: for tests, and for servers that need not know their users tomorrow.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use session_core::ledger::{self, Command};
use session_core::{Cause, Limit, Liveness, NodeId, Outcome, UserId, UserRecord};

use super::{Done, SharedLimit, Store};

/// Keeps records in memory, only those of users who hold a slot.
#[derive(Debug)]
pub struct MemoryStore {
    node: NodeId,
    limit: SharedLimit,
    /// `None` once the store is closed.
    records: Mutex<Option<HashMap<UserId, UserRecord>>>,
}

impl MemoryStore {
    /// An empty store for one node, where a user may hold `limit` slots.
    #[must_use]
    pub fn new(node: NodeId, limit: Limit) -> Self {
        Self { node, limit: SharedLimit::new(limit), records: Mutex::new(Some(HashMap::new())) }
    }

    fn apply(&self, command: &Command) -> Outcome {
        // The rule does not panic, so a poisoned map is still whole.
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(records) = &mut *records else { return Outcome::Rejected(Cause::Failed) };
        let limit = self.limit.now();
        let liveness = |node| if node == self.node { Liveness::Alive } else { Liveness::Dead };
        match records.entry(command.user().clone()) {
            Entry::Occupied(mut entry) => {
                let outcome = ledger::apply(entry.get_mut(), command, limit, liveness);
                if entry.get().is_empty() {
                    entry.remove();
                }
                outcome
            }
            Entry::Vacant(entry) => {
                let mut record = UserRecord::default();
                let outcome = ledger::apply(&mut record, command, limit, liveness);
                if !record.is_empty() {
                    entry.insert(record);
                }
                outcome
            }
        }
    }
}

impl Store for MemoryStore {
    fn submit(&self, command: Command, done: Done) {
        done.answer(self.apply(&command));
    }

    fn set_limit(&self, limit: Limit) {
        self.limit.set(limit);
    }

    fn close(&self, _within: Duration) -> bool {
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = None;
        true
    }
}
