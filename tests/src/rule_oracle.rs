//! Holds the ledger's rule to its promises, one command at a time: from what a record was and what it is then, read in the
//! obvious way. It does not predict whom the rule ends; it knows what must be so whoever that is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use session_core::ledger::{
    AdmissionPolicy, CountBy, EndReason, Evict, Liveness, Outcome, SessionRecord, SessionStatus, StoreError,
    UserRecord, WhenFull,
};
use session_core::ledger::{ApplyResult, EndTarget, StoreCommand};
use session_core::{NodeId, SessionId, Timestamp};

type Holds<'a> = BTreeMap<SessionId, &'a SessionRecord>;

/// Checks what came of a command.
///
/// # Panics
/// When the rule has broken a promise. The text says which.
pub fn check(
    before: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: impl Fn(NodeId) -> Liveness,
    result: &ApplyResult,
    after: &UserRecord,
) {
    let before = alive(before, command.at(), &liveness);
    let before: Holds<'_> = before.iter().map(|hold| (hold.session, hold)).collect();
    let then: Holds<'_> = after.sessions().iter().map(|hold| (hold.session, hold)).collect();
    assert_eq!(then.len(), after.sessions().len(), "a session has two holds");
    let gone: BTreeSet<_> = before.keys().filter(|session| !then.contains_key(session)).copied().collect();
    let come: BTreeSet<_> = then.keys().filter(|session| !before.contains_key(session)).copied().collect();
    let session = command.session();
    let is_dead = liveness(session.node()) != Liveness::Alive;
    let slots = |holds: &Holds<'_>| count(holds.values().copied(), policy.count_by);

    match command {
        StoreCommand::Release { .. } => {
            assert_eq!(result.outcome, Outcome::Released);
            assert!(!then.contains_key(&session), "what was released is there");
            assert!(come.is_empty() && gone.iter().all(|&gone| gone == session), "a release took more than its own");
        }
        StoreCommand::Linger { at, .. } => {
            assert_eq!(result.outcome, Outcome::Released);
            assert!(come.is_empty() && gone.iter().all(|&gone| gone == session), "lingering took more than its own");
            if let Some(old) = before.get(&session) {
                let until = match old.status {
                    SessionStatus::Live => *at + linger(old),
                    SessionStatus::Lingering { until } => until,
                };
                let lingers = then.get(&session).map(|hold| hold.status);
                assert_eq!(lingers, Some(SessionStatus::Lingering { until }).filter(|_| !linger(old).is_zero()));
            }
        }
        StoreCommand::CountSlots { .. } => {
            assert!(gone.is_empty() && come.is_empty(), "a look has changed something");
            assert_eq!(result.outcome, Outcome::Counted { connections: slots(&then) });
        }
        StoreCommand::ListSessions { is_unbounded: whole, .. } => {
            let Outcome::Listed(listing) = &result.outcome else { panic!("no list: {:?}", result.outcome) };
            assert!(gone.is_empty() && come.is_empty(), "a look has changed something");
            let most = if *whole { after.sessions().len() } else { after.sessions().len().min(100) };
            assert_eq!((&*listing.sessions, listing.connections), (&after.sessions()[..most], slots(&then)));
        }
        StoreCommand::EndSessions { target: which, reason: by, .. } => {
            let Outcome::Ended { sessions, connections } = &result.outcome else { panic!("{:?}", result.outcome) };
            assert_eq!((come.len(), *connections), (0, slots(&then)));
            let told: BTreeSet<_> = sessions.iter().copied().collect();
            assert!(!told.contains(&session), "a session has ended itself");
            let may = !matches!(by, EndReason::ByUser(_)) || before.contains_key(&session);
            match which {
                EndTarget::Excess { dry_run: true } => assert!(gone.is_empty()),
                EndTarget::One(one) => {
                    let expected = may && *one != session && before.contains_key(one);
                    assert_eq!((gone.len(), gone.contains(one)), (usize::from(expected), expected));
                }
                EndTarget::All => assert!(then.keys().all(|&left| left == session)),
                EndTarget::Excess { dry_run: false } => {
                    assert!(
                        slots(&then) <= policy.limit_for(None).0.slots(),
                        "not all that is beyond the limit has gone"
                    );
                    let most = slots(&before).min(policy.limit_for(None).0.slots());
                    assert_eq!(slots(&then), most, "more has gone than is beyond the limit");
                }
            }
            if !matches!(which, EndTarget::Excess { dry_run: true }) {
                assert_eq!(gone, told);
            }
        }
        StoreCommand::Acquire { limit, options, .. } => {
            let limit = policy.limit_for(*limit).0.slots();
            let options = options.as_deref();
            match &result.outcome {
                Outcome::Granted { connections, grant } => {
                    assert!(!is_dead, "a dead node's session was granted a slot");
                    assert!(
                        then.get(&session).is_some_and(|hold| hold.status == SessionStatus::Live),
                        "granted, and not there"
                    );
                    assert_eq!(*connections, slots(&then));
                    assert_eq!(grant.is_some(), options.is_some());
                    let key = options.and_then(|options| options.resume);
                    let named = options.and_then(|options| options.device.as_ref());
                    let is_meant = |hold: &&&SessionRecord| {
                        key.is_some() && key_of(hold) == key && (named.is_none() || named == hold.device())
                    };
                    let moved = before.values().find(is_meant);
                    if before.contains_key(&session) {
                        assert!(come.is_empty() && gone.is_empty(), "whoever has its slot took another");
                    } else if let Some(moved) = moved.filter(|_| limit > 0) {
                        assert!(grant.as_ref().is_some_and(|grant| grant.is_resumed), "a token was not heeded");
                        assert_eq!(
                            (&gone, &come),
                            (&[moved.session].into(), &[session].into()),
                            "a token moves one hold"
                        );
                        assert_eq!(then[&session].since, moved.since, "a slot became younger");
                        assert_eq!(slots(&then), slots(&before), "a token has admitted somebody");
                    } else {
                        assert!(limit > 0, "somebody was admitted where nobody may be");
                        assert_eq!(come, [session].into());
                        let rest = then.values().copied().filter(|hold| hold.session != session);
                        let is_shared = slots(&then) == count(rest, policy.count_by);
                        assert!(is_shared || slots(&then) <= limit, "somebody was admitted beyond the limit");
                        let spares = options.is_some_and(|options| options.evict == Some(Evict::Nobody));
                        assert!(!spares || gone.is_empty(), "somebody was ended against the newcomer's will");
                        let only_lingered = gone.iter().all(|gone| before[gone].status != SessionStatus::Live);
                        let may = policy.lingering_first && only_lingered
                            || policy.effective_when_full() == WhenFull::EvictOldest
                            || policy.client_choice && options.is_some_and(|options| options.evict.is_some());
                        assert!(gone.is_empty() || may, "somebody was ended without leave");
                        let device = options.and_then(|options| options.device.as_ref());
                        let device = device.filter(|_| policy.count_by == CountBy::Devices);
                        let is_own = |hold: &&SessionRecord| device.is_some() && hold.device() == device;
                        if before.values().copied().any(|hold| is_own(&hold)) {
                            let overrides = then.values().copied().filter(is_own).count();
                            let most = usize::from(policy.sessions_per_device.get());
                            assert!(overrides <= most, "a device has more sessions than one may");
                            assert!(gone.iter().all(|gone| is_own(&before[gone])), "another device was ended");
                            let is_full = overrides == most || then.len() == UserRecord::MAX_SESSIONS;
                            assert!(gone.is_empty() || is_full, "more were ended than it took");
                        } else if !gone.is_empty() {
                            assert!(
                                slots(&then) == limit || then.len() == UserRecord::MAX_SESSIONS,
                                "more were ended than it took"
                            );
                        }
                    }
                }
                Outcome::Denied(listing) => {
                    assert!(gone.is_empty() && come.is_empty(), "refused, and something has changed");
                    assert_eq!(listing.is_some(), options.is_some());
                    let is_device_full = listing.as_ref().is_some_and(|listing| listing.is_device_full);
                    let is_ceiling = after.sessions().len() >= UserRecord::MAX_SESSIONS;
                    assert!(slots(&then) >= limit || is_device_full || is_ceiling, "refused without need");
                    let choice = options.and_then(|options| options.evict.as_ref());
                    let gives_way = match choice.filter(|_| policy.client_choice) {
                        Some(Evict::Oldest) => true,
                        Some(Evict::Sessions(_) | Evict::Nobody) => false,
                        None => policy.effective_when_full() == WhenFull::EvictOldest && choice != Some(&Evict::Nobody),
                    };
                    assert!(limit == 0 || !gives_way, "refused, though somebody was to be ended for it");
                }
                outcome => assert!(is_dead && *outcome == Outcome::Rejected(StoreError::Failed), "{outcome:?}"),
            }
        }
    }

    // Exactly those are told who were there and lost their hold to somebody else.
    let overrides = command.is_release().then_some(session);
    let lost: BTreeSet<_> = gone
        .into_iter()
        .filter(|gone| before[gone].status == SessionStatus::Live && Some(*gone) != overrides)
        .collect();
    let told: BTreeSet<_> = result.ended.iter().map(|ended| ended.session).collect();
    assert_eq!(told.len(), result.ended.len(), "somebody is told twice");
    assert_eq!(told, lost, "those who are told are not those who lost their slots");
}

