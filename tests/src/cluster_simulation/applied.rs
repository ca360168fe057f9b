//! What must hold of each request that a store has applied, whatever nodes ask for. The simulation checks it of its own store, and
//! the replay of a trace of the requests that a real Redis has applied.

use std::collections::{BTreeMap, BTreeSet};

use session_core::cluster::{
    AnswerBody, BucketKeys, Floor, Generation, GenerationId, HistoryId, NodeEntry, Published, Request, WriteRequest,
};
use session_core::ledger::{CountBy, SessionStatus, SlotLimit};
use session_core::{NodeId, SessionId};

/// Applies requests to the buckets of a store, and checks what must hold of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct AppliedChecks {
    /// The limit of users without one of their own. `None` if devices are counted.
    limit: Option<usize>,
    buckets: BTreeMap<u16, Applied>,
}

/// What was applied in a bucket.
#[derive(Debug, Clone, Default)]
struct Applied {
    /// All generations that have begun.
    generations: BTreeSet<GenerationId>,
    /// The nodes that were buried or have left, as far as the store has not forgotten them.
    gone: BTreeSet<NodeId>,
    /// The beats of each node that were confirmed.
    beats: BTreeSet<(NodeId, u64)>,
}

/// A bucket before a request was applied, as far as it is compared.
struct Before {
    generation: Option<Generation>,
    nodes: BTreeMap<NodeId, NodeEntry>,
    floors: BTreeMap<NodeId, Floor>,
    /// The number of slots of the user whose record the request writes.
    slots: usize,
}

impl AppliedChecks {
    /// Nothing was applied yet. Servers have this policy.
    pub(crate) fn new(count_by: CountBy, limit: SlotLimit) -> Self {
        let limit = match count_by {
            CountBy::Sessions => Some(limit.slots() as usize),
            CountBy::Devices => None,
        };
        Self { limit, buckets: BTreeMap::new() }
    }

    /// The store has forgotten something. What it has forgotten of nodes, nobody else has to know.
    pub(crate) fn forgot(&mut self) {
        self.buckets.values_mut().for_each(|applied| applied.gone.clear());
    }

    /// Applies a request to the keys of this bucket.
    ///
    /// # Errors
    /// What does not hold of it.
    pub(crate) fn apply(
        &mut self,
        bucket: u16,
        keys: &mut BucketKeys,
        request: &Request,
        history: HistoryId,
        published: &mut Vec<Published>,
    ) -> Result<AnswerBody, String> {
        let before = Before::of(keys, request);
        let answer = keys.apply(request, history, published);
        let applied = self.buckets.entry(bucket).or_default();
        let checks = [
            applied.generation(&before, keys),
            before.floors(request, keys),
            before.gone_stay_gone(request, keys),
            before.is_in_force(request, &answer, history),
            before.is_silent(request, &answer),
            applied.nodes(request, &answer),
            self.limit.map_or(Ok(()), |limit| before.slots(request, &answer, limit, keys)),
        ];
        match checks.into_iter().find_map(Result::err) {
            Some(what) => Err(format!("{what}, in bucket {bucket}, by {request:?}, which was answered {answer:?}")),
            None => Ok(answer),
        }
    }
}

impl Applied {
    /// The numbers of generations grow, and no generation comes again. A gate that is open stays open.
    fn generation(&mut self, before: &Before, keys: &BucketKeys) -> Result<(), String> {
        let (before, Some(now)) = (before.generation, keys.generation()) else { return Ok(()) };
        if before.is_some_and(|before| before.id == now.id) {
            let is_same = before.is_some_and(|before| {
                Generation { is_open: true, ..before } == Generation { is_open: true, ..now }
                    && (now.is_open || !before.is_open)
            });
            return if is_same { Ok(()) } else { Err(format!("generation: {before:?} has become {now:?}")) };
        }
        if before.is_some_and(|before| before.number >= now.number) {
            return Err(format!("generation: after {before:?} comes {now:?}"));
        }
        let is_new = self.generations.insert(now.id);
        if is_new && !now.is_open { Ok(()) } else { Err(format!("generation: {now:?} comes again, or begins open")) }
    }

    /// A node that is gone neither beats nor writes, and no beat comes twice.
    fn nodes(&mut self, request: &Request, answer: &AnswerBody) -> Result<(), String> {
        match (request, answer) {
            (Request::Beat { ids, number, .. }, AnswerBody::Beat(answer)) if answer.is_confirmed => {
                for own in ids {
                    if self.gone.contains(&own.node) {
                        return Err(format!("buried: {} beats", own.node));
                    }
                    if !self.beats.insert((own.node, *number)) {
                        return Err(format!("beat: number {number} of {} comes again", own.node));
                    }
                }
            }
            (Request::Bury { node, .. } | Request::Leave { node, .. }, AnswerBody::Done(true)) => {
                self.gone.insert(*node);
            }
            (Request::Write(write), AnswerBody::Record(answer)) if answer.is_written => {
                return self.may_write(write.node);
            }
            (Request::WriteOverrides(write), AnswerBody::Overrides(answer)) if answer.is_written => {
                return self.may_write(write.node);
            }
            _ => {}
        }
        Ok(())
    }

