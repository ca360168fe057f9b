//! The ledger's rule where one session takes another's place: who is ended, what lingers, what is taken up, and by whom.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{self, AcquireOptions, EndTarget, GrantDetails, LimitSource, SlotListing, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, CountBy, EndReason, EndedSession, Evict, Liveness, Outcome, SessionRecord, SessionStatus,
    SlotLimit, StoreError, UserOverrides, UserRecord, WhenFull,
};
use session_core::{DisplayName, NodeId, ResumeKey, SessionId, Timestamp, UserId};

const HERE: NodeId = NodeId::new(1);
const THERE: NodeId = NodeId::new(2);
const LINGER: Duration = Duration::from_secs(10);

fn user() -> UserId {
    UserId::parse("ada").unwrap()
}

fn id(number: u64) -> SessionId {
    HERE.session(number)
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(second))
}

fn limit(slots: u32) -> SlotLimit {
    SlotLimit::new(slots).unwrap()
}

fn name(text: &str) -> Option<DisplayName> {
    Some(DisplayName::parse(text).unwrap())
}

fn key(number: u8) -> ResumeKey {
    ResumeKey::from_bytes([number; 32])
}

fn policy(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { linger: LINGER, ..AdmissionPolicy::new(limit(slots)) }
}

fn choosing(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { client_choice: true, ..policy(slots) }
}

fn evicting(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(slots) }
}

fn devices(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { count_by: CountBy::Devices, sessions_per_device: 3.try_into().unwrap(), ..choosing(slots) }
}

/// One user's record, on which commands are applied. What happens at second `n` is the `n`th command.
#[derive(Debug, Default, Clone)]
struct Subject {
    record: UserRecord,
    second: u64,
    dead: BTreeMap<NodeId, Timestamp>,
    ended: Vec<EndedSession>,
}

impl Subject {
    fn apply(&mut self, policy: &AdmissionPolicy, command: &StoreCommand) -> Outcome {
        let dead = self.dead.clone();
        let liveness = |node| dead.get(&node).map_or(Liveness::Alive, |&since| Liveness::DeadSince(since));
        let result = ledger::apply(&mut self.record, command, policy, liveness);
        self.ended = result.ended;
        result.outcome
    }

    fn now(&mut self) -> Timestamp {
        self.second += 1;
        at(self.second)
    }

    fn acquire(&mut self, policy: &AdmissionPolicy, session: SessionId, options: Option<AcquireOptions>) -> Outcome {
        let at = self.now();
        self.apply(
            policy,
            &StoreCommand::Acquire { user: user(), session, limit: None, at, options: options.map(Box::new) },
        )
    }

    /// A plain client's.
    fn plain(&mut self, policy: &AdmissionPolicy, number: u64) -> Outcome {
        self.acquire(policy, id(number), None)
    }

    /// One whose slot can be taken up with the key of its number.
    fn client_info(&mut self, policy: &AdmissionPolicy, number: u64) -> Outcome {
        let fresh = Some(key(u8::try_from(number).unwrap()));
        self.acquire(policy, id(number), Some(AcquireOptions { new_resume_key: fresh, ..AcquireOptions::default() }))
    }

    fn on_device(&mut self, policy: &AdmissionPolicy, number: u64, device: &str) -> Outcome {
        let fresh = Some(key(u8::try_from(number).unwrap()));
        self.acquire(
            policy,
            id(number),
            Some(AcquireOptions { device: name(device), new_resume_key: fresh, ..AcquireOptions::default() }),
        )
    }

    fn evict(&mut self, policy: &AdmissionPolicy, number: u64, evict: Evict) -> Outcome {
        self.acquire(
            policy,
            id(number),
            Some(AcquireOptions { evict: Some(evict), label: name("new"), ..AcquireOptions::default() }),
        )
    }

    fn resume(&mut self, policy: &AdmissionPolicy, number: u64, shown: u8) -> Outcome {
        let options =
            AcquireOptions { resume: Some(key(shown)), new_resume_key: Some(key(200)), ..AcquireOptions::default() };
        self.acquire(policy, id(number), Some(options))
    }

    fn release(&mut self, number: u64) -> Outcome {
        self.apply(&policy(9), &StoreCommand::Release { user: user(), session: id(number) })
    }

    fn linger(&mut self, number: u64) -> Outcome {
        let at = self.now();
        self.apply(&policy(9), &StoreCommand::Linger { user: user(), session: id(number), at })
    }

