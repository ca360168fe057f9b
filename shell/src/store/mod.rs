//! Where slots are kept. A store knows the ledger's commands, outcomes and rule; it never sees a session.

mod api;
mod completion;
mod failure;
mod pages;
mod user_state;
mod user_slice;
mod usage;
mod health;
mod notifier;
mod nodes;
mod shared;
mod overrides_bytes;
mod directory_lock;
mod memory;
mod lmdb;
mod redis;

#[doc(hidden)]
pub use self::redis::{CommandError, CommandReader, ScriptCall};
pub use self::redis::{
    LinkError, RedisConfig, RedisConfigError, RedisOpenError, RedisPassword, RedisPasswordError, RedisPlace,
    RedisStore, RedisUrl,
};
pub use api::{HealthFuture, NodeStatus, Store, StoreFuture, UsageFuture, UserUpdate};
pub use completion::{Caller, Completion, Unanswered};
pub use directory_lock::LockHolder;
pub use failure::StoreFailure;
pub use health::StoreHealth;
pub use lmdb::{LiveWrites, LmdbConfig, LmdbStore, OpenError, Retention};
pub use memory::MemoryStore;
pub use nodes::{Burial, NodeAbout, NodeList, NodeParts, NodeTimes, SharedSettings, StoredNode};
pub use notifier::SessionNotifier;
pub use pages::{Cursor, Page, PageRequest, StoredSession, StoredUser, UserFilter};
pub use shared::NodeContext;
pub use usage::{EnvironmentUsage, StoreUsage};
pub use user_state::{SeenState, SessionCounts, UserSeen, UserState};
