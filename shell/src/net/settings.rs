//! Settings of a connection. A running server can change them for new connections.

use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::ServerConfig;
use session_core::session::SessionSettings;

use crate::net::forwarded::ForwardedHeader;
use crate::net::hosts::Hosts;
use crate::net::origins::Origins;
use crate::net::paths::Paths;
use crate::net::subprotocols::Subprotocols;
use crate::net::trusted_proxies::TrustedProxies;
use crate::runtime::readiness::Readiness;

/// The settings of one connection. It keeps the settings that were in force when it was accepted.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// The limits and times of a session.
    pub session: SessionSettings,
    /// The longest message a client may send, in bytes.
    pub max_message_bytes: usize,
    /// The same until the client is authenticated, if that differs. A client whose message took more than half of
    /// `max_message_bytes` keeps it: it needs as much, or a little more, for its next token.
    pub max_unauthenticated_message_bytes: Option<usize>,
    /// How long a client may take to send its whole request. After that the response is 408.
    pub header_timeout: Duration,
    /// The maximum size of a request's head in bytes, at least 8192. Above it the response is 431.
    pub max_header_bytes: usize,
    /// The paths at which clients may open a WebSocket. For others the response is 404.
    pub paths: Paths,
    /// The subprotocols that may be selected.
    pub subprotocols: Subprotocols,
    /// The origins of pages that may connect. For others, but the server's own, the response is 403.
    pub origins: Origins,
    /// The host names of this server. For a request to another name the response is 421.
    pub hosts: Hosts,
    /// The proxies that may state a client's address.
    pub trusted_proxies: TrustedProxies,
    /// The header in which these proxies state it.
    pub forwarded_header: ForwardedHeader,
    /// Whether a connection may begin with a PROXY header. A trusted proxy must then send one.
    pub proxy_protocol: bool,
    /// The TLS configuration. `None`: no TLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether the server admits sessions now, for the health check. The server sets its own here.
    pub readiness: Readiness,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            session: SessionSettings::default(),
            max_message_bytes: 4096,
            max_unauthenticated_message_bytes: None,
            header_timeout: Duration::from_secs(5),
            max_header_bytes: 8 * 1024,
            paths: Paths::default(),
            subprotocols: Subprotocols::default(),
            origins: Origins::default(),
            hosts: Hosts::default(),
            trusted_proxies: TrustedProxies::default(),
            forwarded_header: ForwardedHeader::default(),
            proxy_protocol: false,
            tls: None,
            readiness: Readiness::default(),
        }
    }
}
