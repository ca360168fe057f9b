//! Slots that linger, and how they are resumed.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::SlotId;
use session_core::Timestamp;
use session_core::ledger::Resumption;
use session_core::ledger::{AcquireOptions, GrantDetails, KnownToken, StoreCommand};
use session_core::ledger::{AdmissionPolicy, EndReason, Evict, Outcome, SessionStatus, StoreError, WhenFull};

use super::one_user::*;

#[test]
fn grant_with_options_states_limit_and_linger() {
    let mut harness = UserHarness::default();
    let grant = |number, since, linger, resume| {
        let slot = SlotId::new(id(number));
        Some(Box::new(GrantDetails { limit: limit(2), linger, slot, since, resume, evicted: [].into() }))
    };
    let Outcome::Granted { grant: first, .. } = harness.acquire_resumable(&policy(2), 1) else {
        panic!("there is room")
    };
    assert_eq!(first, grant(1, harness.record.sessions()[0].since, LINGER, Resumption::NotAsked));
    let finer = AdmissionPolicy { linger: Duration::from_nanos(5_999_999), ..policy(2) };
    let Outcome::Granted { grant: second, .. } = harness.acquire_resumable(&finer, 2) else { panic!("there is room") };
    let (first_since, second_since) = (harness.record.sessions()[0].since, harness.record.sessions()[1].since);
    assert_eq!(second, grant(2, second_since, Duration::from_millis(5), Resumption::NotAsked));
    // The grace period is that of the first grant, and so are the name of the slot and its age.
    let Outcome::Granted { grant: resumed, .. } = harness.resume(&finer, 3, 1) else { panic!("it may") };
    assert_eq!(resumed, grant(1, first_since, LINGER, Resumption::Resumed));
    // A longer grace period is cut to what a record can store.
    let longest = Duration::from_millis(u32::MAX.into());
    let long = AdmissionPolicy { linger: Duration::MAX, ..policy(9) };
    let Outcome::Granted { grant: Some(fourth), .. } = harness.acquire_resumable(&long, 4) else {
        panic!("there is room")
    };
    assert_eq!(fourth.linger, longest);
}

#[test]
fn lost_session_lingers_until_its_deadline() {
    let mut harness = UserHarness::default();
    let full = AdmissionPolicy { lingering_first: false, ..policy(1) };
    drop(harness.acquire_resumable(&full, 1));
    assert_eq!(harness.linger(1), Outcome::Released);
    let until = at(harness.second) + LINGER;
    assert_eq!(harness.record.sessions()[0].status, SessionStatus::Lingering { until });
    assert_eq!(harness.list(&full).free_at, Some(until));
    // A second `Linger` does not extend the grace period.
    assert_eq!(harness.linger(1), Outcome::Released);
    assert_eq!(harness.record.sessions()[0].status, SessionStatus::Lingering { until });
    assert!(is_denied(&harness.acquire_plain(&full, 2)));
    let moment = Duration::from_millis(1);
    assert_eq!(harness.clone().count_at(&full, Timestamp::from_epoch(until.since_epoch().saturating_sub(moment))), 1);
    assert_eq!(harness.clone().count_at(&full, until), 0);
    // A release ends the lingering.
    let mut released = harness.clone();
    assert_eq!((released.release(1), released.session_numbers()), (Outcome::Released, vec![]));
    harness.second = until.since_epoch().as_secs();
    assert_eq!(harness.acquire_plain(&full, 2), granted(1));
    assert_eq!(
        (harness.session_numbers(), harness.notified()),
        (vec![2], vec![]),
        "a lingering session is not notified"
    );
}

#[test]
fn session_without_resume_key_does_not_linger() {
    let mut harness = UserHarness::default();
    drop(harness.acquire_plain(&policy(3), 1));
    drop(harness.acquire_resumable(&AdmissionPolicy { linger: Duration::ZERO, ..policy(3) }, 2));
    drop(harness.acquire(&policy(3), id(3), Some(AcquireOptions { label: name("x"), ..AcquireOptions::default() })));
    for number in 1..=3 {
        assert_eq!(harness.linger(number), Outcome::Released);
    }
    assert_eq!(harness.session_numbers(), [0; 0]);
    assert_eq!(harness.linger(7), Outcome::Released, "an unknown session neither");
}

