//! The certificate authorities that a client trusts.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use futures_rustls::TlsConnector;
use futures_rustls::pki_types::CertificateDer;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::{ClientConfig, RootCertStore};

use super::Error;

/// The certificate authorities trusted for `wss://`, by default the system's.
///
/// Cheap to clone: clones share the certificates.
#[derive(Clone, Default)]
pub struct RootCertificates(Option<Arc<ClientConfig>>);

impl RootCertificates {
    /// The system's authorities. They are read at the first connection that needs them, and kept. If the system has
    /// none, no server is trusted. `SSL_CERT_FILE` and `SSL_CERT_DIR` override where they are read from.
    pub const SYSTEM: Self = Self(None);

    /// The largest file of certificates, in bytes. All authorities of the web take a fifth of this.
    pub const MAX_BYTES: u64 = 1024 * 1024;

    /// Reads the authorities from a PEM file. Only these are trusted.
    ///
    /// # Errors
    /// [`Error::BadCa`]: the file cannot be read, is longer than [`RootCertificates::MAX_BYTES`], has no certificate,
    /// or has an invalid one.
    pub fn read(file: impl AsRef<Path>) -> Result<Self, Error> {
        let file = file.as_ref();
        let bad = |reason| Error::BadCa { from: file.display().to_string(), reason };
        let mut pem = Vec::new();
        let opened = std::fs::File::open(file);
        let read = opened.and_then(|file| file.take(Self::MAX_BYTES + 1).read_to_end(&mut pem));
        read.map_err(|error| bad(error.to_string()))?;
        Self::parse(&pem).map_err(bad)
    }

    fn parse(pem: &[u8]) -> Result<Self, String> {
        if pem.len() as u64 > Self::MAX_BYTES {
            return Err(format!("it is longer than {} bytes", Self::MAX_BYTES));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("it has no certificate".into());
        }
        Ok(Self(Some(client_config(roots))))
    }

    pub(super) async fn connector(&self) -> TlsConnector {
        self.client_config().await.into()
    }

    /// How to do TLS with a server that one of these authorities has certified.
    pub(super) async fn client_config(&self) -> Arc<ClientConfig> {
        static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();

        match self.0.as_ref().or_else(|| SYSTEM.get()) {
            Some(client_config) => Arc::clone(client_config),
            // This may read hundreds of files.
            None => smol::unblock(|| Arc::clone(SYSTEM.get_or_init(system_config))).await,
        }
    }
}

/// Says only where they are from.
impl fmt::Debug for RootCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Trust(a file's)" } else { "Trust(the system's)" })
    }
}

fn system_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be read are skipped. Servers that need them are not trusted.
    let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    client_config(roots)
}

fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has ciphers of TLS 1.2 and 1.3");
    let mut client_config = builder.with_root_certificates(roots).with_no_client_auth();
    client_config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A load stands for many devices, and each would do a full handshake.
    client_config.resumption = Resumption::disabled();
    Arc::new(client_config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_certificate_file_error_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let refused = || RootCertificates::read(&file).unwrap_err().to_string();
        let start = format!("no certificates from {}: ", file.display());
        assert!(refused().starts_with(&start) && refused().contains("No such file"), "{}", refused());
        for (pem, expected) in [
            ("", "it has no certificate; "),
            ("certificates", "it has no certificate; "),
            ("-----BEGIN PRIVATE KEY-----\naGFpbA==\n-----END PRIVATE KEY-----\n", "it has no certificate; "),
            ("-----BEGIN CERTIFICATE-----\naGFpbA==\n-----END CERTIFICATE-----\n", "invalid peer certificate: "),
            ("-----BEGIN CERTIFICATE-----\naGFpbA==\n", "section end"),
            (&"\n".repeat(1024 * 1024 + 1), "it is longer than 1048576 bytes; "),
        ] {
            std::fs::write(&file, pem).unwrap();
            assert!(refused().starts_with(&start) && refused().contains(expected), "{}", refused());
            assert!(refused().ends_with("-----BEGIN CERTIFICATE-----"), "{}", refused());
        }
    }
}
