//! Which nodes of a bucket are alive, and whether this one may serve its sessions.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::shared_store::{BeatAnswer, Generation, GenerationId, NodeEntry, OverridesVersion, OwnId, Request};
use super::timing::ClusterTiming;
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::Liveness;
use crate::time::Timestamp;

/// The membership of one node in one bucket.
///
/// It sends a beat every [`ClusterTiming::beat`], and learns from the answers which nodes are alive and which generation is in
/// force. No clock but the node's own decides anything, and that one must count the time in which the machine is suspended.
///
/// # What always holds
///
/// - [`Membership::may_serve`] is false once the last confirmed beat was sent [`ClusterTiming::fence`] ago. A node never serves
///   sessions again under an id that was fenced.
/// - It asks to bury a node only when it has seen the same beat of it for [`ClusterTiming::lease`], or an operator has declared that
///   node dead ([`MembershipEvent::Bury`]). It never asks to bury itself.
/// - [`Membership::may_admit`] is false until the gate of the generation in force is open and this node has re-asserted its
///   sessions in it.
/// - A beat that begins a new generation for this node, and each one after it until the node has re-asserted its sessions, does
///   not put off the fence.
#[derive(Debug, Clone)]
pub struct Membership {
    timing: ClusterTiming,
    /// The newest last. Empty after a fence, until the node has another id.
    ids: Vec<OwnId>,
    /// Ids of this node that serve nobody any more, until they are seen buried.
    former: Vec<NodeId>,
    /// Nodes that an operator has declared dead, until they are not seen alive.
    declared_dead: BTreeSet<NodeId>,
    /// The number of the last beat that was sent.
    beats: u64,
    /// When the last confirmed beat was sent. `None` before the first.
    confirmed: Option<Timestamp>,
    /// The beat that is not answered yet.
    under_way: Option<SentBeat>,
    next_beat: Timestamp,
    generation: Option<SeenGeneration>,
    /// The greatest number of a generation that was seen.
    greatest_generation: u64,
    nodes: BTreeMap<NodeId, SeenNode>,
    /// The number of the beat that showed [`nodes`](Self::nodes).
    looked: u64,
}

#[derive(Debug, Clone)]
struct SentBeat {
    at: Timestamp,
    /// Ids that came later have not joined by it.
    ids: Vec<NodeId>,
}

#[derive(Debug, Clone)]
struct SeenGeneration {
    generation: Generation,
    /// Since when this node has seen it.
    since: Timestamp,
    is_reasserted: bool,
}

#[derive(Debug, Clone)]
struct SeenNode {
    entry: NodeEntry,
    /// Since when this node has seen this very entry.
    since: Timestamp,
}

/// What happens to a [`Membership`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipEvent {
    /// Time has passed.
    Tick,
    /// The beat that is under way was answered.
    BeatAnswered(BeatAnswer),
    /// The beat that is under way gets no answer any more.
    BeatLost,
    /// All sessions of this node that were told of their grants are in the store again, in the generation in force.
    Reasserted,
    /// The node has another id. Sessions under its ids before go on, unless they were fenced.
    Joins(NodeId),
    /// No session of this node has this id any more, and nothing is owed for one.
    Leaves(NodeId),
    /// An operator declares another node dead. If it is not seen alive, or is this node, that does nothing.
    Bury(NodeId),
}

/// What a [`Membership`] wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "requests have to be sent, and a fence closes sessions"]
pub struct MembershipActions {
    /// What to send to the shared store, in this order.
    pub requests: Vec<Request>,
    /// All sessions of the bucket end, now. The node needs another id to join again ([`MembershipEvent::Joins`]).
    pub fenced: Option<FenceReason>,
    /// Another generation is in force: what was read before is worth nothing, what was not told must not be told any more, and
    /// sessions that were told have to be re-asserted ([`MembershipEvent::Reasserted`]).
    pub is_new_generation: bool,
    /// The gate of the generation was seen open for the first time.
    pub has_opened: bool,
    /// The answer to a beat came, with this version of the overrides. Nodes may count as dead now that did not before.
    pub overrides: Option<OverridesVersion>,
    /// What the inbox has: sessions of this node that have lost their slots.
    pub inbox: Vec<(UserId, SessionId)>,
}

/// Why all sessions of a bucket end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceReason {
    /// No beat was confirmed for [`ClusterTiming::fence`].
    NotConfirmed,
    /// The others take this node for dead.
    Buried,
}