/// The holds that count at this time.
fn alive(record: &UserRecord, at: Option<Timestamp>, liveness: &impl Fn(NodeId) -> Liveness) -> Vec<SessionRecord> {
    let mut holds = record.sessions().to_vec();
    for hold in &mut holds {
        if let (SessionStatus::Live, Liveness::DeadSince(since)) = (hold.status, liveness(hold.session.node())) {
            hold.status = SessionStatus::Lingering { until: since + linger(hold) };
        }
    }
    holds.retain(|hold| match hold.status {
        SessionStatus::Live => true,
        SessionStatus::Lingering { until } => !linger(hold).is_zero() && at.is_none_or(|at| at < until),
    });
    holds
}

fn linger(hold: &SessionRecord) -> Duration {
    hold.resumable().map_or(Duration::ZERO, |resumable| resumable.linger)
}

fn key_of(hold: &SessionRecord) -> Option<session_core::ResumeKey> {
    hold.resumable().map(|resumable| resumable.key)
}

/// How many slots these holds make.
fn count<'a, I: Iterator<Item = &'a SessionRecord>>(holds: I, counting: CountBy) -> u32 {
    let mut alone = 0;
    let mut devices = BTreeSet::new();
    for hold in holds {
        match hold.device().filter(|_| counting == CountBy::Devices) {
            Some(device) => drop(devices.insert(device.clone())),
            None => alone += 1,
        }
    }
    alone + u32::try_from(devices.len()).expect("few")
}
