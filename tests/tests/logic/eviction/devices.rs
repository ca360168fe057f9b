//! Limits that count devices.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use session_core::ledger::DenyReason;
use session_core::ledger::{AcquireOptions, EndTarget, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, CountBy, EndReason, Evict, Outcome, RenewalDenied, SessionStatus, UserOverrides, WhenFull,
};

use super::one_user::*;

#[test]
fn sessions_of_one_device_share_one_slot() {
    let policy = devices_policy(2);
    let mut harness = UserHarness::default();
    for (number, device, outcome) in [(1, "laptop", 1), (2, "laptop", 1), (3, "phone", 2), (4, "laptop", 2)] {
        assert!(is_granted(&harness.acquire_on_device(&policy, number, device), outcome));
    }
    // A fourth session of the device is denied although a slot is free.
    let Outcome::Denied(Some(usage)) = harness.acquire_on_device(&policy, 5, "laptop") else { panic!("it is full") };
    assert_eq!((usage.denied, usage.slots), (Some(DenyReason::DeviceFull), 2));
    assert!(usage.client_choice && usage.free_at.is_none());
    // A choice or `evict-oldest` ends only sessions of the same device.
    for (evict, allowing, then) in [
        (Some(Evict::Sessions([id(2)].into())), policy, Some(vec![1, 3, 4, 9])),
        (Some(Evict::Sessions([id(3), id(4), id(1)].into())), policy, Some(vec![1, 2, 3, 9])),
        (Some(Evict::Oldest), policy, Some(vec![2, 3, 4, 9])),
        (None, AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy }, Some(vec![2, 3, 4, 9])),
        (Some(Evict::Sessions([id(3)].into())), policy, None),
        (Some(Evict::Oldest), AdmissionPolicy { client_choice: false, ..policy }, None),
        (Some(Evict::Nobody), AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy }, None),
    ] {
        let mut harness = harness.clone();
        let outcome = harness.acquire(
            &allowing,
            id(9),
            Some(AcquireOptions { device: name("laptop"), evict, ..AcquireOptions::default() }),
        );
        assert_eq!(is_granted(&outcome, 2), then.is_some(), "{outcome:?}");
        assert_eq!(harness.session_numbers(), then.unwrap_or_else(|| vec![1, 2, 3, 4]));
    }
    // Also if the limit per device was higher when they were admitted.
    let lower = AdmissionPolicy { sessions_per_device: 2.try_into().unwrap(), ..policy };
    let mut crowded = harness.clone();
    let options = AcquireOptions { device: name("laptop"), evict: Some(Evict::Oldest), ..AcquireOptions::default() };
    assert!(is_granted(&crowded.acquire(&lower, id(9), Some(options)), 2));
    assert_eq!((crowded.session_numbers(), crowded.notified()), (vec![3, 4, 9], vec![1, 2]));
    let Outcome::Denied(Some(usage)) = harness.acquire_on_device(&policy, 5, "tablet") else { panic!("it is full") };
    assert_eq!((usage.denied, usage.client_choice), (Some(DenyReason::LimitReached), true));
    let Outcome::Denied(Some(usage)) = harness.acquire_on_device(&devices_policy(0), 5, "tablet") else {
        panic!("it is full")
    };
    assert!(!usage.client_choice, "a limit of 0 evicts no session");
    // A lingering session of the same device is evicted, the one with the earliest deadline.
    let mut reloaded = harness.clone();
    drop(reloaded.linger(4));
    drop(reloaded.linger(2));
    let last = AdmissionPolicy { lingering_first: false, ..policy };
    let Outcome::Denied(Some(usage)) = reloaded.acquire_on_device(&last, 9, "laptop") else { panic!("it is full") };
    assert_eq!(
        usage.free_at,
        usage
            .sessions
            .iter()
            .filter_map(|entry| match entry.status {
                SessionStatus::Live => None,
                SessionStatus::Lingering { until } => Some(until),
            })
            .min()
    );
    assert!(is_granted(&reloaded.acquire_on_device(&policy, 9, "laptop"), 2));
    assert_eq!((reloaded.session_numbers(), reloaded.notified()), (vec![1, 2, 3, 9], vec![]));
    // A session without a device has its own slot.
    assert_eq!(harness.acquire_plain(&policy, 5), Outcome::Denied(None));
    assert_eq!(harness.count(&AdmissionPolicy { count_by: CountBy::Sessions, ..policy }), 4);
    // The slot is free when its last session has ended.
    drop(harness.release(1));
    drop(harness.release(2));
    assert!(is_denied(&harness.acquire_on_device(&policy, 5, "tablet")));
    drop(harness.linger(4));
    assert_eq!(harness.count(&policy), 2, "the last one lingers");
    assert!(is_granted(&harness.acquire_on_device(&policy, 6, "laptop"), 2), "another session of the device joins it");
    drop(harness.release(6));
    assert!(
        is_granted(&harness.acquire_on_device(&policy, 7, "tablet"), 2),
        "it is evicted when all its sessions linger"
    );
    assert_eq!(harness.session_numbers(), [3, 7]);

    // Evicting one session evicts all of its device.
    drop(harness.acquire_on_device(&policy, 8, "tablet"));
    let chosen = Evict::Sessions([id(8)].into());
    assert!(is_granted(&harness.acquire_evicting(&policy, 9, chosen), 2));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![3, 9], vec![7, 8]));
}

