//! The keys of one bucket in a shared store, and what each request does to them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::answer::{AnswerBody, BeatAnswer, OverridesAnswer, PageAnswer, Published, RecordAnswer};
use super::contents::{BucketContents, Floor};
use super::names::{
    Generation, GenerationId, HistoryId, NodeEntry, OverridesVersion, ScanPosition, Stamp, StoredRecord,
};
use super::request::{OverridesRequest, Request, WriteRequest};
use crate::cluster::spread::user_hash;
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{UserOverrides, UserRecord};

/// The keys of one bucket, in memory. The scripts of a real store must do the same: this is what they are tested against, and
/// what simulations run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketKeys {
    nodes: Option<(Generation, BTreeMap<NodeId, NodeEntry>)>,
    meta: Option<Meta>,
    /// By the hash of the user, in which order they are scanned. The records are encoded, as in a real store.
    records: BTreeMap<u64, BTreeMap<UserId, (Stamp, Vec<u8>)>>,
    inboxes: BTreeMap<NodeId, BTreeSet<(UserId, SessionId)>>,
    overrides: BTreeMap<UserId, UserOverrides>,
    page: usize,
}

/// What each write compares.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meta {
    /// As in the nodes.
    generation: GenerationId,
    floors: BTreeMap<NodeId, u64>,
    overrides: OverridesVersion,
}

/// How many records a page has, unless that is chosen.
const PAGE: usize = 250;

/// The floor of a node that writes never again.
const CLOSED: u64 = u64::MAX;

impl Default for BucketKeys {
    fn default() -> Self {
        Self::with_page(PAGE)
    }
}

impl BucketKeys {
    /// A bucket without keys. `page` is the number of records that a page of a scan looks at, at least.
    #[must_use]
    pub const fn with_page(page: usize) -> Self {
        Self {
            nodes: None,
            meta: None,
            records: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            overrides: BTreeMap::new(),
            page: if page == 0 { 1 } else { page },
        }
    }

