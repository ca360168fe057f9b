//! Reloads the configuration, keys and certificates of a running server.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _};
use smol::Timer;
use smol::future::or;

use super::capacity::Capacity;
use super::server_status::ConfigInForce;
use crate::auth::{JwtAuthenticator, Verifier};
use crate::cli::log_users;
use crate::config::{Authentication, Config, ConfigLoader, Loaded, ReloadMode, VerifierError, diff, shared_settings};
use crate::runtime::events::log_event;
use crate::runtime::log::{Log, LogHandle};
use crate::runtime::open_files::OpenFileLimit;
use crate::server::ServerHandle;
use crate::store::Store;

/// Reloads a running server.
pub(crate) struct Reloader {
    pub(crate) loader: ConfigLoader,
    /// The configuration at the start. It stays in force for keys whose change needs a restart.
    pub(crate) started: Loaded,
    /// The configuration in force for the other keys.
    pub(crate) loaded: Loaded,
    /// The same, for `server status`.
    pub(crate) in_force: ConfigInForce,
    pub(crate) server: ServerHandle,
    pub(crate) store: Arc<dyn Store>,
    /// Present if users authenticate by tokens.
    pub(crate) tokens: Option<Arc<JwtAuthenticator>>,
    pub(crate) log: LogHandle,
    /// The limit of open files.
    pub(crate) open_files: OpenFileLimit,
    /// The version of the file with the keys that are in force.
    pub(crate) keys_read: Option<FileVersion>,
}

/// The time of change of a file, its length and its inode.
pub(crate) type FileVersion = (SystemTime, u64, u64);

/// Why the reloader looks.
enum Wake {
    Hangup,
    Look,
}

/// Why the reload failed. Nothing has changed then.
type ReloadError = Box<dyn std::error::Error + Send + Sync>;

impl Reloader {
    /// Interval between checks of the key file.
    const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(2);

    /// Reloads everything after each hangup signal, and the keys when their file changes. Never ends by itself. After a panic
    /// the caller can run it again: what it changes it puts in place as a whole, and the next reload puts it in place again.
    pub(crate) async fn run(reloader: Arc<Mutex<Self>>, hangups: impl Stream<Item = ()>) {
        let mut hangups = pin!(hangups.chain(futures_util::stream::pending()));
        loop {
            let hangup = async {
                hangups.next().await;
                Wake::Hangup
            };
            let look = async {
                Timer::after(Self::KEY_CHECK_INTERVAL).await;
                Wake::Look
            };
            let wake = or(hangup, look).await;
            let reloader = Arc::clone(&reloader);
            // Reading files may block, so it must not run on a thread that serves connections.
            smol::unblock(move || reloader.lock().unwrap_or_else(PoisonError::into_inner).wake(&wake)).await;
        }
    }

    fn wake(&mut self, wake: &Wake) {
        let now = self.key_file().as_deref().and_then(file_version);
        match wake {
            // Changed keys are loaded even if the rest of the configuration is invalid.
            Wake::Hangup if self.reload() => {}
            Wake::Hangup | Wake::Look if now != self.keys_read => self.reload_keys(),
            Wake::Hangup | Wake::Look => {}
        }
        self.keys_read = now;
    }

    /// Notes that the keys in force are those of now.
    pub(crate) fn with_keys_read(self) -> Self {
        let keys_read = self.key_file().as_deref().and_then(file_version);
        Self { keys_read, ..self }
    }

    /// The file with the keys of tokens.
    fn key_file(&self) -> Option<PathBuf> {
        self.tokens.as_ref()?;
        let source = self.loaded.config.key_source(self.loader.secret()).ok()?;
        source.file().map(Into::into)
    }

    fn reload_keys(&mut self) {
        match self.verifier(&self.loaded.config) {
            Ok(verifier) => {
                log_event!(keys_reloaded { keys: verifier.keys.count() });
                if let Some(tokens) = &self.tokens {
                    tokens.set(verifier);
                }
            }
            Err(error) => {
                log_event!(keys_invalid { error: display(error) });
            }
        }
    }

