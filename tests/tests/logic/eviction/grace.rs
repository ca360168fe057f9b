//! A slot that was just lost is kept for its client.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::Timestamp;
use session_core::ledger::{AcquireOptions, StoreCommand};
use session_core::ledger::{AdmissionPolicy, Evict, Outcome, WhenFull};

use super::one_user::*;

const GRACE: Duration = Duration::from_secs(5);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Lost slots linger for ten seconds, and are kept for five.
fn grace_policy(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { linger_grace: GRACE, ..policy(slots) }
}

/// A user whose sessions 1 to `sessions` have all been lost. The last loss is at this second.
fn all_lost(policy: &AdmissionPolicy, sessions: u64) -> UserHarness {
    let mut harness = UserHarness::default();
    (1..=sessions).for_each(|number| drop(harness.acquire_resumable(policy, number)));
    (1..=sessions).for_each(|number| drop(harness.linger(number)));
    assert_eq!(harness.session_numbers(), (1..=sessions).collect::<Vec<_>>());
    harness
}

/// When a client without wishes that is denied now is told to come back.
fn told_to_retry(harness: &UserHarness, policy: &AdmissionPolicy) -> Option<Timestamp> {
    let Outcome::Denied(usage) = harness.clone().acquire(policy, id(100), Some(AcquireOptions::default())) else {
        panic!("it was not denied")
    };
    usage.unwrap().free_at
}

/// Moves the clock so that the next command is at this second.
fn next_at(mut harness: UserHarness, second: u64) -> UserHarness {
    harness.second = second - 1;
    harness
}

#[test]
fn just_lost_slot_is_kept_for_its_grace() {
    let policy = grace_policy(2);
    let harness = all_lost(&policy, 2);
    let (first, last) = (at(harness.second - 1), at(harness.second));
    assert_eq!(told_to_retry(&harness, &policy), Some(first + GRACE), "the one that was lost first");
    let asks_at = |moment| {
        let mut harness = harness.clone();
        let acquire = StoreCommand::Acquire { user: user(), session: id(9), limit: None, at: moment, options: None };
        let is_granted = matches!(harness.apply(&policy, &acquire), Outcome::Granted { .. });
        (is_granted, harness.session_numbers())
    };
    let before = |moment: Timestamp| Timestamp::from_epoch(moment.since_epoch() - MILLISECOND);
    assert_eq!(asks_at(before(first + GRACE)), (false, vec![1, 2]));
    assert_eq!(asks_at(first + GRACE), (true, vec![2, 9]));
    assert_eq!(asks_at(last + GRACE), (true, vec![2, 9]), "lingering slots go as before, the one that lapses first");
    // Its own client has it back at any time.
    for (second, resumed) in [(5, 1), (5, 2), (8, 1), (9, 2)] {
        let mut harness = next_at(harness.clone(), second);
        assert!(is_granted(&harness.resume(&policy, 9, resumed), 2), "at {second}");
        assert!(!harness.session_numbers().contains(&resumed.into()));
    }
    // A plain client is denied as well.
    assert_eq!(next_at(harness, 5).acquire_plain(&policy, 9), Outcome::Denied(None));
}

#[test]
fn just_lost_slot_goes_to_a_client_that_names_it() {
    let choice = AdmissionPolicy { client_choice: true, ..grace_policy(2) };
    let named = || Evict::Sessions([id(2)].into());
    let mut harness = all_lost(&choice, 2);
    assert!(is_granted(&harness.clone().acquire_evicting(&choice, 9, named()), 2));
    // Without permission to choose, it names nothing.
    assert!(is_denied(&harness.clone().acquire_evicting(&grace_policy(2), 9, named())));
    // The oldest is not a name, but it is a choice: some slot has to go.
    assert!(is_denied(&harness.clone().acquire_evicting(&grace_policy(2), 9, Evict::Oldest)));
    assert!(is_granted(&harness.acquire_evicting(&choice, 9, Evict::Oldest), 2));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![2, 9], vec![]));
}