    /// Applies a request as a whole, in a store with this history. Adds what the store publishes.
    pub fn apply(&mut self, request: &Request, history: HistoryId, published: &mut Vec<Published>) -> AnswerBody {
        match request {
            Request::Beat { ids, number, seen, seen_number, proposed } => {
                self.begin_if_forgotten(*proposed, *seen_number, history);
                let (Some((generation, nodes)), Some(meta)) = (&mut self.nodes, &self.meta) else {
                    unreachable!("a generation has begun")
                };
                let is_confirmed = ids.iter().all(|own| match nodes.get(&own.node) {
                    Some(NodeEntry::Dead(_) | NodeEntry::Left) => false,
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
                    overrides: meta.overrides,
                    nodes: nodes.iter().map(|(&node, &entry)| (node, entry)).collect(),
                    inbox: inboxes.flatten().cloned().collect(),
                }))
            }
            Request::Bury { node, beat, at } => {
                let Some((_, nodes)) = &mut self.nodes else { return AnswerBody::Done(false) };
                let is_it = match (nodes.get(node), beat) {
                    (Some(NodeEntry::Beats(last)), Some(beat)) => last == beat,
                    (Some(NodeEntry::Beats(_)) | None, None) => true,
                    (Some(NodeEntry::Dead(_) | NodeEntry::Left), _) | (None, Some(_)) => false,
                };
                if is_it {
                    nodes.insert(*node, NodeEntry::Dead(*at));
                    self.close(*node);
                }
                AnswerBody::Done(is_it)
            }
            Request::Open(generation) => {
                let Some((in_force, _)) = self.in_force(*generation, history) else { return AnswerBody::Done(false) };
                in_force.is_open = true;
                AnswerBody::Done(true)
            }
            Request::Leave { node, generation } => {
                let Some((_, nodes)) = self.in_force(*generation, history) else { return AnswerBody::Done(false) };
                nodes.insert(*node, NodeEntry::Left);
                self.close(*node);
                AnswerBody::Done(true)
            }
            Request::Forget { node, generation } => {
                let Some((_, nodes)) = self.in_force(*generation, history) else { return AnswerBody::Done(false) };
                if nodes.get(node).is_none_or(|entry| entry.is_alive()) {
                    return AnswerBody::Done(false);
                }
                nodes.remove(node);
                if let Some(meta) = &mut self.meta {
                    meta.floors.remove(node);
                }
                AnswerBody::Done(true)
            }
            Request::RaiseFloor { nodes: ids, generation, epoch } => {
                if self.in_force(*generation, history).is_none() {
                    return AnswerBody::Done(false);
                }
                for node in ids.iter().copied().filter(|node| self.is_alive(*node)).collect::<Vec<_>>() {
                    self.raise_floor(node, *epoch);
                }
                AnswerBody::Done(true)
            }
            Request::Read(user) => self.record_answer(user, false),
            Request::Write(write) => {
                let is_written = self.write(write, published);
                self.record_answer(&write.user, is_written)
            }
            Request::Scan { from, except, lingering } => self.page(*from, except, *lingering),
            Request::ReadOverrides => self.overrides_answer(false),
            Request::WriteOverrides(request) => {
                let is_written = self.in_force(request.generation, history).is_some() && self.write_overrides(request);
                self.overrides_answer(is_written)
            }
            Request::RestoreOverrides { generation, version, overrides } => {
                let is_closed = self.in_force(*generation, history).is_some_and(|(generation, _)| !generation.is_open);
                let older = self.meta.as_mut().filter(|meta| is_closed && meta.overrides < *version);
                let is_written = older.map(|meta| meta.overrides = *version).is_some();
                if is_written {
                    self.overrides = overrides.iter().cloned().collect();
                }
                self.overrides_answer(is_written)
            }
        }
    }

    /// Somebody deletes one of the two keys without which a generation is over: that of the nodes, or the meta.
    pub fn lose(&mut self, nodes: bool) {
        if nodes { self.nodes = None } else { self.meta = None }
    }

    /// The record of a user. Empty if there is none.
    #[must_use]
    pub fn record(&self, user: &UserId) -> UserRecord {
        self.stored(user).map(|(_, record)| record).unwrap_or_default()
    }

    /// The users that have a record.
    pub fn users(&self) -> impl Iterator<Item = &UserId> {
        self.records.values().flat_map(BTreeMap::keys)
    }

    /// The overrides of a user. Empty if there are none.
    #[must_use]
    pub fn overrides(&self, user: &UserId) -> UserOverrides {
        self.overrides.get(user).copied().unwrap_or_default()
    }

    /// What is known of each node.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, NodeEntry)> {
        self.nodes.iter().flat_map(|(_, nodes)| nodes).map(|(&node, &entry)| (node, entry))
    }

    /// The nodes that have a floor, with it.
    pub fn floors(&self) -> impl Iterator<Item = (NodeId, Floor)> {
        let floor = |floor| if floor == CLOSED { Floor::Closed } else { Floor::Epoch(floor) };
        self.meta.iter().flat_map(|meta| &meta.floors).map(move |(node, epoch)| (*node, floor(*epoch)))
    }

    /// The generation in force.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.nodes.as_ref().map(|(generation, _)| *generation)
    }

    /// Whether the gate is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.nodes.as_ref().is_some_and(|(generation, _)| generation.is_open)
    }

    /// How many sessions wait in inboxes.
    #[must_use]
    pub fn in_inboxes(&self) -> usize {
        self.inboxes.values().map(BTreeSet::len).sum()
    }

    /// Everything that the keys hold.
    #[must_use]
    pub fn contents(&self) -> BucketContents {
        let records = self.records.values().flatten();
        let members = |(node, inbox): (&NodeId, &BTreeSet<(UserId, SessionId)>)| {
            let node = *node;
            inbox.iter().map(move |(user, session)| (node, user.clone(), *session)).collect::<Vec<_>>()
        };
        BucketContents {
            generation: self.generation(),
            nodes: self.nodes().collect(),
            meta: self.meta.as_ref().map(|meta| meta.generation),
            version: self.meta.as_ref().map(|meta| meta.overrides).unwrap_or_default(),
            floors: self.floors().collect(),
            records: records.map(|(user, (stamp, bytes))| (user.clone(), (*stamp, decoded(bytes)))).collect(),
            inboxes: self.inboxes.iter().flat_map(members).collect(),
            overrides: self.overrides.clone(),
        }
    }

    fn stored(&self, user: &UserId) -> StoredRecord {
        let (stamp, bytes) = self.records.get(&user_hash(user))?.get(user)?;
        Some((*stamp, decoded(bytes)))
    }

    /// The generation and the nodes, if this is the generation in force and the store has not forgotten anything since it began.
    fn in_force(
        &mut self,
        generation: GenerationId,
        history: HistoryId,
    ) -> Option<&mut (Generation, BTreeMap<NodeId, NodeEntry>)> {
        self.nodes.as_mut().filter(|(in_force, _)| in_force.id == generation && in_force.history == history)
    }

    /// Begins another generation if anything was forgotten. In it only nodes that never write again keep their floors: what others
    /// sent before was decided in an older generation.
    fn begin_if_forgotten(&mut self, proposed: GenerationId, seen_number: u64, history: HistoryId) {
        // An older generation comes back if the store is given older data while it runs.
        let is_other = |generation: &Generation| generation.history != history || generation.number < seen_number;
        let has_changed = self.nodes.as_ref().is_none_or(|(generation, _)| is_other(generation));
        if has_changed || self.meta.is_none() {
            let (before, nodes) = self.nodes.take().map(|(before, nodes)| (before.number, nodes)).unwrap_or_default();
            let number = before.max(seen_number) + 1;
            self.nodes = Some((Generation { id: proposed, history, number, is_open: false }, nodes));
            let (mut floors, overrides) =
                self.meta.take().map(|meta| (meta.floors, meta.overrides)).unwrap_or_default();
            floors.retain(|_, floor| *floor == CLOSED);
            self.meta = Some(Meta { generation: proposed, floors, overrides });
        }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        let entry = self.nodes.as_ref().and_then(|(_, nodes)| nodes.get(&node));
        entry.is_some_and(|entry| entry.is_alive())
    }

    /// The node writes never again, and reads no inbox.
    fn close(&mut self, node: NodeId) {
        self.inboxes.remove(&node);
        self.raise_floor(node, CLOSED);
    }

    fn raise_floor(&mut self, node: NodeId, epoch: u64) {
        if let Some(meta) = &mut self.meta {
            let floor = meta.floors.entry(node).or_default();
            *floor = (*floor).max(epoch);
        }
    }

    fn record_answer(&self, user: &UserId, is_written: bool) -> AnswerBody {
        let (generation, overrides) = self.versions();
        AnswerBody::Record(Box::new(RecordAnswer { generation, overrides, is_written, record: self.stored(user) }))
    }

    fn overrides_answer(&self, is_written: bool) -> AnswerBody {
        let (generation, version) = self.versions();
        let all = self.overrides.iter().map(|(user, overrides)| (user.clone(), *overrides)).collect();
        AnswerBody::Overrides(Box::new(OverridesAnswer { generation, is_written, version, all }))
    }

    fn versions(&self) -> (Option<GenerationId>, OverridesVersion) {
        self.meta.as_ref().map(|meta| (Some(meta.generation), meta.overrides)).unwrap_or_default()
    }

    fn page(&self, from: Option<ScanPosition>, except: &[NodeId], lingering: bool) -> AnswerBody {
        let from = from.map_or(0, |ScanPosition(hash)| hash);
        let (mut records, mut seen) = (Vec::new(), 0);
        for (&hash, users) in self.records.range(from..) {
            if seen >= self.page {
                return self.page_answer(records, Some(ScanPosition(hash)));
            }
            seen += users.len();
            let all = users.iter().map(|(user, (stamp, bytes))| (user.clone(), *stamp, decoded(bytes)));
            let is_wanted = |record: &UserRecord| {
                (lingering && record.has_lingering()) || record.connected_nodes().any(|node| !except.contains(&node))
            };
            records.extend(all.filter(|(_, _, record)| is_wanted(record)));
        }
        self.page_answer(records, None)
    }

    fn page_answer(&self, records: Vec<(UserId, Stamp, UserRecord)>, next: Option<ScanPosition>) -> AnswerBody {
        let (generation, _) = self.versions();
        AnswerBody::Page(Box::new(PageAnswer { generation, records, next }))
    }

    fn write(&mut self, write: &WriteRequest, published: &mut Vec<Published>) -> bool {
        let WriteRequest { user, generation, node, epoch, expected, overrides, record, .. } = write;
        let WriteRequest { ended, closed, tell, hints, .. } = write;
        let Some(meta) = &self.meta else { return false };
        let hash = user_hash(user);
        let stamp = self.records.get(&hash).and_then(|users| users.get(user)).map(|(stamp, _)| *stamp);
        let has_other_overrides = overrides.is_some_and(|version| version != meta.overrides);
        if !meta.takes(*generation, *node, *epoch) || stamp != *expected || has_other_overrides {
            return false;
        }
        // Nobody reads the inbox of a node that does not beat.
        let ended: Vec<_> = ended.iter().filter(|session| self.is_alive(session.node())).collect();
        if let Some((stamp, record)) = record {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            self.records.entry(hash).or_default().insert(user.clone(), (*stamp, bytes));
        } else if let Some(users) = self.records.get_mut(&hash) {
            users.remove(user);
            if users.is_empty() {
                self.records.remove(&hash);
            }
        }
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

    fn write_overrides(&mut self, request: &OverridesRequest) -> bool {
        let OverridesRequest { user, overrides, generation, node, epoch, expected, version } = request;
        let Some(meta) = self.meta.as_mut().filter(|meta| meta.takes(*generation, *node, *epoch)) else { return false };
        if meta.overrides != *expected {
            return false;
        }
        meta.overrides = *version;
        if overrides.is_empty() {
            self.overrides.remove(user);
        } else {
            self.overrides.insert(user.clone(), *overrides);
        }
        true
    }
}

impl Meta {
    /// Whether it takes a write that was decided in this generation and sent on this connection.
    fn takes(&self, generation: GenerationId, node: NodeId, epoch: u64) -> bool {
        let floor = self.floors.get(&node).copied().unwrap_or_default();
        self.generation == generation && floor <= epoch
    }
}

fn decoded(bytes: &[u8]) -> UserRecord {
    UserRecord::decode(bytes).expect("it was encoded here")
}

#[cfg(test)]
mod tests;
