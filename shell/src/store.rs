//! Where slots are kept. A store knows the ledger's commands, outcomes and rule; it never sees a session.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use session_core::Limit;
use session_core::ledger::{Command, Outcome};

mod memory;
mod lmdb;

pub use lmdb::{Forget, Holder, LmdbConfig, LmdbStore, OpenError};
pub use memory::MemoryStore;

/// Keeps the users' records and applies [`session_core::ledger::apply`] to them, atomically for each user, under the
/// contract that the ledger's documentation states.
pub trait Store: Send + Sync {
    /// Submits a command and returns at once; it never waits for another command, a disk or a network.
    ///
    /// `done` is answered exactly once, from any thread, and perhaps before this returns. Commands of one session
    /// are applied in the order of these calls, or not at all.
    fn submit(&self, command: Command, done: Done);

    /// Sets how many slots a user may hold whose token claims no limit. It holds for every command that is
    /// submitted once this has returned, and may hold for those that wait.
    fn set_limit(&self, limit: Limit);

    /// Takes no more commands (they are rejected), applies those submitted, answers them, and closes.
    ///
    /// Waits at most `within` and returns whether it finished. Calling it again waits again.
    fn close(&self, within: Duration) -> bool;
}

/// A limit that can be changed while others go by it.
#[derive(Debug, Clone)]
struct SharedLimit(Arc<AtomicU32>);

impl SharedLimit {
    fn new(limit: Limit) -> Self {
        Self(Arc::new(AtomicU32::new(limit.slots())))
    }

    fn set(&self, limit: Limit) {
        self.0.store(limit.slots(), Ordering::SeqCst);
    }

    fn now(&self) -> Limit {
        Limit::new(self.0.load(Ordering::SeqCst)).expect("only limits are put in")
    }
}

/// The answer that is owed to whoever submitted a command. Dropped without one, it answers [`Outcome::Unknown`], so
/// that not even a store that panics leaves anybody waiting.
pub struct Done(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Done {
    /// Calls `answer` with the outcome, on the store's thread: it must be quick and must not block.
    pub fn new(answer: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Gives the answer.
    pub fn answer(mut self, outcome: Outcome) {
        self.give(outcome);
    }

    fn give(&mut self, outcome: Outcome) {
        if let Some(answer) = self.0.take() {
            answer(outcome);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.give(Outcome::Unknown);
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}
