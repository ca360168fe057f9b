//! Where slots are kept. A store knows the ledger's commands, outcomes and rule; it never sees a session.

mod api;
mod shared;
mod memory;
mod lmdb;

pub use api::{CommandCompletion, SessionNotifier, Store, UpdateCompletion, UserUpdate};
pub use lmdb::{LmdbConfig, LmdbStore, LockHolder, OpenError, Retention};
pub use memory::MemoryStore;
