//! Verifies credentials: user ids as they are, or signed tokens.

pub mod authenticator;
mod claims;
mod explain;
mod jwt;
mod keys;
mod mint;

pub(crate) use claims::looks_like_token;
pub use explain::explain;
pub use jwt::*;
pub use keys::{Algorithm, KeyError, KeySource, Keys, Secret};
pub use mint::{MintError, TokenRequest, mint};
