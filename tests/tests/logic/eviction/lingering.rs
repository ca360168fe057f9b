//! Slots that linger, and how they are resumed.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::Timestamp;
use session_core::ledger::{AcquireOptions, GrantDetails, StoreCommand};
use session_core::ledger::{AdmissionPolicy, EndReason, Evict, Outcome, SessionStatus, StoreError, WhenFull};

use super::one_user::*;

#[test]
fn grant_with_options_states_limit_and_linger() {
    let mut subject = Subject::default();
    let grant = |linger, is_resumed| Some(Box::new(GrantDetails { limit: limit(2), linger, is_resumed }));
    let Outcome::Granted { grant: first, .. } = subject.client_info(&policy(2), 1) else { panic!("there is room") };
    assert_eq!(first, grant(LINGER, false));
    let finer = AdmissionPolicy { linger: Duration::from_nanos(5_999_999), ..policy(2) };
    let Outcome::Granted { grant: second, .. } = subject.client_info(&finer, 2) else { panic!("there is room") };
    assert_eq!(second, grant(Duration::from_millis(5), false));
    // The linger is that of the first grant.
    let Outcome::Granted { grant: resumed, .. } = subject.resume(&finer, 3, 1) else { panic!("it may") };
    assert_eq!(resumed, grant(LINGER, true));
    // What is longer than a record can say is cut.
    let longest = Duration::from_millis(u32::MAX.into());
    let long = AdmissionPolicy { linger: Duration::MAX, ..policy(9) };
    let Outcome::Granted { grant: Some(fourth), .. } = subject.client_info(&long, 4) else { panic!("there is room") };
    assert_eq!(fourth.linger, longest);
}

#[test]
fn lost_session_lingers_until_its_deadline() {
    let mut subject = Subject::default();
    let full = AdmissionPolicy { lingering_first: false, ..policy(1) };
    drop(subject.client_info(&full, 1));
    assert_eq!(subject.linger(1), Outcome::Released);
    let until = at(subject.second) + LINGER;
    assert_eq!(subject.record.sessions()[0].status, SessionStatus::Lingering { until });
    assert_eq!(subject.list(&full).free_at, Some(until));
    // Once is enough: it does not begin anew.
    assert_eq!(subject.linger(1), Outcome::Released);
    assert_eq!(subject.record.sessions()[0].status, SessionStatus::Lingering { until });
    assert!(is_denied(&subject.plain(&full, 2)));
    let moment = Duration::from_millis(1);
    assert_eq!(subject.clone().count_at(&full, Timestamp::from_epoch(until.since_epoch().saturating_sub(moment))), 1);
    assert_eq!(subject.clone().count_at(&full, until), 0);
    // What is given back lingers no longer.
    let mut released = subject.clone();
    assert_eq!((released.release(1), released.held()), (Outcome::Released, vec![]));
    subject.second = until.since_epoch().as_secs();
    assert_eq!(subject.plain(&full, 2), granted(1));
    assert_eq!((subject.held(), subject.told()), (vec![2], vec![]), "nobody is told who is not there");
}

#[test]
fn session_without_resume_key_does_not_linger() {
    let mut subject = Subject::default();
    drop(subject.plain(&policy(3), 1));
    drop(subject.client_info(&AdmissionPolicy { linger: Duration::ZERO, ..policy(3) }, 2));
    drop(subject.acquire(&policy(3), id(3), Some(AcquireOptions { label: name("x"), ..AcquireOptions::default() })));
    for number in 1..=3 {
        assert_eq!(subject.linger(number), Outcome::Released);
    }
    assert_eq!(subject.held(), [0; 0]);
    assert_eq!(subject.linger(7), Outcome::Released, "nor what is not there");
}

