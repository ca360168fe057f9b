//! What connections are treated by. It can be changed while the server runs.

use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::ServerConfig;
use session_core::session::SessionSettings;

use crate::net::hosts::Hosts;
use crate::net::origins::Origins;
use crate::net::trusted_proxies::TrustedProxies;

/// What a connection is treated by, from when it is accepted until it ends.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// What bounds a session.
    pub session: SessionSettings,
    /// The longest message a client may send, in bytes.
    pub max_message_bytes: usize,
    /// How long a client may take until its request has come whole. Beyond it the answer is 408.
    pub header_timeout: Duration,
    /// The most bytes of a request's head, 8192 at least. Beyond it the answer is 431.
    pub max_header_bytes: usize,
    /// From which pages browsers may connect. From others the answer is 403.
    pub origins: Origins,
    /// By which names clients may have found this server. By others the answer is 421.
    pub hosts: Hosts,
    /// Who may say where a client really is.
    pub trusted_proxies: TrustedProxies,
    /// Whether a connection may begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whether, and how, TLS is spoken.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            session: SessionSettings::default(),
            max_message_bytes: 4096,
            header_timeout: Duration::from_secs(5),
            max_header_bytes: 8 * 1024,
            origins: Origins::default(),
            hosts: Hosts::default(),
            trusted_proxies: TrustedProxies::default(),
            proxy_protocol: false,
            tls: None,
        }
    }
}
