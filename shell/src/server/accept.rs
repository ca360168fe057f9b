//! The server: it accepts connections, starts a task for each, and drains them at shutdown.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use session_core::ResumeToken;
use session_core::connection_limiter::{ConnectionLimitExceeded, ConnectionLimits};
use smol::future::{FutureExt as _, poll_once};
use smol::{Executor, Task, Timer};

use crate::auth::Authenticator;
use crate::net::acceptor::Acceptor;
use crate::net::close::close_after_response;
use crate::net::connection_limiter::SharedConnectionLimiter;
use crate::net::peer::Peer;
use crate::net::plain_response::PlainResponse;
use crate::net::settings::ConnectionSettings;
use crate::net::tcp::TcpSocket;
use crate::runtime::events::log_event;
use crate::runtime::fair_turns::FairTurns;
use crate::runtime::malloc;
use crate::runtime::process::Process;
use crate::runtime::readiness::Readiness;
use crate::runtime::supervisor::Part;
use crate::runtime::threads::one_per_core;
use crate::server::accepted::{AcceptedConnection, run_connection, upgrade};
use crate::server::connection::ConnectionContext;
use crate::server::registry::Registry;
use crate::server::session_log::SessionLog;
use crate::server::store_client::StoreClient;
use crate::store::Store;

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long the store may take. After that the outcome is [`session_core::ledger::Outcome::Unknown`]. As long may the
    /// check of a credential take, if that is expensive.
    pub store_timeout: Duration,
    /// The limits on connections before authentication.
    pub connection_limits: ConnectionLimits,
    /// The settings of each connection.
    pub connection: ConnectionSettings,
}

/// A server on bound listeners. [`Server::run`] runs it.
pub struct Server {
    listeners: Vec<Acceptor>,
    addresses: Vec<SocketAddr>,
    state: Arc<ServerState>,
}

/// Changes the settings of a running server.
#[derive(Clone)]
pub struct ServerHandle(Arc<ServerState>);