#[test]
fn lingering_slots_are_evicted_first_earliest_deadline_first() {
    let mut subject = Subject::default();
    (1..=4).for_each(|number| drop(subject.client_info(&policy(4), number)));
    drop(subject.linger(3));
    drop(subject.linger(1));
    assert_eq!(subject.plain(&policy(4), 5), granted(4));
    assert_eq!((subject.held(), subject.told()), (vec![1, 2, 4, 5], vec![]));
    // Before anybody is ended, be it by rule or by choice.
    assert_eq!(subject.plain(&evicting(4), 6), granted(4));
    assert_eq!((subject.held(), subject.told()), (vec![2, 4, 5, 6], vec![]));
    drop(subject.linger(2));
    assert!(is_granted(&subject.evict(&choosing(4), 7, Evict::Sessions([id(4)].into())), 4));
    assert_eq!((subject.held(), subject.told()), (vec![4, 5, 6, 7], vec![]));
    // Together with the choice, if it takes more.
    drop(subject.client_info(&policy(9), 8));
    drop(subject.linger(8));
    assert!(is_granted(&subject.evict(&choosing(4), 9, Evict::Sessions([id(6), id(8)].into())), 4));
    assert_eq!((subject.held(), subject.told()), (vec![4, 5, 7, 9], vec![6]));

    let last = AdmissionPolicy { lingering_first: false, ..policy(1) };
    let mut subject = Subject::default();
    drop(subject.client_info(&last, 1));
    drop(subject.linger(1));
    assert!(is_denied(&subject.plain(&last, 2)));
    assert_eq!(subject.plain(&AdmissionPolicy { when_full: WhenFull::EvictOldest, ..last }, 2), granted(1));
    assert_eq!(subject.told(), [0; 0]);
}

#[test]
fn evict_nobody_spares_lingering_slots() {
    let mut subject = Subject::default();
    drop(subject.client_info(&evicting(2), 1));
    drop(subject.linger(1));
    drop(subject.plain(&evicting(2), 2));
    assert!(is_denied(&subject.evict(&evicting(2), 3, Evict::Nobody)));
    assert_eq!((subject.held(), subject.told()), (vec![1, 2], vec![]));

    // Nor one of its own device, which is full.
    let policy = AdmissionPolicy { sessions_per_device: 1.try_into().unwrap(), ..devices(2) };
    let mut subject = Subject::default();
    drop(subject.on_device(&policy, 1, "laptop"));
    drop(subject.linger(1));
    let options = |evict| Some(AcquireOptions { device: name("laptop"), evict, ..AcquireOptions::default() });
    assert!(is_denied(&subject.acquire(&policy, id(2), options(Some(Evict::Nobody)))));
    assert!(is_granted(&subject.acquire(&policy, id(2), options(None)), 1));
}

