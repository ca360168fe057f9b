//! The directory `users/`: the users who were granted a slot and are not [forgotten](retention), and the overrides.
//!
//! It has a thread of its own. No command waits for it.

mod open;
mod writer;
mod queue;
mod known_user;
mod overrides;
mod retention;
mod slot_query;
mod user_query;

#[cfg(test)]
pub(super) use known_user::{KnownUser, KnownUserError};
pub(super) use open::open;
pub(super) use overrides::read_all;
pub(super) use queue::{SeenSender, UpdateSender};
pub use retention::Retention;
pub(super) use slot_query::SlotQuery;
pub(super) use user_query::{UserQuery, UsersHealth, UsersUsage};
pub(super) use writer::user_writer;
