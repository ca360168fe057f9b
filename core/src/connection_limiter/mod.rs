//! Limit connections: bounds on their number, rate and work, for every client, and on their number for every user.
//!
//! A [`ConnectionLimiter`] gives each accepted connection a [`Permit`] or says which limit it exceeds. A permit has to be
//! released. [`PermitGuard`] does that when it is dropped. What a connection then costs counts as [`Work`] of its client.

mod limiter;
mod guard;
mod exceeded;
mod client_prefix;
mod user_counts;
mod work;
mod total_work;

pub use client_prefix::ClientPrefix;
pub use exceeded::ConnectionLimitExceeded;
pub use guard::{PermitGuard, SharedLimiter};
pub use limiter::{ClientUsage, ConnectionLimiter, ConnectionLimits, Permit};
pub use work::Work;
