//! Fetches a provider's key set. Blocks, for [`TIMEOUT`] at most.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_rustls::pki_types::CertificateDer;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::RootCertStore;
use futures_rustls::rustls::crypto::aws_lc_rs;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, StatusCode};
use ureq::config::Config;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Proxy};

use crate::auth::cache_lifetime::lifetime;
use crate::auth::discovery::{configuration_url, key_set_url};
use crate::auth::key_provider::{KeyEndpoint, KeyProvider};
use crate::auth::provider_url::ProviderUrl;

/// The longest time that one request may take, from the look-up of the name to the end of the body.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time until the connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest body. Sets of the large providers have some 10 KB.
const MAX_BODY_BYTES: u64 = 256 * 1024;

/// The longest file of certificates. All authorities of the web take a fifth of this.
const MAX_CA_BYTES: u64 = 1 << 20;

/// What a provider answered with.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    /// Where it is from.
    pub(super) url: ProviderUrl,
    /// How long it stays fresh, if the provider says so.
    pub(super) lifetime: Option<Duration>,
}

/// Fetches the key set of a provider: one request, and before it one for the configuration of an issuer.
///
/// # Errors
/// The reason, with the URL at fault if that is not the configured one.
pub(super) fn fetch(provider: &KeyProvider) -> Result<Answer, String> {
    let get = |url: &ProviderUrl| request(provider, url).map_err(|why| provider.error_at(url, &why));
    let url = match &provider.endpoint {
        KeyEndpoint::KeySet(url) => url.clone(),
        KeyEndpoint::Issuer(issuer) => {
            let url = configuration_url(issuer);
            let (configuration, _) = get(&url)?;
            key_set_url(issuer, &configuration).map_err(|why| provider.error_at(&url, &why))?
        }
    };
    let (body, headers) = get(&url)?;
    Ok(Answer { body, url, lifetime: lifetime(&headers, SystemTime::now()) })
}

fn request(provider: &KeyProvider, url: &ProviderUrl) -> Result<(Vec<u8>, HeaderMap), String> {
    let response = agent(provider, url)?.get(url.as_str()).header("accept", "application/json").call();
    let mut response = response.map_err(|error| explain(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_redirection() {
        let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        return Err(format!("it redirects to {to:?}, which is not followed: set the URL where the keys are"));
    }
    if status != StatusCode::OK {
        return Err(format!("it answers {status}"));
    }
    let body = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec();
    let body = body.map_err(|error| explain(&error))?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.to_ascii_lowercase().starts_with("text/html") {
        return Err("it answers with an HTML page, not with JSON".into());
    }
    Ok((body, headers))
}

/// A new client for each request: so it uses the certificates that are there now, and keeps no connection.
fn agent(provider: &KeyProvider, url: &ProviderUrl) -> Result<Agent, String> {
    // No certificate is needed where nothing is encrypted.
    let roots = if url.is_https() { root_certificates(provider.ca.as_deref())? } else { Vec::new() };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .build();
    Ok(Config::builder()
        .tls_config(tls)
        .https_only(url.is_https())
        // A redirect could lead from https to http, or into the operator's own network.
        .max_redirects(0)
        .http_status_as_error(false)
        // This machine is not reached through a proxy.
        .proxy(if url.is_loopback() { None } else { Proxy::try_from_env() })
        .timeout_global(Some(TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .max_response_header_size(16 * 1024)
        .max_idle_connections(0)
        .user_agent("sessions")
        .build()
        .new_agent())
}

/// The authorities in this file, or the system's.
///
/// # Errors
/// The file cannot be read or has no certificate; or the system has none.
pub(super) fn root_certificates(ca: Option<&Path>) -> Result<Vec<Certificate<'static>>, String> {
    let Some(file) = ca else {
        // Certificates that cannot be read are skipped. Servers that need them are not trusted.
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() {
            return Err("this system has no certificate authorities: install them, or set jwt_key_set_ca".into());
        }
        return Ok(owned(&found));
    };
    let no_good = |why: String| format!("the certificate authorities in {} cannot be used: {why}", file.display());
    let pem = read(file).map_err(|error| no_good(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| no_good(error.to_string()))?;
    if certificates.is_empty() {
        return Err(no_good("it has no certificate in PEM".into()));
    }
    let mut store = RootCertStore::empty();
    for certificate in certificates.iter().cloned() {
        store.add(certificate).map_err(|error| no_good(error.to_string()))?;
    }
    Ok(owned(&certificates))
}

fn owned(certificates: &[CertificateDer<'_>]) -> Vec<Certificate<'static>> {
    certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_CA_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CA_BYTES { Err(io::Error::other("it is larger than 1 MiB")) } else { Ok(bytes) }
}

/// What went wrong, for an operator.
fn explain(error: &ureq::Error) -> String {
    if let ureq::Error::Timeout(phase) = error {
        format!("it does not answer in time ({phase})")
    } else if let ureq::Error::BodyExceedsLimit(max) = error {
        format!("its answer has more than {max} bytes")
    } else {
        error.to_string()
    }
}
