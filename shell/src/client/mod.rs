//! A client of the server: for programs, for tests, and for the `client` binary.
//!
//! - [`Connection`]: one WebSocket, from its handshake to its close.
//! - [`User`]: one user and the connections held for it, any number, of any number of users.
//! - [`load`](bench::load): many sign-ins, counted and timed.
//! - [`hold`](hold()): what the binary does: holds sessions and prints what happens until it is told to leave.
//! - [`reconnect`]: when a client comes back by itself, and how soon.
//! - [`manage`]: who holds a user's slots, and to end one of them.
//! - [`bench`](mod@bench): what `client bench` does: puts load on a server and reports how it bore it.
//!
//! A server at `wss://` is asked for a certificate from an authority in [`Trust`], by default the system's.
//!
//! Everything runs on smol and is bounded by [`Options`], but for waiting for the server to say something by itself.
//!
//! ```no_run
//! use shell::client::{Error, Url, User};
//!
//! # fn main() -> Result<(), Error> {
//! let url: Url = "ws://localhost:3000".parse()?;
//! smol::block_on(async {
//!     let mut ada = User::new(&url, "ada");
//!     for held in 1..=3 {
//!         assert_eq!(ada.connect().await?.connections, held);
//!     }
//!     assert!(matches!(ada.connect().await, Err(Error::LimitReached { .. })));
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
#[cfg(test)]
mod testing;

pub use crate::signals::interrupts;
pub use connect_error::Obstacle;
pub use connection::{Connection, Event, Grant, Options};
pub use credentials::{Login, Token};
pub use error::Error;
pub use exit_reason::Verdict;
pub use root_certificates::Trust;
pub use run::{Format, Plan, Printer, hold, sessions_command as manage};
pub use url::{Url, UrlError};
pub use user_connections::User;
