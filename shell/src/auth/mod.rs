//! Verifies credentials: user ids as they are, or signed tokens.

mod authenticator;
mod open;
mod jwt;
mod algorithm;
mod bound_key;
mod pem_keys;
mod key_set;
mod keys;
mod claim_name;
mod claims;
mod explain;
mod mint;

pub use algorithm::Algorithm;
pub use authenticator::{Authenticator, InvalidClaim, InvalidCredential};
pub use claim_name::ClaimName;
pub use explain::explain;
pub use jwt::{JwtAuthenticator, TokenValidation, Verifier};
pub use keys::{KeyError, KeySource, Keys, Secret};
pub use mint::{MintError, TokenRequest, mint};
pub use open::OpenAuthenticator;
