//! The ledger's rule, against tables and a naive model, and the bytes a record is kept as.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{Command, apply};
use session_core::{Cause, Limit, Liveness, NodeId, Outcome, RecordError, SessionId, Slot, Time, UserId, UserRecord};

const HERE: NodeId = NodeId::new(1);
const THERE: NodeId = NodeId::new(2);

fn user() -> UserId {
    UserId::parse("ada").unwrap()
}

fn acquire(session: SessionId, second: u64) -> Command {
    Command::Acquire { user: user(), session, limit: None, at: at(second) }
}

fn release(session: SessionId) -> Command {
    Command::Release { user: user(), session }
}

fn look_up(session: SessionId) -> Command {
    Command::Lookup { user: user(), session }
}

fn at(second: u64) -> Time {
    Time::from_epoch(Duration::from_secs(second))
}

fn granted(connections: u32) -> Outcome {
    Outcome::Granted { connections }
}

fn found(connections: u32) -> Outcome {
    Outcome::Found { connections }
}

fn everyone_lives(_: NodeId) -> Liveness {
    Liveness::Alive
}

fn there_is_dead(node: NodeId) -> Liveness {
    if node == THERE { Liveness::Dead } else { Liveness::Alive }
}

/// The record that holds these sessions' slots, the first taken at second 1, the next at second 2, …
fn holding(sessions: &[SessionId]) -> UserRecord {
    let slots = (1..).zip(sessions).map(|(second, &session)| Slot { session, since: at(second) });
    UserRecord::from_slots(slots.collect()).unwrap()
}

fn sessions(record: &UserRecord) -> Vec<SessionId> {
    record.slots().iter().map(|slot| slot.session).collect()
}

/// Each row: slots held, limit, command => outcome, slots held then. Node 2 is dead.
#[test]
fn the_rule() {
    let [a, b, c, d] = [1, 2, 3, 4].map(|number| HERE.session(number));
    let [x, y] = [1, 2].map(|number| THERE.session(number));
    for (held, limit, command, outcome, then) in [
        // Up to the limit everyone is admitted, beyond it nobody.
        (&[][..], 3, acquire(a, 9), granted(1), &[a][..]),
        (&[a], 3, acquire(b, 9), granted(2), &[a, b]),
        (&[a, b], 3, acquire(c, 9), granted(3), &[a, b, c]),
        (&[a, b, c], 3, acquire(d, 9), Outcome::Denied, &[a, b, c]),
        (&[], 1, acquire(a, 9), granted(1), &[a]),
        (&[a], 1, acquire(b, 9), Outcome::Denied, &[a]),
        (&[], 0, acquire(a, 9), Outcome::Denied, &[]),
        // Who holds a slot is granted it again, at the limit and above, and takes no second one.
        (&[a, b, c], 3, acquire(b, 9), granted(3), &[a, b, c]),
        (&[a, b, c], 1, acquire(b, 9), granted(3), &[a, b, c]),
        (&[a], 0, acquire(a, 9), granted(1), &[a]),
        // A lowered limit takes nothing away and admits nobody until fewer hold a slot.
        (&[a, b, c], 2, look_up(a), found(3), &[a, b, c]),
        (&[a, b, c], 2, acquire(d, 9), Outcome::Denied, &[a, b, c]),
        (&[a, b], 2, acquire(d, 9), Outcome::Denied, &[a, b]),
        (&[a], 2, acquire(d, 9), granted(2), &[a, d]),
        // A release takes that slot and no other, and none is as good.
        (&[a, b, c], 3, release(b), Outcome::Released, &[a, c]),
        (&[a, b, c], 3, release(d), Outcome::Released, &[a, b, c]),
        (&[a], 3, release(a), Outcome::Released, &[]),
        (&[], 3, release(a), Outcome::Released, &[]),
        (&[a, b], 0, release(a), Outcome::Released, &[b]),
        // The session with the same number on another node is another session.
        (&[a], 3, release(x), Outcome::Released, &[a]),
        // Anyone may look, and nothing changes.
        (&[], 3, look_up(a), found(0), &[]),
        (&[a, b], 3, look_up(d), found(2), &[a, b]),
        // A dead node's slots are void, for every command.
        (&[x, a, y], 3, look_up(a), found(1), &[a]),
        (&[x, a, y], 3, release(b), Outcome::Released, &[a]),
        (&[x, a, y], 3, release(a), Outcome::Released, &[]),
        (&[x, a, y], 3, acquire(b, 9), granted(2), &[a, b]),
        (&[x, a, y], 3, acquire(a, 9), granted(1), &[a]),
        (&[x, a, y], 1, acquire(b, 9), Outcome::Denied, &[a]),
        (&[x, y], 1, acquire(a, 9), granted(1), &[a]),
        (&[x, y], 0, acquire(a, 9), Outcome::Denied, &[]),
        // And it acquires nothing any more: whoever it told would be one too many.
        (&[], 3, acquire(x, 9), Outcome::Rejected(Cause::Failed), &[]),
        (&[x, a], 3, acquire(x, 9), Outcome::Rejected(Cause::Failed), &[a]),
    ] {
        let row = format!("{held:?}, limit {limit}, {command:?}");
        let mut record = holding(held);
        let before = record.clone();
        assert_eq!(apply(&mut record, &command, Limit::new(limit).unwrap(), there_is_dead), outcome, "{row}");
        assert_eq!(sessions(&record), then, "{row}");
        assert_eq!(record.is_empty(), then.is_empty(), "{row}");
        // Nobody's slot becomes younger; a new one is as old as its command says.
        for slot in record.slots() {
            let old = before.slots().iter().find(|old| old.session == slot.session);
            assert_eq!(slot.since, old.map_or(at(9), |old| old.since), "{row}");
        }
    }
}

