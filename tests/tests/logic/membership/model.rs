//! What a node has seen and done, all of it, and what follows from that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use session_core::cluster::{ClusterTiming, Generation, GenerationId, NodeEntry};
use session_core::ledger::Liveness;
use session_core::{NodeId, Timestamp};

/// What the answer to a beat has shown.
pub(super) struct Look {
    pub(super) at: Timestamp,
    /// The number of the beat.
    pub(super) number: u64,
    pub(super) generation: Generation,
    pub(super) nodes: BTreeMap<NodeId, NodeEntry>,
}

pub(super) struct Sent {
    pub(super) at: Timestamp,
    pub(super) number: u64,
    pub(super) ids: Vec<NodeId>,
}

/// What a node knows, and what it has done.
pub(super) struct Model {
    pub(super) timing: ClusterTiming,
    /// The ids in force, and whether each has joined.
    pub(super) ids: Vec<(NodeId, bool)>,
    /// Ids that serve nobody any more, and how many looks there were before.
    pub(super) fenced: Vec<(NodeId, usize)>,
    pub(super) left: BTreeSet<NodeId>,
    /// Whom an operator has declared dead, and every look since has shown alive.
    pub(super) declared_dead: BTreeSet<NodeId>,
    pub(super) looks: Vec<Look>,
    /// When the beats were sent that put off the fence, since the last fence.
    pub(super) confirmed: Vec<Timestamp>,
    pub(super) is_reasserted: bool,
    pub(super) under_way: Option<Sent>,
    pub(super) beats: u64,
    pub(super) next_beat: Timestamp,
}

impl Model {
    pub(super) fn fence_at(&self) -> Option<Timestamp> {
        self.confirmed.iter().max().map(|sent| *sent + self.timing.fence())
    }

    pub(super) fn may_serve(&self, at: Timestamp) -> bool {
        self.fence_at().is_some_and(|fence| at < fence)
    }

    /// The looks in the generation in force, the newest first. One that came back is another one.
    pub(super) fn looks_in_force(&self) -> impl Iterator<Item = &Look> {
        let newest = self.looks.last().map(|look| look.generation.id);
        self.looks.iter().rev().take_while(move |look| Some(look.generation.id) == newest)
    }

    pub(super) fn is_open(&self) -> bool {
        self.looks_in_force().any(|look| look.generation.is_open)
    }

    pub(super) fn entry(&self, node: NodeId) -> Option<NodeEntry> {
        self.looks.last().and_then(|look| look.nodes.get(&node)).copied()
    }

    pub(super) fn is_in_force(&self, node: NodeId) -> bool {
        self.ids.iter().any(|(own, _)| *own == node)
    }

    pub(super) fn generation(&self) -> Option<GenerationId> {
        self.looks.last().map(|look| look.generation.id)
    }

    /// Whether the node has had this very entry in each look for so long, in the generation in force.
    fn has_been(&self, entry: NodeEntry, node: NodeId, time: Duration, now: Timestamp) -> bool {
        let same = self.looks_in_force().take_while(|look| look.nodes.get(&node) == Some(&entry));
        same.last().is_some_and(|first| now.since(first.at) >= time)
    }

    pub(super) fn is_silent(&self, node: NodeId, now: Timestamp) -> bool {
        let entry = self.entry(node).filter(|entry| matches!(entry, NodeEntry::Beats(_)));
        entry.is_some_and(|entry| self.has_been(entry, node, self.timing.lease(), now))
    }

    pub(super) fn is_outdated(&self, node: NodeId, now: Timestamp) -> bool {
        let entry = self.entry(node).filter(|entry| !matches!(entry, NodeEntry::Beats(_)));
        entry.is_some_and(|entry| self.has_been(entry, node, self.timing.memory(), now))
    }

    /// Whom to bury, with the beat: after a look.
    pub(super) fn burials(&self, now: Timestamp) -> Vec<(NodeId, Option<u64>)> {
        let is_dead = |node: &NodeId, looks: &[Look]| {
            looks.iter().any(|look| matches!(look.nodes.get(node), Some(NodeEntry::Dead(_) | NodeEntry::Left)))
        };
        let former = self.fenced.iter().filter(|(node, before)| !is_dead(node, &self.looks[*before..]));
        let mut burials: Vec<_> = former.map(|(node, _)| (*node, None)).collect();
        for (&node, entry) in self.looks.last().map(|look| &look.nodes).into_iter().flatten() {
            if let NodeEntry::Beats(beat) = entry
                && !self.is_in_force(node)
                && (self.is_silent(node, now) || self.declared_dead.contains(&node))
            {
                burials.push((node, Some(*beat)));
            }
        }
        burials.sort_unstable();
        burials
    }

    /// The beat with which to bury a node that an operator declares dead.
    pub(super) fn declare_dead(&mut self, node: NodeId) -> Option<u64> {
        let Some(NodeEntry::Beats(beat)) = self.entry(node).filter(|_| !self.is_in_force(node)) else { return None };
        self.declared_dead.insert(node);
        Some(beat)
    }

    /// After a look.
    pub(super) fn forget_declared(&mut self) {
        let nodes = self.looks.last().map(|look| &look.nodes);
        let is_alive = |node: &NodeId| matches!(nodes.and_then(|all| all.get(node)), Some(NodeEntry::Beats(_)));
        self.declared_dead.retain(is_alive);
    }

    pub(super) fn must_open(&self, now: Timestamp) -> Option<GenerationId> {
        let first = self.looks_in_force().last()?;
        (!self.is_open() && now.since(first.at) >= self.timing.lease()).then_some(first.generation.id)
    }

    pub(super) fn liveness(&self, node: NodeId, read_after: u64, now: Timestamp) -> Liveness {
        let is_later = self.looks.last().is_some_and(|look| look.number > read_after);
        match self.entry(node) {
            _ if self.is_in_force(node) => Liveness::Alive,
            Some(NodeEntry::Beats(_)) => Liveness::Alive,
            Some(NodeEntry::Dead(at)) => Liveness::DeadSince(at),
            Some(NodeEntry::Left) => Liveness::DeadSince(now),
            None if is_later => Liveness::DeadSince(now),
            None => Liveness::Alive,
        }
    }

    pub(super) fn fence(&mut self) {
        let looks = self.looks.len();
        self.fenced.extend(self.ids.drain(..).map(|(node, _)| (node, looks)));
        self.confirmed.clear();
        self.under_way = None;
        self.is_reasserted = !self.looks.is_empty();
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let beat = (self.under_way.is_none() && !self.ids.is_empty()).then_some(self.next_beat);
        beat.into_iter().chain(self.fence_at()).min()
    }
}
