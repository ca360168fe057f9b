//! Verifies credentials: user ids as they are, or signed tokens.

mod authenticator;
mod open;
mod jwt;
mod algorithm;
mod bound_key;
mod pem_keys;
mod key_set;
mod provider_url;
mod discovery;
mod key_provider;
mod cache_lifetime;
mod provider_client;
mod fetched_set;
mod keys;
mod refresh_schedule;
mod refresher;
mod claim_name;
mod claims;
mod explain;
mod mint;

pub use algorithm::Algorithm;
pub use authenticator::{Authenticator, InvalidClaim, InvalidCredential, NewerKeys};
pub use claim_name::ClaimName;
pub(crate) use claims::bare_token;
pub(crate) use discovery::check_issuer;
pub use explain::explain;
pub use jwt::{JwtAuthenticator, TokenValidation, Verifier};
pub use key_provider::{KeyEndpoint, KeyProvider};
pub use keys::{KeyError, KeySource, Keys, Secret};
pub use mint::{MintError, TokenRequest, mint};
pub use open::OpenAuthenticator;
pub use provider_url::ProviderUrl;
pub use refresh_schedule::{Failing, RefreshSchedule};
