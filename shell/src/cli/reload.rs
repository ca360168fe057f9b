//! Reads the configuration, keys and certificates again while the server runs, and says what came of it.

use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _};
use smol::Timer;
use smol::future::or;

use crate::auth::JwtAuthenticator;
use crate::config::{Authentication, ConfigLoader, Loaded, ReloadMode, diff};
use crate::runtime::log::Log;
use crate::server::ServerHandle;
use crate::store::Store;

/// Changes a running server.
pub(crate) struct Reloader {
    pub(crate) sources: ConfigLoader,
    /// What it was started with, and goes by where a change needs a restart.
    pub(crate) started: Loaded,
    /// What it goes by otherwise.
    pub(crate) loaded: Loaded,
    pub(crate) control: ServerHandle,
    pub(crate) store: Arc<dyn Store>,
    /// There where users show tokens.
    pub(crate) tokens: Option<Arc<JwtAuthenticator>>,
    pub(crate) log: Arc<Log>,
    /// How many files may be open.
    pub(crate) descriptors: u64,
}

/// Why it goes on as before.
type Unchanged = Box<dyn std::error::Error + Send + Sync>;

impl Reloader {
    /// How often the file with the keys is looked at.
    const WATCH: Duration = Duration::from_secs(2);

    /// Reads everything again at each hangup, and the keys when their file changes. Never ends.
    pub(crate) async fn run(mut self, hangups: impl Stream<Item = ()>) {
        enum Wake {
            Hangup,
            Look,
        }

        let mut hangups = pin!(hangups.chain(futures_util::stream::pending()));
        let mut seen = self.key_file().as_deref().and_then(file_version);
        loop {
            let hangup = async {
                hangups.next().await;
                Wake::Hangup
            };
            let look = async {
                Timer::after(Self::WATCH).await;
                Wake::Look
            };
            let wake = or(hangup, look).await;
            // Files are read, which may take a while: not on a thread that serves connections.
            (self, seen) = smol::unblock(move || {
                let file = self.key_file();
                let now = file.as_deref().and_then(file_version);
                match wake {
                    // Keys that have changed are read even if the rest is no good.
                    Wake::Hangup if self.reload() => {}
                    Wake::Hangup | Wake::Look if now != seen => self.reload_keys(),
                    Wake::Hangup | Wake::Look => {}
                }
                (self, now)
            })
            .await;
        }
    }

    /// The file that the keys of tokens are in.
    fn key_file(&self) -> Option<PathBuf> {
        self.tokens.as_ref()?;
        let source = self.loaded.config.key_source(self.sources.secret()).ok()?;
        source.file().map(Into::into)
    }

    fn reload_keys(&mut self) {
        match self.loaded.config.verifier(self.sources.secret()) {
            Ok(verifier) => {
                tracing::info!(keys = verifier.keys.count(), "the keys of tokens have changed, read them again");
                if let Some(tokens) = &self.tokens {
                    tokens.set(verifier);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the keys of tokens have changed and are no good; going on with the old ones")
            }
        }
    }

    /// Whether it could be read.
    fn reload(&mut self) -> bool {
        let read = self.read_again();
        if let Err(error) = &read {
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            tracing::error!("the configuration was not read again, nothing has changed");
        }
        read.is_ok()
    }

    /// Puts all of it in force, or nothing.
    fn read_again(&mut self) -> Result<(), Unchanged> {
        let new = self.sources.load()?;
        let (policy, bounds) = (new.config.connection_settings()?, new.config.connection_limits(self.descriptors));
        // Also where that would only count after a restart: it is not to fail then.
        let verifier = match new.config.auth {
            Authentication::Open => None,
            Authentication::Jwt => Some(new.config.verifier(self.sources.secret())?),
        };
        let verifier = self.tokens.as_ref().zip(verifier);
        let filter = Log::parse_filter(&new.config.log)?;

        let read = [("the certificate", policy.tls.is_some()), ("the keys of tokens", verifier.is_some())];
        let read: Vec<_> = read.iter().filter(|(_, is_read)| *is_read).map(|(what, _)| *what).collect();

        self.control.set_connection_settings(policy);
        self.control.set_connection_limits(bounds);
        self.store.set_policy(new.config.admission_policy());
        if let Some((tokens, verifier)) = verifier {
            tokens.set(verifier);
        }

        // Once it is so, and before the log's own level, which may hide it.
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let changes = |old, when| diff(old, &new).into_iter().filter(move |change| change.key.applies == when);
        for change in changes(&self.loaded, ReloadMode::AtOnce) {
            tracing::info!("{change}");
        }
        if self.loaded.config.tls_cert.is_some() && new.config.tls_cert.is_none() {
            tracing::warn!(
                "from now on no TLS is spoken: whoever connects to wss:// is turned away, others can be read"
            );
        }
        // Again each time, until it is started again or they are as they were.
        for change in changes(&self.started, ReloadMode::AfterRestart) {
            tracing::warn!("{change}");
        }
        let also = Some(read.join(" and ")).filter(|read| !read.is_empty());
        tracing::info!(also_read = also, "read the configuration again");
        self.log.set_filter(filter);
        self.loaded = new;
        Ok(())
    }
}

/// What a file was like when it was looked at: another one, or another content, is another stamp. A link is followed.
#[cfg(unix)]
fn file_version(path: &std::path::Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
