//! A node: the machine of each bucket, and the sockets of its clients.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use session_core::cluster::{
    Bucket, BucketActions, BucketEvent, CallId, ClusterTiming, OverridesOutcome, Request, RequestId,
};
use session_core::ledger::{AdmissionPolicy, Outcome, SlotLimit, StoreCommand, UserOverrides};
use session_core::{NodeId, SessionId, Timestamp, UserId};

/// How many commands may wait in a bucket.
const CAPACITY: usize = 4096;

/// A request that is not sent.
pub(crate) type Unsent = (u16, RequestId, Request);

/// A node. It runs in the time of the simulation.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) is_killed: bool,
    /// For each shard, what to send at the end of this moment.
    pub(crate) outbox: Vec<Vec<Unsent>>,
    /// For each shard, the number of the connection.
    pub(crate) epochs: Vec<u64>,
    /// For each shard, whether the node is connected to it.
    pub(crate) is_connected: Vec<bool>,
    /// When it looks at its deadlines.
    pub(crate) next_tick: Option<u64>,
    pub(crate) sockets: BTreeMap<SessionId, Socket>,
    /// What its clients were told, and when.
    pub(crate) told: Vec<(u64, Told)>,
    buckets: Vec<Bucket>,
    calls: BTreeMap<CallId, Call>,
    sessions: u64,
    last_call: u64,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) user: UserId,
    pub(crate) bucket: u16,
    /// Whether it was told that it has a slot.
    pub(crate) is_in: bool,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has a slot.
    Admitted,
    /// It has none, as the user has too many.
    Denied,
    /// It has none: it has to try again.
    TryAgain,
    /// It had a slot, and its session ends.
    Ended,
    /// It is gone, and its slot is free again.
    Released,
    /// To an operator: the limit of a user is set.
    LimitSet,
}

#[derive(Debug)]
enum Call {
    Acquire(SessionId),
    Release,
    SetLimit,
}

/// This many microseconds after the simulation began.
pub(crate) const fn timestamp(now: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_micros(1_700_000_000_000_000 + now))
}

impl Node {
    pub(crate) fn new(id: NodeId, (buckets, shards): (u16, usize), policy: AdmissionPolicy, now: u64) -> Self {
        let bucket = |_| Bucket::new(id, None, policy, ClusterTiming::default(), CAPACITY, timestamp(now));
        Self {
            id,
            is_killed: false,
            outbox: vec![Vec::new(); shards],
            epochs: vec![0; shards],
            is_connected: vec![true; shards],
            next_tick: None,
            sockets: BTreeMap::new(),
            told: Vec::new(),
            buckets: (0..buckets).map(bucket).collect(),
            calls: BTreeMap::new(),
            sessions: 0,
            last_call: 0,
        }
    }

