//! The shell around [`session_core`]: sockets, clock, store and signals.
//!
//! | | |
//! |---|---|
//! | [`service`] | the server as a process: configuration in, exit code out |
//! | [`server`] | accepts connections, knows those that live, ends them all |
//! | [`registry`] | the connections that live |
//! | [`handshake`] | HTTP: the upgrade to a WebSocket, and answers in words to everything else |
//! | [`connection`] | one connection: the only place that sees both the session and its socket |
//! | `socket` | one WebSocket: what is sent, what is read, how it is closed |
//! | [`authenticator`] | who a credential belongs to |
//! | [`tokens`] | signed tokens as credentials: keys, rules, and making some for development |
//! | [`custody`] | every ledger command passes here; sees every slot back |
//! | [`store`] | where slots are kept |
//! | [`operator`] | what an operator asks about a user, and has changed |
//! | [`client`] | the other end: users who hold connections |
//!
//! A connection is driven over any [`connection::Wire`], by any [`clock::Clock`] and with any [`store::Store`]: so what
//! runs in a simulation is what runs in the server.

pub mod cli;
pub mod config;
pub mod server;
pub mod admin;
pub mod net;
pub mod auth;
pub mod store;
pub mod runtime;
pub mod client;
