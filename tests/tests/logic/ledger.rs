//! The ledger's rule without evictions and lingering, against tables and a naive model. `eviction` tests the rest, and
//! `record` the encoding of a record.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use session_core::ledger::{self, EndReason, EndTarget, KnownToken, StoreCommand};
use session_core::ledger::{AdmissionPolicy, Liveness, Outcome, SessionRecord, SlotLimit, StoreError, UserRecord};
use session_core::{NodeId, SessionId, UserId};
use tests::values::{at_second as at, user};

const HERE: NodeId = NodeId::new(1);
const THERE: NodeId = NodeId::new(2);

fn acquire(session: SessionId, second: u64) -> StoreCommand {
    StoreCommand::Acquire { user: user(), session, limit: None, at: at(second), options: None }
}

fn release(session: SessionId) -> StoreCommand {
    StoreCommand::Release { user: user(), session }
}

fn count_slots(session: SessionId) -> StoreCommand {
    StoreCommand::CountSlots { user: user(), session, at: at(9) }
}

/// Applies a command that ends no session.
fn apply(
    record: &mut UserRecord,
    command: &StoreCommand,
    limit: SlotLimit,
    liveness: impl Fn(NodeId) -> Liveness,
) -> Outcome {
    let result = ledger::apply(&user(), record, command, &AdmissionPolicy::new(limit), liveness);
    assert!(result.ended.is_empty(), "{command:?} ended {:?}", result.ended);
    result.outcome
}

fn granted(slots: u32) -> Outcome {
    Outcome::granted(slots)
}

fn counted(slots: u32) -> Outcome {
    Outcome::Counted { slots }
}

fn all_alive(_: NodeId) -> Liveness {
    Liveness::Alive
}

fn node_2_is_dead(node: NodeId) -> Liveness {
    if node == THERE { Liveness::DeadSince(at(0)) } else { Liveness::Alive }
}

/// A record with these sessions, admitted at second 1, 2, …
fn record_with(sessions: &[SessionId]) -> UserRecord {
    let entries = (1..).zip(sessions).map(|(second, &session)| SessionRecord::new(session, at(second)));
    UserRecord::from_sessions(entries.collect()).unwrap()
}

fn sessions(record: &UserRecord) -> Vec<SessionId> {
    record.sessions().iter().map(|slot| slot.session).collect()
}

/// Each row: sessions before, limit, command => outcome, sessions after. Node 2 is dead.
#[test]
fn admission_rule_table() {
    let [a, b, c, d] = [1, 2, 3, 4].map(|number| HERE.session(number));
    let [x, y] = [1, 2].map(|number| THERE.session(number));
    for (held, limit, command, outcome, then) in [
        // Sessions are admitted up to the limit.
        (&[][..], 3, acquire(a, 9), granted(1), &[a][..]),
        (&[a], 3, acquire(b, 9), granted(2), &[a, b]),
        (&[a, b], 3, acquire(c, 9), granted(3), &[a, b, c]),
        (&[a, b, c], 3, acquire(d, 9), Outcome::Denied(None), &[a, b, c]),
        (&[], 1, acquire(a, 9), granted(1), &[a]),
        (&[a], 1, acquire(b, 9), Outcome::Denied(None), &[a]),
        (&[], 0, acquire(a, 9), Outcome::Denied(None), &[]),
        // A session with a slot is granted it again, also at the limit and above, and takes no second one.
        (&[a, b, c], 3, acquire(b, 9), granted(3), &[a, b, c]),
        (&[a, b, c], 1, acquire(b, 9), granted(3), &[a, b, c]),
        (&[a], 0, acquire(a, 9), granted(1), &[a]),
        // A lowered limit ends no session. It admits none until fewer slots are taken.
        (&[a, b, c], 2, count_slots(a), counted(3), &[a, b, c]),
        (&[a, b, c], 2, acquire(d, 9), Outcome::Denied(None), &[a, b, c]),
        (&[a, b], 2, acquire(d, 9), Outcome::Denied(None), &[a, b]),
        (&[a], 2, acquire(d, 9), granted(2), &[a, d]),
        // A release frees that slot only. A release without a slot has no effect.
        (&[a, b, c], 3, release(b), Outcome::Released, &[a, c]),
        (&[a, b, c], 3, release(d), Outcome::Released, &[a, b, c]),
        (&[a], 3, release(a), Outcome::Released, &[]),
        (&[], 3, release(a), Outcome::Released, &[]),
        (&[a, b], 0, release(a), Outcome::Released, &[b]),
        // The same number on another node is another session.
        (&[a], 3, release(x), Outcome::Released, &[a]),
        // Counting changes nothing.
        (&[], 3, count_slots(a), counted(0), &[]),
        (&[a, b], 3, count_slots(d), counted(2), &[a, b]),
        // The sessions of a dead node have lapsed for every command.
        (&[x, a, y], 3, count_slots(a), counted(1), &[a]),
        (&[x, a, y], 3, release(b), Outcome::Released, &[a]),
        (&[x, a, y], 3, release(a), Outcome::Released, &[]),
        (&[x, a, y], 3, acquire(b, 9), granted(2), &[a, b]),
        (&[x, a, y], 3, acquire(a, 9), granted(1), &[a]),
        (&[x, a, y], 1, acquire(b, 9), Outcome::Denied(None), &[a]),
        (&[x, y], 1, acquire(a, 9), granted(1), &[a]),
        (&[x, y], 0, acquire(a, 9), Outcome::Denied(None), &[]),
        // A dead node acquires nothing: its client would exceed the limit.
        (&[], 3, acquire(x, 9), Outcome::Rejected(StoreError::Failed), &[]),
        (&[x, a], 3, acquire(x, 9), Outcome::Rejected(StoreError::Failed), &[a]),
    ] {
        let row = format!("{held:?}, limit {limit}, {command:?}");
        let mut record = record_with(held);
        let before = record.clone();
        assert_eq!(apply(&mut record, &command, SlotLimit::new(limit).unwrap(), node_2_is_dead), outcome, "{row}");
        assert_eq!(sessions(&record), then, "{row}");
        assert_eq!(record.is_empty(), then.is_empty(), "{row}");
        // Existing slots keep their time. A new one has the time of its command.
        for slot in record.sessions() {
            let old = before.sessions().iter().find(|old| old.session == slot.session);
            assert_eq!(slot.since, old.map_or(at(9), |old| old.since), "{row}");
        }
    }
}

