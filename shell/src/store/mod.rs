//! Where slots are kept. A store knows the ledger's commands, outcomes and rule; it never sees a session.

mod api;
mod lmdb;
mod memory;

pub use api::*;
pub(crate) use api::{NotifierSlot, SharedPolicy};
pub use lmdb::{LmdbConfig, LmdbStore, LockHolder, OpenError, Retention};
pub use memory::MemoryStore;
