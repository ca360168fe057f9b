//! The thread that ends sessions in time, whatever the other threads are doing.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use session_core::cluster::BucketEvent;

use super::cell::nanos;
use super::lane;
use super::node::Node;
use crate::runtime::supervisor::{Part, PartGuard};

/// How long the thread sleeps at most: after the machine was suspended it sleeps on, and the clock has gone on.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Looks, in time, at every bucket that may not be served any more, until the node has left.
pub(super) fn run(node: &Arc<Node>, guard: &PartGuard) {
    while !node.is_over() {
        guard.round();
        let now = nanos(node.context.clock().now());
        let mut next = u64::MAX;
        for cell in node.cells() {
            match cell.serves_until() {
                0 => {}
                until if until <= now => node.handle(cell, BucketEvent::Tick),
                until => next = next.min(until),
            }
        }
        if node.give_up_stuck_lanes() {
            // That may take a while.
            let relocated = Arc::clone(node);
            let _not_started = node.spawn(Part::StoreLane, move |_| lane::relocate(&relocated));
        }
        thread::sleep(Duration::from_nanos(next.saturating_sub(now)).min(LONGEST_SLEEP));
    }
}