#[test]
fn slots_keep_the_order_of_acquisition() {
    let mut record = UserRecord::default();
    let order = [HERE.session(9), THERE.session(1), HERE.session(3)];
    for (session, second) in order.into_iter().zip([50, 10, 30]) {
        let _outcome = apply(&mut record, &acquire(session, second), SlotLimit::default(), all_alive);
    }
    assert_eq!(sessions(&record), order);
    assert_eq!(record.sessions().iter().map(|slot| slot.since).collect::<Vec<_>>(), [at(50), at(10), at(30)]);
    assert!(record.session(order[1]).is_some() && record.session(HERE.session(1)).is_none());
}

#[test]
fn highest_limit_stays_within_the_ceiling() {
    let mut record = UserRecord::default();
    for number in 1..=1024 {
        let command = acquire(HERE.session(u64::from(number)), 1);
        assert_eq!(apply(&mut record, &command, SlotLimit::MAX, all_alive), granted(number));
    }
    assert_eq!(apply(&mut record, &acquire(HERE.session(0), 1), SlotLimit::MAX, all_alive), Outcome::Denied(None));
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    assert_eq!(UserRecord::decode(&bytes), Ok(record), "what the rule made can be read back");
}

/// A naive model: each session and the number of its command.
#[derive(Debug, Default)]
struct Model {
    slots: BTreeMap<SessionId, usize>,
    dead: BTreeSet<NodeId>,
}

impl Model {
    fn holders(&self) -> BTreeMap<usize, SessionId> {
        let live = self.slots.iter().filter(|(session, _)| !self.dead.contains(&session.node()));
        live.map(|(&session, &command)| (command, session)).collect()
    }

    fn count(&self) -> u32 {
        u32::try_from(self.holders().len()).unwrap()
    }

    fn apply(&mut self, number: usize, command: &StoreCommand, limit: u32) -> Outcome {
        match command {
            StoreCommand::Acquire { session, .. } if self.dead.contains(&session.node()) => {
                Outcome::Rejected(StoreError::Failed)
            }
            StoreCommand::Acquire { session, .. } => {
                let is_new = !self.slots.contains_key(session);
                if is_new && self.count() >= limit {
                    return Outcome::Denied(None);
                }
                self.slots.entry(*session).or_insert(number);
                granted(self.count())
            }
            StoreCommand::Release { session, .. } => {
                self.slots.remove(session);
                Outcome::Released
            }
            StoreCommand::CountSlots { .. } => counted(self.count()),
            StoreCommand::Linger { .. }
            | StoreCommand::ListSessions { .. }
            | StoreCommand::EndSessions { .. }
            | StoreCommand::Renew { .. } => unreachable!("none of the steps"),
        }
    }
}

