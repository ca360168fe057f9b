//! What each request does to the keys, and what it does not.

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