impl Membership {
    /// A node with this id that joins. `former` is the id that it had before it was restarted, if it knows it and has made sure
    /// that no such process is left.
    #[must_use]
    pub fn new(node: NodeId, former: Option<NodeId>, timing: ClusterTiming, now: Timestamp) -> Self {
        Self {
            timing,
            ids: [OwnId { node, has_joined: false }].into(),
            former: former.into_iter().collect(),
            declared_dead: BTreeSet::new(),
            beats: 0,
            confirmed: None,
            under_way: None,
            next_beat: now,
            generation: None,
            greatest_generation: 0,
            nodes: BTreeMap::new(),
            looked: 0,
        }
    }

    /// Takes an event. Call [`Membership::may_serve`] before anything is served, not this alone.
    pub fn handle(&mut self, event: MembershipEvent, now: Timestamp) -> MembershipActions {
        if self.confirmed.is_some() && !self.may_serve(now) {
            // The event does not matter any more: it concerns ids that are fenced, or comes again.
            let mut actions = self.fence(FenceReason::NotConfirmed);
            if let MembershipEvent::Joins(node) = event {
                self.join(node, now);
                actions.requests.extend(self.beat_if_due(now));
            }
            return actions;
        }
        let mut actions = match event {
            MembershipEvent::Tick => MembershipActions::default(),
            MembershipEvent::BeatAnswered(answer) => self.answered(answer, now),
            MembershipEvent::BeatLost => {
                self.under_way = None;
                MembershipActions::default()
            }
            MembershipEvent::Reasserted => {
                if let Some(seen) = &mut self.generation {
                    seen.is_reasserted = true;
                }
                // The next beat puts the fence off again, and may have been due for long.
                self.next_beat = now;
                MembershipActions::default()
            }
            MembershipEvent::Joins(node) => {
                self.join(node, now);
                MembershipActions::default()
            }
            MembershipEvent::Leaves(node) => {
                self.ids.retain(|own| own.node != node);
                let leave = self.generation_id().map(|generation| Request::Leave { node, generation });
                MembershipActions { requests: leave.into_iter().collect(), ..MembershipActions::default() }
            }
            MembershipEvent::Bury(node) => {
                let burial = self.seen_beat(node).map(|beat| Request::Bury { node, beat: Some(beat), at: now });
                if burial.is_some() {
                    self.declared_dead.insert(node);
                    // The next look shows whether it is dead. If it has beaten meanwhile, it is buried with the beat of that look.
                    self.next_beat = now;
                }
                MembershipActions { requests: burial.into_iter().collect(), ..MembershipActions::default() }
            }
        };
        actions.requests.extend(self.beat_if_due(now));
        actions
    }

