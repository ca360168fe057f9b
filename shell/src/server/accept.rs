//! Accepts connections, knows those that live, and ends them all.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use session_core::ResumeToken;
use session_core::connection_limiter::{ConnectionLimitExceeded, ConnectionLimits};
use smol::future::{FutureExt as _, poll_once};
use smol::net::TcpStream;
use smol::{Async, Executor, Task, Timer};

use crate::auth::Authenticator;
use crate::net::close::close_after_response;
use crate::net::connection_limiter::SharedConnectionLimiter;
use crate::net::plain_response::PlainResponse;
use crate::net::settings::ConnectionSettings;
use crate::runtime::clock::Clock;
use crate::runtime::malloc;
use crate::server::accepted::{AcceptedConnection, run_connection, upgrade};
use crate::server::connection::ConnectionContext;
use crate::server::refusal_log::RefusalLog;
use crate::server::registry::Registry;
use crate::server::store_client::StoreClient;
use crate::store::Store;

/// What a server is made of, but for its sockets, its store and its authenticator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long the store may take to answer before the answer counts as [`session_core::ledger::Outcome::Unknown`].
    pub store_timeout: Duration,
    /// How many connections may come in.
    pub connection_limits: ConnectionLimits,
    /// What they are treated by.
    pub connection: ConnectionSettings,
}

/// A server on bound sockets.
pub struct Server {
    listeners: Vec<Async<TcpListener>>,
    addresses: Vec<SocketAddr>,
    state: Arc<ServerState>,
}

/// Changes what a server goes by, while it runs.
#[derive(Clone)]
pub struct ServerHandle(Arc<ServerState>);