#[test]
fn lingering_slots_are_evicted_first_earliest_deadline_first() {
    let mut harness = UserHarness::default();
    (1..=4).for_each(|number| drop(harness.acquire_resumable(&policy(4), number)));
    drop(harness.linger(3));
    drop(harness.linger(1));
    assert_eq!(harness.acquire_plain(&policy(4), 5), granted(4));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![1, 2, 4, 5], vec![]));
    // Lingering slots are evicted before live ones, by rule and by choice.
    assert_eq!(harness.acquire_plain(&evict_oldest_policy(4), 6), granted(4));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![2, 4, 5, 6], vec![]));
    drop(harness.linger(2));
    assert!(is_granted(&harness.acquire_evicting(&client_choice_policy(4), 7, Evict::Sessions([id(4)].into())), 4));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![4, 5, 6, 7], vec![]));
    // Together with the chosen session, if more are necessary.
    drop(harness.acquire_resumable(&policy(9), 8));
    drop(harness.linger(8));
    assert!(is_granted(
        &harness.acquire_evicting(&client_choice_policy(4), 9, Evict::Sessions([id(6), id(8)].into())),
        4
    ));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![4, 5, 7, 9], vec![6]));

    let last = AdmissionPolicy { lingering_first: false, ..policy(1) };
    let mut harness = UserHarness::default();
    drop(harness.acquire_resumable(&last, 1));
    drop(harness.linger(1));
    assert!(is_denied(&harness.acquire_plain(&last, 2)));
    assert_eq!(harness.acquire_plain(&AdmissionPolicy { when_full: WhenFull::EvictOldest, ..last }, 2), granted(1));
    assert_eq!(harness.notified(), [0; 0]);
}

#[test]
fn evict_nobody_spares_lingering_slots() {
    let mut harness = UserHarness::default();
    drop(harness.acquire_resumable(&evict_oldest_policy(2), 1));
    drop(harness.linger(1));
    drop(harness.acquire_plain(&evict_oldest_policy(2), 2));
    assert!(is_denied(&harness.acquire_evicting(&evict_oldest_policy(2), 3, Evict::Nobody)));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![1, 2], vec![]));

    // Also not one of its own device when that is full.
    let policy = AdmissionPolicy { sessions_per_device: 1.try_into().unwrap(), ..devices_policy(2) };
    let mut harness = UserHarness::default();
    drop(harness.acquire_on_device(&policy, 1, "laptop"));
    drop(harness.linger(1));
    let options = |evict| Some(AcquireOptions { device: name("laptop"), evict, ..AcquireOptions::default() });
    assert!(is_denied(&harness.acquire(&policy, id(2), options(Some(Evict::Nobody)))));
    assert!(is_granted(&harness.acquire(&policy, id(2), options(None)), 1));
}

#[test]
fn resume_moves_a_slot_and_adds_none() {
    let full = AdmissionPolicy { lingering_first: false, ..policy(2) };
    let mut harness = UserHarness::default();
    drop(harness.acquire(
        &full,
        id(1),
        Some(AcquireOptions { new_resume_key: Some(key(1)), label: name("old"), ..AcquireOptions::default() }),
    ));
    drop(harness.acquire_plain(&full, 2));
    let since = harness.record.sessions()[0].since;

    // From a live session.
    assert!(is_granted(&harness.resume(&full, 3, 1), 2));
    assert_eq!((harness.session_numbers(), &*harness.ended), (vec![3, 2], &[ended(1, EndReason::Resumed)][..]));
    // Later commands of the old session have no effect.
    assert_eq!((harness.linger(1), harness.release(1)), (Outcome::Released, Outcome::Released));
    assert_eq!(harness.session_numbers(), [3, 2]);
    // From a lingering session, again with the same token, also with a lower limit and another policy.
    drop(harness.linger(3));
    assert!(is_granted(&harness.resume(&policy(1), 4, 1), 2));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![4, 2], vec![]));
    let entry = &harness.record.sessions()[0];
    assert_eq!((entry.status, entry.since, entry.label()), (SessionStatus::Live, since, name("old").as_ref()));
    assert_eq!(entry.resumable().unwrap().key, key(1), "the token stays with its slot");
    // The label may change. A resume with another device is denied: it could share the slot of that device.
    let options =
        |device| Some(AcquireOptions { resume: Some(key(1)), label: name("new"), device, ..AcquireOptions::default() });
    assert!(is_denied(&harness.acquire(&full, id(5), options(name("other")))));
    assert!(is_granted(&harness.acquire(&full, id(5), options(None)), 2));
    let mut named = UserHarness::default();
    drop(named.acquire_on_device(&full, 1, "laptop"));
    for number in 2..4 {
        let options = AcquireOptions { resume: Some(key(1)), device: name("laptop"), ..AcquireOptions::default() };
        assert!(is_granted(&named.acquire(&full, id(number), Some(options)), 1));
        assert_eq!(named.session_numbers(), [number]);
    }
    let entry = &harness.record.sessions()[0];
    assert_eq!((entry.label(), entry.device()), (name("new").as_ref(), None));

    // A wrong token counts as none.
    assert!(is_denied(&harness.resume(&full, 6, 9)));
    drop(harness.release(2));
    assert!(is_granted(&harness.resume(&full, 6, 9), 2));
    assert_eq!(harness.record.sessions()[1].resumable().unwrap().key, key(200));
    // So does the token of an ended or lapsed session. A limit of 0 denies every resume.
    assert!(is_denied(&harness.resume(&policy(0), 7, 1)));
    drop(harness.release(5));
    assert!(is_granted(&harness.resume(&full, 7, 1), 2));
    assert_eq!(harness.session_numbers(), [6, 7]);
    drop(harness.linger(6));
    harness.second += 10;
    assert!(is_granted(&harness.acquire_resumable(&full, 8), 2));
    assert_eq!(harness.session_numbers(), [7, 8], "session 6 has lapsed");
}

