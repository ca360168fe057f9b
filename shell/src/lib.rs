//! The shell around [`session_core`]: sockets, clock, store and signals.
//!
//! | | |
//! |---|---|
//! | [`cli`] | the server's command line: configuration in, exit code out |
//! | [`config`] | what can be set, within which bounds, and where |
//! | [`server`] | accepts connections, runs a session on each, ends them all |
//! | [`admin`] | what an operator asks about a user, and changes |
//! | [`net`] | TCP, PROXY header, TLS, HTTP, WebSocket |
//! | [`auth`] | verifies credentials |
//! | [`store`] | where slots are kept |
//! | [`runtime`] | clock, timers, log, threads, signals |
//! | [`client`] | the other end: users who hold connections |
//!
//! A connection is driven over any [`net::message_socket::MessageSocket`], by any [`runtime::clock::Clock`] and with any
//! [`store::Store`]: so what runs in a simulation is what runs in the server.

pub mod cli;
pub mod config;
pub mod server;
pub mod admin;
pub mod net;
pub mod auth;
pub mod store;
pub mod runtime;
pub mod client;