/// One step of a user's history. Few nodes and low numbers make steps meet.
#[derive(Debug, Clone)]
enum Step {
    Command(StoreCommand),
    /// The last command again, as from a caller without an answer.
    Again,
    Limit(u32),
    Dies(NodeId),
}

fn step() -> impl Strategy<Value = Step> {
    let session = || (0..5_u64, 0..4_u64).prop_map(|(node, number)| NodeId::new(node).session(number));
    prop_oneof![
        8 => (session(), 0..100_u64).prop_map(|(session, second)| Step::Command(acquire(session, second))),
        4 => session().prop_map(|session| Step::Command(release(session))),
        2 => session().prop_map(|session| Step::Command(count_slots(session))),
        2 => Just(Step::Again),
        1 => (0..6_u32).prop_map(Step::Limit),
        1 => (0..5_u64).prop_map(|node| Step::Dies(NodeId::new(node))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn admission_rule_agrees_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let (mut record, mut model) = (UserRecord::default(), Model::default());
        let (mut limit, mut last) = (SlotLimit::default(), None);
        for (number, step) in steps.into_iter().enumerate() {
            let command = match step {
                Step::Command(command) => Some(command),
                Step::Again => last.clone(),
                Step::Limit(slots) => {
                    limit = SlotLimit::new(slots).unwrap();
                    None
                }
                Step::Dies(node) => {
                    model.dead.insert(node);
                    None
                }
            };
            // Commands of a dead node may still arrive.
            let Some(command) = command else { continue };
            let before = model.count();
            let dead = &model.dead;
            let liveness = |node| if dead.contains(&node) { Liveness::DeadSince(at(0)) } else { Liveness::Alive };
            let outcome = apply(&mut record, &command, limit, liveness);
            let expected = model.apply(number, &command, limit.slots());
            prop_assert_eq!(outcome, expected, "{:?}", &command);
            prop_assert_eq!(sessions(&record), model.holders().into_values().collect::<Vec<_>>());
            prop_assert!(model.count() <= before || model.count() <= limit.slots(), "more than before, and too many");
            last = Some(command);
        }
    }

    #[test]
    fn every_command_is_idempotent(held in prop::collection::btree_set((0..3_u64, 0..4_u64), 0..6), limit in 0..6_u32) {
        let held: Vec<_> = held.into_iter().map(|(node, number)| NodeId::new(node).session(number)).collect();
        let limit = SlotLimit::new(limit).unwrap();
        let session = HERE.session(2);
        for command in [acquire(session, 9), release(session), count_slots(session)] {
            let mut once = record_with(&held);
            let first = apply(&mut once, &command, limit, node_2_is_dead);
            let mut twice = once.clone();
            prop_assert_eq!(apply(&mut twice, &command, limit, node_2_is_dead), first);
            prop_assert_eq!(twice, once);
        }
    }
}

/// A caller that reads the wrong record spends no limit, and takes no slot from a stranger.
#[test]
fn command_of_another_user_changes_nothing() {
    let session = HERE.session(1);
    let mut record = record_with(&[session, HERE.session(2)]);
    let before = record.clone();
    let bob = || UserId::parse("bob").unwrap();
    for command in [
        StoreCommand::Acquire { user: bob(), session: HERE.session(3), limit: None, at: at(9), options: None },
        StoreCommand::Release { user: bob(), session },
        StoreCommand::Linger { user: bob(), session, at: at(9), token: KnownToken::Granted },
        StoreCommand::CountSlots { user: bob(), session, at: at(9) },
        StoreCommand::Renew { user: bob(), session, limit: None, device: None, at: at(9) },
        StoreCommand::EndSessions {
            user: bob(),
            session,
            target: EndTarget::All,
            reason: EndReason::ByOperator,
            at: at(9),
        },
    ] {
        let outcome = apply(&mut record, &command, SlotLimit::MAX, node_2_is_dead);
        assert_eq!((outcome, &record), (Outcome::Rejected(StoreError::Failed), &before), "{command:?}");
    }
}

#[test]
fn command_names_user_and_session() {
    for command in [acquire(HERE.session(5), 1), release(HERE.session(5)), count_slots(HERE.session(5))] {
        assert_eq!((command.user(), command.session()), (&user(), HERE.session(5)));
    }
}
