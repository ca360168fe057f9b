//! A thread that carries the requests of some buckets to the store, and the answers back. It decides nothing.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use session_core::cluster::BucketEvent;

use super::cell::nanos;
use super::link::{Link, LinkError, Received, Sent};
use super::node::{Node, RECONNECT_PAUSE};
use crate::runtime::events::log_event;
use crate::runtime::supervisor::PartGuard;

/// How many requests are sent at a time.
const BATCH: usize = 512;

/// How long a thread sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The work of one thread.
pub(super) struct Lane {
    node: Arc<Node>,
    number: usize,
    /// The number of the connection.
    epoch: u64,
    link: Option<Link>,
    connected_at: Instant,
    lost_at: Option<Instant>,
    /// When to try again to connect.
    next_try: Instant,
    answers: Vec<Received>,
}

impl Lane {
    /// A lane, on this connection.
    pub(super) fn new(node: Arc<Node>, number: usize, link: Link) -> Self {
        node.set_problem(number, None);
        let now = Instant::now();
        let link = Some(link);
        Self { node, number, epoch: 0, link, connected_at: now, lost_at: None, next_try: now, answers: Vec::new() }
    }

    /// Runs until the store is closed, and the node has left.
    pub(super) fn run(mut self, guard: &PartGuard) {
        let mut has_left = false;
        loop {
            guard.round();
            self.tick();
            if self.node.is_closing() && !has_left {
                has_left = self.node.leave(self.number);
            }
            if self.link.is_none() && Instant::now() >= self.next_try {
                self.reconnect();
            }
            let sent = self.exchange();
            if self.node.is_abandoned() || (has_left && sent == 0 && self.link.is_some()) {
                return self.node.lane_ended();
            }
        }
    }

    /// Looks at the buckets whose time has come.
    fn tick(&self) {
        let now = nanos(self.node.context.clock().now());
        for cell in self.node.cells_of(self.number).filter(|cell| cell.deadline() <= now) {
            self.node.handle(cell, BucketEvent::Tick);
        }
    }

    /// How long nothing has to be looked at.
    fn sleep_until(&self) -> Instant {
        let now = nanos(self.node.context.clock().now());
        let deadline = self.node.cells_of(self.number).map(|cell| cell.deadline()).min().unwrap_or(u64::MAX);
        let pause = Duration::from_nanos(deadline.saturating_sub(now)).min(LONGEST_SLEEP);
        let until = Instant::now() + pause;
        if self.link.is_none() { until.min(self.next_try) } else { until }
    }

    fn reconnect(&mut self) {
        match Link::open(&self.node.config, self.node.config.call_timeout) {
            Ok(link) => {
                (self.link, self.connected_at) = (Some(link), Instant::now());
                self.epoch += 1;
                self.node.set_problem(self.number, None);
                for cell in self.node.cells_of(self.number) {
                    self.node.handled(cell, cell.reconnected(self.epoch));
                }
                if let Some(lost_at) = self.lost_at.take() {
                    let store = self.node.config.url.to_string();
                    log_event!(shared_store_back { store, lost_millis: lost_at.elapsed().as_millis() });
                }
            }
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &LinkError) {
        self.link = None;
        let is_first = self.lost_at.is_none();
        // At once, unless the last connection did not last, or there was none.
        let before = if is_first { self.connected_at } else { Instant::now() };
        self.next_try = before + RECONNECT_PAUSE;
        let store = self.node.config.url.to_string();
        if is_first {
            self.lost_at = Some(Instant::now());
            log_event!(shared_store_lost { store: &*store, error: display(error) });
        }
        self.node.set_problem(self.number, Some(format!("{store}: {error}")));
    }

    /// Sends what is to be sent, and hands in the answers. Returns how many requests were sent.
    fn exchange(&mut self) -> usize {
        let ready = self.node.ready(self.number, self.sleep_until());
        let Some(link) = &mut self.link else {
            // Whatever is to be sent is asked for again on the next connection.
            return 0;
        };
        let mut requests = Vec::new();
        for number in ready {
            let cell = &self.node.cells()[usize::from(number)];
            let (bucket, names) = (cell.number(), &cell.names);
            requests.extend(cell.take_requests().into_iter().map(|(id, request)| Sent { bucket, names, id, request }));
        }
        let sent = requests.len();
        while !requests.is_empty() {
            let later = requests.split_off(requests.len().min(BATCH));
            let result = link.exchange(mem::replace(&mut requests, later), &mut self.answers);
            for Received { bucket, id, answer } in mem::take(&mut self.answers) {
                self.node.handle(&self.node.cells()[usize::from(bucket)], BucketEvent::Answered(id, answer));
            }
            if let Err(error) = result {
                self.lost(&error);
                break;
            }
        }
        sent
    }
}
