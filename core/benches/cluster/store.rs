//! A shard of the shared store: its buckets, what it counts, and what it forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use session_core::cluster::{
    Answer, AnswerBody, BeatAnswer, Generation, GenerationId, HistoryId, NodeEntry, PageAnswer, RecordAnswer, Request,
    Stamp, StoredRecord, WriteRequest,
};
use session_core::ledger::UserRecord;
use session_core::{NodeId, SessionId, UserId};

use crate::traffic::Traffic;

/// How many records a page of a scan has.
const PAGE: usize = 250;

/// How long the store needs for a request, in microseconds: a script in which Redis also looks up its history.
const REQUEST_US: u64 = 7;

/// How long the store needs for each record of a page, in microseconds.
const PAGE_RECORD_US: u64 = 1;

/// One primary. It does one request after another.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) buckets: BTreeMap<u16, BucketData>,
    pub(crate) traffic: Traffic,
    /// When it applied the last write.
    pub(crate) last_write: u64,
    history: u8,
    busy_until: u64,
}

/// The record of this user has changed: the store tells this node.
#[derive(Debug)]
pub(crate) struct Changed(pub(crate) NodeId, pub(crate) u16, pub(crate) UserId);

/// The keys of one bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct BucketData {
    nodes: Option<(Generation, BTreeMap<NodeId, NodeEntry>)>,
    /// The generation again, and the floors.
    meta: Option<(GenerationId, BTreeMap<NodeId, u64>)>,
    pub(crate) records: BTreeMap<UserId, (Stamp, UserRecord)>,
    inboxes: BTreeMap<NodeId, BTreeSet<(UserId, SessionId)>>,
}

impl Shard {
    /// Applies requests that arrive in one pipeline. Returns the answers, and when the last one is ready.
    pub(crate) fn apply(
        &mut self,
        requests: impl Iterator<Item = (u16, Request)>,
        now: u64,
        changed: &mut Vec<Changed>,
    ) -> (Vec<Answer>, u64) {
        let mut ready = self.busy_until.max(now);
        let history = HistoryId([self.history; 20]);
        let mut answers = Vec::new();
        for (bucket, request) in requests {
            let body = self.buckets.entry(bucket).or_default().apply(bucket, &request, history, changed);
            ready += REQUEST_US;
            if let AnswerBody::Page(page) = &body {
                ready += PAGE_RECORD_US * page.records.len() as u64;
            }
            if matches!(&body, AnswerBody::Record(answer) if answer.is_written) {
                self.last_write = ready;
            }
            self.traffic.count(&request, &body);
            answers.push(Answer { history, body });
        }
        self.traffic.pipelines += 1;
        self.busy_until = ready;
        (answers, ready)
    }

    /// Another history begins, with this data.
    pub(crate) fn fail_over(&mut self, buckets: BTreeMap<u16, BucketData>) {
        self.buckets = buckets;
        self.history += 1;
    }

    /// Whether the gate of each of these buckets is open.
    pub(crate) fn is_open(&self, mut buckets: impl Iterator<Item = u16>) -> bool {
        buckets.all(|bucket| self.buckets.get(&bucket).is_some_and(BucketData::is_open))
    }
}

impl BucketData {
    fn is_open(&self) -> bool {
        self.nodes.as_ref().is_some_and(|(generation, _)| generation.is_open)
    }

    fn stored(&self, user: &UserId) -> StoredRecord {
        self.records.get(user).cloned()
    }

