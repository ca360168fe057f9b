//! The directory `users/`.

mod known_user;
mod overrides;
mod retention;
mod slot_query;
mod writer;

#[cfg(test)]
pub(super) use known_user::{KnownUser, KnownUserError};
pub(super) use overrides::read_all;
pub use retention::Forget;
pub(super) use slot_query::Inquiry;
pub(super) use writer::{Amendments, Notes, open, recorder};