#[test]
fn session_ceiling_holds_when_devices_count() {
    let policy = AdmissionPolicy { sessions_per_device: 1024.try_into().unwrap(), ..devices_policy(1024) };
    let mut harness = UserHarness::default();
    let join = |harness: &mut UserHarness, number: u64, evict| {
        let options = AcquireOptions { device: name(&format!("{}", number % 7)), evict, ..AcquireOptions::default() };
        harness.acquire(&policy, id(number), Some(options))
    };
    for number in 1..=1024 {
        assert!(matches!(join(&mut harness, number, None), Outcome::Granted { .. }));
    }
    assert_eq!(harness.count(&policy), 7);
    assert!(is_denied(&join(&mut harness, 1025, None)));
    assert!(is_denied(&harness.acquire(
        &policy,
        id(2000),
        Some(AcquireOptions { device: name("new"), ..AcquireOptions::default() })
    )));
    // At the ceiling a new session evicts a whole slot.
    assert!(is_granted(&harness.acquire_evicting(&policy, 1026, Evict::Oldest), 7));
    assert_eq!(harness.notified().len(), 147);
}

#[test]
fn ended_session_takes_its_whole_device_along() {
    let policy = devices_policy(3);
    let mut harness = UserHarness::default();
    for (number, device) in [(1, "laptop"), (2, "phone"), (3, "phone"), (4, "laptop"), (5, "phone")] {
        drop(harness.acquire_on_device(&policy, number, device));
    }
    drop(harness.acquire_plain(&policy, 6));
    drop(harness.linger(5));
    let one = |number| EndTarget::One(id(number));
    let mut by_operator = harness.clone();
    assert_eq!(by_operator.end(&policy, 0, one(4), EndReason::ByOperator), [1, 4]);
    assert_eq!(by_operator.count(&policy), 2);
    // The slot is free, and who only lingered is not notified.
    let mut by_laptop = harness.clone();
    assert_eq!(by_laptop.end(&policy, 1, one(3), EndReason::ByUser(None)), [2, 3, 5]);
    assert_eq!((by_laptop.notified(), by_laptop.count(&policy)), (vec![2, 3], 2));
    // On the asker's own device, which keeps its slot, it is the session alone.
    assert_eq!(harness.clone().end(&policy, 2, one(3), EndReason::ByUser(None)), [3]);
    assert_eq!(harness.clone().end(&policy, 2, one(6), EndReason::ByUser(None)), [6], "one without a device");
    assert_eq!(
        harness.end(&AdmissionPolicy { count_by: CountBy::Sessions, ..policy }, 1, one(3), EndReason::ByUser(None)),
        [3]
    );
}

/// One borrowed token put a device into the slot of another for good: only the user was compared.
#[test]
fn renewal_needs_the_device_of_the_slot_and_a_limit() {
    let policy = devices_policy(3);
    let mut harness = UserHarness::default();
    drop(harness.acquire_on_device(&policy, 1, "laptop"));
    drop(harness.acquire_on_device(&policy, 2, "phone"));
    drop(harness.acquire_plain(&policy, 3));
    let renew = |harness: &mut UserHarness, policy: &AdmissionPolicy, number, claim: Option<u32>, device| {
        let (limit, device, at) = (claim.map(limit), device, harness.next_second());
        harness.apply(policy, &StoreCommand::Renew { user: user(), session: id(number), limit, device, at })
    };
    let renewed = Outcome::Counted { slots: 3 };
    let [banned, other] = [RenewalDenied::Banned, RenewalDenied::AnotherDevice].map(Outcome::NotRenewed);
    let overridden = |slots| policy.with_overrides(UserOverrides { limit: Some(limit(slots)), when_full: None });
    for (policy, number, claim, device, expected) in [
        (policy, 1, None, name("laptop"), &renewed),
        (policy, 1, None, name("phone"), &other),
        (policy, 1, None, name("tablet"), &other),
        // A token without a device is of any.
        (policy, 1, Some(1), None, &renewed),
        // A slot without a device is of none that a token names.
        (policy, 3, None, name("laptop"), &other),
        (policy, 3, None, None, &renewed),
        // Also where devices do not count.
        (AdmissionPolicy { count_by: CountBy::Sessions, ..policy }, 2, None, name("laptop"), &other),
        // A lower limit ends no session, so it does not keep one from going on. A limit of 0 does.
        (policy, 1, Some(1), name("laptop"), &renewed),
        (policy, 1, Some(0), name("laptop"), &banned),
        (devices_policy(0), 1, None, name("laptop"), &banned),
        (devices_policy(0), 1, Some(1), name("laptop"), &renewed),
        // The override has priority over the token, as for a new session.
        (overridden(2), 1, Some(0), name("laptop"), &renewed),
        (overridden(0), 1, Some(2), name("laptop"), &banned),
        // A session that lost its slot is about to hear of that.
        (policy, 9, None, name("laptop"), &renewed),
    ] {
        let before = harness.record.clone();
        let answer = renew(&mut harness, &policy, number, claim, device.clone());
        assert_eq!(answer, *expected, "{number} {claim:?} {device:?}");
        let renewed_is = |answer: &Outcome| *answer == renewed;
        // The record shows the claim of a token that the session goes on with.
        let mut expected = before.clone().into_sessions();
        if let Some(own) = expected.iter_mut().find(|entry| entry.session == id(number) && renewed_is(&answer)) {
            own.claim = claim.map(limit);
        }
        assert_eq!(harness.record.sessions(), expected);
    }
}
