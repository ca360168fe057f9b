//! Any history, against a naive model, and against the ledger's rule.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{
    Acquire, AdmissionPolicy, EndReason, EndTarget, EndedSession, Liveness, SlotLimit, UserRecord, WhenFull, acquire,
    end_sessions, release,
};
use session_core::{NodeId, SessionId, Timestamp, UserId};

const NODE: NodeId = NodeId::new(7);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_millis(millis))
}

/// What a session is told to the tracker to do.
#[derive(Debug, Clone, Copy)]
enum Call {
    SlotLost,
    MustWait,
    Gone,
}

/// The model: each grant that waits keeps the set of those for whom it waits. Who lost its slot waits only for itself.
#[derive(Debug, Default)]
struct Model {
    leaving: BTreeMap<SessionId, Timestamp>,
    waiting: BTreeMap<SessionId, BTreeSet<SessionId>>,
}

impl Model {
    fn of_user(&self, of: SessionId) -> BTreeSet<SessionId> {
        self.leaving.keys().copied().filter(|session| user_of(*session) == user_of(of)).collect()
    }

    fn gone(&mut self, gone: SessionId) -> BTreeSet<SessionId> {
        self.leaving.remove(&gone);
        for before in self.waiting.values_mut() {
            before.remove(&gone);
        }
        let is_ready = |(session, before): (&SessionId, &BTreeSet<SessionId>)| {
            (*session == gone || before.is_empty()).then_some(*session)
        };
        let ready: BTreeSet<_> = self.waiting.iter().filter_map(is_ready).collect();
        self.waiting.retain(|session, _| !ready.contains(session));
        ready
    }
}

fn user_of(session: SessionId) -> UserId {
    UserId::parse(&format!("user {}", session.number() % 2)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn tracker_agrees_with_the_model(
        calls in prop::collection::vec(
            (0..10_u64, prop::sample::select(vec![Call::SlotLost, Call::MustWait, Call::Gone])), 0..80
        )
    ) {
        let (mut leaving, mut model) = (LeavingTracker::default(), Model::default());
        for (now, (number, call)) in calls.into_iter().enumerate() {
            let (session, now) = (NODE.session(number), at(now as u64));
            match call {
                Call::SlotLost => {
                    let cut_at = *model.leaving.entry(session).or_insert(now + LeavingTracker::CUT_AFTER);
                    if let Some(before) = model.waiting.get_mut(&session) {
                        *before = BTreeSet::from([session]);
                    }
                    prop_assert_eq!(leaving.slot_lost(&user_of(session), session, now), cut_at);
                }
                Call::MustWait => {
                    let mut before = model.of_user(session);
                    if before.contains(&session) {
                        before = BTreeSet::from([session]);
                    }
                    prop_assert_eq!(leaving.must_wait(&user_of(session), session), !before.is_empty());
                    if !before.is_empty() {
                        model.waiting.entry(session).or_insert(before);
                    }
                }
                Call::Gone => {
                    let ready: BTreeSet<_> = leaving.gone(session).into_iter().collect();
                    prop_assert_eq!(ready, model.gone(session));
                }
            }
            prop_assert_eq!(leaving.is_empty(), model.leaving.is_empty());
            prop_assert!(!leaving.is_empty() || model.waiting.is_empty(), "a grant waits for nobody");
        }
    }
}

/// One step in the life of a user's sessions.
#[derive(Debug, Clone)]
enum Step {
    /// A new session acquires a slot.
    Arrive,
    /// The store's answer to a session is passed on.
    Answer(Index),
    /// A session learns that it lost its slot.
    Learn(Index),
    /// The close frame of a session that lost its slot is written, or its socket is cut.
    Flush(Index),
    /// A client says BYE, or disconnects.
    Leave(Index),
    /// The limit changes, and is enforced or not.
    SetLimit(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Arrive),
        6 => any::<Index>().prop_map(Step::Answer),
        5 => any::<Index>().prop_map(Step::Learn),
        5 => any::<Index>().prop_map(Step::Flush),
        1 => any::<Index>().prop_map(Step::Leave),
        1 => (1..4_u32, any::<bool>()).prop_map(|(limit, enforce)| Step::SetLimit(limit, enforce)),
    ]
}

/// A user, and what the user's clients were told.
struct Clients {
    user: UserId,
    policy: AdmissionPolicy,
    record: UserRecord,
    leaving: LeavingTracker,
    arrived: u64,
    /// Those that were told that they are in, and are served.
    told: BTreeSet<SessionId>,
    /// Those whose grant is held back.
    held: BTreeSet<SessionId>,
    /// The limit that each was granted under.
    limits: BTreeMap<SessionId, usize>,
    /// Those whose grant was not passed on yet.
    unanswered: BTreeSet<SessionId>,
    /// Those that lost their slots, and have not learned of it.
    lost: BTreeSet<SessionId>,
    /// Those that lost their slots, have learned of it, and are served.
    closing: BTreeSet<SessionId>,
    /// Those that are gone.
    ended: BTreeSet<SessionId>,
}

