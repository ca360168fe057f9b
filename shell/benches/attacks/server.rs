//! The attacked server, as a process with its default bounds, and what its clients need to know.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA512, RsaKeySize};
use serde_json::json;
use tempfile::TempDir;
use tests::processor_time;
use tests::test_process::{SpawnedProcess, TestProcess};

/// How the server is started.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    options: &'static [&'static str],
    tls: Option<Key>,
    has_tokens: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    P256,
    Rsa4096,
}

impl Target {
    pub(crate) const PLAIN: Self = Self { options: &[], tls: None, has_tokens: false };
    pub(crate) const HUNDRED: Self = Self { options: &["--limit", "100"], ..Self::PLAIN };
    pub(crate) const UNLIMITED: Self = Self { options: &["--limit", "unlimited"], ..Self::PLAIN };
    pub(crate) const TLS: Self = Self { tls: Some(Key::P256), ..Self::PLAIN };
    pub(crate) const TLS_RSA: Self = Self { tls: Some(Key::Rsa4096), ..Self::PLAIN };
    pub(crate) const TOKENS: Self = Self { has_tokens: true, ..Self::PLAIN };
}

/// A listening server. Killed when dropped.
pub(crate) struct TargetServer {
    process: TestProcess,
    /// The certificate, if it speaks TLS.
    certificate: Option<String>,
    /// The private key that signs tokens, if it wants them.
    token_key: Option<String>,
    directory: TempDir,
}

impl TargetServer {
    pub(crate) fn start(target: Target) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = |name: &str, text: &str| -> Result<_> {
            let path = directory.path().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(target.options);
        let certificate = target.tls.map(certify).transpose()?;
        if let Some((certificate, key)) = &certificate {
            command.arg("--tls-cert").arg(file("cert.pem", certificate)?);
            command.arg("--tls-key").arg(file("key.pem", key)?);
        }
        let token_key = if target.has_tokens {
            let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA512, RsaKeySize::_4096)?;
            command.args(["--auth", "jwt", "--jwt-algorithm", "RS512", "--jwt-public-key-file"]);
            command.arg(file("public.pem", &key.public_key_pem())?);
            Some(key.serialize_pem())
        } else {
            None
        };
        let log = fs::File::create(directory.path().join("log"))?;
        command.stderr(log);
        let process = SpawnedProcess::spawn(command, &directory.path().join("data")).listen();
        let process = process.map_err(|failure| anyhow!("the server does not start: {failure:?}"))?;
        let certificate = certificate.map(|(certificate, _)| certificate);
        Ok(Self { process, certificate, token_key, directory })
    }

    /// The processor time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        processor_time::of_process(self.process.id()).context("no processor time in proc(5)")
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// What a client needs for TLS, if the server speaks that.
    pub(crate) fn client_config(&self) -> Result<Option<Arc<ClientConfig>>> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // Each sign-in pays for a whole handshake.
        config.resumption = futures_rustls::rustls::client::Resumption::disabled();
        Ok(Some(Arc::new(config)))
    }

    /// The first message of a TLS handshake. The server answers each with a signature.
    pub(crate) fn client_hello(&self) -> Result<Vec<u8>> {
        let config = self.client_config()?.context("the server speaks TLS")?;
        let mut hello = Vec::new();
        ClientConnection::new(config, ServerName::try_from("localhost")?)?.write_tls(&mut hello)?;
        Ok(hello)
    }

    /// The token that the probe signs in with, if the server wants one.
    pub(crate) fn good_credential(&self) -> Result<Option<String>> {
        self.token("probe", 0)
    }

    /// A token of the user `mallory`, who may hold any number of sessions.
    pub(crate) fn attacker_credential(&self) -> Result<String> {
        self.token("mallory", 0)?.context("the server wants tokens")
    }

    /// A token of some 3.9 KB whose signature is wrong.
    pub(crate) fn bad_token(&self) -> Result<String> {
        let token = self.token("mallory", 2100)?.context("the server wants tokens")?;
        let (signed, signature) = token.rsplit_once('.').context("a token has a signature")?;
        Ok(format!("{signed}.{}", signature.chars().rev().collect::<String>()))
    }

    fn token(&self, user: &str, padding: usize) -> Result<Option<String>> {
        let Some(key) = &self.token_key else { return Ok(None) };
        let hour = Duration::from_secs(3600);
        let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + hour;
        let claims = json!({ "sub": user, "exp": expires.as_secs(), "max_sessions": "unlimited", "padding": "x".repeat(padding) });
        let key = EncodingKey::from_rsa_pem(key.as_bytes())?;
        Ok(Some(encode(&Header::new(Algorithm::RS512), &claims, &key)?))
    }
}

/// A certificate for localhost that signs itself, and its key.
fn certify(key: Key) -> Result<(String, String)> {
    let key = match key {
        Key::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        Key::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA512, RsaKeySize::_4096)?,
    };
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
