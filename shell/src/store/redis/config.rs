//! The settings of the store in a Redis.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use futures_rustls::pki_types::CertificateDer;
use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::crypto::aws_lc_rs;
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError, TlsCertificates,
};
use session_core::cluster::ClusterTiming;
use session_core::ledger::AdmissionPolicy;
use thiserror::Error;

use super::password::{RedisPassword, RedisPasswordError};
use super::small_file::read;
use super::url::RedisUrl;

/// The settings of the store in a Redis.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisConfig {
    /// Where it is. If that has a user or a password for the store, the next two have none.
    pub place: RedisPlace,
    /// How many replicas must have a beat.
    pub replicas: u8,
    /// Whether grants wait for them, too.
    pub waits: bool,
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

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisPlace {
    /// At one server.
    Server(RedisUrl),
    /// At the server that these Sentinels name.
    Sentinels {
        /// The Sentinels.
        sentinels: Vec<RedisUrl>,
        /// The name under which they know it.
        master: String,
    },
    /// In a Redis Cluster, of which these are some servers.
    Cluster(Vec<RedisUrl>),
}

/// Without passwords.
impl fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |urls: &[RedisUrl]| urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Server(url) => url.fmt(f),
            Self::Sentinels { sentinels, master } => write!(f, "{master} of {}", list(sentinels)),
            Self::Cluster(servers) => f.write_str(&list(servers)),
        }
    }
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
    /// No server is named.
    #[error("no server of the store is named")]
    Nowhere,
    /// A certificate or a key is not valid.
    #[error("the certificates for the store cannot be used: {0}")]
    Certificates(RedisError),
}

impl RedisConfig {
    /// The settings of a server that says nothing else: no login but that in the URL, the prefix `sessions`, the default times and no
    /// name.
    #[must_use]
    pub fn new(place: RedisPlace, policy: AdmissionPolicy) -> Self {
        Self {
            place,
            replicas: 0,
            waits: false,
            user: None,
            password: None,
            ca: None,
            certificate: None,
            prefix: "sessions".into(),
            timing: ClusterTiming::default(),
            call_timeout: Duration::from_secs(5),
            node_name: String::new(),
            policy,
        }
    }

    /// How to connect to the server at this URL. Reads the files each time, so that a new password or certificate needs no
    /// restart.
    ///
    /// The protocol is RESP2. Each write is sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// [`RedisConfigError`]: a file cannot be read, or used.
    pub fn connection_info(&self, url: &RedisUrl) -> Result<ConnectionInfo, RedisConfigError> {
        self.with_login(url.to_connection_info())
    }

    /// How to ask a Sentinel: with the user and the password in its URL alone.
    pub(super) fn sentinel_info(&self, url: &RedisUrl) -> Result<ConnectionInfo, RedisConfigError> {
        self.with_tls(url.to_connection_info())
    }

    /// How to connect to a server that another server has named.
    pub(super) fn info_of(&self, host: &str, port: u16) -> Result<ConnectionInfo, RedisConfigError> {
        let url = match &self.place {
            RedisPlace::Server(url) => url,
            RedisPlace::Sentinels { sentinels: urls, .. } | RedisPlace::Cluster(urls) => {
                urls.first().ok_or(RedisConfigError::Nowhere)?
            }
        };
        let address = if url.is_tls() {
            ConnectionAddr::TcpTls { host: host.into(), port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.into(), port)
        };
        let info = url.to_connection_info().set_addr(address);
        match self.place {
            RedisPlace::Sentinels { .. } => self.with_login(info.set_redis_settings(RedisConnectionInfo::default())),
            RedisPlace::Server(_) | RedisPlace::Cluster(_) => self.with_login(info),
        }
    }

    fn with_login(&self, info: ConnectionInfo) -> Result<ConnectionInfo, RedisConfigError> {
        let mut settings = info.redis_settings().clone();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.text()?);
        }
        self.with_tls(info.set_redis_settings(settings))
    }

    fn with_tls(&self, info: ConnectionInfo) -> Result<ConnectionInfo, RedisConfigError> {
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
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
