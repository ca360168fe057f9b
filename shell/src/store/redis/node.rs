//! This server as one node among those that share the store: its buckets, its id, and what its threads have in common.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use session_core::cluster::{Bucket, BucketEvent, bucket_of};
use session_core::ledger::StoreError;
use session_core::{NodeId, UserId};

use super::about::About;
use super::cell::{Cell, Handled};
use super::command::{BUCKETS, BucketNames};
use super::config::RedisConfig;
use super::identity::IdFile;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};
use crate::store::health::StoreHealth;
use crate::store::shared::NodeContext;

/// How many threads carry requests to the store, each over a connection of its own.
pub(super) const LANES: usize = 4;

/// How many commands of one bucket may wait for their answers.
const CAPACITY: usize = 1024;

/// What the threads of the store have in common.
pub(super) struct Node {
    pub(super) config: RedisConfig,
    pub(super) context: NodeContext,
    /// What this node tells the others of itself.
    pub(super) about: About,
    cells: Vec<Cell>,
    lanes: [LaneState; LANES],
    id_file: IdFile,
    joining: Mutex<()>,
    is_closing: AtomicBool,
    lanes_ended: AtomicUsize,
    /// Whether nobody needs the store any more: its threads end at once.
    is_abandoned: AtomicBool,
    log: LogRateLimiter,
}

/// What a lane has to do, and how it is doing.
#[derive(Default)]
struct LaneState {
    work: Mutex<LaneWork>,
    wake: Condvar,
    is_up: AtomicBool,
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
    pub(super) fn new(config: RedisConfig, context: NodeContext, id_file: IdFile, former: Option<NodeId>) -> Self {
        let now = context.clock().now();
        let cell = |number| {
            let policy = context.policy().for_all();
            let bucket = Bucket::new(context.node(), former, policy, config.timing, CAPACITY, now);
            Cell::new(number, BucketNames::new(&config.prefix, number), bucket, context.clone())
        };
        Self {
            cells: (0..BUCKETS).map(cell).collect(),
            lanes: Default::default(),
            config,
            context,
            about: About::new(now),
            id_file,
            joining: Mutex::new(()),
            is_closing: AtomicBool::new(false),
            lanes_ended: AtomicUsize::new(0),
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
        self.cells.iter().skip(lane).step_by(LANES)
    }

    const fn lane_of(cell: &Cell) -> usize {
        cell.number() as usize % LANES
    }

    /// Hands an event to a bucket.
    pub(super) fn handle(&self, cell: &Cell, event: BucketEvent) {
        self.handled(cell, cell.handle(event));
    }

    /// What follows from an event.
    pub(super) fn handled(&self, cell: &Cell, handled: Handled) {
        if handled.has_requests {
            self.lanes[Self::lane_of(cell)].add(cell.number());
        }
        if handled.is_fenced {
            self.join_anew(cell);
        }
    }

    /// Gives this node another id, because this bucket has none: that of the sessions that have ended is not used again.
    fn join_anew(&self, fenced: &Cell) {
        // All buckets get ids in the same order, and new sessions the last one.
        let _one_at_a_time = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        if fenced.look(|bucket| bucket.membership().ids().next().is_some()) {
            // Another bucket has fenced at the same time.
            return;
        }
        // Without random numbers no client could be admitted either.
        let node = NodeId::new(getrandom::u64().unwrap_or_else(|_| fastrand::u64(..)));
        self.note_id(node);
        self.context.set_node(node);
        log_event!(node_renamed { node: display(node) });
        for cell in &self.cells {
            // If this fences the bucket, it takes the new id all the same.
            let handled = cell.handle(BucketEvent::Joins(node));
            self.handled(cell, Handled { is_fenced: false, ..handled });
        }
    }

    /// Writes the id of this node to the data directory.
    pub(super) fn note_id(&self, node: NodeId) {
        if let Err(error) = self.id_file.write(node) {
            let path = self.id_file.0.display();
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
        let was_last = self.lanes_ended.fetch_add(1, Ordering::SeqCst) + 1 == LANES;
        if was_last && !self.is_abandoned() {
            self.id_file.remove();
        }
    }

    /// Whether all lanes have ended.
    pub(super) fn is_over(&self) -> bool {
        self.lanes_ended.load(Ordering::SeqCst) == LANES || self.is_abandoned()
    }

    /// No session is admitted any more. The threads end once nothing is left to do.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.lanes.iter().for_each(LaneState::wake);
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
        !self.about.has_other_format() && self.lanes[Self::lane_of(cell)].is_up.load(Ordering::SeqCst)
    }

    /// Notes how the connection of a lane is doing.
    pub(super) fn set_problem(&self, lane: usize, problem: Option<String>) {
        let lane = &self.lanes[lane];
        lane.is_up.store(problem.is_none(), Ordering::SeqCst);
        lane.lock().problem = problem;
    }

    /// The buckets of a lane that have something to send. If there are none, waits for some, at most until this time.
    pub(super) fn ready(&self, lane: usize, until: Instant) -> Vec<u16> {
        let lane = &self.lanes[lane];
        let mut work = lane.lock();
        let timeout = until.saturating_duration_since(Instant::now());
        if work.ready.is_empty() && !timeout.is_zero() && !self.is_closing() {
            work.is_sleeping = true;
            work = lane.wake.wait_timeout(work, timeout).unwrap_or_else(PoisonError::into_inner).0;
            work.is_sleeping = false;
        }
        std::mem::take(&mut work.ready)
    }

    /// How the store is doing.
    pub(super) fn health(&self) -> StoreHealth {
        let refusal = StoreError::Failed;
        if self.is_closing() {
            return StoreHealth::Unavailable { refusal, problem: "the store is closed".into() };
        }
        let problems = self.lanes.iter().filter_map(|lane| lane.lock().problem.clone());
        let mut problems: Vec<_> = problems.collect();
        problems.dedup();
        let conflict = self.about.conflict();
        let is_foreign = conflict.is_some();
        problems.extend(conflict);
        let closed = self.cells.iter().filter(|cell| !cell.look(|bucket| bucket.membership().may_admit())).count();
        if closed > 0 {
            problems.push(format!(
                "{closed} of {BUCKETS} parts of the users admit nobody: for node_lease after the store was reached, or has \
                 forgotten something"
            ));
        }
        match problems.is_empty() {
            true => StoreHealth::Ready,
            false => StoreHealth::Degraded { refusal: (closed > 0 || is_foreign).then_some(refusal), problems },
        }
    }
}

impl LaneState {
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

    fn wake(&self) {
        // Under the lock: whoever is about to sleep has looked before, or sleeps.
        let _work = self.lock();
        self.wake.notify_one();
    }
}

/// How long a thread waits before it tries to connect again.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
