//! A certificate authority for tests.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use shell::net::tls::CertificateFiles;

/// A certificate authority, and a directory for its certificates.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its own certificate in PEM, for clients that are to trust it.
    pub ca: PathBuf,
}

impl TestCa {
    /// Creates an authority and writes its certificate into this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let certificate = params.self_signed(&key).expect("a certificate");
        let ca = directory.join("ca.pem");
        fs::write(&ca, certificate.pem()).expect("a writable directory");
        Self { issuer: Issuer::new(params, key), directory: directory.into(), ca }
    }

    /// Issues a certificate for these names and addresses, in files of this name.
    #[must_use]
    pub fn certify(&self, file: &str, names: &[&str]) -> CertificateFiles {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("good names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = CertificateFiles {
            certificate: self.directory.join(format!("{file}.pem")),
            key: self.directory.join(format!("{file}.key")),
        };
        fs::write(&files.certificate, certificate.pem()).expect("a writable directory");
        fs::write(&files.key, key.serialize_pem()).expect("a writable directory");
        files
    }
}