    fn count_at(&mut self, policy: &AdmissionPolicy, at: Timestamp) -> u32 {
        let outcome = self.apply(policy, &StoreCommand::CountSlots { user: user(), session: id(0), at });
        let Outcome::Counted { connections } = outcome else { panic!("{outcome:?}") };
        connections
    }

    fn count(&mut self, policy: &AdmissionPolicy) -> u32 {
        self.count_at(policy, at(self.second))
    }

    fn list(&mut self, policy: &AdmissionPolicy) -> SlotListing {
        let at = at(self.second);
        let outcome = self.apply(
            policy,
            &StoreCommand::ListSessions { user: user(), session: id(0), limit: None, is_unbounded: false, at },
        );
        let Outcome::Listed(listing) = outcome else { panic!("{outcome:?}") };
        *listing
    }

    fn end(&mut self, policy: &AdmissionPolicy, asker: u64, which: EndTarget, by: EndReason) -> Vec<u64> {
        let at = at(self.second);
        let outcome = self.apply(
            policy,
            &StoreCommand::EndSessions { user: user(), session: id(asker), target: which, reason: by, at },
        );
        let Outcome::Ended { sessions, connections } = outcome else { panic!("{outcome:?}") };
        assert_eq!(connections, self.clone().count(policy));
        sessions.iter().map(|session| session.number()).collect()
    }

    fn held(&self) -> Vec<u64> {
        self.record.sessions().iter().map(|hold| hold.session.number()).collect()
    }

    /// Who was told by the last command that its slot is gone.
    fn told(&self) -> Vec<u64> {
        self.ended.iter().map(|ended| ended.session.number()).collect()
    }
}

fn granted(connections: u32) -> Outcome {
    Outcome::granted(connections)
}

fn is_granted(outcome: &Outcome, slots: u32) -> bool {
    matches!(outcome, Outcome::Granted { connections, .. } if *connections == slots)
}

fn is_denied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Denied(_))
}

fn ended(number: u64, how: EndReason) -> EndedSession {
    EndedSession { session: id(number), reason: how }
}

#[test]
fn the_most_specific_limit_is_in_force() {
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
        let mut subject = Subject::default();
        let granted = (1..=9)
            .filter(|&number| {
                let command =
                    StoreCommand::Acquire { user: user(), session: id(number), limit: claim, at: at(1), options: None };
                matches!(subject.apply(&with(overrides), &command), Outcome::Granted { .. })
            })
            .count();
        assert_eq!(granted, slots as usize, "{overrides:?} {claim:?}");
    }
    let overrides = UserOverrides { limit: None, when_full: Some(WhenFull::Deny) };
    assert_eq!(evicting(1).with_overrides(overrides).effective_when_full(), WhenFull::Deny);
    assert_eq!(
        (evicting(1).effective_when_full(), policy(1).effective_when_full()),
        (WhenFull::EvictOldest, WhenFull::Deny)
    );
}

#[test]
fn the_newest_takes_the_place_of_the_oldest_where_that_is_the_rule() {
    let mut subject = Subject::default();
    for number in 1..=3 {
        assert_eq!(subject.plain(&evicting(3), number), granted(u32::try_from(number).unwrap()));
        assert_eq!(subject.told(), [0; 0], "there is room");
    }
    assert_eq!(subject.plain(&evicting(3), 4), granted(3));
    assert_eq!((subject.held(), &*subject.ended), (vec![2, 3, 4], &[ended(1, EndReason::TakenOver(None))][..]));
    // With a lower limit as many go as it takes.
    assert_eq!(subject.plain(&evicting(2), 5), granted(2));
    assert_eq!((subject.held(), subject.told()), (vec![4, 5], vec![2, 3]));
    assert_eq!(subject.plain(&evicting(1), 6), granted(1));
    assert_eq!((subject.held(), subject.told()), (vec![6], vec![4, 5]));
    // Whoever has its slot takes nobody's.
    assert_eq!(subject.plain(&evicting(1), 6), granted(1));
    assert_eq!(subject.told(), [0; 0]);
    // With 0 nobody comes, so nobody goes.
    assert_eq!(subject.plain(&evicting(0), 7), Outcome::Denied(None));
    assert_eq!(subject.held(), [6]);
    // What is set for the user goes before what the server does.
    let overrides = UserOverrides { limit: None, when_full: Some(WhenFull::Deny) };
    assert_eq!(subject.plain(&evicting(1).with_overrides(overrides), 8), Outcome::Denied(None));
}