    /// When the first bucket wants a tick.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let deadline = self.buckets.iter().filter_map(Bucket::deadline).min()?;
        Some(u64::try_from(deadline.since(timestamp(0)).as_micros()).expect("simulations are short"))
    }

    /// Whether the node may admit sessions in the bucket.
    pub(crate) fn may_admit(&self, bucket: u16) -> bool {
        self.buckets[usize::from(bucket)].membership().may_admit()
    }

    /// Ticks what is due.
    pub(crate) fn tick(&mut self, now: u64) {
        for bucket in 0..u16::try_from(self.buckets.len()).expect("there are few") {
            if self.buckets[usize::from(bucket)].deadline().is_some_and(|deadline| deadline <= timestamp(now)) {
                self.handle(bucket, BucketEvent::Tick, now);
            }
        }
    }

    /// A client of this user connects and asks for a slot.
    pub(crate) fn sign_in(&mut self, user: &UserId, bucket: u16, now: u64) -> SessionId {
        self.sessions += 1;
        let session = self.id.session(self.sessions);
        self.sockets.insert(session, Socket { user: user.clone(), bucket, is_in: false });
        let acquire =
            StoreCommand::Acquire { user: user.clone(), session, limit: None, at: timestamp(now), options: None };
        self.submit(bucket, Call::Acquire(session), acquire, now);
        session
    }

    /// A client says BYE.
    pub(crate) fn sign_out(&mut self, session: SessionId, now: u64) {
        if let Some(Socket { user, bucket, .. }) = self.sockets.remove(&session) {
            self.submit(bucket, Call::Release, StoreCommand::Release { user, session }, now);
        }
    }

    /// An operator sets the limit of this user.
    pub(crate) fn set_limit(&mut self, user: &UserId, bucket: u16, limit: SlotLimit, now: u64) {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.calls.insert(id, Call::SetLimit);
        let overrides = UserOverrides { limit: Some(limit), when_full: None };
        self.handle(bucket, BucketEvent::SetOverrides(id, user.clone(), overrides), now);
    }

    fn submit(&mut self, bucket: u16, call: Call, command: StoreCommand, now: u64) {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.calls.insert(id, call);
        self.handle(bucket, BucketEvent::Submit(id, command), now);
    }

    /// Hands an event to a bucket, and does what it wants.
    pub(crate) fn handle(&mut self, bucket: u16, event: BucketEvent, now: u64) {
        let joins = matches!(event, BucketEvent::Joins(_));
        let BucketActions { requests, outcomes, overrides, ended, fenced, .. } =
            self.buckets[usize::from(bucket)].handle(event, timestamp(now));
        let shard = usize::from(bucket) % self.outbox.len();
        self.outbox[shard].extend(requests.into_iter().map(|(id, request)| (bucket, id, request)));
        if fenced.is_some() {
            let all = mem::take(&mut self.sockets);
            let (gone, left): (BTreeMap<_, _>, _) = all.into_iter().partition(|(_, socket)| socket.bucket == bucket);
            self.sockets = left;
            let lost = gone.values().filter(|socket| socket.is_in);
            self.told.extend(lost.map(|_| (now, Told::Ended)));
        }
        for (_, ended) in ended {
            let Some(socket) = self.sockets.remove(&ended.session) else { continue };
            if socket.is_in {
                self.told.push((now, Told::Ended));
            }
            self.handle(bucket, BucketEvent::Closed(socket.user, ended.session), now);
        }
        for (call, outcome) in overrides {
            self.calls.remove(&call);
            if let OverridesOutcome::Set { .. } = outcome {
                self.told.push((now, Told::LimitSet));
            }
        }
        for (call, outcome) in outcomes {
            self.answered(bucket, call, &outcome, now);
        }
        if fenced.is_some() && !joins {
            // Another id, drawn from the last one: no two nodes have the same.
            self.id = NodeId::new(self.id.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            for bucket in 0..u16::try_from(self.buckets.len()).expect("there are few") {
                self.handle(bucket, BucketEvent::Joins(self.id), now);
            }
        }
    }

    fn answered(&mut self, bucket: u16, call: CallId, outcome: &Outcome, now: u64) {
        let session = match self.calls.remove(&call) {
            Some(Call::Acquire(session)) => session,
            Some(Call::Release) => {
                self.told.push((now, Told::Released));
                return;
            }
            Some(Call::SetLimit) | None => return,
        };
        let Some(socket) = self.sockets.get_mut(&session) else { return };
        if matches!(outcome, Outcome::Granted { .. })
            && self.buckets[usize::from(bucket)].tell(&socket.user, session, timestamp(now))
        {
            socket.is_in = true;
            self.told.push((now, Told::Admitted));
        } else if matches!(outcome, Outcome::Granted { .. } | Outcome::Unknown) {
            self.told.push((now, Told::TryAgain));
            self.sign_out(session, now);
        } else {
            self.sockets.remove(&session);
            let is_denied = matches!(outcome, Outcome::Denied(_));
            self.told.push((now, if is_denied { Told::Denied } else { Told::TryAgain }));
        }
    }
}
