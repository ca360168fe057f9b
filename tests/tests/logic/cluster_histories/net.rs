//! A few nodes of one bucket, and a store in memory. A test decides when each request arrives.

use std::collections::VecDeque;
use std::time::Duration;

use session_core::cluster::{
    Answer, Bucket, BucketActions, BucketEvent, BucketKeys, CallId, ClusterTiming, HistoryId, OverridesOutcome,
    Request, RequestId,
};
use session_core::ledger::{
    AcquireOptions, AdmissionPolicy, EndedSession, KnownToken, Outcome, StoreCommand, UserOverrides,
};
use session_core::{NodeId, SessionId, Timestamp, UserId};

/// One node, and what it has asked for and said.
pub(super) struct Node {
    pub(super) bucket: Bucket,
    /// The requests that have not arrived.
    queue: VecDeque<(RequestId, Request)>,
    /// No request arrives while time passes.
    pub(super) is_cut_off: bool,
    ended: Vec<EndedSession>,
    /// The sessions that it says had lapsed.
    pub(super) lapsed: Vec<SessionId>,
    /// The sessions that it says lingered, and lost their slots.
    pub(super) displaced: Vec<EndedSession>,
    /// How often it has fenced.
    pub(super) fences: usize,
    outcomes: Vec<(CallId, Outcome)>,
    overrides: Vec<(CallId, OverridesOutcome)>,
}

/// The nodes, the store and the time.
pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) keys: BucketKeys,
    /// The time that has passed.
    pub(super) elapsed: Duration,
    history: u8,
    epoch: u64,
    last_call: u64,
    last_id: u64,
}

/// The time between two turns of a node.
const TURN: Duration = Duration::from_millis(10);

pub(super) fn user() -> UserId {
    UserId::parse("ada").expect("it is valid")
}

/// A beat of 100 ms, a fence of 500 ms and a lease of 620 ms.
pub(super) fn timing() -> ClusterTiming {
    let [beat, fence, lease, call] = [100, 500, 620, 200].map(Duration::from_millis);
    ClusterTiming::new(beat, fence, lease, call).expect("the times fit together")
}

impl Net {
    /// Nodes with these ids, all of which may admit.
    pub(super) fn new(ids: &[u64], policy: AdmissionPolicy) -> Self {
        Self::with_timing(ids, policy, timing())
    }