impl ServerHandle {
    /// Changes the settings of connections that are accepted from now on.
    pub fn set_connection_settings(&self, settings: ConnectionSettings) {
        let settings = ConnectionSettings { readiness: self.0.readiness.clone(), ..settings };
        *self.0.connection_settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The turns in which the server computes what is expensive.
    #[must_use]
    pub fn turns(&self) -> &Arc<FairTurns> {
        &self.0.context.turns
    }

    /// The limiter of connections, which knows how many there are.
    #[must_use]
    pub fn connection_limiter(&self) -> &SharedConnectionLimiter {
        &self.0.connection_limiter
    }

    /// Changes the limits on connections. Connections that exceed them stay.
    pub fn set_connection_limits(&self, limits: ConnectionLimits) {
        self.0.connection_limiter.set_limits(limits);
    }
}

/// What the accept loops share.
struct ServerState {
    connection_settings: RwLock<Arc<ConnectionSettings>>,
    readiness: Readiness,
    process: Process,
    connection_limiter: Arc<SharedConnectionLimiter>,
    context: Arc<ConnectionContext>,
    registry: Arc<Registry>,
    /// How many refused connections are open, to let their clients read the reason.
    refused_open: AtomicUsize,
}

impl ServerState {
    fn connection_settings(&self) -> Arc<ConnectionSettings> {
        Arc::clone(&self.connection_settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerState {
    /// Starts the tasks that run beside the connections until the server has drained.
    fn start_tasks(self: &Arc<Self>, executor: &Executor<'static>) -> [Task<()>; 5] {
        let supervisor = &self.process.supervisor;
        let (timers, wall_clock) = (self.process.clock.clone(), self.process.clock.clone());
        let store_client = Arc::clone(&self.context.store_client);
        let (health, trim) = (Arc::clone(self), Arc::clone(self));
        [
            supervisor.spawn(Part::Timers, executor, move || timers.clone().run_timers()),
            supervisor.spawn(Part::WallClock, executor, move || wall_clock.clone().watch_wall_clock()),
            supervisor.spawn(Part::Retry, executor, move || Arc::clone(&store_client).retry()),
            supervisor.spawn(Part::Health, executor, move || watch_health(Arc::clone(&health))),
            supervisor.spawn(Part::TrimMemory, executor, move || trim_memory(Arc::clone(&trim))),
        ]
    }
}

impl Server {
    /// How many sessions may hold or wait for a slot. It limits the memory for releases that the store does not confirm.
    const MAX_SLOT_GUARDS: usize = 1 << 20;
    /// How many refused connections stay open so that their clients can read the reason. Further ones get the response, too,
    /// but are closed at once; if their clients still send, they may lose it.
    const MAX_REFUSED_OPEN: usize = 64;
    /// How long accepting pauses when the system has no more file descriptors or memory.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
    /// How long after half of many connections have left the memory is trimmed.
    const TRIM_DELAY: Duration = Duration::from_secs(1);
    /// How old the answer to a health check may be, beside the time that the store takes to answer.
    const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
    /// How long sessions may take to drain at shutdown.
    const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

    /// A server on bound listeners. The caller binds them, so a test can let the system choose the port. It has the clock and
    /// the supervisor of the process that opened the store.
    ///
    /// # Errors
    /// When a listener's options cannot be set, or its address cannot be read.
    pub fn new(
        listeners: Vec<TcpListener>,
        store: Arc<dyn Store>,
        authenticator: Box<dyn Authenticator>,
        settings: Settings,
    ) -> io::Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let listeners = listeners.into_iter().map(Acceptor::new).collect::<io::Result<_>>()?;
        let (process, readiness) = (store.context().process().clone(), Readiness::default());
        let clock = &process.clock;
        let Settings { store_timeout, connection_limits, connection } = settings;
        let registry = Registry::new(store.node(), clock.clone());
        store.set_notifier(Arc::<Registry>::clone(&registry));
        let store_client = {
            let registry = Arc::clone(&registry);
            StoreClient::new(store, registry, clock.clone(), store_timeout, Self::MAX_SLOT_GUARDS)
        };
        let new_resume_token = || {
            let mut random = [0; 32];
            getrandom::fill(&mut random).ok().map(|()| ResumeToken::new(random))
        };
        let state = ServerState {
            connection_settings: RwLock::new(Arc::new(ConnectionSettings {
                readiness: readiness.clone(),
                ..connection
            })),
            readiness,
            connection_limiter: SharedConnectionLimiter::new(connection_limits, clock.clone()),
            process,
            context: Arc::new(ConnectionContext {
                store_client,
                authenticator,
                turns: FairTurns::new(Self::turns_at_a_time()),
                new_resume_token: Box::new(new_resume_token),
                session_log: SessionLog::default(),
            }),
            registry,
            refused_open: AtomicUsize::new(0),
        };
        Ok(Self { listeners, addresses, state: Arc::new(state) })
    }

    /// How many TLS handshakes and checks of tokens are computed at a time: on half of the cores, at least on one. The others
    /// are left to the connections that ask for neither.
    fn turns_at_a_time() -> NonZeroUsize {
        NonZeroUsize::new(usize::from(one_per_core() / 2)).unwrap_or(NonZeroUsize::MIN)
    }

    /// The live connections.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.state.registry
    }

    /// A handle that changes settings while the server runs.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(Arc::clone(&self.state))
    }