    /// The verifier with this configuration. The form of user ids stays as it was at the start: otherwise a session's fresh
    /// token could name another user than the session's.
    fn verifier(&self, config: &Config) -> Result<Verifier, VerifierError> {
        let mut verifier = config.verifier(self.loader.secret())?;
        verifier.rules.user_id_form = self.started.config.user_id_form;
        Ok(verifier)
    }

    /// Whether the reload succeeded.
    fn reload(&mut self) -> bool {
        let result = self.try_reload();
        if let Err(error) = &result {
            for line in error.to_string().lines() {
                log_event!(configuration_invalid { error: display(line) });
            }
            log_event!(configuration_kept {});
        }
        result.is_ok()
    }

    /// Puts the whole configuration in force, or nothing of it.
    fn try_reload(&mut self) -> Result<(), ReloadError> {
        let new = self.loader.load_for_server()?;
        let (connection_settings, connection_limits) =
            (new.config.connection_settings()?, new.config.connection_limits(self.open_files.now));
        // Even if `auth` changes only after a restart: otherwise the restart could fail.
        let verifier = match new.config.auth {
            Authentication::Open => None,
            Authentication::Jwt => Some(self.verifier(&new.config)?),
        };
        let filter = Log::parse_filter(&new.config.log)?;
        // It may have to fetch keys, which takes some seconds at most.
        let with_keys = |(tokens, verifier): (_, _)| {
            let tokens: &Arc<JwtAuthenticator> = tokens;
            tokens.with_keys(verifier).map(|verifier| (tokens, verifier))
        };
        let verifier = self.tokens.as_ref().zip(verifier).map(with_keys).transpose()?;
        let Config { store, data, .. } = &self.started.config;
        log_users::apply(new.config.log_users, *store, data)?;

        let also_read =
            [("the certificate", connection_settings.tls.is_some()), ("the keys of tokens", verifier.is_some())];
        let also_read: Vec<_> = also_read.iter().filter(|(_, is_read)| *is_read).map(|(what, _)| *what).collect();

        self.server.set_connection_settings(connection_settings);
        self.server.set_connection_limits(connection_limits);
        self.store.set_policy(new.config.admission_policy());
        self.store.share_settings(shared_settings(&self.started.config, &new.config));
        if let Some((tokens, verifier)) = verifier {
            tokens.set(verifier);
        }

        // Logged once the change is in force, and before the new log level, which may hide it.
        for warning in &new.warnings {
            log_event!(configuration_warning { warning: display(warning) });
        }
        match Capacity::check(&self.open_files, &new) {
            Capacity::Enough => {}
            Capacity::Reduced(message) | Capacity::None(message) => {
                let max_connections = connection_limits.connections.map(NonZeroUsize::get);
                log_event!(few_connections { max_connections, reason: display(message) });
            }
        }
        let changes = |old, when| diff(old, &new).into_iter().filter(move |change| change.key.applies == when);
        for change in changes(&self.loaded, ReloadMode::AtOnce) {
            log_event!(configuration_changed { change: display(change) });
        }
        if self.loaded.config.tls_cert.is_some() && new.config.tls_cert.is_none() {
            log_event!(tls_switched_off {});
        }
        // Each reload repeats these, until a restart or until the old value is back.
        for change in changes(&self.started, ReloadMode::AfterRestart) {
            log_event!(restart_needed { change: display(change) });
        }
        let also_read = Some(also_read.join(" and ")).filter(|names| !names.is_empty());
        log_event!(configuration_reloaded { also_read });
        self.log.set_filter(filter);
        self.in_force.set(new.clone());
        self.loaded = new;
        Ok(())
    }
}

/// The version of a file: its time of change, length and inode. It changes if the file is replaced or written. Follows
/// links.
#[cfg(unix)]
fn file_version(path: &std::path::Path) -> Option<FileVersion> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
