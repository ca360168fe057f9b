//! Which session is ended, and what decides it.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use session_core::ledger::DenyReason;
use session_core::ledger::SlotUsage;
use session_core::ledger::{AcquireOptions, EndTarget, LimitSource, StoreCommand};
use session_core::ledger::{AdmissionPolicy, CountBy, EndReason, Evict, Outcome, UserOverrides, WhenFull};

use tests::values::labelled;

use super::one_user::*;

#[test]
fn most_specific_limit_is_in_force() {
    let with = |overrides: Option<u32>| {
        AdmissionPolicy::new(limit(3)).with_overrides(UserOverrides { limit: overrides.map(limit), when_full: None })
    };
    for (overrides, claim, slots, rule) in [
        (None, None, 3, LimitSource::Server),
        (None, Some(5), 5, LimitSource::Token),
        (None, Some(0), 0, LimitSource::Token),
        (Some(1), None, 1, LimitSource::User),
        (Some(7), Some(5), 7, LimitSource::User),
        (Some(0), Some(5), 0, LimitSource::User),
    ] {
        let claim = claim.map(limit);
        assert_eq!(with(overrides).limit_for(claim), (limit(slots), rule));
        let mut harness = UserHarness::default();
        let granted = (1..=9)
            .filter(|&number| {
                let command =
                    StoreCommand::Acquire { user: user(), session: id(number), limit: claim, at: at(1), options: None };
                matches!(harness.apply(&with(overrides), &command), Outcome::Granted { .. })
            })
            .count();
        assert_eq!(granted, slots as usize, "{overrides:?} {claim:?}");
    }
    let overrides = UserOverrides { limit: None, when_full: Some(WhenFull::Deny) };
    assert_eq!(evict_oldest_policy(1).with_overrides(overrides).effective_when_full(), WhenFull::Deny);
    assert_eq!(
        (evict_oldest_policy(1).effective_when_full(), policy(1).effective_when_full()),
        (WhenFull::EvictOldest, WhenFull::Deny)
    );
}

#[test]
fn evict_oldest_replaces_the_oldest_session() {
    let mut harness = UserHarness::default();
    for number in 1..=3 {
        assert_eq!(harness.acquire_plain(&evict_oldest_policy(3), number), granted(u32::try_from(number).unwrap()));
        assert_eq!(harness.notified(), [0; 0], "there is room");
    }
    assert_eq!(harness.acquire_plain(&evict_oldest_policy(3), 4), granted(3));
    assert_eq!(
        (harness.session_numbers(), &*harness.ended),
        (vec![2, 3, 4], &[ended(1, EndReason::TakenOver(None))][..])
    );
    // A lower limit ends as many sessions as necessary.
    assert_eq!(harness.acquire_plain(&evict_oldest_policy(2), 5), granted(2));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![4, 5], vec![2, 3]));
    assert_eq!(harness.acquire_plain(&evict_oldest_policy(1), 6), granted(1));
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![6], vec![4, 5]));
    // A session that has its slot evicts none.
    assert_eq!(harness.acquire_plain(&evict_oldest_policy(1), 6), granted(1));
    assert_eq!(harness.notified(), [0; 0]);
    // A limit of 0 admits no session, so none is evicted.
    assert_eq!(harness.acquire_plain(&evict_oldest_policy(0), 7), Outcome::Denied(None));
    assert_eq!(harness.session_numbers(), [6]);
    // The override of the user has priority over the server.
    let overrides = UserOverrides { limit: None, when_full: Some(WhenFull::Deny) };
    assert_eq!(harness.acquire_plain(&evict_oldest_policy(1).with_overrides(overrides), 8), Outcome::Denied(None));
}

#[test]
fn client_choice_ends_the_chosen_sessions() {
    let full = |count: u64| {
        let mut harness = UserHarness::default();
        (1..=count).for_each(|number| drop(harness.acquire_plain(&policy(9), number)));
        harness
    };
    let chosen = |numbers: &[u64]| Evict::Sessions(numbers.iter().map(|&number| id(number)).collect());
    for (count, policy, evict, then) in [
        (3, client_choice_policy(3), Evict::Oldest, Some(vec![2, 3, 9])),
        (3, client_choice_policy(3), chosen(&[2]), Some(vec![1, 3, 9])),
        // No more than necessary, in this order.
        (3, client_choice_policy(3), chosen(&[3, 1]), Some(vec![1, 2, 9])),
        (3, client_choice_policy(4), chosen(&[2]), Some(vec![1, 2, 3, 9])),
        (4, client_choice_policy(3), chosen(&[3, 1]), Some(vec![2, 4, 9])),
        (4, client_choice_policy(2), Evict::Oldest, Some(vec![4, 9])),
        // Too few: then none.
        (4, client_choice_policy(3), chosen(&[3]), None),
        (4, client_choice_policy(3), chosen(&[3, 3, 3]), None),
        (3, client_choice_policy(3), chosen(&[7]), None),
        (3, client_choice_policy(3), chosen(&[]), None),
        // Every client may ask for `nobody`.
        (3, client_choice_policy(3), Evict::Nobody, None),
        (3, evict_oldest_policy(3), Evict::Nobody, None),
        (4, evict_oldest_policy(3), Evict::Nobody, None),
        (3, evict_oldest_policy(4), Evict::Nobody, Some(vec![1, 2, 3, 9])),
        // Unknown sessions are ignored.
        (3, client_choice_policy(3), chosen(&[7, 8, 2]), Some(vec![1, 3, 9])),
        // Without `client_choice`.
        (3, policy(3), chosen(&[2]), None),
        (3, policy(3), Evict::Oldest, None),
        (3, client_choice_policy(0), Evict::Oldest, None),
        // A client that names a session does not mean the oldest, which `evict-oldest` would end instead.
        (3, evict_oldest_policy(3), chosen(&[2]), None),
        (3, evict_oldest_policy(3), chosen(&[7]), None),
        (3, evict_oldest_policy(4), chosen(&[2]), Some(vec![1, 2, 3, 9])),
        (3, evict_oldest_policy(3), Evict::Oldest, Some(vec![2, 3, 9])),
        // A permitted choice has priority over it.
        (3, AdmissionPolicy { client_choice: true, ..evict_oldest_policy(3) }, chosen(&[3]), Some(vec![1, 2, 9])),
        (3, AdmissionPolicy { client_choice: true, ..evict_oldest_policy(3) }, chosen(&[7]), None),
    ] {
        let mut harness = full(count);
        let before = harness.record.clone();
        let outcome = harness.acquire_evicting(&policy, 9, evict.clone());
        match &then {
            Some(then) => {
                assert!(is_granted(&outcome, u32::try_from(then.len()).unwrap()), "{evict:?} {outcome:?}");
                assert_eq!(&harness.session_numbers(), then, "{evict:?}");
                let removed: Vec<_> = (1..=count).filter(|number| !then.contains(number)).collect();
                assert_eq!(
                    harness.ended,
                    removed
                        .iter()
                        .map(|&number| ended(number, EndReason::TakenOver(labelled("new"))))
                        .collect::<Vec<_>>()
                );
            }
            None => {
                assert!(is_denied(&outcome), "{evict:?}");
                assert_eq!((&harness.record, harness.notified()), (&before, vec![]), "{evict:?}");
            }
        }
    }
}