#[test]
fn whom_a_client_chooses_goes_if_it_may_choose_and_if_that_will_do() {
    let full = |count: u64| {
        let mut subject = Subject::default();
        (1..=count).for_each(|number| drop(subject.plain(&policy(9), number)));
        subject
    };
    let these = |numbers: &[u64]| Evict::Sessions(numbers.iter().map(|&number| id(number)).collect());
    for (held, policy, evict, then) in [
        (3, choosing(3), Evict::Oldest, Some(vec![2, 3, 9])),
        (3, choosing(3), these(&[2]), Some(vec![1, 3, 9])),
        // No more than needed, in their order.
        (3, choosing(3), these(&[3, 1]), Some(vec![1, 2, 9])),
        (3, choosing(4), these(&[2]), Some(vec![1, 2, 3, 9])),
        (4, choosing(3), these(&[3, 1]), Some(vec![2, 4, 9])),
        (4, choosing(2), Evict::Oldest, Some(vec![4, 9])),
        // Not enough: then nobody.
        (4, choosing(3), these(&[3]), None),
        (4, choosing(3), these(&[3, 3, 3]), None),
        (3, choosing(3), these(&[7]), None),
        (3, choosing(3), these(&[]), None),
        // To end nobody is everybody's to say.
        (3, choosing(3), Evict::Nobody, None),
        (3, evicting(3), Evict::Nobody, None),
        (4, evicting(3), Evict::Nobody, None),
        (3, evicting(4), Evict::Nobody, Some(vec![1, 2, 3, 9])),
        // Those who are not there do no harm.
        (3, choosing(3), these(&[7, 8, 2]), Some(vec![1, 3, 9])),
        // Nobody may choose.
        (3, policy(3), these(&[2]), None),
        (3, policy(3), Evict::Oldest, None),
        (3, choosing(0), Evict::Oldest, None),
        // Then the rule counts; a choice goes before it.
        (3, evicting(3), these(&[2]), Some(vec![2, 3, 9])),
        (3, AdmissionPolicy { client_choice: true, ..evicting(3) }, these(&[3]), Some(vec![1, 2, 9])),
        (3, AdmissionPolicy { client_choice: true, ..evicting(3) }, these(&[7]), None),
    ] {
        let mut subject = full(held);
        let before = subject.record.clone();
        let outcome = subject.evict(&policy, 9, evict.clone());
        match &then {
            Some(then) => {
                assert!(is_granted(&outcome, u32::try_from(then.len()).unwrap()), "{evict:?} {outcome:?}");
                assert_eq!(&subject.held(), then, "{evict:?}");
                let gone: Vec<_> = (1..=held).filter(|number| !then.contains(number)).collect();
                assert_eq!(
                    subject.ended,
                    gone.iter().map(|&number| ended(number, EndReason::TakenOver(name("new")))).collect::<Vec<_>>()
                );
            }
            None => {
                assert!(is_denied(&outcome), "{evict:?}");
                assert_eq!((&subject.record, subject.told()), (&before, vec![]), "{evict:?}");
            }
        }
    }
}

#[test]
fn a_refusal_lists_who_is_there_to_those_who_asked_at_length() {
    let mut subject = Subject::default();
    drop(subject.plain(&policy(2), 1));
    drop(subject.on_device(&policy(2), 2, "laptop"));
    assert_eq!(subject.plain(&policy(2), 3), Outcome::Denied(None));
    let Outcome::Denied(Some(listing)) = subject.client_info(&policy(2), 3) else { panic!("it asked") };
    assert_eq!((listing.limit, listing.limit_source, listing.connections), (limit(2), LimitSource::Server, 2));
    assert_eq!((listing.free_at, listing.is_device_full), (None, false));
    assert_eq!(&*listing.sessions, subject.record.sessions());
    assert_eq!(*listing, subject.list(&policy(2)));
    let overrides = policy(2).with_overrides(UserOverrides { limit: Some(limit(1)), when_full: None });
    assert_eq!((subject.list(&overrides).limit, subject.list(&overrides).limit_source), (limit(1), LimitSource::User));
}

