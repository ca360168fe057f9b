//! The shell around [`session_core`]: sockets, clock, store and signals.
//!
//! | | |
//! |---|---|
//! | [`service`] | the server as a process: configuration in, exit code out |
//! | [`server`] | accepts connections, knows those that live, ends them all |
//! | `handshake` | HTTP: the upgrade to a WebSocket, and answers in words to everything else |
//! | `connection` | one connection: the only place that sees both the session and its socket |
//! | `socket` | one WebSocket: what is sent, what is read, how it is closed |
//! | `custody` | every ledger command passes here; sees every slot back |
//! | [`store`] | where slots are kept |
//! | [`client`] | the other end: users who hold connections |

pub mod client;
pub mod config;
pub mod listen;
pub mod log;
pub mod server;
pub mod service;
pub mod store;

mod authenticator;
mod clock;
mod connection;
mod custody;
mod fair;
mod handshake;
mod mailbox;
mod signals;
mod socket;
