//! Slots keep their names, and grants and denials say what became of a resume token and of a choice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use session_core::ledger::{AcquireOptions, AdmissionPolicy, DenyReason, EndReason, EndTarget, Evict, GrantDetails};
use session_core::ledger::{NotResumed, Outcome, Resumption, SessionNames, SlotUsage, UserRecord, WhenFull};
use session_core::{SessionId, SlotId};
use tests::values::name;

use super::one_user::*;

fn details(outcome: Outcome) -> GrantDetails {
    let Outcome::Granted { grant: Some(grant), .. } = outcome else { panic!("{outcome:?}") };
    *grant
}

fn usage(outcome: Outcome) -> SlotUsage {
    let Outcome::Denied(Some(usage)) = outcome else { panic!("{outcome:?}") };
    *usage
}

fn slot(number: u64) -> SlotId {
    SlotId::new(id(number))
}

/// Written and read as a store does between two commands.
fn stored(record: &UserRecord) -> UserRecord {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    UserRecord::decode(&bytes).unwrap()
}

fn choosing(limit: u32) -> AdmissionPolicy {
    AdmissionPolicy { client_choice: true, ..policy(limit) }
}

#[test]
fn slot_keeps_its_name_over_resumes() {
    let mut harness = UserHarness::default();
    let first = details(harness.acquire_resumable(&policy(2), 1));
    assert_eq!((first.slot, first.resume), (slot(1), Resumption::NotAsked));
    for number in 2..=4 {
        harness.record = stored(&harness.record);
        let resumed = details(harness.resume(&policy(2), number, 1));
        assert_eq!((resumed.slot, resumed.since, resumed.resume), (slot(1), first.since, Resumption::Resumed));
        assert_eq!(harness.record.sessions()[0].slot, slot(1));
    }
    // Another session ends it by this name, by its id, but not by an id that it had in between.
    drop(harness.acquire_resumable(&policy(2), 5));
    let end = |which: SessionId| harness.clone().end(&policy(2), 5, EndTarget::One(which), EndReason::ByUser(None));
    assert_eq!([end(id(1)), end(id(4)), end(id(3))], [vec![4], vec![4], vec![]]);
}

#[test]
fn chosen_session_may_be_named_by_its_slot() {
    let mut harness = UserHarness::default();
    drop(harness.acquire_resumable(&choosing(2), 1));
    drop(harness.resume(&choosing(2), 2, 1));
    drop(harness.acquire_on_device(&choosing(2), 3, "laptop"));
    let grant = details(harness.acquire_evicting(&choosing(2), 4, Evict::Sessions([id(1)].into())));
    assert_eq!((harness.session_numbers(), grant.slot), (vec![3, 4], slot(4)));
    assert_eq!(grant.evicted.iter().map(|evicted| evicted.slot).collect::<Vec<_>>(), [slot(1)]);
    // The grant says whom it ended, and the ended session by whom it was.
    let grant = details(harness.acquire_evicting(&choosing(2), 5, Evict::Sessions([id(3)].into())));
    assert_eq!(grant.evicted[0].names, SessionNames::new(name("laptop").as_ref(), None));
    assert_eq!(harness.ended, [ended(3, EndReason::TakenOver(SessionNames::new(None, name("new").as_ref())))]);
}

#[test]
fn choice_of_a_session_that_is_gone_says_so() {
    let mut harness = UserHarness::default();
    for number in 1..=2 {
        drop(harness.acquire_resumable(&choosing(2), number));
    }
    let choice = || Evict::Sessions([id(9)].into());
    let denied = usage(harness.acquire_evicting(&choosing(2), 3, choice()));
    assert_eq!((denied.denied, denied.sessions.len()), (Some(DenyReason::Gone), 2));
    // Where it may not choose, there is nothing that could be gone.
    let denied = usage(harness.acquire_evicting(&policy(2), 3, choice()));
    assert_eq!(denied.denied, Some(DenyReason::LimitReached));
    // A free slot is granted all the same.
    assert!(is_granted(&harness.acquire_evicting(&choosing(3), 3, choice()), 3));
}

#[test]
fn token_of_a_former_slot_says_how_the_slot_ended() {
    let mut harness = UserHarness::default();
    let one = policy(1);
    drop(harness.acquire_resumable(&one, 1));
    drop(harness.linger(1));
    harness.second += 100;
    // The command that finds the slot expired is the one that asks for it.
    assert_eq!(details(harness.resume(&one, 2, 1)).resume, Resumption::Failed(NotResumed::Expired));
    let evicting = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..one };
    drop(harness.acquire_resumable(&evicting, 3));
    harness.record = stored(&harness.record);
    let failed = |harness: &mut UserHarness, number, key| details(harness.resume(&policy(9), number, key)).resume;
    assert_eq!(failed(&mut harness, 4, 200), Resumption::Failed(NotResumed::Taken), "session 2 was evicted");
    assert_eq!(failed(&mut harness, 5, 1), Resumption::Failed(NotResumed::Expired));
    assert_eq!(failed(&mut harness, 6, 77), Resumption::Failed(NotResumed::Unknown));
    // A slot that its own session gave back is not remembered: its client knows.
    drop(harness.acquire_resumable(&policy(9), 7));
    drop(harness.release(7));
    assert_eq!(failed(&mut harness, 8, 7), Resumption::Failed(NotResumed::Unknown));
}