#[test]
fn evict_oldest_ends_just_lost_slots_last() {
    let oldest = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..grace_policy(3) };
    let mut harness = UserHarness::default();
    (1..=3).for_each(|number| drop(harness.acquire_resumable(&oldest, number)));
    drop(harness.linger(1));
    // A live session is older than the others, and hears of its end. One that came back would not.
    assert_eq!(harness.acquire_plain(&oldest, 4), granted(3));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![1, 3, 4], vec![2]));
    assert!(is_granted(&harness.clone().resume(&oldest, 5, 1), 3));
    // After the grace, a lingering slot goes first.
    let mut later = next_at(harness.clone(), 9);
    assert_eq!(later.acquire_plain(&oldest, 5), granted(3));
    assert_eq!((later.session_numbers(), later.notified()), (vec![3, 4, 5], vec![]));
    // Nobody is ever denied: if all have just been lost, the oldest goes.
    let mut lost = all_lost(&oldest, 3);
    assert_eq!(lost.acquire_plain(&oldest, 9), granted(3));
    assert_eq!((lost.session_numbers(), lost.notified()), (vec![2, 3, 9], vec![]));
    // The client whose slot it was takes that of a live session, which hears of it: no sibling's that is on its way back.
    assert!(is_granted(&lost.resume(&oldest, 10, 1), 3));
    assert_eq!((lost.session_numbers(), lost.notified()), (vec![2, 3, 10], vec![9]));
}

#[test]
fn evict_oldest_spares_just_lost_slots_without_lingering_first() {
    let oldest = AdmissionPolicy { when_full: WhenFull::EvictOldest, lingering_first: false, ..grace_policy(2) };
    let mut harness = UserHarness::default();
    (1..=2).for_each(|number| drop(harness.acquire_resumable(&oldest, number)));
    drop(harness.linger(1));
    let mut later = next_at(harness.clone(), 8);
    assert_eq!((later.acquire_plain(&oldest, 3), later.session_numbers()), (granted(2), vec![2, 3]));
    assert_eq!((harness.acquire_plain(&oldest, 3), harness.session_numbers()), (granted(2), vec![1, 3]));
}

#[test]
fn zero_grace_keeps_no_slot() {
    let none = AdmissionPolicy { linger_grace: Duration::ZERO, serving_since: at(1_000), ..policy(2) };
    let mut harness = all_lost(&none, 2);
    assert_eq!(harness.acquire_plain(&none, 9), granted(2));
    assert_eq!(harness.session_numbers(), [2, 9]);
}

#[test]
fn grace_ends_with_the_linger() {
    let long = AdmissionPolicy { linger_grace: Duration::from_secs(60), ..policy(1) };
    let harness = all_lost(&long, 1);
    let until = at(harness.second) + LINGER;
    assert_eq!(told_to_retry(&harness, &long), Some(until));
    assert!(is_denied(&next_at(harness.clone(), 11).acquire_plain(&long, 9)));
    assert_eq!(next_at(harness, 12).acquire_plain(&long, 9), granted(1));
}

#[test]
fn denied_client_hears_the_earliest_time() {
    let first = grace_policy(2);
    let harness = all_lost(&first, 2);
    let times = |policy: &AdmissionPolicy| told_to_retry(&harness, policy).map(|at| at.since_epoch().as_secs());
    assert_eq!(times(&first), Some(8));
    assert_eq!(times(&AdmissionPolicy { lingering_first: false, ..first }), Some(13), "when the first one lapses");
    assert_eq!(times(&AdmissionPolicy { limit: limit(1), ..first }), Some(9), "two have to go");
    assert_eq!(times(&AdmissionPolicy { limit: limit(0), ..first }), None);
    // One that spares lingering slots waits until they lapse.
    let options = AcquireOptions { evict: Some(Evict::Nobody), ..AcquireOptions::default() };
    let Outcome::Denied(usage) = harness.clone().acquire(&first, id(9), Some(options)) else { panic!("it is full") };
    assert_eq!(usage.unwrap().free_at, Some(at(13)));
    // A live session keeps its slot.
    let mut resumed = harness.clone();
    assert!(is_granted(&resumed.resume(&first, 3, 1), 2));
    assert_eq!(told_to_retry(&resumed, &first), Some(at(9)));
}

