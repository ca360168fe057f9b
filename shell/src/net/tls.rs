//! The server's TLS configuration: its certificate, TLS 1.2 and 1.3, HTTP/1.1 by ALPN.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures_rustls::pki_types::pem::{self, PemObject as _};
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::server::ProducesTickets;
use futures_rustls::rustls::{self, InconsistentKeys, ServerConfig};
use thiserror::Error;

use crate::runtime::access::{self, Right};

/// The files of a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate in PEM, followed by its issuers.
    pub certificate: PathBuf,
    /// Its private key in PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Why the certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate's file cannot be read, or is not PEM.
    #[error("cannot read {path}: {}", pem_error(.path, .why))]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The error.
        why: pem::Error,
    },
    /// The key's file cannot be read, or holds no private key in PEM.
    #[error("cannot read {path}: {}", pem_error(.path, .why))]
    Key {
        /// The file.
        path: PathBuf,
        /// The error.
        why: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path} has no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificate and the key do not belong together, or one of them is not supported.
    #[error("the certificate {certificate} cannot be used with the key {key}: {}", key_mismatch(.why))]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The error of rustls.
        why: rustls::Error,
    },
}

fn key_mismatch(error: &rustls::Error) -> String {
    if let rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) = error {
        "the key belongs to another certificate".into()
    } else {
        error.to_string()
    }
}

fn pem_error(path: &Path, error: &pem::Error) -> String {
    if let pem::Error::NoItemsFound = error {
        "it has no private key in PEM (-----BEGIN PRIVATE KEY-----); an encrypted key cannot be used".into()
    } else if let pem::Error::Io(error) = error {
        access::explain(error, path, Right::Read)
    } else {
        format!("it is not PEM: {error}")
    }
}

impl CertificateFiles {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// [`TlsError`] names the file and the reason.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let certificates = certificates(&self.certificate)?;
        let key = private_key(&self.key)?;
        let unusable = |why| TlsError::Unusable { certificate: self.certificate.clone(), key: self.key.clone(), why };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(unusable)?;
        // A WebSocket begins as HTTP/1.1. If a client offers only other protocols, the handshake fails with an alert that
        // says so (RFC 7301 §3.2).
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = ticketer().map_err(unusable)?;
        // A client gets a new ticket with each connection.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

/// Encrypts the tickets with which clients resume TLS sessions, and decrypts them. It belongs to the process, not to a
/// certificate: a reload keeps the tickets valid. Its keys are only in memory. It makes a new one every 6 hours, and a ticket is
/// valid for at most 12.
fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    static TICKETER: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();

    if let Some(ticketer) = TICKETER.get() {
        return Ok(Arc::clone(ticketer));
    }
    let ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::clone(TICKETER.get_or_init(|| ticketer)))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|why| TlsError::Key { path: path.into(), why })
}

/// Every error of these files: of each, or else of the two together.
#[must_use]
pub fn check_files(certificate: Option<&Path>, key: Option<&Path>) -> Vec<TlsError> {
    let unreadable =
        [certificate.and_then(|path| certificates(path).err()), key.and_then(|path| private_key(path).err())];
    let unreadable: Vec<_> = unreadable.into_iter().flatten().collect();
    match (certificate, key) {
        (Some(certificate), Some(key)) if unreadable.is_empty() => {
            CertificateFiles { certificate: certificate.into(), key: key.into() }.load().err().into_iter().collect()
        }
        (_, _) => unreadable,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |why| TlsError::Certificate { path: path.into(), why };
    let items = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let certificates = items.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.into() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn unusable_files_are_named_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let [mine, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
        for (name, text) in [
            ("cert", mine.cert.pem()),
            ("key", mine.signing_key.serialize_pem()),
            ("other key", other.signing_key.serialize_pem()),
            ("empty", String::new()),
            ("torn", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".into()),
        ] {
            fs::write(path(name), text).unwrap();
        }
        let load = |certificate, key| CertificateFiles { certificate: path(certificate), key: path(key) }.load();
        let config = load("cert", "key").unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
        for (certificate, key, message) in [
            ("missing", "key", "missing: No such file"),
            ("cert", "missing", "missing: No such file"),
            ("empty", "key", "empty has no certificate in PEM"),
            ("key", "key", "key has no certificate in PEM"),
            ("cert", "cert", "cert: it has no private key in PEM"),
            ("torn", "key", "torn: it is not PEM"),
            ("cert", "other key", "other key: the key belongs to another certificate"),
        ] {
            let error = load(certificate, key).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