#[test]
fn record_remembers_few_former_slots() {
    let mut harness = UserHarness::default();
    let evicting = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) };
    for number in 1..=20 {
        drop(harness.acquire_resumable(&evicting, number));
    }
    assert_eq!(harness.record.former().len(), UserRecord::MAX_FORMER);
    let known = |number, key| details(harness.clone().resume(&policy(9), number, key)).resume;
    assert_eq!(known(30, 19), Resumption::Failed(NotResumed::Taken));
    assert_eq!(known(30, 11), Resumption::Failed(NotResumed::Unknown), "the oldest are forgotten");
    // It keeps no record by itself.
    drop(harness.release(20));
    assert!(harness.record.is_empty());
}

#[test]
fn session_that_must_resume_takes_no_other_slot() {
    let mut harness = UserHarness::default();
    drop(harness.acquire_resumable(&policy(3), 1));
    let must = |shown| AcquireOptions {
        resume: Some(key(shown)),
        new_resume_key: Some(key(200)),
        evict: Some(Evict::Oldest),
        must_resume: true,
        ..AcquireOptions::default()
    };
    let before = harness.record.clone();
    let evicting = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..choosing(1) };
    let denied = usage(harness.acquire(&evicting, id(2), Some(must(9))));
    assert_eq!(denied.denied, Some(DenyReason::NotResumed(NotResumed::Unknown)));
    assert_eq!(harness.record, before);
    assert_eq!(details(harness.acquire(&evicting, id(2), Some(must(1)))).resume, Resumption::Resumed);
    // Without a token there is nothing to resume.
    let none = AcquireOptions { resume: None, ..must(1) };
    assert!(is_granted(&harness.acquire(&policy(3), id(3), Some(none)), 2));
    // A ban goes first.
    let denied = usage(harness.acquire(&policy(0), id(4), Some(must(9))));
    assert_eq!(denied.denied, Some(DenyReason::LimitReached));
}

#[test]
fn two_clients_with_one_token_are_told() {
    let mut harness = UserHarness::default();
    drop(harness.acquire_resumable(&policy(1), 1));
    let moved = |harness: &mut UserHarness, number| {
        drop(harness.resume(&policy(1), number, 1));
        harness.ended.first().map(|ended| ended.reason.clone())
    };
    assert_eq!(moved(&mut harness, 2), Some(EndReason::Resumed));
    harness.record = stored(&harness.record);
    assert_eq!(moved(&mut harness, 3), Some(EndReason::Contested), "the second time within a moment");
    harness.second += 10;
    assert_eq!(moved(&mut harness, 4), Some(EndReason::Resumed), "later it is a client that comes back");
    // A slot that lingers has nobody who contests it.
    drop(harness.linger(4));
    assert_eq!(moved(&mut harness, 5), None);
    assert_eq!(moved(&mut harness, 6), Some(EndReason::Contested));
}

#[test]
fn full_device_is_the_reason_for_its_own_sessions() {
    let mut harness = UserHarness::default();
    let devices = AdmissionPolicy {
        count_by: session_core::ledger::CountBy::Devices,
        sessions_per_device: std::num::NonZeroU16::new(1).unwrap(),
        when_full: WhenFull::EvictOldest,
        ..policy(1)
    };
    drop(harness.acquire_on_device(&devices, 1, "laptop"));
    drop(harness.acquire_on_device(&devices, 2, "laptop"));
    let laptop = || SessionNames::new(name("laptop").as_ref(), None);
    assert_eq!(harness.ended, [ended(1, EndReason::DeviceFull(laptop()))]);
    drop(harness.acquire_on_device(&devices, 3, "phone"));
    assert_eq!(harness.ended, [ended(2, EndReason::TakenOver(SessionNames::new(name("phone").as_ref(), None)))]);
}

/// A limit that was lowered makes one newcomer evict many.
#[test]
fn grant_names_few_of_many_evicted_sessions() {
    let mut harness = UserHarness::default();
    for number in 1..=150 {
        drop(harness.acquire_resumable(&policy(150), number));
    }
    let evicting = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) };
    let options = AcquireOptions { new_resume_key: Some(key(200)), ..AcquireOptions::default() };
    let grant = details(harness.acquire(&evicting, id(200), Some(options)));
    assert_eq!((grant.evicted.len(), harness.ended.len()), (SlotUsage::MAX_SHOWN, 150));
}
