//! Serves connections: accepts them, runs a session on each, and ends them all at shutdown.

mod accept;
mod accepted;
pub mod connection;
pub mod mailbox;
pub mod refusal_log;
pub mod registry;
pub mod slot_guard;
pub mod store_client;

pub use accept::*;
