//! Runs the server as a process, from its configuration to its exit.

use std::future::pending;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::process;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use session_core::NodeId;
use session_core::connection_limiter::ConnectionLimits;
use smol::{Executor, Task};

use crate::admin::socket::{self, SocketBounds};
use crate::admin::{AdminService, BoundSocket};
use crate::auth::{Authenticator, JwtAuthenticator, OpenAuthenticator};
use crate::cli::capacity::Capacity;
use crate::cli::log_users;
use crate::cli::reload::Reloader;
use crate::cli::server_status::{ConfigInForce, StatusSource, listen_urls};
use crate::config::{Authentication, Config, ConfigLoader, Loaded, StoreKind, shared_settings};
use crate::net::listener::listen;
use crate::runtime::events::log_event;
use crate::runtime::log::{Log, LogFormat, LogHandle};
use crate::runtime::open_files::OpenFileLimit;
use crate::runtime::process::Process;
use crate::runtime::signals;
use crate::runtime::supervisor::{Part, Supervisor};
use crate::runtime::threads::on_threads;
use crate::server::{Server, Settings};
use crate::store::{LmdbStore, MemoryStore, RedisStore, Store};

/// The time in which the store must commit its pending commands after every session has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The file in the data directory with the last good keys of a provider.
const SAVED_KEYS: &str = "jwt_keys.json";

/// Runs a server until a signal stops it. SIGHUP reloads its configuration.
///
/// # Errors
/// The server cannot start: an address is taken, or a data directory, a key or a certificate cannot be used.
pub fn run(loader: ConfigLoader, loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { config, settings: _, warnings } = &loaded;
    let process = Process::start();
    let filter = Log::parse_filter(&config.log).map_err(anyhow::Error::msg)?;
    // It is dropped last, at every return: then its lines are written.
    let log = Log::start(filter, config.log_format, &process.supervisor);
    process.supervisor.set_end(end_process(log.handle()));
    for warning in warnings {
        log_event!(configuration_warning { warning: display(warning) });
    }
    let (stop, hangups) = (signals::stop(log.handle(), &process.supervisor), signals::hangups());
    let (stop, hangups) = (stop.context("cannot catch signals")?, hangups.context("cannot catch signals")?);
    let node = NodeId::new(getrandom::u64().context("the system has no random numbers")?);
    let open_files = OpenFileLimit::raise();
    if config.is_open_to_the_network() {
        log_event!(open_auth_exposed {});
    }

    if config.sends_tokens_in_the_clear() {
        log_event!(tokens_unencrypted {});
    }
    let policy = config.connection_settings()?;
    let tokens = jwt_authenticator(config, &loader, &process)?;
    let authenticator: Box<dyn Authenticator> = match &tokens {
        None => Box::new(OpenAuthenticator { user_id_form: config.user_id_form }),
        Some(tokens) => Box::new(Arc::clone(tokens)),
    };
    let listeners = listen(&config.listen, config.send_buffer_bytes())?;
    let store = open_store(config, &loader, node, &process)?;
    log_users::apply(config.log_users, config.store, &config.data)?;
    let bounds = config.connection_limits(open_files.now);
    log_capacity(&loaded, &open_files, &bounds)?;
    let settings = Settings { store_timeout: config.store_timeout, connection_limits: bounds, connection: policy };
    let server = Server::new(listeners, Arc::clone(&store), authenticator, settings)?;
    let executor = Arc::new(Executor::new());
    let in_force = ConfigInForce::new(loaded.clone());
    let status = StatusSource {
        server: server.handle(),
        node: node.to_string(),
        clock: process.clock.clone(),
        started_at: process.clock.now(),
        addresses: server.addresses().to_vec(),
        loader: loader.clone(),
        started: loaded.clone(),
        in_force: in_force.clone(),
    };
    store.share_settings(shared_settings(config, config));
    let operating = serve_admin(config, &store, &server, status, &process, &executor);
    announce(&loaded, &server, node)?;

    let refreshing = refresh_keys(tokens.clone(), &process, &executor);
    let threads = config.threads;
    let reloader = Reloader {
        loader,
        started: loaded.clone(),
        loaded,
        in_force,
        server: server.handle(),
        store: Arc::clone(&store),
        tokens,
        log: log.handle(),
        open_files,
        keys_read: None,
    };
    let (reloader, mut hangups) = (Arc::new(Mutex::new(reloader.with_keys_read())), Some(hangups));
    let reloading = process.supervisor.spawn(Part::Reload, &executor, move || {
        let (reloader, hangups) = (Arc::clone(&reloader), hangups.take().map_or_else(signals::hangups, Ok));
        async move {
            match hangups {
                Ok(hangups) => Reloader::run(reloader, hangups).await,
                Err(error) => log_event!(hangup_not_caught { error: display(error) }),
            }
        }
    });
    on_threads(threads, &executor, &process.supervisor, server.run(Arc::clone(&executor), stop));
    drop((reloading, operating, refreshing));

    if smol::block_on(store.close(CLOSE_TIMEOUT)).is_err() {
        log_event!(store_not_closed {});
    }
    log_event!(server_stopped { dropped_log_lines: log.handle().dropped_lines() });
    Ok(())
}