#[test]
fn slots_are_kept_in_the_order_of_their_acquisition_whatever_the_clocks_say() {
    let mut record = UserRecord::default();
    let order = [HERE.session(9), THERE.session(1), HERE.session(3)];
    for (session, second) in order.into_iter().zip([50, 10, 30]) {
        let _outcome = apply(&mut record, &acquire(session, second), Limit::default(), everyone_lives);
    }
    assert_eq!(sessions(&record), order);
    assert_eq!(record.slots().iter().map(|slot| slot.since).collect::<Vec<_>>(), [at(50), at(10), at(30)]);
    assert!(record.holds(order[1]) && !record.holds(HERE.session(1)));
}

#[test]
fn not_even_the_highest_limit_admits_more_than_the_ceiling() {
    let mut record = UserRecord::default();
    for number in 1..=1024 {
        let command = acquire(HERE.session(u64::from(number)), 1);
        assert_eq!(apply(&mut record, &command, Limit::MAX, everyone_lives), granted(number));
    }
    assert_eq!(apply(&mut record, &acquire(HERE.session(0), 1), Limit::MAX, everyone_lives), Outcome::Denied);
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    assert_eq!(UserRecord::decode(&bytes), Ok(record), "what the rule made can be read back");
}

/// What the rule does, said another way: who holds a slot, and since which command.
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

    fn apply(&mut self, number: usize, command: &Command, limit: u32) -> Outcome {
        match command {
            Command::Acquire { session, .. } if self.dead.contains(&session.node()) => Outcome::Rejected(Cause::Failed),
            Command::Acquire { session, .. } => {
                let is_new = !self.slots.contains_key(session);
                if is_new && self.count() >= limit {
                    return Outcome::Denied;
                }
                self.slots.entry(*session).or_insert(number);
                granted(self.count())
            }
            Command::Release { session, .. } => {
                self.slots.remove(session);
                Outcome::Released
            }
            Command::Lookup { .. } => found(self.count()),
        }
    }
}

/// One step of a user's history. Nodes are few and number their sessions low, so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    /// A command that is applied again: a caller that did not hear the answer.
    Again,
    Limit(u32),
    Dies(NodeId),
}