impl ServerHandle {
    /// Treats connections that come from now on by another policy.
    pub fn set_connection_settings(&self, settings: ConnectionSettings) {
        *self.0.connection_settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Puts other bounds on connections in force. Those that are there stay.
    pub fn set_connection_limits(&self, bounds: ConnectionLimits) {
        self.0.connection_limiter.set_limits(bounds);
    }
}

/// What all connections share.
struct ServerState {
    connection_settings: RwLock<Arc<ConnectionSettings>>,
    clock: Clock,
    connection_limiter: Arc<SharedConnectionLimiter>,
    context: Arc<ConnectionContext>,
    registry: Arc<Registry>,
    /// How many connections are being told that they may not come in.
    refused_open: AtomicUsize,
}

impl ServerState {
    fn connection_settings(&self) -> Arc<ConnectionSettings> {
        Arc::clone(&self.connection_settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Server {
    /// How many sessions may hold, or wait for, a slot at the same time. It bounds what a store that has stopped
    /// confirming releases can make this process remember.
    const MAX_SLOT_GUARDS: usize = 1 << 20;
    /// How many connections at once are waited for, when they are told that they may not come in. Further ones are told,
    /// too, but what they send meanwhile may cost them the answer.
    const MAX_REFUSED_OPEN: usize = 64;
    /// How long a full stop of accepting lasts when the system has no more file descriptors or memory.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
    /// How long after half of many connections have left their memory is given back.
    const TRIM_DELAY: Duration = Duration::from_secs(1);
    /// How long sessions have to drain once the server stops.
    const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

    /// A server on listeners that are bound already, so that a test can have the system choose the port.
    ///
    /// # Errors
    /// When a listener cannot be made non-blocking, or does not know its address.
    pub fn new(
        listeners: Vec<TcpListener>,
        store: Arc<dyn Store>,
        authenticator: Box<dyn Authenticator>,
        settings: Settings,
    ) -> io::Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let listeners = listeners.into_iter().map(Async::new).collect::<io::Result<_>>()?;
        let clock = Clock::start();
        let Settings { store_timeout, connection_limits: bounds, connection: settings } = settings;
        let registry = Registry::new(store.node());
        store.set_notifier(Arc::<Registry>::clone(&registry));
        let store_client = StoreClient::new(store, clock.clone(), store_timeout, Self::MAX_SLOT_GUARDS);
        let draw = || {
            let mut random = [0; 32];
            getrandom::fill(&mut random).ok().map(|()| ResumeToken::new(random))
        };
        let state = ServerState {
            connection_settings: RwLock::new(Arc::new(settings)),
            connection_limiter: SharedConnectionLimiter::new(bounds, clock.clone()),
            clock,
            context: Arc::new(ConnectionContext {
                store_client,
                authenticator,
                new_resume_token: Box::new(draw),
                refusal_log: RefusalLog::default(),
            }),
            registry,
            refused_open: AtomicUsize::new(0),
        };
        Ok(Self { listeners, addresses, state: Arc::new(state) })
    }

    /// The connections that live.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.state.registry
    }

    /// What changes it while it runs.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(Arc::clone(&self.state))
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop` is ready, then drains: no new connections, every session told that the server goes away,
    /// every slot given back. Returns after at most 6 seconds of that, even if peers do not read and the store does
    /// not answer.
    ///
    /// Connections run on the executor; whoever calls this runs it, on as many threads as they like.
    pub async fn run(self, executor: Arc<Executor<'static>>, stop: impl Future<Output = ()>) {
        let Self { listeners, addresses: _, state } = self;
        let retrying = executor.spawn(Arc::clone(&state.context.store_client).retry());
        let clock = state.clock.clone();
        let ringing = executor.spawn(async move { clock.run_timers().await });
        let clock = state.clock.clone();
        let watching = executor.spawn(async move { clock.watch_wall().await });
        let tidying = executor.spawn(trim_memory(Arc::clone(&state)));
        let accepting: Vec<Task<()>> = listeners
            .into_iter()
            .map(|listener| executor.spawn(accept(listener, Arc::clone(&state), Arc::clone(&executor))))
            .collect();
        stop.await;
        for task in accepting {
            task.cancel().await;
        }
        let sessions = state.registry.drain();
        tracing::info!(sessions, "stopping");
        let drained = async {
            state.registry.wait_until_empty().await;
            true
        };
        let timeout = async {
            Timer::after(Self::DRAIN_TIMEOUT).await;
            false
        };
        if !drained.or(timeout).await {
            tracing::warn!(sessions = state.registry.len(), "gave up on sessions that did not end");
        }
        retrying.cancel().await;
        ringing.cancel().await;
        watching.cancel().await;
        tidying.cancel().await;
        let owed = state.context.store_client.pending();
        if owed > 0 {
            tracing::warn!(
                owed,
                "the store has not confirmed every release; at the next start those slots are void, or linger if they can"
            );
        }
    }
}

/// Accepts for ever. No error ends it: what a client or a full table causes passes.
async fn accept(listener: Async<TcpListener>, state: Arc<ServerState>, executor: Arc<Executor<'static>>) {
    let mut pause = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                end_pause(&mut pause);
                accept_connection(TcpStream::from(stream), peer, &state, &executor);
            }
            // The client was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if pause.is_none() {
                    tracing::error!(%error, "cannot accept connections; those that come wait until there is room");
                }
                pause.get_or_insert_with(Instant::now);
                Timer::after(Server::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn end_pause(pause: &mut Option<Instant>) {
    if let Some(since) = pause.take() {
        tracing::info!(paused_millis = since.elapsed().as_millis(), "accepting connections again");
    }
}

fn accept_connection(stream: TcpStream, peer: SocketAddr, state: &Arc<ServerState>, executor: &Executor<'static>) {
    let settings = state.connection_settings();
    // Whoever comes through a proxy is counted once the proxy has said who it is.
    let address = Some(peer.ip()).filter(|&address| !settings.trusted_proxies.is_trusted(address));
    match state.connection_limiter.acquire(address) {
        Ok(permit) => {
            let entry = state.registry.register();
            let arrival = AcceptedConnection { stream, peer: peer.ip(), settings, permit, accepted: state.clock.now() };
            let context = Arc::clone(&state.context);
            let upgrade = Box::pin(upgrade(arrival, state.clock.clone(), Arc::clone(entry.mailbox())));
            executor.spawn(run_connection(upgrade, context, entry)).detach();
        }
        // To tell somebody so over TLS would cost more than to serve them.
        Err(_) if settings.tls.is_some() => drop(stream),
        Err(exceeded) => executor.spawn(refuse_connection(stream, exceeded, Arc::clone(state))).detach(),
    }
}

/// Tells a client that it may not come in.
async fn refuse_connection(mut stream: TcpStream, exceeded: ConnectionLimitExceeded, state: Arc<ServerState>) {
    let answer = PlainResponse::limit_exceeded(exceeded).to_bytes();
    let parting = close_after_response(&mut stream, &answer);
    if state.refused_open.fetch_add(1, Ordering::Relaxed) < Server::MAX_REFUSED_OPEN {
        parting.await;
    } else {
        // As far as it goes without waiting: so much a fresh socket takes at once.
        let _left: Option<()> = poll_once(parting).await;
    }
    state.refused_open.fetch_sub(1, Ordering::Relaxed);
}

/// Gives memory back after many connections have left. Never ends.
async fn trim_memory(state: Arc<ServerState>) {
    loop {
        state.registry.wait_until_halved().await;
        // Whoever is about to leave with them has left by then.
        Timer::after(Server::TRIM_DELAY).await;
        smol::unblock(malloc::trim).await;
    }
}
