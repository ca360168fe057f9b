//! Nodes, shards and the connections between them, as events in simulated time.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::mem;

use session_core::cluster::{Answer, BucketEvent, BucketKeys, Published, RequestId};
use session_core::ledger::{AdmissionPolicy, SlotLimit, UserRecord};
use session_core::{NodeId, SessionId, UserId};

use crate::node::{Node, Told, Unsent};
use crate::store::Shard;
use crate::traffic::Traffic;

/// A millisecond and a second of simulated time.
pub(crate) const MS: u64 = 1000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// How long a request and its answer are under way, beside the time that the store needs.
pub(crate) const ROUND_TRIP: u64 = MS;

/// All buckets, as a cluster has them by default.
pub(crate) const BUCKETS: u16 = 64;

/// A cluster.
#[derive(Debug)]
pub(crate) struct World {
    /// Microseconds since it began.
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) shards: Vec<Shard>,
    buckets: u16,
    events: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
}

/// An event and its time. Of two at the same time the one that was scheduled first comes first, so connections are FIFO.
#[derive(Debug)]
struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

#[derive(Debug)]
enum Event {
    /// A node looks at its deadlines.
    Tick { node: usize },
    /// A pipeline reaches the shard.
    Arrive { node: usize, shard: usize, epoch: u64, pipeline: Vec<Unsent> },
    /// Its answers reach the node.
    Answer { node: usize, shard: usize, epoch: u64, answers: Vec<(u16, RequestId, Answer)> },
    /// A hint reaches the node.
    Hint { node: usize, bucket: u16, user: UserId },
    /// The node is connected to the shard again.
    Reconnect { node: usize, shard: usize },
}

