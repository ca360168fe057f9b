//! Who publishes the keys of tokens.

use std::fmt;
use std::path::PathBuf;

use crate::auth::provider_url::ProviderUrl;

/// An identity provider that publishes a JSON Web Key Set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyProvider {
    /// Where its keys are found.
    pub endpoint: KeyEndpoint,
    /// A file with the certificate authorities, in PEM, that it must have its certificate from. `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// Where the keys are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyEndpoint {
    /// At this URL.
    KeySet(ProviderUrl),
    /// Where the configuration of this issuer says (OpenID Connect Discovery 1.0).
    Issuer(ProviderUrl),
}

impl KeyProvider {
    /// What is wrong with the answer of this URL. It is named unless it is the one that is configured.
    pub(super) fn error_at(&self, url: &ProviderUrl, why: &str) -> String {
        match &self.endpoint {
            KeyEndpoint::KeySet(_) => why.into(),
            KeyEndpoint::Issuer(_) => format!("{url}: {why}"),
        }
    }
}

/// The URL that is configured.
impl fmt::Display for KeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            KeyEndpoint::KeySet(url) => url.fmt(f),
            KeyEndpoint::Issuer(issuer) => write!(f, "the issuer {issuer}"),
        }
    }
}
