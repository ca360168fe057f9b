//! A store that is a map: for tests, and for servers that need not know their users tomorrow.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use session_core::ledger::{self, Applied, Command};
use session_core::{Cause, Limit, Liveness, NodeId, Outcome, Own, Terms, Time, UserId, UserRecord};

use super::{Amended, Amendment, Done, Route, Router, SharedTerms, Store};

/// Keeps records in memory, only those of users who hold a slot.
pub struct MemoryStore {
    node: NodeId,
    terms: SharedTerms,
    route: Route,
    /// `None` once the store is closed.
    records: Mutex<Option<HashMap<UserId, UserRecord>>>,
}

impl MemoryStore {
    /// An empty store for one node, where a user may hold `limit` slots.
    #[must_use]
    pub fn new(node: NodeId, limit: Limit) -> Self {
        Self::with_terms(node, Terms::new(limit))
    }

    /// An empty store for one node, on these terms.
    #[must_use]
    pub fn with_terms(node: NodeId, terms: Terms) -> Self {
        let terms = SharedTerms::new(terms, HashMap::new());
        Self { node, terms, route: Route::default(), records: Mutex::new(Some(HashMap::new())) }
    }

    fn apply(&self, command: &Command) -> Applied {
        // The rule does not panic, so a poisoned map is still whole.
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(records) = &mut *records else {
            return Applied { outcome: Outcome::Rejected(Cause::Failed), ended: Vec::new() };
        };
        let terms = self.terms.of(command.user());
        // There never was another node here.
        let dead = Liveness::DeadSince(Time::default());
        let liveness = |node| if node == self.node { Liveness::Alive } else { dead };
        match records.entry(command.user().clone()) {
            Entry::Occupied(mut entry) => {
                let applied = ledger::apply(entry.get_mut(), command, &terms, liveness);
                if entry.get().is_empty() {
                    entry.remove();
                }
                applied
            }
            Entry::Vacant(entry) => {
                let mut record = UserRecord::default();
                let applied = ledger::apply(&mut record, command, &terms, liveness);
                if !record.is_empty() {
                    entry.insert(record);
                }
                applied
            }
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn submit(&self, command: Command, done: Done) {
        let Applied { outcome, ended } = self.apply(&command);
        self.route.deliver(ended);
        done.answer(outcome);
    }

    fn route(&self, router: Arc<dyn Router>) {
        self.route.set(router);
    }

    fn set_terms(&self, terms: Terms) {
        self.terms.set(terms);
    }

    fn terms_for(&self, user: &UserId) -> Terms {
        self.terms.of(user)
    }

    fn amend(&self, user: UserId, amendment: Amendment, done: Amended) {
        self.terms.set_own(
            &user,
            match amendment {
                Amendment::Set(own) => own,
                Amendment::Forget => Own::default(),
            },
        );
        done.answer(Ok(()));
    }

    fn close(&self, _within: Duration) -> bool {
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = None;
        true
    }
}
