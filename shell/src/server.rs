//! Accepts connections, knows those that live, and ends them all.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use session_core::{Limits, NodeId, Time};
use smol::future::FutureExt as _;
use smol::net::TcpStream;
use smol::{Async, Executor, Task, Timer};

use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::connection::{Connection, Services};
use crate::custody::Custody;
use crate::fair::Fair;
use crate::handshake::{Handshake, shake_hands};
use crate::heap;
use crate::log::{Refusals, Throttle};
use crate::mailbox::{Mail, Mailbox};
use crate::registry::{Entry, Registry};
use crate::socket::Socket;
use crate::store::Store;

/// What a server is made of, but for its sockets and its store.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// This process, in the store. The store must know it by the same id.
    pub node: NodeId,
    /// What bounds a session.
    pub limits: Limits,
    /// How long the store may take to answer before the answer counts as [`session_core::Outcome::Unknown`].
    pub store_timeout: Duration,
    /// The longest message a client may send, in bytes.
    pub max_message_bytes: usize,
}

/// A server on bound sockets.
pub struct Server {
    listeners: Vec<Async<TcpListener>>,
    addresses: Vec<SocketAddr>,
    house: Arc<House>,
}

/// What all connections share.
struct House {
    settings: Settings,
    clock: Clock,
    services: Arc<Services>,
    registry: Arc<Registry>,
    trouble: Throttle,
}

impl Server {
    /// How many sessions may hold, or wait for, a slot at the same time. It bounds what a store that has stopped
    /// confirming releases can make this process remember.
    const MAX_CLAIMS: usize = 1 << 20;
    /// How long a full stop of accepting lasts when the system has no more file descriptors or memory.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
    /// How long after half of many connections have left their memory is given back.
    const TIDY_PAUSE: Duration = Duration::from_secs(1);
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
        let custody = Custody::new(store, clock.clone(), settings.store_timeout, Self::MAX_CLAIMS);
        let house = House {
            settings,
            clock,
            services: Arc::new(Services { custody, authenticator, refusals: Refusals::default() }),
            registry: Registry::new(settings.node),
            trouble: Throttle::default(),
        };
        Ok(Self { listeners, addresses, house: Arc::new(house) })
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
        let Self { listeners, addresses: _, house } = self;
        let retrying = executor.spawn(Arc::clone(&house.services.custody).retry());
        let clock = house.clock.clone();
        let ringing = executor.spawn(async move { clock.ring().await });
        let clock = house.clock.clone();
        let watching = executor.spawn(async move { clock.watch_wall().await });
        let tidying = executor.spawn(tidy(Arc::clone(&house)));
        let accepting: Vec<Task<()>> = listeners
            .into_iter()
            .map(|listener| executor.spawn(accept(listener, Arc::clone(&house), Arc::clone(&executor))))
            .collect();
        stop.await;
        for task in accepting {
            task.cancel().await;
        }
        let sessions = house.registry.drain();
        tracing::info!(sessions, "stopping");
        let drained = async {
            house.registry.emptied().await;
            true
        };
        let timeout = async {
            Timer::after(Self::DRAIN_TIMEOUT).await;
            false
        };
        if !drained.or(timeout).await {
            tracing::warn!(sessions = house.registry.len(), "gave up on sessions that did not end");
        }
        retrying.cancel().await;
        ringing.cancel().await;
        watching.cancel().await;
        tidying.cancel().await;
        let owed = house.services.custody.owed();
        if owed > 0 {
            tracing::warn!(owed, "the store has not confirmed every release; those slots are void all the same");
        }
    }
}

/// Accepts for ever. No error ends it: what a client or a full table causes passes.
async fn accept(listener: Async<TcpListener>, house: Arc<House>, executor: Arc<Executor<'static>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let entry = house.registry.enter();
                let served = serve(TcpStream::from(stream), Arc::clone(&house), entry);
                executor.spawn(served).detach();
            }
            // The client was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(suppressed) = house.trouble.pass() {
                    tracing::error!(%error, suppressed, "cannot accept connections, will try again");
                }
                Timer::after(Server::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Gives memory back after many connections have left. Never ends.
async fn tidy(house: Arc<House>) {
    loop {
        house.registry.halved().await;
        // Whoever is about to leave with them has left by then.
        Timer::after(Server::TIDY_PAUSE).await;
        smol::unblock(heap::give_back).await;
    }
}

/// Serves one connection, from its first byte to its last. Whatever goes wrong in here stays in here.
async fn serve(stream: TcpStream, house: Arc<House>, entry: Entry) {
    let id = entry.id();
    let connection = AssertUnwindSafe(converse(stream, &house, entry));
    if futures_util::FutureExt::catch_unwind(connection).await.is_err() {
        // The claim gave the slot back when the panic dropped it.
        tracing::error!(session = %id, "a connection panicked; please report this");
    }
}

async fn converse(stream: TcpStream, house: &House, entry: Entry) {
    let accepted = house.clock.now();
    if stream.set_nodelay(true).is_err() {
        return; // The peer is gone.
    }
    // Boxed, so that it is gone once it is over: it is larger than all that follows.
    let Some(socket) = Box::pin(upgrade(stream, house, entry.mailbox(), accepted)).await else { return };
    Connection::new(&entry, socket, &house.settings.limits, accepted, Arc::clone(&house.services)).run().await;
}

/// The opening handshake. It may take as long as authentication may, and ends at once when the server drains.
async fn upgrade(stream: TcpStream, house: &House, mailbox: &Mailbox, accepted: Time) -> Option<Socket> {
    let handshake = async { Some(shake_hands(Fair::new(stream)).await) };
    let late = async {
        house.clock.wait_until(accepted + house.settings.limits.auth_timeout).await;
        None
    };
    let drained = poll_fn(|cx| {
        mailbox.poll(cx).map(|mail| match mail {
            Mail::Draining => None,
            Mail::Stored(_) => unreachable!("nothing was asked of the store yet"),
        })
    });
    match handshake.or(drained).or(late).await? {
        Handshake::Upgraded { stream, read } => {
            Some(Socket::new(stream, read, house.settings.max_message_bytes, house.clock.clone()).await)
        }
        Handshake::Answered => None,
    }
}