#[test]
fn slot_of_a_device_is_lost_with_its_last_session() {
    let devices = AdmissionPolicy { linger_grace: GRACE, ..devices_policy(1) };
    let mut harness = UserHarness::default();
    (1..=3).for_each(|number| drop(harness.acquire_on_device(&devices, number, "laptop")));
    drop(harness.linger(1));
    harness.second = 6;
    drop(harness.linger(2));
    assert_eq!(told_to_retry(&harness, &devices), None, "session 3 lives");
    drop(harness.linger(3));
    assert_eq!(harness.second, 8);
    assert_eq!(told_to_retry(&harness, &devices), Some(at(13)));
    assert!(is_denied(&next_at(harness.clone(), 12).acquire_on_device(&devices, 9, "phone")));
    assert!(is_granted(&next_at(harness.clone(), 13).acquire_on_device(&devices, 9, "phone"), 1));
    // Another session of the device competes only with those, by the same rule.
    let mut shared = next_at(harness, 10);
    assert!(is_granted(&shared.acquire_on_device(&devices, 9, "laptop"), 1));
    assert_eq!(shared.session_numbers(), [2, 3, 9]);
    assert!(is_denied(&shared.acquire_on_device(&devices, 10, "laptop")));
    assert!(is_granted(&shared.acquire_on_device(&devices, 10, "laptop"), 1));
}

#[test]
fn time_without_a_server_does_not_count() {
    let mut harness = all_lost(&grace_policy(1), 1);
    harness.second = 8;
    // The server stopped in good order at second 2, and another one serves since second 9.
    harness.dead.insert(HERE, at(9));
    let restarted = AdmissionPolicy { serving_since: at(9), ..grace_policy(1) };
    let newcomer =
        |second, policy: &AdmissionPolicy| next_at(harness.clone(), second).acquire(policy, THERE.session(9), None);
    assert!(is_denied(&newcomer(9, &restarted)));
    assert_eq!(newcomer(9, &grace_policy(1)), granted(1), "a server that ran all the time");
    // The slot lapses when it would have: a restart makes it linger no longer.
    assert!(is_denied(&newcomer(11, &restarted)));
    assert_eq!(newcomer(12, &restarted), granted(1));
    let longer = AdmissionPolicy { linger: Duration::from_secs(60), ..restarted };
    let mut harness = all_lost(&longer, 1);
    harness.dead.insert(HERE, at(9));
    assert!(is_denied(&next_at(harness.clone(), 13).acquire(&longer, THERE.session(9), None)));
    assert_eq!(next_at(harness, 14).acquire(&longer, THERE.session(9), None), granted(1));
}

#[test]
fn restarts_of_another_server_keep_a_slot_no_longer() {
    let long = AdmissionPolicy { linger: Duration::from_secs(1_000), ..grace_policy(1) };
    let harness = all_lost(&long, 1);
    for second in 3..500 {
        // One server has run all the time. Another one restarts every seven seconds.
        let serving_since = at(second / 7 * 7);
        let restarts = AdmissionPolicy { serving_since, ..long };
        let is_denied_by = |policy| is_denied(&next_at(harness.clone(), second).acquire_plain(policy, 9));
        assert_eq!(is_denied_by(&long), second < 7, "at {second}");
        assert_eq!(is_denied_by(&restarts), second < 7 || second % 7 < 5, "at {second}");
    }
}
