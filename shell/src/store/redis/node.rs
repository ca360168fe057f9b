//! This server as one node among those that share the store: its buckets, its id, and what its threads have in common.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use session_core::cluster::{Bucket, BucketEvent, bucket_of};
use session_core::ledger::StoreError;
use session_core::{NodeId, UserId};
use smol::channel::Sender;

use super::about::About;
use super::cell::{Cell, Handled, nanos};
use super::command::BucketNames;
use super::identity::IdFile;
use super::locator::{Locator, ServerName};
use super::outage::Outages;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};
use crate::runtime::supervisor::{Part, PartGuard};
use crate::store::health::StoreHealth;
use crate::store::shared::NodeContext;

/// Into how many buckets the users are spread. All servers of a prefix must have the same number.
pub(super) const BUCKETS: u16 = 64;

/// How many threads carry requests to a server that has all buckets, each over a connection of its own. Of several servers each has
/// one. A server that answers them all has no time for more, and with more each would carry fewer requests at a time.
const LANES: usize = 2;

/// How long a thread sleeps while the store closes.
const CLOSING_PAUSE: Duration = Duration::from_millis(5);

/// How many commands of one bucket may wait for their answers.
const CAPACITY: usize = 1024;

/// What the threads of the store have in common.
pub(super) struct Node {
    pub(super) locator: Locator,
    pub(super) context: NodeContext,
    /// What this node tells the others of itself.
    pub(super) about: About,
    pub(super) outages: Outages,
    cells: Vec<Cell>,
    /// One for each thread that there was. None is ever removed.
    lanes: RwLock<Vec<Arc<LaneState>>>,
    /// The numbers of the buckets' lanes.
    lane_of: Vec<AtomicUsize>,
    last_link: AtomicU64,
    id_file: IdFile,
    /// Each thread has one of these.
    running: Mutex<Option<Sender<()>>>,
    joining: Mutex<()>,
    is_closing: AtomicBool,
    is_over: AtomicBool,
    /// Whether nobody needs the store any more: its threads end at once.
    is_abandoned: AtomicBool,
    log: LogRateLimiter,
}

/// What a lane has to do, and how it is doing.
struct LaneState {
    server: ServerName,
    /// Which of the lanes of this server.
    part: usize,
    work: Mutex<LaneWork>,
    wake: Condvar,
    is_up: AtomicBool,
    /// Since when its thread has waited for the server, in nanoseconds since the epoch. 0 if it does not.
    waits_since: AtomicU64,
    /// When one of its buckets has to be looked at, or before, in nanoseconds since the epoch.
    due: AtomicU64,
    /// Whether it has been given buckets that its connection does not know.
    has_new_buckets: AtomicBool,
    /// Whether it is given no buckets any more: its thread has waited for too long, or has ended for want of buckets.
    is_replaced: AtomicBool,
}

#[derive(Default)]
struct LaneWork {
    /// The buckets that have something to send.
    ready: Vec<u16>,
    is_sleeping: bool,
    /// Why there is no connection.
    problem: Option<String>,
}

impl Node {
    pub(super) fn new(
        locator: Locator,
        context: NodeContext,
        id_file: IdFile,
        former: Option<NodeId>,
        running: Sender<()>,
    ) -> Self {
        let now = context.clock().now();
        let config = locator.config();
        let cell = |number| {
            let policy = context.policy().for_all();
            let bucket = Bucket::new(context.node(), former, policy, config.timing, CAPACITY, now);
            Cell::new(number, BucketNames::new(&config.prefix, number), bucket, context.clone())
        };
        Self {
            cells: (0..BUCKETS).map(cell).collect(),
            lanes: RwLock::default(),
            lane_of: (0..BUCKETS).map(|_| AtomicUsize::new(usize::MAX)).collect(),
            last_link: AtomicU64::new(0),
            locator,
            context,
            about: About::new(now),
            outages: Outages::default(),
            id_file,
            running: Mutex::new(Some(running)),
            joining: Mutex::new(()),
            is_closing: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            log: LogRateLimiter::new(),
        }
    }

