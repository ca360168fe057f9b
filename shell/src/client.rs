//! A client of the server: for programs, for tests, and for the `client` binary.
//!
//! - [`Connection`]: one WebSocket, from its handshake to its close.
//! - [`User`]: one user and the connections held for it, any number, of any number of users.
//! - [`load`]: many sign-ins, counted and timed.
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

mod user;
mod connection;
mod login;
mod url;
mod trust;
mod stream;
mod upgrade;
mod obstacle;
mod error;
pub mod load;
mod hold;
mod pick;
pub mod manage;
pub mod reconnect;
mod resume;
mod printer;
pub mod bench;
#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod fake_authority;

pub use crate::runtime::signals::interrupts;
pub use connection::{Connection, Event, Grant, Options};
pub use error::Error;
pub use hold::{Plan, Verdict, hold};
pub use login::{Login, Token};
pub use obstacle::Obstacle;
pub use printer::{Format, Printer};
pub use trust::Trust;
pub use url::Url;
pub use user::User;
