//! A client of the session server, for programs, for tests, and for the `client` binary.
//!
//! | | |
//! |---|---|
//! | [`Connection`] | one WebSocket, from its handshake to its close |
//! | [`UserConnections`] | all connections of one user |
//! | [`run()`] | `client`: holds sessions and prints their events until an interrupt |
//! | [`run::sessions_command`] | `client sessions`, `client end`: lists or ends a user's sessions |
//! | [`bench`](mod@bench) | `client bench`: loads a server and reports what it measured |
//! | [`bench::load`] | the load itself: many sign-ins, counted and timed |
//! | [`reconnect`] | whether and when a client reconnects |
//! | [`Arguments`] | the command line of the binary |
//!
//! For `wss://` the client checks the server's certificate against [`RootCertificates`], by default the system's.
//!
//! Everything runs on smol. [`Options`] bound every wait except [`Connection::next_event`], which waits until the server
//! sends something. A client that waits in line for a slot waits for as long as it has asked to, besides.
//!
//! ```no_run
//! use shell::client::{Error, Url, UserConnections};
//!
//! # fn main() -> Result<(), Error> {
//! let url: Url = "ws://localhost:3000".parse()?;
//! smol::block_on(async {
//!     let mut ada = UserConnections::new(&url, "ada");
//!     for slots in 1..=3 {
//!         assert_eq!(ada.connect().await?.connections, slots);
//!     }
//!     assert!(matches!(ada.connect().await, Err(Error::Denied { .. })));
//!     ada.disconnect().await?;
//!     ada.connect().await?;
//!     Ok(())
//! })
//! # }
//! ```

mod user_connections;
mod connection;
mod credentials;
mod url;
mod root_certificates;
mod stream;
mod upgrade;
mod connect_error;
mod error;
mod exit_reason;
mod reply_timeout;
mod redact;
mod output;
pub mod reconnect;
pub mod run;
pub mod bench;
mod arguments;
#[cfg(test)]
mod testing;

pub use crate::runtime::signals::interrupts;
pub use arguments::Arguments;
pub use connect_error::ConnectError;
pub use connection::{Connection, Event, Grant, Options};
pub use credentials::{Credentials, Token};
pub use error::Error;
pub use exit_reason::ExitReason;
pub use root_certificates::RootCertificates;
pub use run::{Format, Printer, RunOptions, run};
pub use url::{Url, UrlError};
pub use user_connections::UserConnections;
