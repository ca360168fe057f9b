//! A server in the process of the test.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use session_core::connection_limiter::ConnectionLimits;
use session_core::ledger::{self, Outcome, SlotLimit};
use session_core::session::SessionSettings;
use session_core::{NodeId, Timestamp, UserId};
use shell::auth::{Authenticator, OpenAuthenticator};
use shell::net::settings::ConnectionSettings;
use shell::server::{Server, ServerHandle, Settings};
use shell::store::{Completion, MemoryStore, Store};
use smol::Executor;

use crate::waiting::TIMEOUT;

/// The node of every [`TestServer`]. Its store must have the same node.
pub const NODE: NodeId = NodeId::new(0x7e57);

/// A server in this process, on a port of its own. Stopped when dropped.
pub struct TestServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Changes its settings while it runs.
    pub handle: ServerHandle,
    stop: Option<smol::channel::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl TestServer {
    /// A server with a memory store, the default limits and two threads.
    #[must_use]
    pub fn start() -> Self {
        Self::with(Arc::new(MemoryStore::new(NODE, SlotLimit::default())), session_settings(), 2)
    }

    /// A server with this store, whose node must be [`NODE`].
    #[must_use]
    pub fn with(store: Arc<dyn Store>, limits: SessionSettings, threads: usize) -> Self {
        Self::with_timeout(store, limits, threads, Duration::from_secs(5))
    }

    /// As [`TestServer::with`], with a timeout for the store.
    #[must_use]
    pub fn with_timeout(
        store: Arc<dyn Store>,
        limits: SessionSettings,
        threads: usize,
        store_timeout: Duration,
    ) -> Self {
        let policy = ConnectionSettings { session: limits, ..ConnectionSettings::default() };
        Self::with_authenticator(
            store,
            Box::new(OpenAuthenticator::default()),
            Settings { store_timeout, connection: policy, ..settings() },
            threads,
        )
    }

    /// A server with these connection settings and a memory store.
    #[must_use]
    pub fn with_policy(policy: ConnectionSettings) -> Self {
        Self::with_settings(Settings { connection: policy, ..settings() })
    }

    /// A server with a memory store and these settings, whose node must be [`NODE`].
    #[must_use]
    pub fn with_settings(settings: Settings) -> Self {
        Self::with_authenticator(
            Arc::new(MemoryStore::new(NODE, SlotLimit::default())),
            Box::new(OpenAuthenticator::default()),
            settings,
            2,
        )
    }

    /// A server with this store, authenticator and settings.
    #[must_use]
    pub fn with_authenticator(
        store: Arc<dyn Store>,
        authenticator: Box<dyn Authenticator>,
        settings: Settings,
        threads: usize,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Server::new(vec![listener], store, authenticator, settings).expect("a server");
        let (address, handle) = (server.addresses()[0], server.handle());
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let executor = Arc::new(Executor::<'static>::new());
        let (ended, end) = smol::channel::bounded::<()>(1);
        let mut handles: Vec<_> = (1..threads)
            .map(|_| {
                let (executor, end) = (Arc::clone(&executor), end.clone());
                thread::spawn(move || smol::block_on(executor.run(async { assert!(end.recv().await.is_err()) })))
            })
            .collect();
        handles.push(thread::spawn(move || {
            let stop = async move { assert!(stopped.recv().await.is_err()) };
            smol::block_on(executor.run(server.run(Arc::clone(&executor), stop)));
            drop(ended);
        }));
        Self { address, handle, stop: Some(stop), threads: handles }
    }

    /// The URL for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// Stops it, waits until it has stopped, and returns how long that took.
    pub fn stop(&mut self) -> Duration {
        let start = Instant::now();
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok(), "a thread of the server panicked");
        }
        start.elapsed()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // A second panic would abort a test that fails already.
            let _ended = thread.join();
        }
    }
}

/// The default settings of a test server: no connection limits.
#[must_use]
pub fn settings() -> Settings {
    let (store_timeout, bounds) = (Duration::from_secs(5), ConnectionLimits::default());
    Settings { store_timeout, connection_limits: bounds, connection: ConnectionSettings::default() }
}

/// The settings of a session whose times are not tested. On a busy machine a client may take longer than usual to
/// authenticate, and thousands of clients take turns to read.
#[must_use]
pub fn session_settings() -> SessionSettings {
    let (auth_timeout, ping_interval) = (Duration::from_secs(60), Duration::from_secs(600));
    SessionSettings { auth_timeout, ping_interval, ..SessionSettings::default() }
}

/// The number of slots of a user in the store. `None` if the store does not count.
pub fn slots_in_store(store: &dyn Store, user: &str) -> Option<u32> {
    let (sender, receiver) = mpsc::channel();
    let lookup = ledger::StoreCommand::CountSlots {
        user: UserId::parse(user).expect("a good id"),
        session: NODE.session(u64::MAX),
        at: Timestamp::default(),
    };
    store.submit(lookup, Completion::new(move |outcome| sender.send(outcome).expect("it is awaited")));
    match receiver.recv_timeout(TIMEOUT).expect("a store answers") {
        Outcome::Counted { slots } => Some(slots),
        _ => None,
    }
}
