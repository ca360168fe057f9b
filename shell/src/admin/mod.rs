//! Requests of an operator about one user: to a running server over a Unix socket ([`socket`]), or to the store itself if
//! no server runs.

mod request;
mod report;
mod error;
mod service;
mod routes;
mod bound_socket;
pub mod socket;

pub use bound_socket::BoundSocket;
pub use error::AdminError;
pub use report::{NextOutcome, SessionReport, UserReport};
pub use request::{AdminRequest, DefaultWord, Override, SlotCount, UnlimitedWord, UserPatch};
pub use service::{AddressOf, AdminService};
