//! The store on disk: two LMDB environments in one data directory.

mod ballast_file;
mod batch;
mod environment;
mod integrity;
mod live;
mod lock;
mod queue;
mod store;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod users;
mod writer;

pub use lock::LockHolder;
pub use store::*;
pub use users::Retention;