    /// The addresses that the server listens on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop` is ready, then drains: the server accepts no more connections, tells every session that it shuts
    /// down, and releases every slot. Draining takes at most 6 seconds, even if peers do not read or the store does not
    /// answer.
    ///
    /// Connections run on `executor`. The caller runs it, on any number of threads.
    pub async fn run(self, executor: Arc<Executor<'static>>, stop: impl Future<Output = ()>) {
        let Self { listeners, addresses, state } = self;
        // Before the first health check: a server that shares its store may not admit anybody yet.
        state.readiness.set_refusal(state.context.store_client.health().await.message());
        let supervisor = &state.process.supervisor;
        let accept_loops: Vec<Task<()>> = listeners
            .into_iter()
            .zip(addresses)
            .map(|(listener, address)| {
                let (listener, state, tasks) = (Arc::new(listener), Arc::clone(&state), Arc::clone(&executor));
                let start = move || accept(Arc::clone(&listener), address, Arc::clone(&state), Arc::clone(&tasks));
                supervisor.spawn(Part::Accept, &executor, start)
            })
            .collect();
        let tasks = state.start_tasks(&executor);
        stop.await;
        for task in accept_loops {
            task.cancel().await;
        }
        let sessions = state.context.store_client.tracked();
        let connections = state.registry.drain();
        log_event!(server_stopping { connections, sessions });
        let drained = async {
            state.registry.wait_until_empty().await;
            true
        };
        let timeout = async {
            Timer::after(Self::DRAIN_TIMEOUT).await;
            false
        };
        if !drained.or(timeout).await {
            log_event!(connections_left { connections: state.registry.len() });
        }
        for task in tasks {
            task.cancel().await;
        }
        let pending = state.context.store_client.pending();
        if pending > 0 {
            log_event!(releases_unconfirmed { releases: pending });
        }
    }
}

/// Accepts connections without end. No error ends the loop: a client's error and a full file table are temporary.
async fn accept(
    listener: Arc<Acceptor>,
    address: SocketAddr,
    state: Arc<ServerState>,
    executor: Arc<Executor<'static>>,
) {
    let mut pause = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                end_pause(&mut pause);
                accept_connection(stream, Peer::of_socket(peer.ip(), address), &state, &executor);
            }
            // The client left before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if pause.is_none() {
                    log_event!(accept_failed { error: display(&error) });
                }
                pause.get_or_insert_with(Instant::now);
                Timer::after(Server::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn end_pause(pause: &mut Option<Instant>) {
    if let Some(since) = pause.take() {
        log_event!(accept_resumed { paused_millis: since.elapsed().as_millis() });
    }
}

fn accept_connection(stream: TcpSocket, peer: Peer, state: &Arc<ServerState>, executor: &Executor<'static>) {
    let settings = state.connection_settings();
    // The client of a trusted proxy is counted when the proxy has named it.
    let address = Some(peer.address).filter(|&address| !settings.trusted_proxies.is_trusted(address));
    match state.connection_limiter.acquire(address) {
        Ok(permit) => {
            let registration = state.registry.register();
            let connection = AcceptedConnection { stream, peer, settings, permit, accepted: state.process.clock.now() };
            let context = Arc::clone(&state.context);
            let (clock, mailbox) = (state.process.clock.clone(), Arc::clone(registration.mailbox()));
            let upgrade = Box::pin(upgrade(connection, clock, mailbox, Arc::clone(&context.turns)));
            executor.spawn(run_connection(upgrade, context, registration)).detach();
        }
        // A response over TLS would cost more than serving the connection.
        Err(_) if settings.tls.is_some() => drop(stream),
        Err(exceeded) => executor.spawn(refuse_connection(stream, exceeded, Arc::clone(state))).detach(),
    }
}

/// Sends a client the reason and closes the connection.
async fn refuse_connection(mut stream: TcpSocket, exceeded: ConnectionLimitExceeded, state: Arc<ServerState>) {
    let response = PlainResponse::limit_exceeded(exceeded).to_bytes();
    let close = close_after_response(&mut stream, &response);
    if state.refused_open.fetch_add(1, Ordering::Relaxed) < Server::MAX_REFUSED_OPEN {
        close.await;
    } else {
        // One poll is enough to send the response: the send buffer of a new socket is empty.
        let _unfinished: Option<()> = poll_once(close).await;
    }
    state.refused_open.fetch_sub(1, Ordering::Relaxed);
}

/// Asks the store how it is doing, for the health check. Never ends.
async fn watch_health(state: Arc<ServerState>) {
    let mut stopped_at = None;
    loop {
        let health = state.context.store_client.health().await;
        state.readiness.set_refusal(health.message());
        match (health.message(), stopped_at) {
            (Some(reason), None) => {
                stopped_at = Some(Instant::now());
                log_event!(admission_stopped { reason, problems: display(health.problems().join("; ")) });
            }
            (None, Some(since)) => {
                stopped_at = None;
                log_event!(admission_resumed { stopped_millis: Instant::elapsed(&since).as_millis() });
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        Timer::after(Server::HEALTH_INTERVAL).await;
    }
}

/// Returns free memory to the system after many connections have left. Never ends.
async fn trim_memory(state: Arc<ServerState>) {
    loop {
        state.registry.wait_until_halved().await;
        // Connections usually leave together; by then the others have left, too.
        Timer::after(Server::TRIM_DELAY).await;
        smol::unblock(malloc::trim).await;
    }
}
