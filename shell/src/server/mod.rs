//! Accepts connections, runs a session on each, and ends them all at shutdown.
//!
//! `accept` → `accepted` → [`connection`] → `slot_guard` → [`store_client`] → the store; its outcome comes back through
//! the connection's [`mailbox`].

mod accept;
mod accepted;
pub mod connection;
pub mod slot_guard;
pub mod store_client;
pub mod mailbox;
pub mod registry;
pub mod session_log;

pub use accept::{Server, ServerHandle, Settings};