#[test]
fn denial_with_options_lists_the_sessions() {
    let mut harness = UserHarness::default();
    drop(harness.acquire_plain(&policy(2), 1));
    drop(harness.acquire_on_device(&policy(2), 2, "laptop"));
    assert_eq!(harness.acquire_plain(&policy(2), 3), Outcome::Denied(None));
    let Outcome::Denied(Some(usage)) = harness.acquire_resumable(&policy(2), 3) else { panic!("it asked") };
    assert_eq!((usage.limit, usage.limit_source, usage.slots), (limit(2), LimitSource::Server, 2));
    assert_eq!((usage.free_at, usage.denied), (None, Some(DenyReason::LimitReached)));
    assert_eq!(&*usage.sessions, harness.record.sessions());
    assert_eq!(SlotUsage { denied: None, ..*usage }, harness.list(&policy(2)));
    let overrides = policy(2).with_overrides(UserOverrides { limit: Some(limit(1)), when_full: None });
    assert_eq!((harness.list(&overrides).limit, harness.list(&overrides).limit_source), (limit(1), LimitSource::User));
}

#[test]
fn session_ceiling_evicts_one_for_one() {
    let unlimited = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1024) };
    for policy in [unlimited, AdmissionPolicy { count_by: CountBy::Devices, ..unlimited }] {
        let mut harness = UserHarness::default();
        (1..=1024).for_each(|number| drop(harness.acquire_plain(&policy, number)));
        assert_eq!(harness.acquire_plain(&policy, 1025), granted(1024));
        assert_eq!((harness.session_numbers().len(), harness.notified()), (1024, vec![1]));
    }
}

#[test]
fn other_sessions_and_operator_end_sessions() {
    let mut harness = UserHarness::default();
    (1..=4).for_each(|number| drop(harness.acquire_resumable(&policy(9), number)));
    drop(harness.acquire(
        &policy(9),
        id(5),
        Some(AcquireOptions { label: name("boss"), new_resume_key: Some(key(5)), ..AcquireOptions::default() }),
    ));
    let one = |number| EndTarget::One(id(number));
    assert_eq!(harness.end(&policy(9), 5, one(2), EndReason::ByUser(None)), [2]);
    assert_eq!(harness.ended, [ended(2, EndReason::ByUser(labelled("boss")))]);
    assert_eq!(harness.end(&policy(9), 5, one(2), EndReason::ByUser(None)), [0; 0], "it has ended already");
    assert_eq!(harness.end(&policy(9), 5, one(5), EndReason::ByUser(None)), [0; 0], "a session does not end itself");
    assert_eq!(
        harness.end(&policy(9), 2, one(1), EndReason::ByUser(None)),
        [0; 0],
        "a session without a slot ends no other"
    );
    drop(harness.linger(3));
    assert_eq!(harness.end(&policy(9), 5, one(3), EndReason::ByUser(None)), [3]);
    assert_eq!(harness.notified(), [0; 0], "a lingering session is not notified");

    // The limit of the command counts, not the one in force: an override that changes meanwhile ends nobody.
    let excess = |dry_run| EndTarget::Excess { limit: limit(2), dry_run };
    drop(harness.acquire_resumable(&policy(9), 6));
    assert_eq!(harness.end(&policy(1), 0, excess(true), EndReason::ByOperator), [6, 5]);
    assert_eq!((harness.session_numbers(), harness.notified()), (vec![1, 4, 5, 6], vec![]));
    assert_eq!(harness.end(&policy(1), 0, excess(false), EndReason::ByOperator), [6, 5]);
    assert_eq!((harness.session_numbers(), harness.ended.len()), (vec![1, 4], 2));
    assert!(harness.ended.contains(&ended(6, EndReason::ByOperator)));
    assert_eq!(harness.end(&policy(2), 0, excess(false), EndReason::ByOperator), [0; 0]);
    assert_eq!(harness.end(&policy(2), 0, EndTarget::All, EndReason::ByOperator), [1, 4]);
    assert_eq!(harness.session_numbers(), [0; 0]);
}
