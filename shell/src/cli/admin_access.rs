//! How an operator's command reaches a store: through the server that uses it, or by itself if no server runs.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use session_core::NodeId;
use smol::Timer;

use super::log_users;
use crate::admin::{AdminService, BoundSocket, socket};
use crate::config::{Config, StoreKind};
use crate::store::{LmdbStore, OpenError, Store as _};

/// How long to wait for the socket of a server that uses the directory. Longer than the server takes to notice that the
/// socket is gone.
const SOCKET_TIMEOUT: Duration = BoundSocket::CHECK_INTERVAL.saturating_mul(3);

/// Asks the server that runs on this data directory. Without such a server, opens the store and asks that.
pub(crate) async fn ask<T>(
    config: &Config,
    server: impl AsyncFn() -> Result<Option<T>, String>,
    store: impl AsyncFnOnce(&AdminService) -> Result<T, String>,
) -> Result<T, String> {
    match config.store {
        StoreKind::Memory => {
            return Err("operator commands need a data directory, and store = \"memory\" has none".into());
        }
        // Only a server can ask that store.
        StoreKind::Redis => {
            return server().await?.ok_or_else(|| {
                format!(
                    "no server answers at {}: with store = \"redis\" operator commands need a running server on this machine; \
                     name its data directory with --data",
                    socket::path(&config.data).display()
                )
            });
        }
        StoreKind::Lmdb => {}
    }
    let node = NodeId::new(getrandom::u64().map_err(|error| error.to_string())?);
    let give_up_at = Instant::now() + SOCKET_TIMEOUT;
    let opened = loop {
        if let Some(answer) = server().await? {
            return Ok(answer);
        }
        // Opening would create a store in a directory that has none, such as a mistyped one.
        if !LmdbStore::is_in(&config.data) {
            return Err(format!(
                "there is no server data in {}, and no server runs on it: name the data directory with --data; \
                 with store = \"redis\", that of a server that runs",
                config.data.display()
            ));
        }
        match LmdbStore::open(&config.lmdb(), node) {
            Ok(store) => break Arc::new(store),
            Err(OpenError::InUse { holder, .. }) if give_up_at <= Instant::now() => {
                return Err(format!(
                    "{holder} uses {}, but does not answer at {}. If that is a server, its log says why it cannot open that \
                     socket; it keeps trying",
                    config.data.display(),
                    socket::path(&config.data).display()
                ));
            }
            // A server that starts or stops, or whose socket was deleted, which it notices soon.
            Err(OpenError::InUse { .. }) => drop(Timer::after(Duration::from_millis(100)).await),
            Err(error) => return Err(error_chain(&error)),
        }
    };
    let service = AdminService::new(Arc::<LmdbStore>::clone(&opened), None, config.store_timeout)
        .with_data(&config.data)
        .with_user_id_form(config.user_id_form);
    log_users::apply(config.log_users, config.store, &config.data).map_err(|error| error_chain(&error))?;
    let answer = store(&service).await;
    if opened.close(Duration::from_secs(5)).await.is_err() {
        return Err("the store did not close in time".into());
    }
    answer
}

/// The error and its causes.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _infallible = write!(message, ": {error}");
        next = error.source();
    }
    message
}
