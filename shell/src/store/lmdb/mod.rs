//! The store on disk: two LMDB environments in one data directory.

mod store;
mod error;
mod directory_watch;
mod queue;
mod writer;
mod shared_writer;
mod batch;
mod records;
mod apply_context;
mod sweep;
mod live_query;
mod user_list;
mod health;
mod live;
mod live_writes;
mod users;
mod environment;
mod mapped_file;
mod integrity;
mod torn_commit;
mod ballast_file;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::OpenError;
pub use live_writes::LiveWrites;
pub use store::{LmdbConfig, LmdbStore};
pub use users::Retention;
