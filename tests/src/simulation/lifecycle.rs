//! Starts, stops, pauses and kills servers.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use session_core::connection_limiter::ConnectionLimits;
use session_core::{NodeId, ResumeToken};
use shell::net::connection_limiter::SharedConnectionLimiter;
use shell::runtime::clock::{Clock, ManualClock};
use shell::runtime::fair_turns::FairTurns;
use shell::runtime::process::Process;
use shell::server::connection::ConnectionContext;
use shell::server::registry::Registry;
use shell::server::session_log::SessionLog;
use shell::server::store_client::StoreClient;
use shell::store::Store as _;

use super::authenticator::SimulatedAuthenticator;
use super::cluster::{STORE_TIMEOUT, Simulation, TRACKER_CAPACITY};
use super::server::{Server, Status, Task};

/// Clients at one address cause more work than they may now and then, and so do all together. A user has too many
/// connections now and then.
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: None,
    unauthenticated: None,
    per_client: None,
    rate_per_client: None,
    work_per_client: NonZeroU32::new(48 * 1024),
    work: NonZeroU32::new(64 * 1024),
    per_user: NonZeroUsize::new(5),
};

impl Simulation {
    pub(super) fn boot(&mut self) -> Server {
        self.nodes += 1;
        let node = NodeId::new(self.nodes);
        let manual_clock = Arc::<ManualClock>::default();
        // Each server has another time.
        manual_clock.set(self.now + Duration::from_secs(self.nodes * 1000));
        let clock = Clock::manual(manual_clock.clone());
        let store = self.store.open(node, Process::with_clock(clock.clone()));
        let registry = Registry::new(node, clock.clone());
        store.set_notifier(Arc::<Registry>::clone(&registry));
        let store_client =
            StoreClient::new(store, Arc::clone(&registry), clock.clone(), STORE_TIMEOUT, TRACKER_CAPACITY);
        let retries = Task::new(Arc::clone(&store_client).retry());
        let tasks = BTreeMap::from([(0, retries)]);
        let connection_limiter = SharedConnectionLimiter::new(LIMITS, clock.clone());
        let authenticator = Box::new(SimulatedAuthenticator { clock });
        let drawn = AtomicU64::new(0);
        let draw = move || {
            let mut random = [0; 32];
            random[..8].copy_from_slice(&node.session(0).to_bytes()[..8]);
            random[8..16].copy_from_slice(&drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            Some(ResumeToken::new(random))
        };
        let context = Arc::new(ConnectionContext {
            store_client,
            authenticator,
            turns: FairTurns::new(NonZeroUsize::MIN),
            new_resume_token: Box::new(draw),
            session_log: SessionLog::default(),
        });
        Server { node, status: Status::Up, manual_clock, rate: 1000, context, registry, connection_limiter, tasks }
    }

    pub(super) fn kill(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Dead {
            return;
        }
        server.status = Status::Dead;
        self.store.kill(server.node);
        server.tasks.clear();
        let node = server.node;
        for client in self.clients.values_mut().filter(|client| client.node == node) {
            client.granted = false;
            client.socket.lose();
        }
        // Its sessions have lapsed from now on. Every later check counts on that.
        self.clients.retain(|_, client| client.node != node);
    }

    pub(super) fn start(&mut self, index: usize) {
        let server = &self.servers[index];
        match server.status {
            Status::Dead => {}
            // A draining server ends with its last connection.
            Status::Draining if server.registry.is_empty() => self.kill(index),
            Status::Draining | Status::Up | Status::Paused => return,
        }
        self.servers[index] = self.boot();
    }

    pub(super) fn pause(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Up {
            server.status = Status::Paused;
            self.store.pause(server.node);
        }
    }

    pub(super) fn resume(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Paused {
            server.status = Status::Up;
            server.wake_all();
            let node = server.node;
            self.store.resume(node);
            self.run_tasks();
        }
    }

    pub(super) fn drain(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Up {
            server.status = Status::Draining;
            server.registry.drain();
            let node = server.node;
            // From now on the server sends no grant of a pending acquire.
            for client in self.clients.values_mut().filter(|client| client.node == node) {
                client.granted = false;
                client.waits = None;
            }
        }
    }
}