    /// All buckets.
    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The bucket of a user.
    pub(super) fn cell_of(&self, user: &UserId) -> &Cell {
        &self.cells[usize::from(bucket_of(user, BUCKETS))]
    }

    /// The buckets of a lane.
    pub(super) fn cells_of(&self, lane: usize) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| self.lane_number(cell) == lane)
    }

    fn lane_number(&self, cell: &Cell) -> usize {
        self.lane_of[usize::from(cell.number())].load(Ordering::SeqCst)
    }

    fn lane_of(&self, cell: &Cell) -> Arc<LaneState> {
        self.lane(self.lane_number(cell))
    }

    fn lane(&self, number: usize) -> Arc<LaneState> {
        Arc::clone(&self.lanes.read().unwrap_or_else(PoisonError::into_inner)[number])
    }

    /// The server of a lane.
    pub(super) fn server_of(&self, lane: usize) -> ServerName {
        self.lane(lane).server.clone()
    }

    /// The ids of this node in any bucket.
    pub(super) fn ids(&self) -> BTreeSet<NodeId> {
        self.cells.iter().flat_map(|cell| cell.look(|bucket| bucket.membership().ids().collect::<Vec<_>>())).collect()
    }

    /// A number for a connection.
    pub(super) fn next_link(&self) -> u64 {
        self.last_link.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Gives each bucket to a lane of its server. Returns the lanes that there were not before: their threads are to be started.
    pub(super) fn place(&self) -> Vec<usize> {
        let servers = self.locator.servers().len();
        let per_server = if servers > 1 { 1 } else { LANES };
        let mut new = Vec::new();
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        for (cell, lane_of) in self.cells.iter().zip(&self.lane_of) {
            let (server, part) = (self.locator.home(cell.number()), usize::from(cell.number()) % per_server);
            let is_it = |lane: &Arc<LaneState>| lane.server == server && lane.part == part && !lane.is_replaced();
            let known = lanes.iter().position(is_it);
            let number = known.unwrap_or_else(|| {
                lanes.push(Arc::new(LaneState::new(server, part)));
                new.push(lanes.len() - 1);
                lanes.len() - 1
            });
            if lane_of.swap(number, Ordering::SeqCst) != number {
                lanes[number].given_buckets();
            }
        }
        new
    }

    /// Takes a lane out that has no buckets, so that its thread can end. Whether it had none.
    pub(super) fn retire(&self, lane: usize) -> bool {
        // Buckets are given to lanes under this lock.
        let lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let is_idle = self.cells_of(lane).next().is_none();
        if is_idle {
            lanes[lane].is_replaced.store(true, Ordering::SeqCst);
        }
        is_idle
    }

    /// Starts a thread. While it runs, the store is open.
    pub(super) fn spawn(&self, part: Part, work: impl FnOnce(&PartGuard) + Send + 'static) -> io::Result<()> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let supervisor = self.context.process().supervisor.clone();
        let body = move || {
            let _running = running;
            let guard = supervisor.watch(part);
            work(&guard);
            guard.finish();
        };
        thread::Builder::new().name(part.name().into()).spawn(body).map(drop)
    }

    /// Hands an event to a bucket.
    pub(super) fn handle(&self, cell: &Cell, event: BucketEvent) {
        self.handled(cell, cell.handle(event));
    }

    /// What follows from an event.
    pub(super) fn handled(&self, cell: &Cell, handled: Handled) {
        let lane = self.lane_of(cell);
        lane.due.fetch_min(cell.deadline(), Ordering::SeqCst);
        if handled.has_requests {
            lane.add(cell.number());
        }
        if handled.is_fenced {
            self.join_anew(cell);
        }
    }

    /// Gives this node another id, because this bucket has none: that of the sessions that have ended is not used again.
    fn join_anew(&self, fenced: &Cell) {
        // All buckets get ids in the same order, and new sessions the last one.
        let _one_at_a_time = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_over() || fenced.look(|bucket| bucket.membership().ids().next().is_some()) {
            // Another bucket has fenced at the same time.
            return;
        }
        // Without random numbers no client could be admitted either.
        let node = NodeId::new(getrandom::u64().unwrap_or_else(|_| fastrand::u64(..)));
        self.note_id(node);
        self.context.set_node(node);
        log_event!(node_renamed { node: display(node) });
        for cell in self.cells.iter().filter(|cell| !cell.has_left()) {
            // If this fences the bucket, it takes the new id all the same.
            let handled = cell.handle(BucketEvent::Joins(node));
            self.handled(cell, Handled { is_fenced: false, ..handled });
        }
    }

    /// Writes the id of this node to the data directory.
    pub(super) fn note_id(&self, node: NodeId) {
        if let Err(error) = self.id_file.write(node) {
            let path = self.id_file.path().display();
            log_limited!(self.log, node_not_noted { path: display(&path), error: display(&error) });
        }
    }

    /// Takes this node out of all buckets of a lane in which nothing is left to do. Whether it has left all of them.
    pub(super) fn leave(&self, lane: usize) -> bool {
        let mut has_left = true;
        for cell in self.cells_of(lane) {
            match cell.leave() {
                Some(handled) => self.handled(cell, handled),
                None => has_left = false,
            }
        }
        has_left
    }

    /// A lane has ended. With the last one, this node has left all buckets.
    pub(super) fn lane_ended(&self) {
        if !self.is_abandoned() && self.cells.iter().all(Cell::has_left) {
            self.id_file.remove();
            self.is_over.store(true, Ordering::SeqCst);
            // No further thread is started.
            *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        // Nobody waits for those that have left, but a bucket may have come from a lane that has ended.
        self.all_lanes().iter().for_each(|lane| lane.wake());
    }

    /// Whether this node has left all buckets, or nobody needs the store.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst) || self.is_abandoned()
    }

    fn all_lanes(&self) -> Vec<Arc<LaneState>> {
        self.lanes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No session is admitted any more. The threads end once nothing is left to do.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.all_lanes().iter().for_each(|lane| lane.wake());
    }

    /// The threads end at once.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::SeqCst);
        self.close();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::SeqCst)
    }

    /// Whether the connection for this bucket is there, and its keys may be used.
    pub(super) fn is_up(&self, cell: &Cell) -> bool {
        !self.about.has_other_format() && self.lane_of(cell).is_up.load(Ordering::SeqCst)
    }

    /// Notes how the connection of a lane is doing.
    pub(super) fn set_problem(&self, lane: usize, problem: Option<String>) {
        let lane = self.lane(lane);
        lane.is_up.store(problem.is_none(), Ordering::SeqCst);
        lane.lock().problem = problem;
    }

    /// Whether a lane has been given buckets since this was last asked.
    pub(super) fn has_new_buckets(&self, lane: usize) -> bool {
        self.lane(lane).has_new_buckets.swap(false, Ordering::SeqCst)
    }

    /// Looks at the buckets of a lane whose time has come. Returns when the next one's comes, or a time before, in nanoseconds since
    /// the epoch.
    pub(super) fn tick(&self, lane: usize) -> u64 {
        let due = &self.lane(lane).due;
        let now = nanos(self.context.clock().now());
        if due.load(Ordering::SeqCst) <= now {
            // An event that is handled meanwhile lowers it again.
            due.store(u64::MAX, Ordering::SeqCst);
            for cell in self.cells_of(lane) {
                if cell.deadline() <= now {
                    self.handle(cell, BucketEvent::Tick);
                }
                due.fetch_min(cell.deadline(), Ordering::SeqCst);
            }
        }
        due.load(Ordering::SeqCst)
    }

    /// The buckets of a lane that have something to send. If there are none, waits for some, at most until this time.
    pub(super) fn ready(&self, lane: usize, until: Instant) -> Vec<u16> {
        let lane = self.lane(lane);
        let mut work = lane.lock();
        let timeout = until.saturating_duration_since(Instant::now());
        // While the store closes, sessions give their slots up one after the other.
        let timeout = if self.is_closing() { timeout.min(CLOSING_PAUSE) } else { timeout };
        if work.ready.is_empty() && !timeout.is_zero() {
            work.is_sleeping = true;
            work = lane.wake.wait_timeout(work, timeout).unwrap_or_else(PoisonError::into_inner).0;
            work.is_sleeping = false;
            drop(work);
            // On a busy machine others have more to send in a moment, and it is cheaper together.
            thread::yield_now();
            work = lane.lock();
        }
        std::mem::take(&mut work.ready)
    }

    /// Notes whether the thread of a lane waits for its server.
    pub(super) fn set_waiting(&self, lane: usize, waits: bool) {
        let since = if waits { nanos(self.context.clock().now()) } else { 0 };
        self.lane(lane).waits_since.store(since, Ordering::SeqCst);
    }

    /// Whether another lane has taken this one's place.
    pub(super) fn is_replaced(&self, lane: usize) -> bool {
        self.lane(lane).is_replaced()
    }

    /// Gives up the lanes whose threads have waited for their servers for much longer than any call may take. Whether there are any.
    pub(super) fn give_up_stuck_lanes(&self) -> bool {
        let now = nanos(self.context.clock().now());
        let longest = 3 * self.locator.config().call_timeout + Duration::from_secs(1);
        let mut is_any = false;
        for lane in self.all_lanes().into_iter().filter(|lane| !lane.is_replaced()) {
            let since = lane.waits_since.load(Ordering::SeqCst);
            if since > 0 && u128::from(now.saturating_sub(since)) > longest.as_nanos() {
                lane.is_replaced.store(true, Ordering::SeqCst);
                lane.lock().problem = None;
                is_any = true;
            }
        }
        is_any
    }

    /// How the store is doing.
    pub(super) fn health(&self) -> StoreHealth {
        let refusal = StoreError::Failed;
        if self.is_closing() {
            return StoreHealth::Unavailable { refusal, problem: "the store is closed".into() };
        }
        let problems = self.all_lanes().into_iter().filter_map(|lane| lane.lock().problem.clone());
        let mut problems: Vec<_> = problems.collect();
        problems.dedup();
        let conflict = self.about.conflict();
        let is_foreign = conflict.is_some();
        problems.extend(conflict);
        let is_closed = |cell: &&Cell| !cell.look(|bucket| bucket.membership().may_admit());
        let closed = self.cells.iter().filter(is_closed).count();
        // If a server of a cluster is away, a load balancer should send clients here all the same: no other node does better.
        let refuses = self.cells.iter().filter(|cell| !self.is_up(cell) || is_closed(cell)).count();
        let is_partial = self.locator.is_cluster() && refuses <= usize::from(BUCKETS) / 2;
        let admits = refuses == 0 || is_partial;
        if closed > 0 {
            problems.push(format!(
                "{closed} of {BUCKETS} parts of the users admit nobody: for node_lease after the store was reached, or has \
                 forgotten something"
            ));
        }
        match problems.is_empty() {
            true => StoreHealth::Ready,
            false => StoreHealth::Degraded { refusal: (!admits || is_foreign).then_some(refusal), problems },
        }
    }
}

impl LaneState {
    fn new(server: ServerName, part: usize) -> Self {
        Self {
            server,
            part,
            work: Mutex::default(),
            wake: Condvar::new(),
            is_up: AtomicBool::new(false),
            waits_since: AtomicU64::new(0),
            due: AtomicU64::new(0),
            has_new_buckets: AtomicBool::new(true),
            is_replaced: AtomicBool::new(false),
        }
    }

    fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, LaneWork> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bucket: u16) {
        let mut work = self.lock();
        work.ready.push(bucket);
        if work.is_sleeping {
            self.wake.notify_one();
        }
    }

    fn given_buckets(&self) {
        self.due.store(0, Ordering::SeqCst);
        self.has_new_buckets.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        // Under the lock: whoever is about to sleep has looked before, or sleeps.
        let _work = self.lock();
        self.wake.notify_one();
    }
}

/// How long a thread waits before it tries to connect again.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
