//! The settings of the store in a Redis.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_rustls::pki_types::CertificateDer;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::crypto::aws_lc_rs;
use redis::io::tcp::TcpSettings;
use redis::{Client, ClientTlsConfig, ConnectionInfo, RedisError, TlsCertificates};
use session_core::cluster::ClusterTiming;
use session_core::ledger::AdmissionPolicy;
use thiserror::Error;

use super::password::{RedisPassword, RedisPasswordError};
use super::small_file::read;
use super::url::RedisUrl;

/// The settings of the store in a Redis.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisConfig {
    /// Where it is. If it has a user or a password, the next two have none.
    pub url: RedisUrl,
    /// The user to authenticate as.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<RedisPassword>,
    /// A file with the certificate authorities of the server, in PEM. Without it the system's count. Only with TLS.
    pub ca: Option<PathBuf>,
    /// Files with the certificate to present and its key, in PEM. Only with TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What all keys begin with: 1 to 64 ASCII letters, digits, `.`, `_`, `-` and `:`.
    pub prefix: String,
    /// When a server counts as dead.
    pub timing: ClusterTiming,
    /// The time limit of a call.
    pub call_timeout: Duration,
    /// How operators see this server among the others: 1 to 64 printable characters without spaces.
    pub node_name: String,
    /// The policy that decides who gets a slot.
    pub policy: AdmissionPolicy,
}

/// Why no connection can be made with these settings.
#[derive(Debug, Error)]
pub enum RedisConfigError {
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] RedisPasswordError),
    /// A file with certificates or a key cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error.
        why: io::Error,
    },
    /// The file with the authorities has none.
    #[error("{path} has no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoAuthorities {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or a key is not valid.
    #[error("the certificates for the store cannot be used: {0}")]
    Certificates(RedisError),
}

impl RedisConfig {
    /// Where and how to connect. Reads the files each time, so that a new password or certificate needs no restart.
    ///
    /// The protocol is RESP2. Each write is sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// [`RedisConfigError`]: a file cannot be read, or used.
    pub fn connection_info(&self) -> Result<ConnectionInfo, RedisConfigError> {
        let info = self.url.to_connection_info();
        let mut settings = info.redis_settings().clone();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.text()?);
        }
        let info = info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        if !self.url.is_tls() {
            return Ok(info);
        }
        // The crate takes the provider of the process. rustls chooses that by itself only while a single one is built in.
        let _already_there = aws_lc_rs::default_provider().install_default();
        let certificates = TlsCertificates { client_tls: self.client_certificate()?, root_cert: self.authorities()? };
        let client = Client::build_with_tls(info, certificates).map_err(RedisConfigError::Certificates)?;
        Ok(client.get_connection_info().clone())
    }

    fn authorities(&self) -> Result<Option<Vec<u8>>, RedisConfigError> {
        self.ca.as_deref().map(Self::read_authorities).transpose()
    }

    /// The certificate authorities in this file, in PEM.
    ///
    /// # Errors
    /// [`RedisConfigError`]: the file cannot be read, or has no certificate.
    pub fn read_authorities(path: &Path) -> Result<Vec<u8>, RedisConfigError> {
        let pem = read_pem(path)?;
        // With none, each connection would fail.
        if CertificateDer::pem_slice_iter(&pem).next().is_none() {
            return Err(RedisConfigError::NoAuthorities { path: path.into() });
        }
        Ok(pem)
    }

    fn client_certificate(&self) -> Result<Option<ClientTlsConfig>, RedisConfigError> {
        let Some((certificate, key)) = &self.certificate else { return Ok(None) };
        Ok(Some(ClientTlsConfig { client_cert: read_pem(certificate)?, client_key: read_pem(key)? }))
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, RedisConfigError> {
    read(path).map_err(|why| RedisConfigError::Unreadable { path: path.into(), why })
}

#[cfg(test)]
mod tests;