fn step() -> impl Strategy<Value = Step> {
    let session = || (0..5_u64, 0..4_u64).prop_map(|(node, number)| NodeId::new(node).session(number));
    prop_oneof![
        8 => (session(), 0..100_u64).prop_map(|(session, second)| Step::Command(acquire(session, second))),
        4 => session().prop_map(|session| Step::Command(release(session))),
        2 => session().prop_map(|session| Step::Command(look_up(session))),
        2 => Just(Step::Again),
        1 => (0..6_u32).prop_map(Step::Limit),
        1 => (0..5_u64).prop_map(|node| Step::Dies(NodeId::new(node))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_rule_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let (mut record, mut model) = (UserRecord::default(), Model::default());
        let (mut limit, mut last) = (Limit::default(), None);
        for (number, step) in steps.into_iter().enumerate() {
            let command = match step {
                Step::Command(command) => Some(command),
                Step::Again => last.clone(),
                Step::Limit(slots) => {
                    limit = Limit::new(slots).unwrap();
                    None
                }
                Step::Dies(node) => {
                    model.dead.insert(node);
                    None
                }
            };
            // What the dead have submitted may still arrive.
            let Some(command) = command else { continue };
            let before = model.count();
            let dead = &model.dead;
            let liveness = |node| if dead.contains(&node) { Liveness::Dead } else { Liveness::Alive };
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
        let limit = Limit::new(limit).unwrap();
        let session = HERE.session(2);
        for command in [acquire(session, 9), release(session), look_up(session)] {
            let mut once = holding(&held);
            let first = apply(&mut once, &command, limit, there_is_dead);
            let mut twice = once.clone();
            prop_assert_eq!(apply(&mut twice, &command, limit, there_is_dead), first);
            prop_assert_eq!(twice, once);
        }
    }

    #[test]
    fn a_record_survives_its_bytes(
        slots in prop::collection::btree_map((any::<u64>(), any::<u64>()), any::<u64>(), 0..40),
        mut bytes in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let slots: Vec<_> = slots
            .into_iter()
            .map(|((node, number), millis)| Slot {
                session: NodeId::new(node).session(number),
                since: Time::from_epoch(Duration::from_millis(millis)),
            })
            .rev()
            .collect();
        let record = UserRecord::from_slots(slots.clone()).unwrap();
        prop_assert_eq!(record.slots(), slots);
        // Whatever the buffer held before.
        record.encode(&mut bytes);
        prop_assert_eq!(bytes.len(), 1 + 24 * record.slots().len());
        prop_assert_eq!(UserRecord::decode(&bytes), Ok(record));
    }

    #[test]
    fn whatever_can_be_read_is_written_the_same(bytes in any_record()) {
        if let Ok(record) = UserRecord::decode(&bytes) {
            let mut again = Vec::new();
            record.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_record_that_is_cut_off_is_never_guessed_at(slots in 1..5_u64, cut in any::<prop::sample::Index>()) {
        let record = holding(&(0..slots).map(|number| HERE.session(number)).collect::<Vec<_>>());
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes.truncate(cut.index(bytes.len()));
        let read = UserRecord::decode(&bytes);
        match bytes.len() {
            0 => prop_assert_eq!(read, Err(RecordError::Empty)),
            // Between two slots nobody can tell; a store writes a record whole or not at all.
            length if length % 24 == 1 => {
 let whole = record.slots()[..length / 24].to_vec();
 prop_assert_eq!(read, UserRecord::from_slots(whole));
}
            _ => prop_assert_eq!(read, Err(RecordError::CutOff)),
        }
    }
}

/// Bytes at random, and bytes that look like a record. Small numbers, so that two slots may be of one session.
fn any_record() -> impl Strategy<Value = Vec<u8>> {
    let slots = prop::collection::vec((0..2_u8, any::<u64>()), 0..6).prop_map(|slots| {
        let slot = |(number, since): (u8, u64)| [&[0; 15][..], &[number], &since.to_be_bytes()].concat();
        [vec![1], slots.into_iter().flat_map(slot).collect()].concat()
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..100), slots]
}

/// Version 1, on disk: these bytes are a promise. Never change this test, add one for the next version.
#[test]
fn the_bytes_of_version_1() {
    let slots = vec![
        Slot {
            session: NodeId::new(0x0123_4567_89ab_cdef).session(0x42),
            since: Time::from_epoch(Duration::from_millis(0x018b_cfe5_6800)),
        },
        Slot { session: NodeId::new(7).session(u64::MAX), since: Time::default() },
    ];
    let record = UserRecord::from_slots(slots).unwrap();
    #[rustfmt::skip]
    let bytes = [
        0x01,
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,  0, 0, 0, 0, 0, 0, 0, 0x42,  0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00,
        0, 0, 0, 0, 0, 0, 0, 7,  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut written = vec![9; 500];
    record.encode(&mut written);
    assert_eq!(written, bytes);
    assert_eq!(UserRecord::decode(&bytes), Ok(record));

    UserRecord::default().encode(&mut written);
    assert_eq!(written, [1]);
    assert_eq!(UserRecord::decode(&[1]), Ok(UserRecord::default()));
}

#[test]
fn what_is_finer_than_a_millisecond_is_not_kept() {
    let slot = |nanos| Slot { session: HERE.session(1), since: Time::from_epoch(Duration::from_nanos(nanos)) };
    let mut bytes = Vec::new();
    UserRecord::from_slots(vec![slot(5_999_999)]).unwrap().encode(&mut bytes);
    assert_eq!(UserRecord::decode(&bytes).unwrap().slots(), [slot(5_000_000)]);
}

#[test]
fn every_reason_not_to_read_a_record() {
    let slot = |number: u64| [HERE.session(number).to_bytes().as_slice(), &[0; 8]].concat();
    let record = |slots: &[u64]| [vec![1], slots.iter().flat_map(|&number| slot(number)).collect()].concat();
    let numbers: Vec<_> = (0..=1024).collect();

    for (bytes, error, words) in [
        (vec![], RecordError::Empty, "the record is empty"),
        (vec![0], RecordError::Version(0), "the record has version 0, this server reads version 1"),
        (vec![2], RecordError::Version(2), "the record has version 2, this server reads version 1"),
        // The version is looked at first: nothing else is known of another one.
        (vec![255; 30], RecordError::Version(255), "the record has version 255, this server reads version 1"),
        (vec![1, 0], RecordError::CutOff, "the record is cut off"),
        (vec![1; 24], RecordError::CutOff, "the record is cut off"),
        (vec![1; 26], RecordError::CutOff, "the record is cut off"),
        (record(&[5, 5]), RecordError::SlotTwice, "the record has two slots of one session"),
        (record(&[5, 3, 4, 5]), RecordError::SlotTwice, "the record has two slots of one session"),
        (record(&numbers), RecordError::TooManySlots, "the record has more slots than any limit allows"),
    ] {
        assert_eq!(UserRecord::decode(&bytes), Err(error));
        assert_eq!(error.to_string(), words);
    }
    assert_eq!(UserRecord::decode(&record(&numbers[1..])).unwrap().slots().len(), 1024);
}

#[test]
fn a_command_says_whose_it_is() {
    for command in [acquire(HERE.session(5), 1), release(HERE.session(5)), look_up(HERE.session(5))] {
        assert_eq!((command.user(), command.session()), (&user(), HERE.session(5)));
    }
}
