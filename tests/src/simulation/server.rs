//! A simulated server with its tasks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use session_core::{NodeId, Timestamp, UnixSeconds};
use shell::net::connection_limiter::SharedConnectionLimiter;
use shell::runtime::clock::ManualClock;
use shell::server::connection::ConnectionContext;
use shell::server::registry::Registry;
use shell::server::store_client::StoreClient;

/// A simulated server.
pub(super) struct Server {
    pub(super) node: NodeId,
    pub(super) status: Status,
    pub(super) manual_clock: Arc<ManualClock>,
    /// The rate of its clock, in thousandths.
    pub(super) rate: u32,
    pub(super) context: Arc<ConnectionContext>,
    pub(super) registry: Arc<Registry>,
    pub(super) connection_limiter: Arc<SharedConnectionLimiter>,
    pub(super) tasks: BTreeMap<u64, Task>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Up,
    /// It accepts no more connections.
    Draining,
    /// It does nothing, but the others count it as alive.
    Paused,
    Dead,
}

/// A task of a server: a connection, or (number 0) the retries.
pub(super) struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Server {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.status, Status::Up | Status::Draining)
    }

    pub(super) fn time(&self) -> Timestamp {
        self.store_client().clock().now()
    }

    pub(super) fn store_client(&self) -> &Arc<StoreClient> {
        &self.context.store_client
    }

    /// What its wall clock shows in this many seconds.
    pub(super) fn wall_time_in(&self, seconds: u8) -> UnixSeconds {
        UnixSeconds::from_unix_seconds(self.store_client().clock().unix_seconds().unix_seconds() + u64::from(seconds))
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_running() && self.manual_clock.next_timer().is_some_and(|timer| timer <= self.time())
    }

    /// The time until the next timer of this server, by the simulation's clock.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        let timer = self.manual_clock.next_timer().filter(|_| self.is_running())?;
        let nanos = timer.since(self.time()).as_nanos() * 1000;
        let nanos = nanos.div_ceil(u128::from(self.rate));
        Some(Duration::from_nanos(u64::try_from(nanos).expect("alarms are set to within centuries")))
    }

    /// Advances its clock, also if it is paused.
    pub(super) fn advance(&self, step: Duration) {
        let nanos = step.as_nanos() * u128::from(self.rate) / 1000;
        let step = Duration::from_nanos(u64::try_from(nanos).expect("a step is within centuries"));
        self.manual_clock.set(self.time() + step);
        if self.is_due() {
            self.wake_all();
        }
    }

    pub(super) fn wake_all(&self) {
        for task in self.tasks.values() {
            task.woken.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Task {
    pub(super) fn new(future: impl Future<Output = ()> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    /// Whether it was woken since the last call.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.0.swap(false, Ordering::Relaxed)
    }

    /// Returns whether the task continues.
    pub(super) fn poll(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
    }
}