    fn apply(&mut self, bucket: u16, request: &Request, history: HistoryId, changed: &mut Vec<Changed>) -> AnswerBody {
        match request {
            Request::Beat { ids, number, seen, proposed } => {
                self.begin_if_forgotten(*proposed, history);
                let (generation, nodes) = self.nodes.as_mut().expect("a generation has begun");
                let is_confirmed = ids.iter().all(|own| match nodes.get(&own.node) {
                    Some(NodeEntry::Dead(_)) => false,
                    Some(NodeEntry::Beats(_)) => true,
                    None => !own.has_joined || *seen != Some(generation.id),
                });
                if is_confirmed {
                    nodes.extend(ids.iter().map(|own| (own.node, NodeEntry::Beats(*number))));
                }
                let inboxes = ids.iter().filter_map(|own| self.inboxes.get(&own.node));
                AnswerBody::Beat(Box::new(BeatAnswer {
                    is_confirmed,
                    generation: *generation,
                    nodes: nodes.iter().map(|(&node, &entry)| (node, entry)).collect(),
                    inbox: inboxes.flatten().cloned().collect(),
                }))
            }
            Request::Bury { node, beat, at } => {
                let Some((_, nodes)) = &mut self.nodes else { return AnswerBody::Done(false) };
                let is_it = match (nodes.get(node), beat) {
                    (Some(NodeEntry::Beats(last)), Some(beat)) => last == beat,
                    (Some(NodeEntry::Beats(_)) | None, None) => true,
                    (Some(NodeEntry::Dead(_)), _) | (None, Some(_)) => false,
                };
                if is_it {
                    nodes.insert(*node, NodeEntry::Dead(*at));
                    self.forget_node(*node);
                }
                AnswerBody::Done(is_it)
            }
            Request::Open(id) => {
                let in_force = self.nodes.as_mut().filter(|(generation, _)| generation.id == *id);
                AnswerBody::Done(in_force.map(|(generation, _)| generation.is_open = true).is_some())
            }
            Request::Leave(node) => {
                if let Some((_, nodes)) = &mut self.nodes {
                    nodes.remove(node);
                }
                self.forget_node(*node);
                AnswerBody::Done(true)
            }
            Request::RaiseFloor { nodes, epoch } => {
                let Some((_, floors)) = &mut self.meta else { return AnswerBody::Done(false) };
                for node in nodes {
                    let floor = floors.entry(*node).or_default();
                    *floor = (*floor).max(*epoch);
                }
                AnswerBody::Done(true)
            }
            Request::Read(user) => self.answer(user, false),
            Request::Write(write) => {
                let is_written = self.write(bucket, write, changed);
                self.answer(&write.user, is_written)
            }
            Request::Scan(after) => self.page(after.as_ref()),
        }
    }

    fn page(&self, after: Option<&UserId>) -> AnswerBody {
        let rest = self.records.range::<UserId, _>((after.map_or(Unbounded, Excluded), Unbounded));
        let records: Vec<_> =
            rest.take(PAGE).map(|(user, (stamp, record))| (user.clone(), *stamp, record.clone())).collect();
        let next = records.get(PAGE - 1).map(|(user, ..)| user.clone());
        AnswerBody::Page(Box::new(PageAnswer { generation: self.generation(), records, next }))
    }

    fn generation(&self) -> Option<GenerationId> {
        self.meta.as_ref().map(|(id, _)| *id)
    }

    fn begin_if_forgotten(&mut self, proposed: GenerationId, history: HistoryId) {
        let has_changed = self.nodes.as_ref().is_none_or(|(generation, _)| generation.history != history);
        if has_changed || self.meta.is_none() {
            let nodes = self.nodes.take().map(|(_, nodes)| nodes).unwrap_or_default();
            self.nodes = Some((Generation { id: proposed, history, is_open: false }, nodes));
            let floors = self.meta.take().map(|(_, floors)| floors).unwrap_or_default();
            self.meta = Some((proposed, floors));
        }
    }

    fn forget_node(&mut self, node: NodeId) {
        self.inboxes.remove(&node);
        if let Some((_, floors)) = &mut self.meta {
            floors.insert(node, u64::MAX);
        }
    }

    fn answer(&self, user: &UserId, is_written: bool) -> AnswerBody {
        let (generation, record) = (self.generation(), self.stored(user));
        AnswerBody::Record(Box::new(RecordAnswer { generation, is_written, record }))
    }

    fn write(&mut self, bucket: u16, write: &WriteRequest, changed: &mut Vec<Changed>) -> bool {
        // No session waits in line here, so no hint for one matters.
        let WriteRequest { user, generation, node, epoch, expected, record, ended, closed, tell, hints: _ } = write;
        let Some((in_force, floors)) = &self.meta else { return false };
        let floor = floors.get(node).copied().unwrap_or_default();
        let stamp = self.records.get(user).map(|(stamp, _)| *stamp);
        if in_force != generation || floor > *epoch || stamp != *expected {
            return false;
        }
        match record {
            Some(record) => self.records.insert(user.clone(), record.clone()),
            None => self.records.remove(user),
        };
        // The inbox of a node that is dead or has left is never read.
        let is_gone = |node| floors.get(&node) == Some(&u64::MAX);
        for session in ended.iter().filter(|session| !is_gone(session.node())) {
            self.inboxes.entry(session.node()).or_default().insert((user.clone(), *session));
            changed.push(Changed(session.node(), bucket, user.clone()));
        }
        for session in closed {
            if let Some(inbox) = self.inboxes.get_mut(&session.node()) {
                inbox.remove(&(user.clone(), *session));
            }
        }
        changed.extend(tell.iter().map(|node| Changed(*node, bucket, user.clone())));
        true
    }
}
