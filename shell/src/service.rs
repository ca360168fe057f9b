//! A server as a process: configuration in, exit out.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use session_core::NodeId;
use smol::Executor;

use crate::config::{Config, Loaded, StoreKind};
use crate::listen::listen;
use crate::server::{Server, Settings};
use crate::store::{LmdbStore, MemoryStore, Store};
use crate::threads::on_threads;
use crate::{log::Log, signals};

/// How long the store has to write down what it was given once every session has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a server until a signal stops it.
///
/// # Errors
/// When it cannot start: an address that is taken, a data directory that cannot be used. Each says so in words.
pub fn run(loaded: &Loaded) -> anyhow::Result<()> {
    let Loaded { config, settings: _, warnings } = loaded;
    let log = Log::start(Log::parse_filter(&config.log).map_err(anyhow::Error::msg)?, config.log_format);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let stop = signals::stop().context("cannot listen for signals")?;
    let node = NodeId::new(getrandom::u64().context("the system gives no random numbers")?);

    let listeners = listen(&config.listen)?;
    let store = open(config, node)?;
    let settings = Settings {
        node,
        limits: config.session_limits(),
        store_timeout: config.store_timeout,
        max_message_bytes: config.max_message_bytes as usize,
    };
    let server = Server::new(listeners, Arc::clone(&store), settings)?;
    announce(config, &server)?;

    let executor = Arc::new(Executor::new());
    on_threads(config.threads, &executor, server.run(Arc::clone(&executor), stop));

    if !store.close(CLOSE_TIMEOUT) {
        tracing::error!("the store did not close in time, left it as it is");
    }
    tracing::info!(dropped_log_lines = log.dropped_lines(), "stopped");
    Ok(())
}

fn open(config: &Config, node: NodeId) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config.store {
        StoreKind::Memory => Arc::new(MemoryStore::new(node, config.limit)),
        StoreKind::Lmdb => {
            let store = LmdbStore::open(&config.lmdb(), node)?;
            tracing::info!(known_users = store.known_users(), "opened the store");
            Arc::new(store)
        }
    })
}

/// The one line on standard output: where the server listens, and where its data is.
fn announce(config: &Config, server: &Server) -> io::Result<()> {
    let mut line = String::from("listening on ");
    for (at, address) in server.addresses().iter().enumerate() {
        let separator = if at == 0 { "" } else { " and " };
        let _infallible = write!(line, "{separator}ws://{address}");
    }
    line += &match config.store {
        StoreKind::Memory => ", data in memory only".to_owned(),
        StoreKind::Lmdb => format!(", data in {}", config.data.display()),
    };
    // On a thread of its own, and whether or not it succeeds: nobody may be reading, and a server serves all the same.
    let print = move || {
        let mut stdout = io::stdout().lock();
        let _unread = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    };
    thread::Builder::new().name("announcer".into()).spawn(print).map(drop)
}