impl Clients {
    fn arrive(&mut self) {
        self.arrived += 1;
        let session = NODE.session(self.arrived);
        let request = Acquire { session, token_limit: None, options: None, at: at(self.arrived) };
        let grant = acquire(&mut self.record, request, &self.policy, |_| Liveness::Alive).unwrap();
        self.limits.insert(session, grant.limit.slots() as usize);
        self.lose(&grant.ended);
        self.unanswered.insert(session);
    }

    fn answer(&mut self, session: SessionId) {
        self.unanswered.remove(&session);
        if self.ended.contains(&session) {
            return;
        }
        if self.leaving.must_wait(&self.user, session) {
            self.held.insert(session);
        } else {
            self.granted(session);
        }
    }

    /// The session gets its grant. It tells its client, unless it knows that it lost its slot.
    fn granted(&mut self, session: SessionId) {
        if !self.closing.contains(&session) {
            self.tell(session);
        }
    }

    fn learn(&mut self, session: SessionId) {
        self.lost.remove(&session);
        self.closing.insert(session);
    }

    fn lose(&mut self, ended: &[EndedSession]) {
        for EndedSession { session, .. } in ended {
            self.leaving.slot_lost(&self.user, *session, at(self.arrived));
            self.lost.insert(*session);
        }
    }

    fn tell(&mut self, session: SessionId) {
        self.told.insert(session);
        // When the last of them was granted, the others had their slots. Since then the limit may have been lowered, without
        // ending anybody.
        let limit = self.limits[self.told.last().unwrap()];
        assert!(self.told.len() <= limit, "{:?} were told that they are in, of {limit}", self.told);
    }

    fn gone(&mut self, session: SessionId) {
        self.told.remove(&session);
        self.closing.remove(&session);
        self.ended.insert(session);
        for ready in self.leaving.gone(session) {
            assert!(self.held.remove(&ready), "{ready} is passed on twice");
            // A session that is gone learns of its grant. Its client does not.
            if ready != session {
                assert!(!self.lost.contains(&ready), "{ready} is told of a slot that it has lost");
                self.granted(ready);
            }
        }
    }

    fn pick(of: &BTreeSet<SessionId>, index: &Index) -> Option<SessionId> {
        (!of.is_empty()).then(|| *index.get(&of.iter().copied().collect::<Vec<_>>()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn told_clients_keep_the_limit(limit in 1..4_u32, steps in prop::collection::vec(step(), 0..80)) {
        let policy = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..AdmissionPolicy::new(SlotLimit::new(limit).unwrap()) };
        let mut clients = Clients {
            user: UserId::parse("ada").unwrap(),
            policy,
            record: UserRecord::default(),
            leaving: LeavingTracker::default(),
            arrived: 0,
            told: BTreeSet::new(),
            held: BTreeSet::new(),
            limits: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            lost: BTreeSet::new(),
            closing: BTreeSet::new(),
            ended: BTreeSet::new(),
        };
        for step in steps {
            match step {
                Step::Arrive => clients.arrive(),
                Step::Answer(index) => {
                    if let Some(session) = Clients::pick(&clients.unanswered, &index) {
                        clients.answer(session);
                    }
                }
                Step::Learn(index) => {
                    if let Some(session) = Clients::pick(&clients.lost, &index) {
                        clients.learn(session);
                    }
                }
                Step::Flush(index) => {
                    if let Some(session) = Clients::pick(&clients.closing, &index) {
                        clients.gone(session);
                    }
                }
                Step::Leave(index) => {
                    let open = clients.told.union(&clients.held).copied().filter(|session| !clients.lost.contains(session));
                    let open = open.collect();
                    if let Some(session) = Clients::pick(&open, &index) {
                        clients.gone(session);
                        release(&mut clients.record, session);
                    }
                }
                Step::SetLimit(limit, enforce) => {
                    clients.policy.limit = SlotLimit::new(limit).unwrap();
                    if enforce {
                        let (excess, by) = (EndTarget::Excess { limit: clients.policy.limit, dry_run: false }, EndReason::ByOperator);
                        let result = end_sessions(&mut clients.record, NODE.session(0), excess, &by, &clients.policy);
                        clients.lose(&result.ended);
                    }
                }
            }
        }
        // Nobody waits for ever: once those that lost their slots are gone, who holds a slot has been told so.
        while let Some(session) = clients.unanswered.first().copied() {
            clients.answer(session);
        }
        while let Some(session) = clients.lost.first().copied() {
            clients.learn(session);
        }
        while let Some(session) = clients.closing.first().copied() {
            clients.gone(session);
        }
        prop_assert!(clients.leaving.is_empty() && clients.held.is_empty());
        let holders: BTreeSet<_> = clients.record.sessions().iter().map(|entry| entry.session).collect();
        prop_assert_eq!(clients.told, holders);
    }
}