    pub(super) fn with_timing(ids: &[u64], policy: AdmissionPolicy, timing: ClusterTiming) -> Self {
        let mut net = Self {
            nodes: Vec::new(),
            keys: BucketKeys::default(),
            elapsed: Duration::ZERO,
            history: 1,
            epoch: 0,
            last_call: 0,
            last_id: 1000,
        };
        let now = net.now();
        let node = |id: &u64| Node {
            bucket: Bucket::new(NodeId::new(*id), None, policy, timing, 4096, now),
            queue: VecDeque::new(),
            is_cut_off: false,
            ended: Vec::new(),
            lapsed: Vec::new(),
            displaced: Vec::new(),
            fences: 0,
            outcomes: Vec::new(),
            overrides: Vec::new(),
        };
        net.nodes = ids.iter().map(node).collect();
        net.run(1500);
        assert!((0..ids.len()).all(|index| net.may_admit(index)), "the gate is open");
        net
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(1_700_000_000) + self.elapsed)
    }

    pub(super) fn handle(&mut self, index: usize, event: BucketEvent) {
        let now = self.now();
        let node = &mut self.nodes[index];
        let BucketActions { requests, outcomes, overrides, ended, lapsed, displaced, fenced, .. } =
            node.bucket.handle(event, now);
        node.queue.extend(requests);
        node.outcomes.extend(outcomes);
        node.overrides.extend(overrides);
        node.ended.extend(ended.into_iter().map(|(_, ended)| ended));
        node.lapsed.extend(lapsed.into_iter().map(|(_, session)| session));
        node.displaced.extend(displaced.into_iter().map(|(_, ended)| ended));
        if fenced.is_some() {
            node.fences += 1;
            self.last_id += 1;
            self.handle(index, BucketEvent::Joins(NodeId::new(self.last_id)));
        }
    }

    /// A request arrives at the store.
    pub(super) fn apply(&mut self, request: &Request) -> Answer {
        let history = HistoryId([self.history; 20]);
        Answer { history, body: self.keys.apply(request, history, &mut Vec::new()) }
    }

    /// All requests of a node arrive, and so do the answers.
    pub(super) fn deliver(&mut self, index: usize) {
        let is_held = self.deliver_until(index, |_| false).is_some();
        assert!(!is_held, "no request is held back");
    }

    /// The requests of a node arrive up to the first one that fits. That one is held back.
    pub(super) fn deliver_until(&mut self, index: usize, fits: fn(&Request) -> bool) -> Option<(RequestId, Request)> {
        while let Some((id, request)) = self.nodes[index].queue.pop_front() {
            if fits(&request) {
                return Some((id, request));
            }
            let answer = self.apply(&request);
            self.handle(index, BucketEvent::Answered(id, answer));
        }
        None
    }

    pub(super) fn take_turn(&mut self, index: usize) {
        self.handle(index, BucketEvent::Tick);
        if !self.nodes[index].is_cut_off {
            self.deliver(index);
        }
    }

    /// The nodes take turns for so many milliseconds.
    pub(super) fn run(&mut self, millis: u64) {
        let end = self.elapsed + Duration::from_millis(millis);
        while self.elapsed < end {
            self.elapsed += TURN;
            (0..self.nodes.len()).for_each(|index| self.take_turn(index));
        }
    }

    /// As [`Net::run`], until this node sees the open gate. The nodes behind it have not had that turn.
    pub(super) fn run_until_gate_opens(&mut self, index: usize) {
        for _ in 0..500 {
            self.elapsed += TURN;
            for turn in 0..self.nodes.len() {
                self.take_turn(turn);
                if self.may_admit(index) {
                    return;
                }
            }
        }
        panic!("the gate stays closed");
    }

    /// A replica with these keys takes over. All requests that have not arrived are lost.
    pub(super) fn fail_over(&mut self, keys: BucketKeys) {
        (self.keys, self.history, self.epoch) = (keys, self.history + 1, self.epoch + 1);
        for index in 0..self.nodes.len() {
            self.nodes[index].queue.clear();
            self.handle(index, BucketEvent::Reconnected(self.epoch));
        }
    }

    /// An id for a session of this node.
    pub(super) fn session(&self, index: usize, number: u64) -> SessionId {
        self.nodes[index].bucket.membership().node().expect("it has joined").session(number)
    }

    pub(super) fn may_admit(&self, index: usize) -> bool {
        self.nodes[index].bucket.membership().may_admit()
    }

    pub(super) fn submit(&mut self, index: usize, command: StoreCommand) -> CallId {
        self.last_call += 1;
        let call = CallId(self.last_call);
        self.handle(index, BucketEvent::Submit(call, command));
        call
    }

    pub(super) fn outcome(&self, index: usize, call: CallId) -> Option<&Outcome> {
        self.nodes[index].outcomes.iter().find(|(of, _)| *of == call).map(|(_, outcome)| outcome)
    }

    pub(super) fn acquire(&mut self, index: usize, session: SessionId, options: AcquireOptions) -> CallId {
        let (at, options) = (self.now(), Some(Box::new(options)));
        self.submit(index, StoreCommand::Acquire { user: user(), session, limit: None, at, options })
    }

    /// Acquires a slot, and tells the client if it may. Returns whether the client was told.
    pub(super) fn admit(&mut self, index: usize, session: SessionId, options: AcquireOptions) -> bool {
        self.acquire(index, session, options);
        self.deliver(index);
        self.tell(index, session)
    }

    pub(super) fn tell(&mut self, index: usize, session: SessionId) -> bool {
        let now = self.now();
        self.nodes[index].bucket.tell(&user(), session, now)
    }

    /// Whether a session that was told is served, by a node that has not fenced.
    pub(super) fn serves(&self, index: usize, session: SessionId) -> bool {
        let node = &self.nodes[index];
        node.fences == 0 && node.ended.iter().all(|ended| ended.session != session)
    }

    /// The client of this session is lost. Its slot lingers.
    pub(super) fn lose_client(&mut self, index: usize, session: SessionId) {
        let (at, token) = (self.now(), KnownToken::Granted);
        self.submit(index, StoreCommand::Linger { user: user(), session, at, token });
    }

    /// A client is admitted at the second node with these options, and lost. Its slot lingers in what a replica has by then.
    pub(super) fn replica_with_lingering_slot(&mut self, options: AcquireOptions) -> BucketKeys {
        let session = self.session(1, 1);
        assert!(self.admit(1, session, options));
        self.lose_client(1, session);
        self.run(150);
        self.keys.clone()
    }

    /// An operator changes the user's overrides at this node, and is told that they are in force.
    pub(super) fn change_overrides(&mut self, index: usize, overrides: UserOverrides) {
        let call = self.set_overrides(index, user(), overrides);
        self.deliver(index);
        assert!(self.is_set(index, call), "{:?}", self.overrides_outcome(index, call));
    }

    /// An operator asks this node to change the overrides of a user.
    pub(super) fn set_overrides(&mut self, index: usize, user: UserId, overrides: UserOverrides) -> CallId {
        self.last_call += 1;
        let call = CallId(self.last_call);
        self.handle(index, BucketEvent::SetOverrides(call, user, overrides));
        call
    }

    /// What the operator was told.
    pub(super) fn overrides_outcome(&self, index: usize, call: CallId) -> Option<OverridesOutcome> {
        self.nodes[index].overrides.iter().find(|(of, _)| *of == call).map(|(_, outcome)| *outcome)
    }

    /// Whether the operator was told that the change is in force.
    pub(super) fn is_set(&self, index: usize, call: CallId) -> bool {
        matches!(self.overrides_outcome(index, call), Some(OverridesOutcome::Set { .. }))
    }
}
