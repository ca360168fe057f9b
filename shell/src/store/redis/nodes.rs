//! The nodes that share the store, as this one sees them, and the order to declare one dead.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use session_core::NodeId;
use session_core::cluster::{BucketEvent, NodeEntry};

use super::about;
use super::node::{BUCKETS, Node};
use crate::store::nodes::{Burial, NodeList, NodeParts, NodeTimes, StoredNode};

/// A node is silent if no beat of it was seen for so many. Two may pass if all goes well: one of that node, and one until this node looks.
const SILENT_BEATS: u32 = 3;

/// How often an order looks whether it is carried out.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long an order waits at most: shorter than an operator's connection lasts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Node {
    /// The nodes as the last beats showed them, and what they say of themselves.
    pub(super) fn list_nodes(&self) -> NodeList {
        let (seen, own) = (self.seen_nodes(), self.ids());
        let ids: Vec<_> = seen.keys().copied().collect();
        let mut problems: Vec<_> = self.health().problems().to_vec();
        let about = about::read(&self.locator, &ids).unwrap_or_else(|error| {
            problems.push(format!("what the servers say of themselves cannot be read: {error}"));
            vec![None; ids.len()]
        });
        let nodes = seen.into_iter().zip(about);
        let nodes = nodes.map(|((node, (parts, times)), about)| {
            let is_this = own.contains(&node) || node == self.context.node();
            StoredNode { node, is_this, parts, times, about }
        });
        NodeList { nodes: nodes.collect(), parts: BUCKETS, problems }
    }

    fn seen_nodes(&self) -> BTreeMap<NodeId, (NodeParts, NodeTimes)> {
        let silent_after = self.locator.config().timing.beat() * SILENT_BEATS;
        let mut seen = BTreeMap::<_, (NodeParts, NodeTimes)>::new();
        for cell in self.cells() {
            let now = self.context.clock().now();
            for (node, entry, since) in cell.look(|bucket| bucket.membership().nodes_since().collect::<Vec<_>>()) {
                let (parts, times) = seen.entry(node).or_default();
                match entry {
                    NodeEntry::Beats(_) => {
                        let silence = now.since(since);
                        *(if silence < silent_after { &mut parts.alive } else { &mut parts.silent }) += 1;
                        times.last_beat = times.last_beat.max(Some(silence));
                    }
                    NodeEntry::Dead(at) => {
                        parts.dead += 1;
                        times.dead_since = Some(times.dead_since.map_or(at, |before| before.min(at)));
                    }
                    NodeEntry::Left => parts.left += 1,
                }
            }
        }
        seen
    }

    /// Declares another node dead in all parts, and waits until it is, for as long as a call may take.
    pub(super) fn bury(&self, node: NodeId) -> Burial {
        if node == self.context.node() || self.ids().contains(&node) {
            return Burial::OwnNode;
        }
        let seen = self.seen_nodes();
        let Some((parts, _)) = seen.get(&node) else { return Burial::NoSuchNode(seen.into_keys().collect()) };
        let before = parts.beating();
        if before == 0 {
            return Burial::AlreadyDead;
        }
        for cell in self.cells() {
            self.handle(cell, BucketEvent::Bury(node));
        }
        let until = Instant::now()
            + (self.locator.config().call_timeout + self.locator.config().timing.beat()).min(LONGEST_WAIT);
        loop {
            let open = self.seen_nodes().get(&node).map_or(0, |(parts, _)| parts.beating());
            if open == 0 || Instant::now() >= until {
                return Burial::Ordered { buried: before.saturating_sub(open), open };
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
}
