//! Which connections a process accepts: bounds on their number and rate, before anybody is authenticated.

mod limiter;
mod exceeded;
mod client_prefix;

pub use client_prefix::ClientPrefix;
pub use exceeded::ConnectionLimitExceeded;
pub use limiter::{ConnectionLimiter, ConnectionLimits, Permit};
