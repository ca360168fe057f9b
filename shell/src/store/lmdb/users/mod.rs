//! The directory `users/`.

mod known_user;
mod overrides;
mod retention;
mod slot_query;
mod writer;

#[cfg(test)]
pub(super) use known_user::{KnownUser, KnownUserError};
pub(super) use overrides::read_all;
pub use retention::Retention;
pub(super) use slot_query::SlotQuery;
pub(super) use writer::{SeenSender, UpdateSender, open, user_writer};