#[test]
fn resume_moves_a_slot_and_adds_none() {
    let full = AdmissionPolicy { lingering_first: false, ..policy(2) };
    let mut subject = Subject::default();
    drop(subject.acquire(
        &full,
        id(1),
        Some(AcquireOptions { new_resume_key: Some(key(1)), label: name("old"), ..AcquireOptions::default() }),
    ));
    drop(subject.plain(&full, 2));
    let since = subject.record.sessions()[0].since;

    // From one that lives.
    assert!(is_granted(&subject.resume(&full, 3, 1), 2));
    assert_eq!((subject.held(), &*subject.ended), (vec![3, 2], &[ended(1, EndReason::Resumed)][..]));
    // What the old session still says of itself finds nothing.
    assert_eq!((subject.linger(1), subject.release(1)), (Outcome::Released, Outcome::Released));
    assert_eq!(subject.held(), [3, 2]);
    // From one that lingers, and again with the same token, also with a lower limit and on other terms.
    drop(subject.linger(3));
    assert!(is_granted(&subject.resume(&policy(1), 4, 1), 2));
    assert_eq!((subject.held(), subject.told()), (vec![4, 2], vec![]));
    let hold = &subject.record.sessions()[0];
    assert_eq!((hold.status, hold.since, hold.label()), (SessionStatus::Live, since, name("old").as_ref()));
    assert_eq!(hold.resumable().unwrap().key, key(1), "the token stays with its slot");
    // Another label may be said. Another device opens nothing: it could share the slot of this one.
    let options =
        |device| Some(AcquireOptions { resume: Some(key(1)), label: name("new"), device, ..AcquireOptions::default() });
    assert!(is_denied(&subject.acquire(&full, id(5), options(name("other")))));
    assert!(is_granted(&subject.acquire(&full, id(5), options(None)), 2));
    let mut named = Subject::default();
    drop(named.on_device(&full, 1, "laptop"));
    for number in 2..4 {
        let options = AcquireOptions { resume: Some(key(1)), device: name("laptop"), ..AcquireOptions::default() };
        assert!(is_granted(&named.acquire(&full, id(number), Some(options)), 1));
        assert_eq!(named.held(), [number]);
    }
    let hold = &subject.record.sessions()[0];
    assert_eq!((hold.label(), hold.device()), (name("new").as_ref(), None));

    // Wrong ones are as good as none.
    assert!(is_denied(&subject.resume(&full, 6, 9)));
    drop(subject.release(2));
    assert!(is_granted(&subject.resume(&full, 6, 9), 2));
    assert_eq!(subject.record.sessions()[1].resumable().unwrap().key, key(200));
    // Nor is one of a slot that is gone, or has lingered for its time; and whoever may have none takes none up.
    assert!(is_denied(&subject.resume(&policy(0), 7, 1)));
    drop(subject.release(5));
    assert!(is_granted(&subject.resume(&full, 7, 1), 2));
    assert_eq!(subject.held(), [6, 7]);
    drop(subject.linger(6));
    subject.second += 10;
    assert!(is_granted(&subject.client_info(&full, 8), 2));
    assert_eq!(subject.held(), [7, 8], "session 6 has lingered for its time");
}

#[test]
fn slots_of_a_dead_node_linger_from_detection() {
    let policy = AdmissionPolicy { lingering_first: false, ..policy(9) };
    let mut subject = Subject::default();
    let client_info =
        |number: u8| Some(AcquireOptions { new_resume_key: Some(key(number)), ..AcquireOptions::default() });
    drop(subject.acquire(&policy, THERE.session(1), client_info(1)));
    drop(subject.acquire(&policy, THERE.session(2), client_info(2)));
    drop(subject.acquire(&policy, THERE.session(3), None));
    drop(subject.acquire(&policy, HERE.session(4), client_info(4)));
    let until = Timestamp::from_epoch(Duration::from_millis(9_500));
    drop(
        subject.apply(
            &policy,
            &StoreCommand::Linger { user: user(), session: THERE.session(2), at: Timestamp::default() },
        ),
    );
    subject.dead.insert(THERE, at(20));
    // The one that lingered lingers for what is left of its time, from a clock that was wrong or not.
    assert_eq!(subject.clone().count_at(&policy, until), 3);
    assert_eq!(subject.count_at(&policy, at(29)), 2);
    assert_eq!(subject.record.sessions()[0].status, SessionStatus::Lingering { until: at(20) + LINGER });
    let outcome = subject.acquire(&policy, THERE.session(9), client_info(9));
    assert_eq!(outcome, Outcome::Rejected(StoreError::Failed), "a dead node's session acquires nothing");
    subject.second = 29;
    assert!(is_granted(&subject.clone().resume(&policy, 5, 1), 2), "in the last second");
    assert_eq!(subject.count_at(&policy, at(30)), 1);
}

#[test]
fn clock_ahead_does_not_lengthen_the_linger() {
    let mut subject = Subject::default();
    assert!(is_granted(&subject.client_info(&policy(1), 1), 1));
    subject.second = 1_000_000;
    drop(subject.linger(1));
    subject.second = 20;
    assert_eq!(subject.count(&policy(1)), 1);
    subject.dead.insert(HERE, at(20));
    assert_eq!(subject.count(&policy(1)), 1);
    assert_eq!(subject.record.sessions()[0].status, SessionStatus::Lingering { until: at(20) + LINGER });
    assert_eq!(subject.count_at(&policy(1), at(20) + LINGER), 0);
}
