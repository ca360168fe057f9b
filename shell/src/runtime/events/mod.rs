//! The events of the log: one table, and the macros that log them.

mod event;
mod log_macros;
pub(crate) mod logged_user;
pub(crate) mod rate_limiter;
pub(crate) mod table;

pub use event::{Event, Rate};
pub(crate) use log_macros::{event_value, log_event, log_limited};
pub use logged_user::{LogUserKey, LogUsers, hash_of, set_log_users};
pub use table::EVENTS;