impl World {
    /// A cluster whose nodes start at random times in the first two seconds.
    pub(crate) fn new(nodes: usize, buckets: u16, shards: usize, policy: AdmissionPolicy) -> Self {
        let mut random = Random(7);
        let node = |_| Node::new(NodeId::new(random.bits()), (buckets, shards), policy, 0);
        let mut world = Self {
            now: 0,
            nodes: (0..nodes).map(node).collect(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            buckets,
            events: BinaryHeap::new(),
            scheduled: 0,
        };
        for node in 0..nodes {
            let at = random.below(2 * SECOND);
            world.nodes[node].next_tick = Some(at);
            world.schedule(at, Event::Tick { node });
        }
        world
    }

    /// The buckets on this shard.
    pub(crate) fn buckets_of(&self, shard: usize) -> impl Iterator<Item = u16> + use<> {
        let shards = self.shards.len();
        (0..self.buckets).filter(move |bucket| usize::from(*bucket) % shards == shard)
    }

    /// All traffic of all shards.
    pub(crate) fn traffic(&self) -> Traffic {
        self.shards.iter().map(|shard| shard.traffic).fold(Traffic::default(), |sum, one| sum + one)
    }

    /// How often clients were told this.
    pub(crate) fn told(&self, what: Told) -> usize {
        self.nodes.iter().flat_map(|node| &node.told).filter(|(_, told)| *told == what).count()
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, end: u64) {
        while self.events.peek().is_some_and(|Reverse(next)| next.at <= end) {
            let Some(Reverse(Scheduled { at, event, .. })) = self.events.pop() else { break };
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// Lets this much time pass.
    pub(crate) fn run_for(&mut self, time: u64) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until the gate of each bucket is open to each node.
    pub(crate) fn run_until_open(&mut self) {
        while !(0..self.shards.len()).all(|shard| self.may_admit(shard)) {
            self.run_for(100 * MS);
        }
    }

    /// Whether each node may admit sessions in each bucket of the shard.
    pub(crate) fn may_admit(&self, shard: usize) -> bool {
        let mut nodes = self.nodes.iter().filter(|node| !node.is_killed);
        nodes.all(|node| self.buckets_of(shard).all(|bucket| node.may_admit(bucket)))
    }

    /// A client of this user signs in at a node.
    pub(crate) fn sign_in(&mut self, node: usize, user: &UserId, bucket: u16) -> SessionId {
        let session = self.nodes[node].sign_in(user, bucket, self.now);
        self.flush(node);
        session
    }

    /// A client says BYE.
    pub(crate) fn sign_out(&mut self, node: usize, session: SessionId) {
        self.nodes[node].sign_out(session, self.now);
        self.flush(node);
    }

    /// An operator sets the limit of this user at a node.
    pub(crate) fn set_limit(&mut self, node: usize, user: &UserId, bucket: u16, limit: SlotLimit) {
        self.nodes[node].set_limit(user, bucket, limit, self.now);
        self.flush(node);
    }

    /// All connections to a shard break, and what is under way is lost.
    pub(crate) fn disconnect(&mut self, shard: usize) {
        for node in &mut self.nodes {
            node.epochs[shard] += 1;
            node.is_connected[shard] = false;
        }
    }

    /// The shard can be reached again. Each node notices at a random time within this one.
    pub(crate) fn reconnect(&mut self, shard: usize, within: u64) {
        let mut random = Random(11);
        for node in 0..self.nodes.len() {
            self.schedule(self.now + random.below(within), Event::Reconnect { node, shard });
        }
    }

    /// Whether the records of a shard equal the sockets of its users.
    pub(crate) fn equals_sockets(&self, shard: usize) -> bool {
        let mut records = self.records(shard);
        records.all(|record| record.leaving().is_empty()) && self.held(shard) == self.served(shard)
    }

    /// Whether each socket of the users of a shard has an entry there.
    pub(crate) fn has_entries(&self, shard: usize) -> bool {
        self.served(shard).is_subset(&self.held(shard))
    }

    fn held(&self, shard: usize) -> BTreeSet<SessionId> {
        let ids = |record: UserRecord| record.sessions().iter().map(|entry| entry.session).collect::<Vec<_>>();
        self.records(shard).flat_map(ids).collect()
    }

    fn served(&self, shard: usize) -> BTreeSet<SessionId> {
        let is_here = |bucket: u16| usize::from(bucket) % self.shards.len() == shard;
        let nodes = self.nodes.iter().filter(|node| !node.is_killed);
        let sockets = nodes.flat_map(|node| &node.sockets).filter(|(_, socket)| is_here(socket.bucket) && socket.is_in);
        sockets.map(|(session, _)| *session).collect()
    }

    /// The records of a shard.
    pub(crate) fn records(&self, shard: usize) -> impl Iterator<Item = UserRecord> {
        let of = |keys: &BucketKeys| keys.users().map(|user| keys.record(user)).collect::<Vec<_>>();
        self.shards[shard].buckets.values().flat_map(of)
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse(Scheduled { at, number: self.scheduled, event }));
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Tick { node: index } => {
                let node = &mut self.nodes[index];
                if node.next_tick == Some(now) && !node.is_killed {
                    node.next_tick = None;
                    node.tick(now);
                    self.flush(index);
                }
            }
            Event::Arrive { node, shard, epoch, pipeline } => {
                if self.nodes[node].epochs[shard] == epoch {
                    self.arrive(node, shard, pipeline);
                }
            }
            Event::Answer { node: index, shard, epoch, answers } => {
                let node = &mut self.nodes[index];
                if node.epochs[shard] != epoch || node.is_killed {
                    return;
                }
                for (bucket, id, answer) in answers {
                    node.handle(bucket, BucketEvent::Answered(id, answer), now);
                }
                self.flush(index);
            }
            Event::Hint { node, bucket, user } => {
                if !self.nodes[node].is_killed {
                    self.nodes[node].handle(bucket, BucketEvent::Hinted(user), now);
                    self.flush(node);
                }
            }
            Event::Reconnect { node, shard } => {
                if self.nodes[node].is_killed {
                    return;
                }
                self.nodes[node].is_connected[shard] = true;
                // What a bucket sent while there was no connection was lost.
                self.nodes[node].outbox[shard].clear();
                let epoch = self.nodes[node].epochs[shard];
                for bucket in self.buckets_of(shard) {
                    self.nodes[node].handle(bucket, BucketEvent::Reconnected(epoch), now);
                }
                self.flush(node);
            }
        }
    }

    fn arrive(&mut self, node: usize, shard: usize, pipeline: Vec<Unsent>) {
        let (names, requests): (Vec<_>, Vec<_>) =
            pipeline.into_iter().map(|(bucket, id, request)| ((bucket, id), (bucket, request))).unzip();
        let mut published = Vec::new();
        let (answers, ready) = self.shards[shard].apply(requests.into_iter(), self.now, &mut published);
        let epoch = self.nodes[node].epochs[shard];
        let answers = names.into_iter().zip(answers).map(|((bucket, id), answer)| (bucket, id, answer)).collect();
        let at = ready + ROUND_TRIP / 2;
        for (bucket, published) in published {
            // No session waits in line here, so no hint for one matters.
            let Published::Changed(id, user) = published else { continue };
            if let Some(node) = self.nodes.iter().position(|node| node.id == id) {
                self.schedule(at, Event::Hint { node, bucket, user });
            }
        }
        self.schedule(at, Event::Answer { node, shard, epoch, answers });
    }

    /// Sends what a node wants to send, and looks when it wants a tick.
    fn flush(&mut self, index: usize) {
        for shard in 0..self.shards.len() {
            let node = &mut self.nodes[index];
            let pipeline = mem::take(&mut node.outbox[shard]);
            let epoch = node.epochs[shard];
            if !pipeline.is_empty() && node.is_connected[shard] {
                let arrive = Event::Arrive { node: index, shard, epoch, pipeline };
                self.schedule(self.now + ROUND_TRIP / 2, arrive);
            }
        }
        let node = &mut self.nodes[index];
        let Some(at) = node.deadline().map(|at| at.max(self.now)) else { return };
        if node.next_tick.is_none_or(|next| at < next || next <= self.now) {
            node.next_tick = Some(at);
            self.schedule(at, Event::Tick { node: index });
        }
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Random numbers from a seed (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below this one.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// An index into something of this length.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is an index")
    }
}