    fn may_write(&self, node: NodeId) -> Result<(), String> {
        if self.gone.contains(&node) { Err(format!("buried: {node} writes")) } else { Ok(()) }
    }
}

impl Before {
    fn of(keys: &BucketKeys, request: &Request) -> Self {
        let slots = if let Request::Write(write) = request { keys.record(&write.user).sessions().len() } else { 0 };
        let generation = keys.generation();
        Self { generation, nodes: keys.nodes().collect(), floors: keys.floors().collect(), slots }
    }

    /// In a generation, floors only rise, until the node is forgotten. In another one those stay that are closed.
    fn floors(&self, request: &Request, keys: &BucketKeys) -> Result<(), String> {
        let is_same = self.generation.map(|before| before.id) == keys.generation().map(|now| now.id);
        let now: BTreeMap<_, _> = keys.floors().collect();
        for (node, floor) in &self.floors {
            let may_go = forgets(request, *node) || (!is_same && *floor != Floor::Closed);
            if !may_go && now.get(node) < Some(floor) {
                return Err(format!("floor: that of {node} falls from {floor:?} to {:?}", now.get(node)));
            }
        }
        Ok(())
    }

    /// A node that is dead or has left stays so until it is forgotten, and its floor is closed.
    fn gone_stay_gone(&self, request: &Request, keys: &BucketKeys) -> Result<(), String> {
        let now: BTreeMap<_, _> = keys.nodes().collect();
        for (node, entry) in self.nodes.iter().filter(|(_, entry)| !entry.is_alive()) {
            if now.get(node).is_none_or(|now| now.is_alive()) && !forgets(request, *node) {
                return Err(format!("buried: {node} was {entry:?} and is {:?}", now.get(node)));
            }
        }
        Ok(())
    }

    /// What was decided in a generation is done only in that, and only while the store has the history in which it began.
    fn is_in_force(&self, request: &Request, answer: &AnswerBody, history: HistoryId) -> Result<(), String> {
        let is_done = match answer {
            AnswerBody::Done(is_done) => *is_done,
            AnswerBody::Overrides(answer) => answer.is_written,
            _ => false,
        };
        let generation = match request {
            Request::Open(generation) => generation,
            Request::Leave { generation, .. }
            | Request::Forget { generation, .. }
            | Request::RaiseFloor { generation, .. }
            | Request::RestoreOverrides { generation, .. } => generation,
            Request::WriteOverrides(write) => &write.generation,
            _ => return Ok(()),
        };
        let is_in_force = self.generation.is_some_and(|now| now.id == *generation && now.history == history);
        if is_in_force || !is_done { Ok(()) } else { Err(format!("generation: done in {:?}", self.generation)) }
    }

    /// A node that has beaten since it was looked at is not buried.
    fn is_silent(&self, request: &Request, answer: &AnswerBody) -> Result<(), String> {
        let (Request::Bury { node, beat: Some(beat), .. }, AnswerBody::Done(true)) = (request, answer) else {
            return Ok(());
        };
        let last = self.nodes.get(node);
        let is_silent = last == Some(&NodeEntry::Beats(*beat));
        if is_silent { Ok(()) } else { Err(format!("buried: {node} is {last:?}")) }
    }

    /// While the gate is open, no record gets more slots than the limit allows, unless it has more already and gets none.
    fn slots(&self, request: &Request, answer: &AnswerBody, limit: usize, keys: &BucketKeys) -> Result<(), String> {
        let (Request::Write(write), AnswerBody::Record(answer)) = (request, answer) else { return Ok(()) };
        let is_grant = answer.is_written && write.overrides.is_some() && keys.is_open();
        let limit = keys.overrides(&write.user).limit.map_or(limit, |limit| limit.slots() as usize);
        let slots = sessions(write).count();
        if is_grant && slots > limit && slots > self.slots {
            return Err(format!("overrun: {} gets {slots} slots of {limit}", write.user));
        }
        Ok(())
    }
}

/// Whether the request has the store forget this node.
fn forgets(request: &Request, node: NodeId) -> bool {
    matches!(request, Request::Forget { node: of, .. } if *of == node)
}

/// The sessions with a slot in the record that is written.
fn sessions(write: &WriteRequest) -> impl Iterator<Item = SessionId> {
    write.record.iter().flat_map(|(_, record)| record.sessions()).map(|entry| entry.session)
}

/// What must hold of a bucket once all is quiet. Returns the sessions that have a slot and do not linger.
///
/// # Errors
/// What does not hold.
pub(crate) fn settled(bucket: u16, keys: &BucketKeys) -> Result<BTreeSet<SessionId>, String> {
    if !keys.is_open() {
        return Err(format!("stuck: the gate of bucket {bucket} is closed"));
    }
    if keys.in_inboxes() > 0 {
        return Err(format!("leak: an inbox of bucket {bucket}"));
    }
    let mut held = BTreeSet::new();
    for user in keys.users() {
        let record = keys.record(user);
        if !record.leaving().is_empty() {
            return Err(format!("leak: {:?} are leaving for ever", record.leaving()));
        }
        let live = record.sessions().iter().filter(|entry| entry.status == SessionStatus::Live);
        held.extend(live.map(|entry| entry.session));
    }
    Ok(held)
}
