//! A session manager: it limits how many live WebSocket sessions one user may hold.
//!
//! [`session_core`] decides, without I/O. This crate is everything around it: sockets, clock, store, configuration and the
//! two programs `server` and `client`.
//!
//! # Rooms
//!
//! | | |
//! |---|---|
//! | [`cli`] | the server's command line: arguments, serve, reload, tokens, user commands |
//! | [`config`] | configuration keys, their sources, their bounds; builds the settings of the other rooms |
//! | [`server`] | accepts connections, runs a session on each, drains them at shutdown |
//! | [`admin`] | requests of operators: show and change users, end sessions |
//! | [`net`] | the path of a connection: TCP, PROXY header, TLS, HTTP, WebSocket |
//! | [`auth`] | verifies credentials |
//! | [`store`] | keeps users and slots, in memory or in LMDB |
//! | [`runtime`] | clock, timers, log, threads, signals |
//! | [`client`] | the client: a library, the program, and its load generator |
//!
//! A room imports only rooms to the right of its arrow:
//!
//! ```text
//! cli    → config, server, admin, and what these import
//! config → net, auth, store, runtime
//! server → net, auth, store, runtime
//! admin  → store, runtime
//! net, auth, store, client → runtime
//! ```
//!
//! # The way of a message
//!
//! A client sends `AUTHENTICATE`:
//!
//! 1. `server/accept.rs` has accepted the connection, and `net/connection_limiter.rs` has counted it. `server/accepted.rs`
//!    has taken it through `net/transport.rs` (PROXY header, TLS) and `net/upgrade.rs` (HTTP).
//! 2. `net/websocket.rs` reads the message. `server/connection.rs` polls it from the socket and passes it to the session as
//!    an [`Event`](session_core::session::Event).
//! 3. The [`Session`](session_core::session::Session) returns effects. `server/connection.rs` has `auth` verify the
//!    credential, then submits the acquire command through `server/slot_guard.rs`.
//! 4. `server/store_client.rs` reserves a release in case the outcome is lost, starts the timeout, and submits the command
//!    to the [`Store`](store::Store). The store applies `session_core::ledger` to the user's record.
//! 5. The outcome arrives in `server/mailbox.rs`, which wakes the connection. `server/connection.rs` passes it to the
//!    session.
//! 6. The session returns a frame. `net/websocket.rs` writes it.
//!
//! # Embedding a server
//!
//! ```
//! use std::{net::TcpListener, sync::Arc, time::Duration};
//!
//! use session_core::{NodeId, connection_limiter::ConnectionLimits, ledger::SlotLimit};
//! use shell::auth::OpenAuthenticator;
//! use shell::net::settings::ConnectionSettings;
//! use shell::runtime::supervisor::Supervisor;
//! use shell::runtime::threads::on_threads;
//! use shell::server::{Server, Settings};
//! use shell::store::MemoryStore;
//!
//! # fn main() -> std::io::Result<()> {
//! let settings = Settings {
//!     store_timeout: Duration::from_secs(5),
//!     connection_limits: ConnectionLimits::default(),
//!     connection: ConnectionSettings::default(),
//! };
//! let listeners = vec![TcpListener::bind("127.0.0.1:0")?];
//! let node = NodeId::new(1); // Random in production: it names one start of this process.
//! let store = Arc::new(MemoryStore::new(node, SlotLimit::default()));
//! let server = Server::new(listeners, store, Box::new(OpenAuthenticator::default()), settings)?;
//! println!("listening on {:?}", server.addresses());
//!
//! let stop = async {}; // The server drains when this future is ready.
//! let executor = Arc::new(smol::Executor::new());
//! on_threads(2, &executor, &Supervisor::default(), server.run(Arc::clone(&executor), stop));
//! # Ok(())
//! # }
//! ```
//!
//! [`server::connection::Connection`] runs on any [`net::message_socket::MessageSocket`], [`runtime::clock::Clock`] and
//! [`store::Store`]. So the simulation in `tests/` runs the same code as the server.

pub mod cli;
pub mod config;
pub mod server;
pub mod admin;
pub mod net;
pub mod auth;
pub mod store;
pub mod runtime;
pub mod client;