#[test]
fn a_grant_at_length_says_the_limit_and_for_how_long_it_can_be_taken_up() {
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
fn a_lost_session_lingers_for_its_time_and_no_longer() {
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
fn what_nobody_can_take_up_does_not_linger() {
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
fn lingering_slots_are_given_up_first_those_that_end_first_before_the_others() {
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
fn whoever_wants_nobody_ended_has_no_lingering_slot_given_up_either() {
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
fn a_token_moves_its_slot_and_admits_nobody() {
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
fn what_a_dead_node_held_lingers_from_when_that_is_known() {
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
fn what_lingers_by_a_clock_that_was_ahead_lingers_no_longer_than_it_may() {
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

#[test]
fn sessions_of_one_device_hold_one_slot() {
    let policy = devices(2);
    let mut subject = Subject::default();
    for (number, device, outcome) in [(1, "laptop", 1), (2, "laptop", 1), (3, "phone", 2), (4, "laptop", 2)] {
        assert!(is_granted(&subject.on_device(&policy, number, device), outcome));
    }
    // No fourth of it; that is not for want of a slot.
    let Outcome::Denied(Some(listing)) = subject.on_device(&policy, 5, "laptop") else { panic!("it is full") };
    assert!(listing.is_device_full && listing.connections == 2);
    assert!(listing.client_choice && listing.free_at.is_none());
    // Whoever may choose, or comes where the oldest give way, ends one of its own device's, and nobody else.
    for (evict, allowing, then) in [
        (Some(Evict::Sessions([id(2)].into())), policy, Some(vec![1, 3, 4, 9])),
        (Some(Evict::Sessions([id(3), id(4), id(1)].into())), policy, Some(vec![1, 2, 3, 9])),
        (Some(Evict::Oldest), policy, Some(vec![2, 3, 4, 9])),
        (None, AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy }, Some(vec![2, 3, 4, 9])),
        (Some(Evict::Sessions([id(3)].into())), policy, None),
        (Some(Evict::Oldest), AdmissionPolicy { client_choice: false, ..policy }, None),
        (Some(Evict::Nobody), AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy }, None),
    ] {
        let mut subject = subject.clone();
        let outcome = subject.acquire(
            &allowing,
            id(9),
            Some(AcquireOptions { device: name("laptop"), evict, ..AcquireOptions::default() }),
        );
        assert_eq!(is_granted(&outcome, 2), then.is_some(), "{outcome:?}");
        assert_eq!(subject.held(), then.unwrap_or_else(|| vec![1, 2, 3, 4]));
    }
    // Nor need the bound have been so low when they came.
    let lower = AdmissionPolicy { sessions_per_device: 2.try_into().unwrap(), ..policy };
    let mut crowded = subject.clone();
    let options = AcquireOptions { device: name("laptop"), evict: Some(Evict::Oldest), ..AcquireOptions::default() };
    assert!(is_granted(&crowded.acquire(&lower, id(9), Some(options)), 2));
    assert_eq!((crowded.held(), crowded.told()), (vec![3, 4, 9], vec![1, 2]));
    let Outcome::Denied(Some(listing)) = subject.on_device(&policy, 5, "tablet") else { panic!("it is full") };
    assert!(!listing.is_device_full && listing.client_choice);
    let Outcome::Denied(Some(listing)) = subject.on_device(&devices(0), 5, "tablet") else { panic!("it is full") };
    assert!(!listing.client_choice, "a limit of 0 evicts nobody");
    // One of its own that only lingers makes room for it, the one that ends first, and nobody else does.
    let mut reloaded = subject.clone();
    drop(reloaded.linger(4));
    drop(reloaded.linger(2));
    let last = AdmissionPolicy { lingering_first: false, ..policy };
    let Outcome::Denied(Some(listing)) = reloaded.on_device(&last, 9, "laptop") else { panic!("it is full") };
    assert_eq!(
        listing.free_at,
        listing
            .sessions
            .iter()
            .filter_map(|hold| match hold.status {
                SessionStatus::Live => None,
                SessionStatus::Lingering { until } => Some(until),
            })
            .min()
    );
    assert!(is_granted(&reloaded.on_device(&policy, 9, "laptop"), 2));
    assert_eq!((reloaded.held(), reloaded.told()), (vec![1, 2, 3, 9], vec![]));
    // Whoever names none has a slot of its own.
    assert_eq!(subject.plain(&policy, 5), Outcome::Denied(None));
    assert_eq!(subject.count(&AdmissionPolicy { count_by: CountBy::Sessions, ..policy }), 4);
    // It is free when the last has gone.
    drop(subject.release(1));
    drop(subject.release(2));
    assert!(is_denied(&subject.on_device(&policy, 5, "tablet")));
    drop(subject.linger(4));
    assert_eq!(subject.count(&policy), 2, "the last one lingers");
    assert!(is_granted(&subject.on_device(&policy, 6, "laptop"), 2), "where another one joins it");
    drop(subject.release(6));
    assert!(is_granted(&subject.on_device(&policy, 7, "tablet"), 2), "and it gives way when all have left");
    assert_eq!(subject.held(), [3, 7]);

    // Whoever is ended is ended with all of its device.
    drop(subject.on_device(&policy, 8, "tablet"));
    let these = Evict::Sessions([id(8)].into());
    assert!(is_granted(&subject.evict(&policy, 9, these), 2));
    assert_eq!((subject.held(), subject.told()), (vec![3, 9], vec![7, 8]));
}

#[test]
fn at_the_ceiling_one_gives_way_to_one() {
    let unlimited = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1024) };
    for policy in [unlimited, AdmissionPolicy { count_by: CountBy::Devices, ..unlimited }] {
        let mut subject = Subject::default();
        (1..=1024).for_each(|number| drop(subject.plain(&policy, number)));
        assert_eq!(subject.plain(&policy, 1025), granted(1024));
        assert_eq!((subject.held().len(), subject.told()), (1024, vec![1]));
    }
}

#[test]
fn a_record_has_no_more_holds_than_its_ceiling_however_they_are_counted() {
    let policy = AdmissionPolicy { sessions_per_device: 1024.try_into().unwrap(), ..devices(1024) };
    let mut subject = Subject::default();
    let join = |subject: &mut Subject, number: u64, evict| {
        let options = AcquireOptions { device: name(&format!("{}", number % 7)), evict, ..AcquireOptions::default() };
        subject.acquire(&policy, id(number), Some(options))
    };
    for number in 1..=1024 {
        assert!(matches!(join(&mut subject, number, None), Outcome::Granted { .. }));
    }
    assert_eq!(subject.count(&policy), 7);
    assert!(is_denied(&join(&mut subject, 1025, None)));
    assert!(is_denied(&subject.acquire(
        &policy,
        id(2000),
        Some(AcquireOptions { device: name("new"), ..AcquireOptions::default() })
    )));
    // To make room for one takes a whole slot.
    assert!(is_granted(&subject.evict(&policy, 1026, Evict::Oldest), 7));
    assert_eq!(subject.told().len(), 147);
}

#[test]
fn sessions_are_ended_by_others_of_their_user_and_by_the_operator() {
    let mut subject = Subject::default();
    (1..=4).for_each(|number| drop(subject.client_info(&policy(9), number)));
    drop(subject.acquire(
        &policy(9),
        id(5),
        Some(AcquireOptions { label: name("boss"), new_resume_key: Some(key(5)), ..AcquireOptions::default() }),
    ));
    let one = |number| EndTarget::One(id(number));
    assert_eq!(subject.end(&policy(9), 5, one(2), EndReason::ByUser(None)), [2]);
    assert_eq!(subject.ended, [ended(2, EndReason::ByUser(name("boss")))]);
    assert_eq!(subject.end(&policy(9), 5, one(2), EndReason::ByUser(None)), [0; 0], "it is gone");
    assert_eq!(subject.end(&policy(9), 5, one(5), EndReason::ByUser(None)), [0; 0], "nobody ends itself");
    assert_eq!(subject.end(&policy(9), 2, one(1), EndReason::ByUser(None)), [0; 0], "who has lost its own ends nobody");
    drop(subject.linger(3));
    assert_eq!(subject.end(&policy(9), 5, one(3), EndReason::ByUser(None)), [3]);
    assert_eq!(subject.told(), [0; 0], "nobody is told who is not there");

    let excess = |dry_run| EndTarget::Excess { dry_run };
    drop(subject.client_info(&policy(9), 6));
    assert_eq!(subject.end(&policy(2), 0, excess(true), EndReason::ByOperator), [6, 5]);
    assert_eq!((subject.held(), subject.told()), (vec![1, 4, 5, 6], vec![]));
    assert_eq!(subject.end(&policy(2), 0, excess(false), EndReason::ByOperator), [6, 5]);
    assert_eq!((subject.held(), subject.ended.len()), (vec![1, 4], 2));
    assert!(subject.ended.contains(&ended(6, EndReason::ByOperator)));
    assert_eq!(subject.end(&policy(2), 0, excess(false), EndReason::ByOperator), [0; 0]);
    assert_eq!(subject.end(&policy(2), 0, EndTarget::All, EndReason::ByOperator), [1, 4]);
    assert_eq!(subject.held(), [0; 0]);
}

/// What a naive model keeps of one hold. It knows who is there; the rule must say who goes.
#[derive(Debug, Clone)]
struct Kept {
    device: Option<u8>,
    key: Option<u8>,
    linger: Duration,
    /// Until when it lingers, if it does.
    until: Option<Timestamp>,
}

/// One step of a user's history.
#[derive(Debug, Clone)]
enum Step {
    Acquire { node: u64, number: u64, device: Option<u8>, evict: Option<Vec<u64>>, resume: Option<u8>, plain: bool },
    Release { node: u64, number: u64 },
    Linger { node: u64, number: u64 },
    End { asker: u64, which: u64 },
    Excess,
    Terms { limit: u32, evicts: bool, chooses: bool, first: bool, devices: bool, linger: bool },
    Dies { node: u64 },
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (node, number) = (0..3_u64, 0..6_u64);
    let device = prop::option::of(0..3_u8);
    let evict = prop::option::of(prop::collection::vec(0..6_u64, 0..4));
    let resume = prop::option::weighted(0.3, 0..40_u8);
    prop_oneof![
        12 => (node.clone(), number.clone(), device, evict, resume, any::<bool>()).prop_map(
            |(node, number, device, evict, resume, plain)| Step::Acquire { node, number, device, evict, resume, plain }
        ),
        4 => (node.clone(), number.clone()).prop_map(|(node, number)| Step::Release { node, number }),
        5 => (node.clone(), number.clone()).prop_map(|(node, number)| Step::Linger { node, number }),
        2 => (number.clone(), number).prop_map(|(asker, which)| Step::End { asker, which }),
        1 => Just(Step::Excess),
        3 => (0..5_u32, any::<[bool; 5]>()).prop_map(|(limit, [evicts, chooses, first, devices, linger])| Step::Terms {
            limit, evicts, chooses, first, devices, linger
        }),
        1 => node.prop_map(|node| Step::Dies { node }),
        2 => (0..15_u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn slots_of(kept: &BTreeMap<SessionId, Kept>, counting: CountBy) -> usize {
    match counting {
        CountBy::Sessions => kept.len(),
        CountBy::Devices => {
            let devices: BTreeSet<_> = kept.values().filter_map(|kept| kept.device).collect();
            devices.len() + kept.values().filter(|kept| kept.device.is_none()).count()
        }
    }
}

fn shown(hold: &SessionRecord) -> (SessionId, Option<Timestamp>) {
    let until = match hold.status {
        SessionStatus::Live => None,
        SessionStatus::Lingering { until } => Some(until),
    };
    (hold.session, until)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_shrink_iters: 50_000, ..ProptestConfig::default() })]

    /// The model does not predict whom the rule ends. It holds it to what must be so whoever that is.
    #[test]
    fn whatever_happens_the_rule_keeps_its_promises(steps in prop::collection::vec(step(), 1..60)) {
        let mut subject = Subject::default();
        let mut kept: BTreeMap<SessionId, Kept> = BTreeMap::new();
        let mut policy = policy(2);
        let mut tokens = 0_u8;
        for step in steps {
            let mut now = subject.now();
            let command = match step.clone() {
                Step::Acquire { node, number, device, evict, resume, plain } => {
                    tokens = tokens.wrapping_add(1);
                    let options = AcquireOptions {
                        device: device.and_then(|device| name(&device.to_string())),
                        label: None,
                        // None is shown before it is drawn.
                        resume: resume.filter(|&shown| shown != tokens).map(key),
                        new_resume_key: Some(key(tokens)),
                        evict: evict.map(|numbers| match &numbers[..] {
                            [] => Evict::Oldest,
                            [5, ..] => Evict::Nobody,
                            numbers => Evict::Sessions(numbers.iter().map(|&number| NodeId::new(number % 3).session(number)).collect()),
                        }),
                    };
                    let options = (!plain).then(|| Box::new(options));
                    let session = NodeId::new(node).session(number);
                    Some(StoreCommand::Acquire { user: user(), session, limit: None, at: now, options })
                }
                Step::Release { node, number } => {
                    Some(StoreCommand::Release { user: user(), session: NodeId::new(node).session(number) })
                }
                Step::Linger { node, number } => {
                    Some(StoreCommand::Linger { user: user(), session: NodeId::new(node).session(number), at: now })
                }
                Step::End { asker, which } => Some(StoreCommand::EndSessions {
                    user: user(),
                    session: NodeId::new(asker % 3).session(asker),
                    target: EndTarget::One(NodeId::new(which % 3).session(which)),
                    reason: EndReason::ByUser(None),
                    at: now,
                }),
                Step::Excess => Some(StoreCommand::EndSessions {
                    user: user(),
                    session: id(0),
                    target: EndTarget::Excess { dry_run: false },
                    reason: EndReason::ByOperator,
                    at: now,
                }),
                Step::Terms { limit: slots, evicts, chooses, first, devices: by_device, linger } => {
                    policy = AdmissionPolicy {
                        when_full: if evicts { WhenFull::EvictOldest } else { WhenFull::Deny },
                        client_choice: chooses,
                        lingering_first: first,
                        count_by: if by_device { CountBy::Devices } else { CountBy::Sessions },
                        sessions_per_device: 2.try_into().unwrap(),
                        linger: if linger { LINGER } else { Duration::ZERO },
                        ..AdmissionPolicy::new(limit(slots))
                    };
                    None
                }
                Step::Dies { node } => {
                    subject.dead.entry(NodeId::new(node)).or_insert(now);
                    None
                }
                Step::Pass { seconds } => {
                    subject.second += seconds;
                    now = at(subject.second);
                    None
                }
            };
            let Some(command) = command else { continue };

            // What is void by now is gone first, unless the command does not say when it is.
            for (session, kept) in &mut kept {
                if let Some(&dead) = subject.dead.get(&session.node()) {
                    kept.until = kept.until.or(Some(dead + kept.linger));
                }
            }
            let is_over = |kept: &Kept| kept.linger.is_zero() && kept.until.is_some()
                || command.at().is_some() && kept.until.is_some_and(|until| until <= now);
            kept.retain(|_, kept| !is_over(kept));
            let before = kept.clone();
            let was_dead = subject.dead.contains_key(&command.session().node());
            let outcome = subject.apply(&policy, &command);
            let then: BTreeMap<_, _> = subject.record.sessions().iter().map(shown).collect();
            prop_assert_eq!(then.len(), subject.record.sessions().len(), "a session has two holds");
            let gone: BTreeSet<_> = before.keys().copied().filter(|session| !then.contains_key(session)).collect();
            let come: BTreeSet<_> = then.keys().copied().filter(|session| !before.contains_key(session)).collect();
            let session = command.session();

            match &command {
                StoreCommand::Release { .. } => {
                    prop_assert_eq!(&outcome, &Outcome::Released);
                    prop_assert!(gone.iter().all(|&gone| gone == session) && come.is_empty());
                    prop_assert!(!then.contains_key(&session));
                    kept.remove(&session);
                }
                StoreCommand::Linger { .. } => {
                    prop_assert_eq!(&outcome, &Outcome::Released);
                    prop_assert!(gone.iter().all(|&gone| gone == session) && come.is_empty());
                    if let Some(old) = kept.get_mut(&session) {
                        old.until = old.until.or(Some(now + old.linger));
                        prop_assert_eq!(then.contains_key(&session), !old.linger.is_zero());
                    }
                    kept.retain(|kept, _| *kept != session || then.contains_key(kept));
                }
                StoreCommand::EndSessions { target, .. } => {
                    let Outcome::Ended { sessions, .. } = &outcome else { panic!("{outcome:?}") };
                    prop_assert_eq!(&gone, &sessions.iter().copied().collect());
                    prop_assert!(come.is_empty());
                    match target {
                        EndTarget::One(one) => {
                            let may = before.contains_key(&session) && before.contains_key(one) && *one != session;
                            prop_assert_eq!(gone.len(), usize::from(may));
                        }
                        _ => prop_assert!(slots_of(&kept, policy.count_by).saturating_sub(gone.len()) <= policy.limit.slots() as usize
                            || policy.count_by == CountBy::Devices || before.contains_key(&session)),
                    }
                    kept.retain(|kept, _| !gone.contains(kept));
                }
                StoreCommand::Acquire { options, .. } => match &outcome {
                    Outcome::Granted { connections, .. } if before.contains_key(&session) => {
                        prop_assert!(!was_dead && gone.is_empty() && come.is_empty());
                        prop_assert_eq!(*connections as usize, slots_of(&kept, policy.count_by));
                    }
                    Outcome::Granted { connections, grant } => {
                        prop_assert!(!was_dead && policy.limit.slots() > 0, "admitted though nobody may be");
                        prop_assert_eq!(&come, &[session].into(), "exactly one comes");
                        let is_resumed = grant.as_ref().is_some_and(|grant| grant.is_resumed);
                        let resumed = before.iter().find(|(_, kept)| {
                            is_resumed && kept.key.map(key) == options.as_ref().and_then(|options| options.resume)
                        });
                        if let Some((old, moved)) = resumed {
                            prop_assert_eq!(&gone, &[*old].into(), "a token moves one hold, and ends nobody else");
                            let named = options.as_ref().and_then(|options| options.device.clone());
                            let named: Option<u8> = named.map(|device| device.as_str().parse().unwrap());
                            prop_assert!(named.is_none() || named == moved.device, "a token opened another device's slot");
                            kept.remove(old);
                            kept.insert(session, Kept { until: None, ..moved.clone() });
                        } else {
                            prop_assert!(!is_resumed, "a token of nobody");
                            let told = options.as_ref().and_then(|options| options.device.clone());
                            let device = told.map(|device| device.as_str().parse().unwrap());
                            let fresh = options.as_ref().map(|_| tokens);
                            let linger = if fresh.is_some() { policy.linger } else { Duration::ZERO };
                            kept.retain(|kept, _| !gone.contains(kept));
                            let others = slots_of(&kept, policy.count_by);
                            kept.insert(session, Kept { device, key: fresh, linger, until: None });
                            let slots = slots_of(&kept, policy.count_by);
                            prop_assert!(slots == others || slots <= policy.limit.slots() as usize, "admitted beyond the limit");
                            // Nobody is ended who need not be.
                            let may = policy.lingering_first && gone.iter().all(|gone| before[gone].until.is_some())
                                || policy.when_full == WhenFull::EvictOldest
                                || policy.client_choice && options.as_ref().is_some_and(|options| options.evict.is_some());
                            prop_assert!(gone.is_empty() || may, "somebody was ended without leave");
                            let is_spared = options.as_ref().is_some_and(|options| options.evict == Some(Evict::Nobody));
                            prop_assert!(gone.is_empty() || !is_spared, "somebody was ended against the newcomer's will");
                            let is_own = |kept: &&Kept| policy.count_by == CountBy::Devices && device.is_some() && kept.device == device;
                            if before.values().any(|kept| is_own(&kept)) {
                                prop_assert!(gone.iter().all(|gone| is_own(&&before[gone])), "another device was ended");
                                let overrides = kept.values().filter(is_own).count();
                                prop_assert!(overrides <= 2 && (gone.is_empty() || overrides == 2), "more were ended than it took");
                            } else if !gone.is_empty() {
                                prop_assert_eq!(slots, policy.limit.slots() as usize, "more were ended than it took");
                            }
                        }
                        prop_assert_eq!(*connections as usize, slots_of(&kept, policy.count_by));
                    }
                    Outcome::Denied(listing) => {
                        prop_assert!(gone.is_empty() && come.is_empty(), "all or nothing");
                        let is_device_full = listing.as_ref().is_some_and(|listing| listing.is_device_full);
                        prop_assert!(is_device_full || slots_of(&kept, policy.count_by) >= policy.limit.slots() as usize);
                        prop_assert!(!(policy.when_full == WhenFull::EvictOldest && policy.limit.slots() > 0)
                            || policy.client_choice || options.as_ref().is_some_and(|options| options.evict == Some(Evict::Nobody)), "it need not have been refused");
                    }
                    outcome => prop_assert!(was_dead && *outcome == Outcome::Rejected(StoreError::Failed)),
                },
                StoreCommand::CountSlots { .. } | StoreCommand::ListSessions { .. } => unreachable!("none of the steps"),
            }
            let model: BTreeMap<_, _> = kept.iter().map(|(&session, kept)| (session, kept.until)).collect();
            prop_assert_eq!(&then, &model, "{:?}", &step);
            // Exactly those are told who were there and have lost their hold to somebody else.
            let overrides = if command.is_release() { Some(session) } else { None };
            let lost = gone.into_iter().filter(|&gone| before[&gone].until.is_none() && Some(gone) != overrides);
            let told: BTreeSet<_> = subject.ended.iter().map(|ended| ended.session).collect();
            prop_assert_eq!(told.len(), subject.ended.len(), "somebody is told twice");
            prop_assert_eq!(told, lost.collect::<BTreeSet<_>>());
        }
    }
}
