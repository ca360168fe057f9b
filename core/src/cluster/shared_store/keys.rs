//! The keys of one bucket in a shared store, and what each request does to them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::answer::{AnswerBody, BeatAnswer, OverridesAnswer, PageAnswer, Published, RecordAnswer};
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
    /// No keys. A page of a scan looks at so many records, or a few more.
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
                if let Some(NodeEntry::Beats(_)) | None = nodes.get(node) {
                    return AnswerBody::Done(false);
                }
                nodes.remove(node);
                if let Some(meta) = &mut self.meta {
                    meta.floors.remove(node);
                }
                AnswerBody::Done(true)
            }
            Request::RaiseFloor { nodes: ids, generation, epoch } => {
                let Some((_, nodes)) = self.in_force(*generation, history) else { return AnswerBody::Done(false) };
                let beats = |id: &&NodeId| matches!(nodes.get(*id), Some(NodeEntry::Beats(_)));
                let alive: Vec<_> = ids.iter().filter(beats).copied().collect();
                for node in alive {
                    let floor = self.meta.as_mut().map(|meta| meta.floors.entry(node).or_default());
                    floor.into_iter().for_each(|floor| *floor = (*floor).max(*epoch));
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

    /// The nodes that have a floor.
    pub fn floors(&self) -> impl Iterator<Item = NodeId> {
        self.meta.iter().flat_map(|meta| meta.floors.keys()).copied()
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
        let has_changed = self.nodes.as_ref().is_none_or(|(generation, _)| generation.history != history);
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

    /// The node writes never again, and reads no inbox.
    fn close(&mut self, node: NodeId) {
        self.inboxes.remove(&node);
        if let Some(meta) = &mut self.meta {
            meta.floors.insert(node, CLOSED);
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
        let nodes = self.nodes.as_ref().map(|(_, nodes)| nodes);
        let beats = |node| nodes.is_some_and(|nodes| matches!(nodes.get(&node), Some(NodeEntry::Beats(_))));
        let ended: Vec<_> = ended.iter().filter(|session| beats(session.node())).collect();
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
mod tests {
    use alloc::format;
    use alloc::vec;
    use core::time::Duration;

    use super::*;
    use crate::cluster::shared_store::request::OwnId;
    use crate::ledger::{SessionRecord, SlotLimit};
    use crate::time::Timestamp;

    const HISTORY: HistoryId = HistoryId([1; 20]);
    const OTHER_HISTORY: HistoryId = HistoryId([2; 20]);
    const ADA: NodeId = NodeId::new(1);
    const BOB: NodeId = NodeId::new(2);
    const GENERATION: GenerationId = GenerationId { node: ADA, beat: 1 };
    const AT: Timestamp = Timestamp::from_epoch(Duration::from_secs(1_700_000_000));

    fn ask(keys: &mut BucketKeys, request: &Request) -> AnswerBody {
        keys.apply(request, HISTORY, &mut Vec::new())
    }

    fn beat(node: NodeId, number: u64, has_joined: bool, seen: Option<GenerationId>) -> Request {
        let proposed = GenerationId { node, beat: number };
        Request::Beat { ids: vec![OwnId { node, has_joined }], number, seen, seen_number: 0, proposed }
    }

    fn is_confirmed(answer: &AnswerBody) -> bool {
        matches!(answer, AnswerBody::Beat(answer) if answer.is_confirmed)
    }

    fn user(number: u64) -> UserId {
        UserId::parse(&format!("user-{number}")).unwrap()
    }

    fn record(node: NodeId) -> UserRecord {
        UserRecord::from_sessions(vec![SessionRecord::new(node.session(1), AT)]).unwrap()
    }

    fn write(number: u64, node: NodeId, epoch: u64) -> Request {
        write_by(None, number, node, epoch)
    }

    fn write_by(overrides: Option<OverridesVersion>, number: u64, node: NodeId, epoch: u64) -> Request {
        Request::Write(Box::new(WriteRequest {
            user: user(number),
            generation: GENERATION,
            node,
            epoch,
            expected: None,
            overrides,
            record: Some((Stamp(number + 1), record(node))),
            ended: Vec::new(),
            closed: Vec::new(),
            tell: Vec::new(),
            hints: Vec::new(),
        }))
    }

    fn is_written(answer: &AnswerBody) -> bool {
        matches!(answer, AnswerBody::Record(answer) if answer.is_written)
            || matches!(answer, AnswerBody::Overrides(answer) if answer.is_written)
    }

    /// Two nodes beat in an open bucket.
    fn open() -> BucketKeys {
        let mut keys = BucketKeys::with_page(2);
        assert!(is_confirmed(&ask(&mut keys, &beat(ADA, 1, false, None))));
        assert!(is_confirmed(&ask(&mut keys, &beat(BOB, 1, false, None))));
        assert_eq!(ask(&mut keys, &Request::Open(GENERATION)), AnswerBody::Done(true));
        keys
    }

    #[test]
    fn absent_node_beats_only_if_it_joins_or_was_forgotten() {
        let mut keys = open();
        let other = NodeId::new(3);
        assert!(!is_confirmed(&ask(&mut keys, &beat(other, 5, true, Some(GENERATION)))), "it was buried and forgotten");
        let older = GenerationId { node: other, beat: 1 };
        assert!(is_confirmed(&ask(&mut keys, &beat(other, 5, true, Some(older)))), "the store has forgotten it");
    }

    #[test]
    fn node_that_is_dead_or_has_left_neither_beats_nor_writes() {
        for end in
            [Request::Bury { node: BOB, beat: Some(1), at: AT }, Request::Leave { node: BOB, generation: GENERATION }]
        {
            let mut keys = open();
            assert_eq!(ask(&mut keys, &end), AnswerBody::Done(true));
            assert!(!is_confirmed(&ask(&mut keys, &beat(BOB, 2, true, Some(GENERATION)))));
            assert!(!is_written(&ask(&mut keys, &write(1, BOB, 99))));
            assert!(is_written(&ask(&mut keys, &write(1, ADA, 0))));
            // Raising the floor makes it no lower.
            let raise = Request::RaiseFloor { nodes: vec![BOB], generation: GENERATION, epoch: 3 };
            assert_eq!(ask(&mut keys, &raise), AnswerBody::Done(true));
            assert!(!is_written(&ask(&mut keys, &write(2, BOB, 99))));
            let forget = Request::Forget { node: BOB, generation: GENERATION };
            assert_eq!(ask(&mut keys, &forget), AnswerBody::Done(true));
            assert_eq!((keys.nodes().count(), keys.floors().count()), (1, 0));
            assert_eq!(ask(&mut keys, &Request::Forget { node: ADA, generation: GENERATION }), AnswerBody::Done(false));
        }
    }

    #[test]
    fn burial_compares_the_beat() {
        let mut keys = open();
        ask(&mut keys, &beat(BOB, 2, true, Some(GENERATION)));
        let bury = |beat| Request::Bury { node: BOB, beat, at: AT };
        assert_eq!(ask(&mut keys, &bury(Some(1))), AnswerBody::Done(false));
        assert_eq!(ask(&mut keys, &bury(Some(2))), AnswerBody::Done(true));
        assert_eq!(ask(&mut keys, &bury(None)), AnswerBody::Done(false), "it is dead already");
    }

    #[test]
    fn what_is_decided_in_a_generation_is_not_done_in_another_one() {
        let other = GenerationId { node: BOB, beat: 9 };
        for request in [
            Request::Open(other),
            Request::Leave { node: BOB, generation: other },
            Request::Forget { node: BOB, generation: other },
            Request::RaiseFloor { nodes: vec![BOB], generation: other, epoch: 1 },
        ] {
            assert_eq!(ask(&mut open(), &request), AnswerBody::Done(false), "{request:?}");
        }
        // Nor once the store has another history, before anybody has noticed.
        for request in [
            Request::Open(GENERATION),
            Request::Leave { node: BOB, generation: GENERATION },
            Request::RaiseFloor { nodes: vec![BOB], generation: GENERATION, epoch: 1 },
        ] {
            let answer = open().apply(&request, OTHER_HISTORY, &mut Vec::new());
            assert_eq!(answer, AnswerBody::Done(false), "{request:?}");
        }
        let mut keys = open();
        assert!(is_confirmed(&keys.apply(&beat(BOB, 2, true, Some(GENERATION)), OTHER_HISTORY, &mut Vec::new())));
        assert!(!keys.is_open());
        assert!(!is_written(&ask(&mut keys, &write(1, ADA, 0))));
    }

    #[test]
    fn write_compares_epoch_stamp_and_overrides() {
        let mut keys = open();
        let raise = Request::RaiseFloor { nodes: vec![ADA], generation: GENERATION, epoch: 1 };
        assert_eq!(ask(&mut keys, &raise), AnswerBody::Done(true));
        assert!(!is_written(&ask(&mut keys, &write(1, ADA, 0))), "an older connection");
        assert!(is_written(&ask(&mut keys, &write(1, ADA, 1))));
        assert!(!is_written(&ask(&mut keys, &write(1, ADA, 1))), "there is a record now");
        let with_overrides = |number, overrides| write_by(Some(overrides), number, ADA, 1);
        let other = OverridesVersion { generation: 0, number: 1, stamp: Stamp(7) };
        assert!(!is_written(&ask(&mut keys, &with_overrides(2, other))));
        assert!(is_written(&ask(&mut keys, &with_overrides(2, OverridesVersion::default()))));
    }

    #[test]
    fn older_overrides_are_replaced_and_no_others() {
        let mut keys = open();
        let version = |number| OverridesVersion { generation: 0, number, stamp: Stamp(number) };
        let limit = UserOverrides { limit: Some(SlotLimit::new(7).unwrap()), when_full: None };
        let set = |expected, overrides| {
            let change = OverridesRequest {
                user: user(1),
                overrides,
                generation: GENERATION,
                node: ADA,
                epoch: 0,
                expected,
                version: version(expected.number + 1),
            };
            Request::WriteOverrides(Box::new(change))
        };
        assert!(!is_written(&ask(&mut keys, &set(version(1), limit))));
        assert!(is_written(&ask(&mut keys, &set(version(0), limit))));
        assert_eq!(keys.overrides(&user(1)), limit);
        assert!(is_written(&ask(&mut keys, &set(version(1), UserOverrides::default()))));
        assert_eq!(keys.overrides, BTreeMap::new());
        let restore = |version| {
            let overrides = vec![(user(2), limit)];
            Request::RestoreOverrides { generation: GENERATION, version, overrides }
        };
        assert!(!is_written(&ask(&mut keys, &restore(version(3)))), "the gate is open");
        let (generation, _) = keys.nodes.as_mut().unwrap();
        generation.is_open = false;
        assert!(!is_written(&ask(&mut keys, &restore(version(2)))));
        assert!(is_written(&ask(&mut keys, &restore(version(3)))));
        assert_eq!(keys.overrides, [(user(2), limit)].into());
    }

    #[test]
    fn scan_shows_each_record_that_names_another_node_once() {
        let mut keys = open();
        for number in 0..9 {
            let node = if number % 3 == 0 { BOB } else { ADA };
            assert!(is_written(&ask(&mut keys, &write(number, node, 0))));
        }
        let scan = |except: &[NodeId]| {
            let (mut found, mut from, mut pages) = (Vec::new(), None, 0);
            loop {
                let mut keys = keys.clone();
                let AnswerBody::Page(page) =
                    ask(&mut keys, &Request::Scan { from, except: except.to_vec(), lingering: false })
                else {
                    panic!("no page");
                };
                (from, pages) = (page.next, pages + 1);
                found.extend(page.records.into_iter().map(|(user, ..)| user));
                if from.is_none() {
                    found.sort();
                    return (found, pages);
                }
            }
        };
        assert_eq!(scan(&[]), ((0..9).map(user).collect(), 5));
        assert_eq!(scan(&[ADA]), ([0, 3, 6].map(user).to_vec(), 5));
        assert_eq!(scan(&[ADA, BOB]), (Vec::new(), 5));
    }
}
