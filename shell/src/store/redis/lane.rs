//! A thread that carries the requests of some buckets to their server, and the answers back. It decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use session_core::cluster::BucketEvent;

use super::cell::{Cell, nanos};
use super::link::{Link, LinkError, Received, Replicas, Sent};
use super::node::{BUCKETS, Node, RECONNECT_PAUSE};
use crate::runtime::events::log_event;
use crate::runtime::supervisor::{Part, PartGuard};

/// How many requests make a pipeline. One bucket may have more for it at once. While the answers to one are handled, the server works
/// on the next.
const PIPELINE: usize = 16;

/// How many do if it is waited for replicas behind each pipeline.
const REPLICATED_PIPELINE: usize = 512;

/// How long a thread sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How long the thread sleeps that asks where the buckets are.
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// How long a thread without buckets goes on. Each failover may bring servers with other addresses.
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// The work of one thread.
struct Lane {
    node: Arc<Node>,
    number: usize,
    link: Option<Link>,
    /// The number of the connection. No two of a node have the same.
    link_number: u64,
    /// The number of the one that its buckets know.
    adopted: u64,
    connected_at: Instant,
    /// Whether it had a connection, or was to have one, and could not make another.
    is_lost: bool,
    /// Since when it has no buckets.
    idle_since: Option<Instant>,
    /// When to try again to connect.
    next_try: Instant,
    replicas: Replicas,
    /// The buckets that have something to send.
    ready: VecDeque<u16>,
    answers: Vec<Received>,
}

/// Connects to a server. If it has the first part, the format of the keys is compared, too.
pub(super) fn open(node: &Node, server: &str) -> Result<Link, LinkError> {
    let config = node.locator.config();
    let mut link = Link::open(node.locator.connect(server)?, &config.prefix, config.call_timeout)?;
    if link.is_in_cluster() && !node.locator.is_cluster() {
        return Err(LinkError::InCluster);
    }
    if *node.locator.home(0) == *server {
        link.check_format(&config.prefix, BUCKETS)?;
    }
    Ok(link)
}

/// Starts the thread of a lane.
pub(super) fn start(node: &Arc<Node>, number: usize, link: Option<Link>) -> io::Result<()> {
    let lane = Lane::new(Arc::clone(node), number, link);
    node.spawn(Part::StoreLane, move |guard| lane.run(guard))
}

/// Finds out where the buckets are now.
pub(super) fn relocate(node: &Arc<Node>) {
    // That nobody says so is said by the lane whose server does not answer. It tries again.
    let _unknown = node.locator.refresh();
    for number in node.place() {
        if let Err(error) = start(node, number, None) {
            log_event!(threads_missing { threads: number, error: display(error) });
        }
    }
}

/// Asks at each beat where the buckets are, until the node has left. The Sentinels may have named another server, while the former one
/// still takes writes.
pub(super) fn watch(node: &Arc<Node>) {
    let mut asked_at = Instant::now();
    while !node.is_over() {
        if asked_at.elapsed() >= node.locator.config().timing.beat() {
            relocate(node);
            asked_at = Instant::now();
        }
        thread::sleep(WATCH_PAUSE);
    }
}

impl Lane {
    /// A lane with this number, which connects by itself, or has a connection already.
    fn new(node: Arc<Node>, number: usize, link: Option<Link>) -> Self {
        let now = Instant::now();
        let config = node.locator.config();
        let replicas = Replicas {
            number: config.replicas,
            confirm_grants: config.waits,
            timeout: config.timing.beat().min(config.call_timeout) / 2,
        };
        let link_number = node.next_link();
        if link.is_some() {
            node.set_problem(number, None);
        }
        Self {
            node,
            number,
            link,
            link_number,
            adopted: 0,
            connected_at: now,
            is_lost: false,
            idle_since: None,
            next_try: now,
            replicas,
            ready: VecDeque::new(),
            answers: Vec::new(),
        }
    }

    /// Runs until the store is closed, and the node has left.
    fn run(mut self, guard: &PartGuard) {
        loop {
            guard.round();
            let has_buckets = self.cells().next().is_some();
            if !has_buckets {
                // They are at another server now.
                self.link = None;
                self.end_outage();
                self.node.set_problem(self.number, None);
                let idle_since = *self.idle_since.get_or_insert_with(Instant::now);
                if idle_since.elapsed() > LONGEST_IDLE && !self.node.is_closing() && self.node.retire(self.number) {
                    return;
                }
            } else if self.link.is_none() && Instant::now() >= self.next_try {
                self.connect();
            }
            if has_buckets {
                self.idle_since = None;
            }
            self.adopt();
            let due = self.node.tick(self.number);
            let has_left = self.node.is_closing() && self.node.leave(self.number);
            let is_busy = self.exchange(self.sleep_until(due));
            if self.node.is_replaced(self.number) {
                return;
            }
            if self.node.is_abandoned() || (has_left && !is_busy && (self.link.is_some() || !has_buckets)) {
                return self.node.lane_ended();
            }
        }
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.node.cells_of(self.number)
    }