#[test]
fn slots_of_a_dead_node_linger_from_detection() {
    let policy = AdmissionPolicy { lingering_first: false, ..policy(9) };
    let mut harness = UserHarness::default();
    let client_info =
        |number: u8| Some(AcquireOptions { new_resume_key: Some(key(number)), ..AcquireOptions::default() });
    drop(harness.acquire(&policy, THERE.session(1), client_info(1)));
    drop(harness.acquire(&policy, THERE.session(2), client_info(2)));
    drop(harness.acquire(&policy, THERE.session(3), None));
    drop(harness.acquire(&policy, HERE.session(4), client_info(4)));
    let until = Timestamp::from_epoch(Duration::from_millis(9_500));
    drop(harness.apply(
        &policy,
        &StoreCommand::Linger {
            user: user(),
            session: THERE.session(2),
            at: Timestamp::default(),
            token: KnownToken::Granted,
        },
    ));
    harness.dead.insert(THERE, at(20));
    // The lingering session keeps its deadline, whether or not the clock was right.
    assert_eq!(harness.clone().count_at(&policy, until), 3);
    assert_eq!(harness.count_at(&policy, at(29)), 2);
    assert_eq!(harness.record.sessions()[0].status, SessionStatus::Lingering { until: at(20) + LINGER });
    let outcome = harness.acquire(&policy, THERE.session(9), client_info(9));
    assert_eq!(outcome, Outcome::Rejected(StoreError::Failed), "a dead node's session acquires nothing");
    harness.second = 29;
    assert!(is_granted(&harness.clone().resume(&policy, 5, 1), 2), "in the last second");
    assert_eq!(harness.count_at(&policy, at(30)), 1);
}

#[test]
fn clock_ahead_does_not_lengthen_the_linger() {
    let mut harness = UserHarness::default();
    assert!(is_granted(&harness.acquire_resumable(&policy(1), 1), 1));
    harness.second = 1_000_000;
    drop(harness.linger(1));
    harness.second = 20;
    assert_eq!(harness.count(&policy(1)), 1);
    harness.dead.insert(HERE, at(20));
    assert_eq!(harness.count(&policy(1)), 1);
    assert_eq!(harness.record.sessions()[0].status, SessionStatus::Lingering { until: at(20) + LINGER });
    assert_eq!(harness.count_at(&policy(1), at(20) + LINGER), 0);
}

/// An acquire that showed a void token, and whose answer came too late, left a slot that nobody could take up again.
#[test]
fn slot_whose_token_no_client_has_is_released() {
    let last = AdmissionPolicy { lingering_first: false, ..policy(1) };
    let lost_after_showing = |harness: &mut UserHarness, number: u64, shown: u8| {
        let (at, token) = (harness.next_second(), KnownToken::Shown(Box::new(key(shown))));
        harness.apply(&last, &StoreCommand::Linger { user: user(), session: id(number), at, token })
    };
    let mut harness = UserHarness::default();
    assert!(is_granted(&harness.resume(&last, 1, 9), 1), "the token is void, so this is a new slot");
    assert_eq!(lost_after_showing(&mut harness, 1, 9), Outcome::Released);
    assert_eq!(harness.session_numbers(), [0; 0]);
    // With the token that it has, the client can resume the slot.
    assert!(is_granted(&harness.acquire_resumable(&last, 2), 1));
    drop(harness.linger(2));
    assert!(is_granted(&harness.resume(&last, 3, 2), 1));
    assert_eq!(lost_after_showing(&mut harness, 3, 2), Outcome::Released);
    assert_eq!(harness.session_numbers(), [3]);
    assert!(is_granted(&harness.resume(&last, 4, 2), 1));
    // Nor does a slot linger that has no token at all.
    drop(harness.release(4));
    assert!(is_granted(&harness.acquire_plain(&last, 5), 1));
    assert_eq!(lost_after_showing(&mut harness, 5, 9), Outcome::Released);
    assert_eq!(harness.session_numbers(), [0; 0]);
}
