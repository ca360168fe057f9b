//! What an operator asks about one user, and has changed: of a running server over a Unix socket ([`socket`]), or of the
//! store itself while none runs.

mod request;
mod report;
mod error;
mod service;
mod routes;
pub mod socket;

pub use error::AdminError;
pub use report::{LimitSourceName, NextOutcome, SessionHolder, UserReport};
pub use request::{AdminRequest, DefaultWord, FullAction, Override, SlotCount, UnlimitedWord, UserPatch};
pub use service::{AdminService, ClientOf};
