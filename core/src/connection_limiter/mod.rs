//! Limit connections: bounds on their number and rate, before any client is authenticated.
//!
//! A [`ConnectionLimiter`] gives each accepted connection a [`Permit`] or says which limit it exceeds. A permit has to be
//! released. [`PermitGuard`] does that when it is dropped.

mod limiter;
mod guard;
mod exceeded;
mod client_prefix;

pub use client_prefix::ClientPrefix;
pub use exceeded::ConnectionLimitExceeded;
pub use guard::{PermitGuard, SharedLimiter};
pub use limiter::{ConnectionLimiter, ConnectionLimits, Permit};
