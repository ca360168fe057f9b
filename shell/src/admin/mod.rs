//! What an operator asks about one user, and has changed: of a running server over a Unix socket ([`socket`]), or of the
//! store itself while none runs.

mod routes;
mod service;
pub mod socket;

pub use service::*;