    /// When [`MembershipEvent::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let beat = (self.under_way.is_none() && !self.ids.is_empty()).then_some(self.next_beat);
        beat.into_iter().chain(self.serves_until()).min()
    }

    /// Whether the node may serve its sessions in this bucket. Ask before each message to a client, at the time of sending.
    #[must_use]
    pub fn may_serve(&self, now: Timestamp) -> bool {
        self.serves_until().is_some_and(|until| now < until)
    }

    /// Until when it may, as far as this node knows now. `None` if it may not.
    #[must_use]
    pub fn serves_until(&self) -> Option<Timestamp> {
        self.confirmed.map(|sent| sent + self.timing.fence())
    }

    /// Whether the node may admit sessions in this bucket.
    #[must_use]
    pub fn may_admit(&self) -> bool {
        let is_ready = |seen: &SeenGeneration| seen.is_reasserted && seen.generation.is_open;
        self.confirmed.is_some() && self.generation.as_ref().is_some_and(is_ready)
    }

    /// The generation in force, as far as this node knows.
    #[must_use]
    pub fn generation(&self) -> Option<&Generation> {
        self.generation.as_ref().map(|seen| &seen.generation)
    }

    pub(super) fn generation_id(&self) -> Option<GenerationId> {
        self.generation().map(|generation| generation.id)
    }

    /// Since when this node has seen the generation in force.
    #[must_use]
    pub fn in_generation_since(&self) -> Option<Timestamp> {
        self.generation.as_ref().map(|seen| seen.since)
    }

    /// Whether the node has re-asserted its sessions in the generation in force.
    #[must_use]
    pub fn is_reasserted(&self) -> bool {
        self.generation.as_ref().is_some_and(|seen| seen.is_reasserted)
    }

    /// Whether a beat was confirmed under an id that is in force.
    #[must_use]
    pub const fn has_joined(&self) -> bool {
        self.confirmed.is_some()
    }

    /// The newest id, if the store knows it. Sessions get it.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.ids.iter().rev().find(|own| own.has_joined).map(|own| own.node)
    }

    /// The ids in force.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ids.iter().map(|own| own.node)
    }

    /// Whether this is an id of this node that the store knows.
    #[must_use]
    pub fn is_own(&self, node: NodeId) -> bool {
        self.ids.iter().any(|own| own.node == node && own.has_joined)
    }

    /// The number of the last beat that was sent. Keep it with each record that is read, for [`Membership::liveness`].
    #[must_use]
    pub const fn beats(&self) -> u64 {
        self.beats
    }

    /// The number of the beat that showed the bucket's nodes.
    #[must_use]
    pub const fn looked(&self) -> u64 {
        self.looked
    }

    /// Whether a node is alive, for a record that was read when this was the number of the last beat.
    ///
    /// A node that the store does not know is dead, but only if the beat that showed so was sent after the record was read.
    /// Otherwise the node may have joined in between.
    #[must_use]
    pub fn liveness(&self, node: NodeId, read_after: u64, now: Timestamp) -> Liveness {
        if self.ids().any(|own| own == node) {
            return Liveness::Alive;
        }
        match self.nodes.get(&node).map(|seen| seen.entry) {
            Some(NodeEntry::Beats(_)) => Liveness::Alive,
            Some(NodeEntry::Dead(at)) => Liveness::DeadSince(at),
            // It let its sessions linger itself.
            Some(NodeEntry::Left) => Liveness::DeadSince(now),
            None if self.looked > read_after => Liveness::DeadSince(now),
            None => Liveness::Alive,
        }
    }

    /// Whether the last look at the bucket's nodes showed this one, and not as dead.
    #[must_use]
    pub fn is_seen_alive(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|seen| seen.entry.is_alive())
    }

    /// All nodes of the bucket, as the last beat showed them.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, NodeEntry)> + '_ {
        self.nodes.iter().map(|(node, seen)| (*node, seen.entry))
    }

    /// The same, with the time since when this node has seen each entry as it is.
    pub fn nodes_since(&self) -> impl Iterator<Item = (NodeId, NodeEntry, Timestamp)> + '_ {
        self.nodes.iter().map(|(node, seen)| (*node, seen.entry, seen.since))
    }

    /// The nodes that are buried.
    pub fn dead(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        let is_dead = |(_, seen): &(&NodeId, &SeenNode)| matches!(seen.entry, NodeEntry::Dead(_));
        self.nodes.iter().filter(is_dead).map(|(node, _)| *node)
    }

    /// The nodes that were dead or had left a [`ClusterTiming::memory`] ago.
    pub fn outdated(&self, now: Timestamp) -> impl Iterator<Item = (NodeId, NodeEntry)> + '_ {
        let memory = self.timing.memory();
        let is_outdated = move |seen: &SeenNode| !seen.entry.is_alive() && now.since(seen.since) >= memory;
        self.nodes.iter().filter(move |(_, seen)| is_outdated(seen)).map(|(node, seen)| (*node, seen.entry))
    }

    /// The other nodes that are alive.
    pub fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        let nodes = self.nodes.keys().copied();
        nodes.filter(|node| self.is_seen_alive(*node) && !self.ids().any(|own| own == *node))
    }

    /// Whether this node is the one of those alive that clears the slots of dead nodes.
    #[must_use]
    pub fn is_sweeper(&self) -> bool {
        let first = self.nodes.iter().find(|(_, seen)| seen.entry.is_alive());
        first.is_some_and(|(node, _)| self.ids().any(|own| own == *node))
    }

    fn join(&mut self, node: NodeId, now: Timestamp) {
        self.ids.push(OwnId { node, has_joined: false });
        self.next_beat = now;
    }

    fn fence(&mut self, reason: FenceReason) -> MembershipActions {
        self.former.extend(self.ids.drain(..).map(|own| own.node));
        (self.confirmed, self.under_way) = (None, None);
        if let Some(seen) = &mut self.generation {
            // No session is left that could be missing.
            seen.is_reasserted = true;
        }
        MembershipActions { fenced: Some(reason), ..MembershipActions::default() }
    }

    fn beat_if_due(&mut self, now: Timestamp) -> Option<Request> {
        let &OwnId { node, .. } = self.ids.last()?;
        if self.under_way.is_some() || now < self.next_beat {
            return None;
        }
        self.beats += 1;
        self.under_way = Some(SentBeat { at: now, ids: self.ids().collect() });
        self.next_beat = now + self.timing.beat();
        Some(Request::Beat {
            ids: self.ids.clone(),
            number: self.beats,
            seen: self.generation_id(),
            seen_number: self.greatest_generation,
            proposed: GenerationId { node, beat: self.beats },
        })
    }

    fn answered(&mut self, answer: BeatAnswer, now: Timestamp) -> MembershipActions {
        let Some(sent) = self.under_way.take() else { return MembershipActions::default() };
        let BeatAnswer { is_confirmed, generation, overrides, nodes, inbox } = answer;
        if !is_confirmed {
            return self.fence(FenceReason::Buried);
        }
        // A beat that shows another generation for the first time does not put off the fence.
        let was_reasserted = self.is_reasserted() && !self.is_other(&generation);
        let mut actions = MembershipActions { inbox, overrides: Some(overrides), ..MembershipActions::default() };
        (actions.is_new_generation, actions.has_opened) = self.see_generation(generation, now);
        self.see_nodes(nodes, actions.is_new_generation, now);
        if self.confirmed.is_none() || was_reasserted {
            self.confirmed = self.confirmed.max(Some(sent.at));
        }
        for own in &mut self.ids {
            own.has_joined |= sent.ids.contains(&own.node);
        }
        actions.requests = self.decisions(now);
        actions
    }

    fn is_other(&self, generation: &Generation) -> bool {
        self.generation().is_none_or(|seen| seen.id != generation.id)
    }

    /// Returns whether the generation is new to this node, and whether its gate is seen open for the first time.
    fn see_generation(&mut self, generation: Generation, now: Timestamp) -> (bool, bool) {
        if let Some(seen) = &mut self.generation
            && seen.generation.id == generation.id
        {
            let has_opened = generation.is_open && !seen.generation.is_open;
            seen.generation.is_open |= generation.is_open;
            return (false, has_opened);
        }
        self.greatest_generation = self.greatest_generation.max(generation.number);
        self.generation = Some(SeenGeneration { generation, since: now, is_reasserted: false });
        (true, generation.is_open)
    }

    /// In a new generation each node is seen anew: the store may have forgotten its last beats, and the node counts them.
    fn see_nodes(&mut self, nodes: Vec<(NodeId, NodeEntry)>, is_new_generation: bool, now: Timestamp) {
        // One beat is under way at a time.
        self.looked = self.beats;
        let before = core::mem::take(&mut self.nodes);
        for (node, entry) in nodes {
            let same = before.get(&node).filter(|seen| seen.entry == entry && !is_new_generation);
            let since = same.map_or(now, |seen| seen.since);
            self.nodes.insert(node, SeenNode { entry, since });
        }
    }

    /// The number of the last beat of another node that was seen alive.
    fn seen_beat(&self, node: NodeId) -> Option<u64> {
        match self.nodes.get(&node).filter(|_| !self.ids().any(|own| own == node))?.entry {
            NodeEntry::Beats(beat) => Some(beat),
            NodeEntry::Dead(_) | NodeEntry::Left => None,
        }
    }

    /// Whom to bury, and whether to open the gate.
    fn decisions(&mut self, now: Timestamp) -> Vec<Request> {
        let lease = self.timing.lease();
        let nodes = &self.nodes;
        self.declared_dead.retain(|node| nodes.get(node).is_some_and(|seen| seen.entry.is_alive()));
        self.former.retain(|node| nodes.get(node).is_none_or(|seen| seen.entry.is_alive()));
        let former = self.former.iter().map(|&node| Request::Bury { node, beat: None, at: now });
        let is_silent =
            |node: &NodeId, seen: &SeenNode| now.since(seen.since) >= lease || self.declared_dead.contains(node);
        let silent = nodes.iter().filter(|(node, seen)| is_silent(node, seen));
        let silent = silent.filter_map(|(&node, _)| {
            self.seen_beat(node).map(|beat| Request::Bury { node, beat: Some(beat), at: now })
        });
        let closed = self.generation.as_ref().filter(|seen| !seen.generation.is_open);
        let open = closed.filter(|seen| now.since(seen.since) >= lease).map(|seen| Request::Open(seen.generation.id));
        former.chain(silent).chain(open).collect()
    }
}
