//! A certificate authority for the client's tests.

use std::sync::Arc;

use futures_rustls::TlsAcceptor;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::{self, ServerConfig, SupportedProtocolVersion};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::NamedTempFile;

use crate::client::RootCertificates;

pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of a test");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate, for `--ca`.
    pub(crate) fn pem_file(&self) -> NamedTempFile {
        let pem_file = NamedTempFile::new().expect("a temporary file");
        std::fs::write(pem_file.path(), &self.pem).expect("room for it");
        pem_file
    }

    pub(crate) fn root_certificates(&self) -> RootCertificates {
        RootCertificates::read(self.pem_file().path()).expect("a good certificate")
    }

    /// TLS with a certificate for these names and addresses, valid from the first day of one year to that of another.
    pub(crate) fn acceptor(&self, names: &[&str], years: [i32; 2]) -> TlsAcceptor {
        self.acceptor_with_versions(rustls::DEFAULT_VERSIONS, names, years)
    }

    pub(crate) fn acceptor_with_versions(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        names: &[&str],
        years: [i32; 2],
    ) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        acceptor(versions, certificate.der().clone(), &key)
    }

    /// TLS with the authority's own certificate.
    pub(crate) fn acceptor_with_ca_certificate(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate");
        acceptor(rustls::DEFAULT_VERSIONS, certificate, self.issuer.key())
    }
}

fn acceptor(
    versions: &[&'static SupportedProtocolVersion],
    certificate: CertificateDer<'static>,
    key: &KeyPair,
) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("good versions");
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a key that belongs to the certificate");
    // Refuses a client that offers only another protocol.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config).into()
}