    /// Tells buckets that have not been on this connection that there is another one.
    fn adopt(&mut self) {
        if self.link.is_some() && (self.node.has_new_buckets(self.number) || self.adopted != self.link_number) {
            self.adopted = self.link_number;
            for cell in self.cells() {
                if let Some(handled) = cell.reconnected(self.link_number) {
                    self.node.handled(cell, handled);
                }
            }
        }
    }

    /// How long nothing has to be looked at. `due` is when a bucket has to be, in nanoseconds since the epoch.
    fn sleep_until(&self, due: u64) -> Instant {
        let now = nanos(self.node.context.clock().now());
        let pause = Duration::from_nanos(due.saturating_sub(now)).min(LONGEST_SLEEP);
        let until = Instant::now() + pause;
        if self.link.is_none() && self.is_lost { until.min(self.next_try) } else { until }
    }

    fn connect(&mut self) {
        let node = &self.node;
        node.set_waiting(self.number, true);
        let link = open(node, &node.server_of(self.number));
        node.set_waiting(self.number, false);
        if node.is_replaced(self.number) {
            return;
        }
        match link {
            Ok(link) => {
                self.link = Some(link);
                (self.link_number, self.connected_at) = (self.node.next_link(), Instant::now());
                self.node.set_problem(self.number, None);
                if let Some(lasted) = self.end_outage() {
                    log_event!(shared_store_back { store: self.name(), lost_millis: lasted.as_millis() });
                }
            }
            Err(error) => self.lost(&error),
        }
    }

    /// Where the server is, for an operator.
    fn name(&self) -> String {
        self.node.locator.name(&self.node.server_of(self.number))
    }

    fn lost(&mut self, error: &LinkError) {
        self.link = None;
        let is_first = !self.is_lost;
        // At once, unless the last connection did not last, or there was none.
        let before = if is_first { self.connected_at } else { Instant::now() };
        self.next_try = before + RECONNECT_PAUSE;
        let store = self.name();
        if is_first {
            self.is_lost = true;
            if self.node.outages.lost(&self.node.server_of(self.number)) {
                log_event!(shared_store_lost { store: &*store, error: display(error) });
            }
        }
        self.node.set_problem(self.number, Some(format!("{store}: {error}")));
        relocate(&self.node);
    }

    /// The connection is not lost any more. If that was the last one of its server: how long one was.
    fn end_outage(&mut self) -> Option<Duration> {
        let was_lost = mem::take(&mut self.is_lost);
        was_lost.then(|| self.node.outages.over(&self.node.server_of(self.number))).flatten()
    }

    /// Sends what is to be sent, and hands in the answers to what was sent first. Whether there is anything of both.
    fn exchange(&mut self, sleep_until: Instant) -> bool {
        let Some(link) = &mut self.link else {
            // Whatever is to be sent is asked for again on the next connection.
            let _forgotten = self.node.ready(self.number, sleep_until);
            return false;
        };
        if !link.is_full() {
            let has_more = link.is_busy() || !self.ready.is_empty();
            self.ready.extend(self.node.ready(self.number, if has_more { Instant::now() } else { sleep_until }));
        }
        self.node.set_waiting(self.number, true);
        let result = send(link, &self.node, self.link_number, &mut self.ready, &self.replicas).and_then(|()| {
            let is_busy = link.is_busy();
            link.receive(&self.replicas, &mut self.answers).map(|exchanged| (is_busy, exchanged.has_moved))
        });
        self.node.set_waiting(self.number, false);
        if self.node.is_replaced(self.number) {
            return true;
        }
        for Received { bucket, id, answer } in self.answers.drain(..) {
            self.node.handle(&self.node.cells()[usize::from(bucket)], BucketEvent::Answered(id, answer));
        }
        match result {
            Ok((is_busy, has_moved)) => {
                if has_moved {
                    relocate(&self.node);
                }
                is_busy
            }
            Err(error) => {
                self.lost(&error);
                true
            }
        }
    }
}

/// Sends what buckets have that are ready, until the connection has enough.
fn send(
    link: &mut Link,
    node: &Node,
    link_number: u64,
    ready: &mut VecDeque<u16>,
    replicas: &Replicas,
) -> Result<(), LinkError> {
    let enough = if replicas.number > 0 { REPLICATED_PIPELINE } else { PIPELINE };
    let mut requests = Vec::new();
    while !link.is_full()
        && let Some(number) = ready.pop_front()
    {
        let cell = &node.cells()[usize::from(number)];
        let (bucket, names) = (cell.number(), &cell.names);
        let on_this_link = cell.take_requests(link_number).into_iter();
        requests.extend(on_this_link.map(|(id, request)| Sent { bucket, names, id, request }));
        if requests.len() >= enough {
            link.send(mem::take(&mut requests), replicas)?;
        }
    }
    if requests.is_empty() { Ok(()) } else { link.send(requests, replicas) }
}

impl Drop for Lane {
    /// A thread may end without a connection.
    fn drop(&mut self) {
        self.end_outage();
    }
}
