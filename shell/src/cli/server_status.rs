//! What a running server says of itself, for `server status`.

use std::net::SocketAddr;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use session_core::Timestamp;

use crate::admin::{
    ChangedSetting, ConfigurationStatus, ConnectionTotals, DescriptorTotals, ServerStatus, ServerStatusOf,
};
use crate::config::{ChangedKey, ConfigLoader, Loaded, ReloadMode, diff};
use crate::runtime::clock::Clock;
use crate::runtime::descriptors;
use crate::server::ServerHandle;

/// The configuration in force for the keys that a reload changes. The reloader replaces it.
#[derive(Debug, Clone)]
pub(crate) struct ConfigInForce(Arc<Mutex<Loaded>>);

impl ConfigInForce {
    pub(crate) fn new(loaded: Loaded) -> Self {
        Self(Arc::new(Mutex::new(loaded)))
    }

    pub(crate) fn set(&self, loaded: Loaded) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    fn get(&self) -> Loaded {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a running server finds what it says of itself.
pub(crate) struct StatusSource {
    pub(crate) server: ServerHandle,
    pub(crate) node: String,
    pub(crate) clock: Clock,
    pub(crate) started_at: Timestamp,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) loader: ConfigLoader,
    /// The configuration at the start.
    pub(crate) started: Loaded,
    pub(crate) in_force: ConfigInForce,
}

impl StatusSource {
    pub(crate) fn into_status(self) -> ServerStatusOf {
        Arc::new(move || self.status())
    }

    /// Reads the configuration anew, as a reload would, so it may block.
    fn status(&self) -> ServerStatus {
        let limiter = self.server.connection_limiter();
        let ((open, unauthenticated), limits) = (limiter.counts(), limiter.limits());
        ServerStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.node.clone(),
            process: process::id(),
            started_at: self.started_at.millis(),
            uptime_ms: u64::try_from(self.clock.now().since(self.started_at).as_millis()).unwrap_or(u64::MAX),
            listen: listen_urls(&self.started, &self.addresses),
            connections: ConnectionTotals {
                open,
                unauthenticated,
                max: limits.connections.map(Into::into),
                max_unauthenticated: limits.unauthenticated.map(Into::into),
            },
            descriptors: DescriptorTotals { used: descriptors::used(), max: descriptors::max() },
            configuration: self.configuration(),
        }
    }

    fn configuration(&self) -> ConfigurationStatus {
        match self.loader.load() {
            Ok(now) => ConfigurationStatus {
                needs_restart: changed(&self.started, &now, ReloadMode::AfterRestart),
                needs_reload: changed(&self.in_force.get(), &now, ReloadMode::AtOnce),
                error: None,
            },
            Err(errors) => {
                let in_force = self.in_force.get();
                ConfigurationStatus {
                    needs_restart: changed(&self.started, &in_force, ReloadMode::AfterRestart),
                    needs_reload: Vec::new(),
                    error: Some(errors.to_string().trim_end().to_owned()),
                }
            }
        }
    }
}

/// The URLs that a server listens on.
pub(crate) fn listen_urls(loaded: &Loaded, addresses: &[SocketAddr]) -> Vec<String> {
    let scheme = if loaded.config.tls_cert.is_some() { "wss" } else { "ws" };
    addresses.iter().map(|address| format!("{scheme}://{address}")).collect()
}

fn changed(in_force: &Loaded, now: &Loaded, when: ReloadMode) -> Vec<ChangedSetting> {
    let changes = diff(in_force, now).into_iter().filter(|change| change.key.applies == when);
    let setting = |ChangedKey { key, old, new }| ChangedSetting { key: key.name.to_owned(), in_force: old, now: new };
    changes.map(setting).collect()
}