/// Ends the process because a part of it has ended that it cannot go on without.
///
/// At once: what is left may wait for that part. To the store and to the clients this is as if the process had been killed,
/// so every slot becomes free, or lingers.
#[expect(clippy::exit, reason = "the other threads may wait for ever for the part that has ended")]
#[expect(clippy::print_stderr, reason = "the log may be off, or its thread may be the one that has ended")]
fn end_process(log: LogHandle) -> impl Fn(Part) + Send + Sync {
    move |part| {
        // If nobody reads standard error, printing to it would wait for ever.
        if part == Part::LogWriter || log.flush() {
            let (part, code) = (part.name(), Supervisor::EXIT_CODE);
            eprintln!(
                "error: the part {part:?} of the server has ended; the server ends with code {code}, please report this"
            );
        }
        process::exit(Supervisor::EXIT_CODE.into());
    }
}

/// Serves operators on the socket in the data directory, if the store has one. A failure does not stop the server.
fn serve_admin(
    config: &Config,
    store: &Arc<dyn Store>,
    server: &Server,
    status: StatusSource,
    process: &Process,
    executor: &Arc<Executor<'static>>,
) -> Option<Task<()>> {
    match config.store {
        // Without a data directory there is no place for the socket.
        StoreKind::Memory => return None,
        StoreKind::Lmdb | StoreKind::Redis => {}
    }
    let socket = Arc::new(smol::lock::Mutex::new(BoundSocket::bind(&config.data)));
    let registry = Arc::clone(server.registry());
    let address_of = Box::new(move |session| registry.client_address(session));
    let service = AdminService::new(Arc::clone(store), Some(address_of), config.store_timeout);
    let service = service.with_data(&config.data).with_user_id_form(config.user_id_form);
    let service = Arc::new(service.with_server_status(status.into_status()));
    let tasks = Arc::clone(executor);
    Some(process.supervisor.spawn(Part::Admin, executor, move || {
        socket::serve(Arc::clone(&socket), Arc::clone(&service), Arc::clone(&tasks), SocketBounds::default())
    }))
}

/// Logs the limit of open files and the number of connections that it leaves room for.
fn log_capacity(loaded: &Loaded, limit: &OpenFileLimit, bounds: &ConnectionLimits) -> anyhow::Result<()> {
    let max_connections = bounds.connections.map(NonZeroUsize::get);
    log_event!(open_files_limit {
        descriptors: limit.now,
        hard_limit: limit.hard,
        max_connections,
        reason: display(limit)
    });
    match Capacity::check(limit, loaded) {
        Capacity::Enough => Ok(()),
        Capacity::Reduced(message) => {
            log_event!(few_connections { max_connections, reason: display(message) });
            Ok(())
        }
        Capacity::None(message) => bail!(message),
    }
}

fn jwt_authenticator(
    config: &Config,
    loader: &ConfigLoader,
    process: &Process,
) -> anyhow::Result<Option<Arc<JwtAuthenticator>>> {
    match config.auth {
        Authentication::Open => Ok(None),
        Authentication::Jwt => {
            let tokens = JwtAuthenticator::new(config.verifier(loader.secret())?, process.clock.clone());
            let tokens = match config.store {
                StoreKind::Memory => tokens,
                StoreKind::Lmdb | StoreKind::Redis => tokens.with_saved_keys(config.data.join(SAVED_KEYS)),
            };
            let keys = &tokens.verifier().keys;
            let provider = keys.provider().map(ToString::to_string);
            let (algorithms, keys) = (keys.algorithm_names(), keys.count());
            log_event!(tokens_required { algorithms: display(algorithms), keys, provider });
            Ok(Some(Arc::new(tokens)))
        }
    }
}

/// Fetches the keys of tokens whenever that is due. Without tokens it only waits.
fn refresh_keys(tokens: Option<Arc<JwtAuthenticator>>, process: &Process, executor: &Executor<'static>) -> Task<()> {
    process.supervisor.spawn(Part::Keys, executor, move || {
        let tokens = tokens.clone();
        async move {
            match tokens {
                Some(tokens) => tokens.refresh_keys().await,
                None => pending().await,
            }
        }
    })
}

fn open_store(
    config: &Config,
    loader: &ConfigLoader,
    node: NodeId,
    process: &Process,
) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config.store {
        StoreKind::Memory => Arc::new(MemoryStore::in_process(node, config.admission_policy(), process.clone())),
        StoreKind::Lmdb => {
            let store = LmdbStore::open_in_process(&config.lmdb(), node, process.clone())?;
            log_event!(store_opened { known_users: store.known_users() });
            Arc::new(store)
        }
        StoreKind::Redis => {
            let settings = config.redis(loader.redis_password())?;
            Arc::new(RedisStore::open(&settings, &config.data, node, process.clone())?)
        }
    })
}

/// Says where the server listens, and where its data is: in the log, and in the only line on standard output.
fn announce(loaded: &Loaded, server: &Server, node: NodeId) -> io::Result<()> {
    let config = &loaded.config;
    let addresses = listen_urls(loaded, server.addresses());
    let data = match config.store {
        StoreKind::Memory => "memory only".to_owned(),
        StoreKind::Lmdb => config.data.display().to_string(),
        StoreKind::Redis => config.redis_place().map(|place| place.to_string()).unwrap_or_default(),
    };
    log_event!(server_listening {
        addresses: addresses.join(","),
        data: &*data,
        node: display(node),
        version: env!("CARGO_PKG_VERSION"),
    });
    let line = match config.log_format {
        LogFormat::Text => format!("listening on {}, data in {data}", addresses.join(" and ")),
        LogFormat::Json => json!({ "event": "server_listening", "addresses": addresses, "data": data }).to_string(),
    };
    // On its own thread, and ignoring errors: if no process reads the output, writing can block or fail, and the server
    // must serve all the same.
    let print = move || {
        let mut stdout = io::stdout().lock();
        let _unread = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    };
    thread::Builder::new().name("announcer".into()).spawn(print).map(drop)
}
