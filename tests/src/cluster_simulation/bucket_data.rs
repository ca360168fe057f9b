//! One bucket in a shared store: each request as an atomic function over its keys.

use std::collections::{BTreeMap, BTreeSet};

use session_core::cluster::{
    AnswerBody, BeatAnswer, Generation, GenerationId, HistoryId, NodeEntry, PageAnswer, RecordAnswer, Request, Stamp,
    StoredRecord, WriteRequest,
};
use session_core::ledger::{SessionHint, UserRecord};
use session_core::{NodeId, SessionId, UserId};

/// The keys of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct BucketData {
    /// The generation, and the nodes.
    pub(super) nodes: Option<(Generation, BTreeMap<NodeId, NodeEntry>)>,
    /// The generation again, and the floors.
    meta: Option<(GenerationId, BTreeMap<NodeId, u64>)>,
    /// The records, as bytes.
    records: BTreeMap<UserId, (Stamp, Vec<u8>)>,
    inboxes: BTreeMap<NodeId, BTreeSet<(UserId, SessionId)>>,
}

/// What a store publishes. It may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Published {
    /// The record of this user has changed.
    Changed(NodeId, UserId),
    /// A hint for a session.
    Session(SessionHint),
}

/// How many records a page has.
const PAGE: usize = 2;

impl BucketData {
    /// The record of a user.
    #[must_use]
    pub(super) fn record(&self, user: &UserId) -> UserRecord {
        self.stored(user).map(|(_, record)| record).unwrap_or_default()
    }

    /// The users that have a record.
    pub(super) fn users(&self) -> impl Iterator<Item = &UserId> {
        self.records.keys()
    }

    /// Whether the gate is open.
    #[must_use]
    pub(super) fn is_open(&self) -> bool {
        self.nodes.as_ref().is_some_and(|(generation, _)| generation.is_open)
    }

    /// How many sessions wait in inboxes.
    #[must_use]
    pub(super) fn in_inboxes(&self) -> usize {
        self.inboxes.values().map(BTreeSet::len).sum()
    }

    fn stored(&self, user: &UserId) -> StoredRecord {
        let (stamp, bytes) = self.records.get(user)?;
        Some((*stamp, UserRecord::decode(bytes).expect("it was written by a node")))
    }

    /// Applies a request as a whole.
    pub(super) fn apply(
        &mut self,
        request: &Request,
        history: HistoryId,
        published: &mut Vec<Published>,
    ) -> AnswerBody {
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
                    self.inboxes.remove(node);
                    self.close_floor(*node);
                }
                AnswerBody::Done(is_it)
            }
            Request::Open(id) => {
                let in_force = self.nodes.as_mut().filter(|(generation, _)| generation.id == *id);
                let is_done = in_force.map(|(generation, _)| generation.is_open = true).is_some();
                AnswerBody::Done(is_done)
            }
            Request::Leave(node) => {
                if let Some((_, nodes)) = &mut self.nodes {
                    nodes.remove(node);
                }
                self.inboxes.remove(node);
                self.close_floor(*node);
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
                let is_written = self.write(write, published);
                self.answer(&write.user, is_written)
            }
            Request::Scan(after) => {
                let rest = self.records.keys().filter(|user| after.as_ref().is_none_or(|after| *user > after));
                let users: Vec<_> = rest.take(PAGE).cloned().collect();
                let next = users.get(PAGE - 1).cloned();
                let one = |user: UserId| self.stored(&user).map(|(stamp, record)| (user, stamp, record));
                let records = users.into_iter().filter_map(one).collect();
                let generation = self.meta.as_ref().map(|(id, _)| *id);
                AnswerBody::Page(Box::new(PageAnswer { generation, records, next }))
            }
        }
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

    fn close_floor(&mut self, node: NodeId) {
        if let Some((_, floors)) = &mut self.meta {
            floors.insert(node, u64::MAX);
        }
    }

    fn answer(&self, user: &UserId, is_written: bool) -> AnswerBody {
        let generation = self.meta.as_ref().map(|(id, _)| *id);
        AnswerBody::Record(Box::new(RecordAnswer { generation, is_written, record: self.stored(user) }))
    }

    fn write(&mut self, write: &WriteRequest, published: &mut Vec<Published>) -> bool {
        let WriteRequest { user, generation, node, epoch, expected, record, ended, closed, tell, hints } = write;
        let Some((in_force, floors)) = &self.meta else { return false };
        let floor = floors.get(node).copied().unwrap_or_default();
        let stamp = self.records.get(user).map(|(stamp, _)| *stamp);
        if in_force != generation || floor > *epoch || stamp != *expected {
            return false;
        }
        match record {
            Some((stamp, record)) => {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                assert_eq!(UserRecord::decode(&bytes).as_ref(), Ok(record), "{user} of {node}");
                self.records.insert(user.clone(), (*stamp, bytes));
            }
            None => {
                self.records.remove(user);
            }
        }
        // Nobody reads the inbox of a node that is dead or has left.
        let is_gone = |node| floors.get(&node) == Some(&u64::MAX);
        let ended: Vec<_> = ended.iter().filter(|session| !is_gone(session.node())).collect();
        for session in ended {
            self.inboxes.entry(session.node()).or_default().insert((user.clone(), *session));
            published.push(Published::Changed(session.node(), user.clone()));
        }
        for session in closed {
            if let Some(inbox) = self.inboxes.get_mut(&session.node()) {
                inbox.remove(&(user.clone(), *session));
            }
        }
        published.extend(tell.iter().map(|node| Published::Changed(*node, user.clone())));
        published.extend(hints.iter().copied().map(Published::Session));
        true
    }
}
