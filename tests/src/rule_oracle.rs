//! Checks the ledger's rule, one command at a time, by the record before and after. It does not predict which sessions the
//! rule ends. It checks what must hold whichever they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use session_core::ledger::{self, Acquire, AcquireOptions, ApplyResult, EndTarget, StoreCommand, UserOverrides};
use session_core::ledger::{
    AdmissionPolicy, CountBy, DenyReason, EndReason, Evict, KnownToken, Liveness, Outcome, RenewalDenied, Resumption,
    SessionRecord, SessionStatus, SlotUsage, StoreError, UserRecord, WaitingSession, WhenFull,
};
use session_core::{NodeId, SessionId, SlotId, Timestamp};

mod line;

type Entries<'a> = BTreeMap<SessionId, &'a SessionRecord>;

/// Checks the result of a command.
///
/// # Panics
/// If the result breaks a promise of the rule. The text says which.
pub fn check(
    before: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: impl Fn(NodeId) -> Liveness,
    result: &ApplyResult,
    after: &UserRecord,
) {
    line::check(before, command, policy, &liveness, result, after);
    let line = before;
    let before = alive(before, command.at(), &liveness);
    let before: Entries<'_> = before.iter().map(|entry| (entry.session, entry)).collect();
    let current: Entries<'_> = after.sessions().iter().map(|entry| (entry.session, entry)).collect();
    assert_eq!(current.len(), after.sessions().len(), "a session has two entries");
    let removed: BTreeSet<_> = before.keys().filter(|session| !current.contains_key(session)).copied().collect();
    let added: BTreeSet<_> = current.keys().filter(|session| !before.contains_key(session)).copied().collect();
    let session = command.session();
    let is_dead = liveness(session.node()) != Liveness::Alive;
    let slots = |entries: &Entries<'_>| count(entries.values().copied(), policy.count_by);

    match command {
        StoreCommand::Release { .. } => {
            assert_eq!(result.outcome, Outcome::Released);
            assert!(!current.contains_key(&session), "a released session is still there");
            assert!(
                added.is_empty() && removed.iter().all(|&removed| removed == session),
                "a release removed another session"
            );
        }
        StoreCommand::Linger { at, token, .. } => {
            assert_eq!(result.outcome, Outcome::Released);
            assert!(
                added.is_empty() && removed.iter().all(|&removed| removed == session),
                "lingering removed another session"
            );
            if let Some(old) = before.get(&session) {
                let until = match old.status {
                    SessionStatus::Live => *at + linger(old),
                    SessionStatus::Lingering { until } => until,
                };
                let can_resume = match token {
                    KnownToken::Granted => true,
                    KnownToken::Shown(key) => key_of(old) == Some(**key),
                };
                let expected =
                    Some(SessionStatus::Lingering { until }).filter(|_| can_resume && !linger(old).is_zero());
                let lingers = current.get(&session).map(|entry| entry.status);
                assert_eq!(lingers, expected, "exactly a slot that its client can resume lingers");
            }
        }
        StoreCommand::CountSlots { .. } => {
            assert!(removed.is_empty() && added.is_empty(), "a query changed the record");
            assert_eq!(result.outcome, Outcome::Counted { slots: slots(&current) });
        }
        StoreCommand::ListSessions { is_unbounded: whole, .. } => {
            let Outcome::Listed(usage) = &result.outcome else { panic!("no list: {:?}", result.outcome) };
            assert!(removed.is_empty() && added.is_empty(), "a query changed the record");
            let most = if *whole { after.sessions().len() } else { after.sessions().len().min(100) };
            assert_eq!((&*usage.sessions, usage.slots), (&after.sessions()[..most], slots(&current)));
        }
        StoreCommand::Renew { limit, device, .. } => {
            assert!(removed.is_empty() && added.is_empty(), "a renewal changed the record");
            let is_banned = policy.limit_for(*limit).0.slots() == 0;
            let own = before.get(&session).filter(|_| device.is_some());
            let is_of_device = own.is_none_or(|own| own.device() == device.as_ref());
            let expected = match (is_banned, is_of_device) {
                (true, _) => Outcome::NotRenewed(RenewalDenied::Banned),
                (false, false) => Outcome::NotRenewed(RenewalDenied::AnotherDevice),
                (false, true) => Outcome::Counted { slots: slots(&current) },
            };
            assert_eq!(result.outcome, expected);
        }
        StoreCommand::EndSessions { target: which, reason: by, .. } => {
            let Outcome::Ended { sessions, before: held_before, slots: held } = &result.outcome else {
                panic!("{:?}", result.outcome)
            };
            assert_eq!((added.len(), u32::from(*held_before), *held), (0, slots(&before), slots(&current)));
            let notified: BTreeSet<_> = sessions.iter().copied().collect();
            assert!(!notified.contains(&session), "a session ended itself");
            let is_permitted = !matches!(by, EndReason::ByUser(_)) || before.contains_key(&session);
            match which {
                EndTarget::Excess { dry_run: true, .. } => assert!(removed.is_empty()),
                EndTarget::One(named) => {
                    // By its id, or by its slot.
                    let one =
                        &before.values().find(|entry| entry.is_named(*named)).map_or(*named, |entry| entry.session);
                    let device_of = |session: &SessionId| {
                        before
                            .get(session)
                            .and_then(|entry| entry.device())
                            .filter(|_| policy.count_by == CountBy::Devices)
                    };
                    let together = device_of(one).filter(|&device| device_of(&session) != Some(device));
                    let is_meant = |entry: &SessionId| {
                        before.contains_key(one) && (entry == one || together.is_some() && device_of(entry) == together)
                    };
                    let expected: BTreeSet<_> = before
                        .keys()
                        .filter(|entry| is_permitted && **entry != session && is_meant(entry))
                        .copied()
                        .collect();
                    assert_eq!(removed, expected, "not exactly the sessions of the slot were ended");
                }
                EndTarget::All => assert!(current.keys().all(|&left| left == session)),
                EndTarget::Excess { limit, dry_run: false } => {
                    assert!(slots(&current) <= limit.slots(), "sessions beyond the limit remain");
                    let most = slots(&before).min(limit.slots());
                    assert_eq!(slots(&current), most, "more than the excess was ended");
                }
            }
            if !matches!(which, EndTarget::Excess { dry_run: true, .. }) {
                assert_eq!(removed, notified);
            }
        }
        StoreCommand::Acquire { limit, options, .. } => {
            let limit = policy.limit_for(*limit).0.slots();
            let options = options.as_deref();
            match &result.outcome {
                Outcome::Granted { slots: held, grant } => {
                    assert!(!is_dead, "a session of a dead node was granted a slot");
                    assert!(
                        current.get(&session).is_some_and(|entry| entry.status == SessionStatus::Live),
                        "a granted session is not in the record"
                    );
                    assert_eq!(*held, slots(&current));
                    assert_eq!(grant.is_some(), options.is_some());
                    let key = options.and_then(|options| options.resume);
                    let named = options.and_then(|options| options.device.as_ref());
                    let is_meant = |entry: &&&SessionRecord| {
                        key.is_some() && key_of(entry) == key && (named.is_none() || named == entry.device())
                    };
                    let moved = before.values().find(is_meant);
                    if before.contains_key(&session) {
                        assert!(added.is_empty() && removed.is_empty(), "a session with a slot changed the record");
                    } else if let Some(moved) = moved.filter(|_| limit > 0) {
                        let grant = grant.as_ref().expect("it showed a token");
                        assert_eq!(grant.resume, Resumption::Resumed, "the resume token was ignored");
                        assert_eq!(
                            (grant.slot, current[&session].slot),
                            (moved.slot, moved.slot),
                            "the slot's name changed"
                        );
                        assert_eq!(grant.since, moved.since);
                        assert!(grant.evicted.is_empty(), "a resume evicted a session");
                        assert_eq!(
                            (&removed, &added),
                            (&[moved.session].into(), &[session].into()),
                            "a resume moves exactly one session"
                        );
                        assert_eq!(current[&session].since, moved.since, "a resume changed the age of the slot");
                        assert_eq!(slots(&current), slots(&before), "a resume changed the number of slots");
                    } else {
                        assert!(limit > 0, "a session was admitted with a limit of 0");
                        assert_eq!(current[&session].slot, SlotId::new(session), "a new slot has the name of another");
                        if let Some(grant) = grant {
                            assert_eq!((grant.slot, grant.since), (current[&session].slot, current[&session].since));
                            let is_asked = key.is_some();
                            assert_eq!(is_asked, matches!(grant.resume, Resumption::Failed(_)), "{:?}", grant.resume);
                            assert_eq!(is_asked, grant.resume != Resumption::NotAsked);
                            assert!(
                                !is_asked || !options.is_some_and(|options| options.must_resume),
                                "it wanted to resume"
                            );
                            let told: BTreeSet<_> = grant.evicted.iter().map(|evicted| evicted.slot).collect();
                            let evicted: BTreeSet<_> = removed.iter().map(|removed| before[removed].slot).collect();
                            let is_complete = evicted.len() <= SlotUsage::MAX_SHOWN;
                            let is_right = if is_complete { told == evicted } else { told.is_subset(&evicted) };
                            assert!(is_right, "the grant does not name the sessions that were evicted for it");
                        }
                        assert_eq!(added, [session].into());
                        let rest = current.values().copied().filter(|entry| entry.session != session);
                        let is_shared = slots(&current) == count(rest, policy.count_by);
                        let own = current[&session].device().filter(|_| policy.count_by == CountBy::Devices);
                        // A session that takes the place of another one of its device takes no other slot.
                        let is_shared =
                            is_shared || own.is_some() && before.values().any(|entry| entry.device() == own);
                        assert!(is_shared || slots(&current) <= limit, "a session was admitted beyond the limit");
                        let spares = options.is_some_and(|options| options.evict == Some(Evict::Nobody));
                        assert!(!spares || removed.is_empty(), "a session was ended despite `evict: nobody`");
                        let only_lingered = removed.iter().all(|removed| before[removed].status != SessionStatus::Live);
                        let evicts_oldest = policy.effective_when_full() == WhenFull::EvictOldest;
                        let is_permitted = match options.and_then(|options| options.evict.as_ref()) {
                            None => evicts_oldest,
                            Some(Evict::Oldest) => evicts_oldest || policy.client_choice,
                            Some(Evict::Sessions(named)) => {
                                // A session that ends is named, or is of the same device as one that is.
                                let is_named = |removed: &SessionId| {
                                    let device = before[removed].device();
                                    let of_device = |named: &SessionId| {
                                        before.values().any(|entry| entry.is_named(*named) && entry.device() == device)
                                    };
                                    let is_meant = |named: &SessionId| before[removed].is_named(*named);
                                    named.iter().any(is_meant) || device.is_some() && named.iter().any(of_device)
                                };
                                let lingered = |removed: &SessionId| before[removed].status != SessionStatus::Live;
                                let is_meant = |removed: &SessionId| {
                                    is_named(removed) || policy.lingering_first && lingered(removed)
                                };
                                policy.client_choice && removed.iter().all(is_meant)
                            }
                            Some(Evict::Nobody) => false,
                        };
                        let is_permitted = is_permitted || policy.lingering_first && only_lingered;
                        assert!(removed.is_empty() || is_permitted, "a session was ended without permission");
                        check_just_lost(&before, &current, command, policy, &removed, &line::alive(line, &liveness));
                        let device = options.and_then(|options| options.device.as_ref());
                        let device = device.filter(|_| policy.count_by == CountBy::Devices);
                        // It leaves them the free slots, and evicts a session for itself.
                        let left = line::called_ahead(line, command, policy, &liveness);
                        let is_same_device = |entry: &&SessionRecord| device.is_some() && entry.device() == device;
                        if before.values().copied().any(|entry| is_same_device(&entry)) {
                            let released = current.values().copied().filter(is_same_device).count();
                            let most = usize::from(policy.sessions_per_device.get());
                            assert!(released <= most, "a device has too many sessions");
                            assert!(
                                removed.iter().all(|removed| is_same_device(&before[removed])),
                                "a session of another device was ended"
                            );
                            let is_full = released + left >= most || current.len() == UserRecord::MAX_SESSIONS;
                            assert!(removed.is_empty() || is_full, "more sessions were ended than necessary");
                        } else if !removed.is_empty() {
                            assert!(
                                slots(&current) as usize + left >= limit as usize
                                    || current.len() == UserRecord::MAX_SESSIONS,
                                "more sessions were ended than necessary"
                            );
                        }
                    }
                }
                Outcome::Denied(_) | Outcome::Waiting(_) => {
                    let usage = match &result.outcome {
                        Outcome::Denied(usage) => usage.as_ref(),
                        Outcome::Waiting(usage) => Some(usage),
                        outcome => unreachable!("{outcome:?}"),
                    };
                    assert!(removed.is_empty() && added.is_empty(), "a denial changed the record");
                    assert_eq!(usage.is_some(), options.is_some());
                    let reason = usage.and_then(|usage| usage.denied);
                    // `line` says whether those before it leave it no room.
                    let has_ahead = line::ahead(line, session, &liveness).next().is_some();
                    let is_device_full = reason == Some(DenyReason::DeviceFull);
                    let wants_to_resume =
                        options.is_some_and(|options| options.must_resume && options.resume.is_some());
                    assert_eq!(
                        wants_to_resume && limit > 0,
                        matches!(reason, Some(DenyReason::NotResumed(_))),
                        "{reason:?}"
                    );
                    let is_ceiling = after.sessions().len() >= UserRecord::MAX_SESSIONS;
                    assert!(
                        slots(&current) >= limit
                            || has_ahead
                            || is_device_full
                            || is_ceiling
                            || wants_to_resume
                            || reason == Some(DenyReason::Gone),
                        "a session was denied although a slot is free"
                    );
                    let choice = options.and_then(|options| options.evict.as_ref());
                    if let Some(usage) = usage.filter(|_| !is_ceiling && limit > 0) {
                        check_time_of_room(after, command, policy, &liveness, usage.free_at);
                    }
                    let evicts_oldest = policy.effective_when_full() == WhenFull::EvictOldest;
                    let gives_way = match choice {
                        Some(Evict::Oldest) => evicts_oldest || policy.client_choice,
                        Some(Evict::Sessions(_) | Evict::Nobody) => false,
                        None => evicts_oldest,
                    };
                    assert!(
                        limit == 0 || !gives_way || wants_to_resume,
                        "a session was denied although another one was to be evicted"
                    );
                    if let Some(Evict::Sessions(named)) = choice {
                        let is_there = |named: &SessionId| current.values().any(|entry| entry.is_named(*named));
                        let is_gone = policy.client_choice && limit > 0 && !named.iter().all(is_there);
                        assert_eq!(is_gone && !wants_to_resume, reason == Some(DenyReason::Gone), "{reason:?}");
                    }
                }
                outcome => assert!(is_dead && *outcome == Outcome::Rejected(StoreError::Failed), "{outcome:?}"),
            }
        }
    }

    // Exactly the live sessions that another session or an operator ended are notified.
    let released = command.is_release().then_some(session);
    let lost: BTreeSet<_> = removed
        .into_iter()
        .filter(|removed| before[removed].status == SessionStatus::Live && Some(*removed) != released)
        .collect();
    let notified: BTreeSet<_> = result.ended.iter().map(|ended| ended.session).collect();
    assert_eq!(notified.len(), result.ended.len(), "a session is notified twice");
    assert_eq!(notified, lost, "the notified sessions are not those that lost their slots");
}

/// The sessions in line that would be admitted now if they asked, and nobody before them took the slot.
#[must_use]
pub fn called(
    record: &UserRecord,
    policy: &AdmissionPolicy,
    liveness: impl Fn(NodeId) -> Liveness,
    at: Timestamp,
) -> BTreeSet<SessionId> {
    let waiting = line::alive(record, &liveness);
    line::seat(record, &waiting, policy, &liveness, at).1
}

/// Checks that a new session took a slot that was just lost only if its client named it, or if the oldest slot goes and no
/// other slot was left.
fn check_just_lost(
    before: &Entries<'_>,
    current: &Entries<'_>,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    removed: &BTreeSet<SessionId>,
    waiting: &[WaitingSession],
) {
    let StoreCommand::Acquire { session, at, options, .. } = command else { return };
    let options = options.as_deref();
    let counted = |entry: &SessionRecord| entry.device().filter(|_| policy.count_by == CountBy::Devices).cloned();
    let device = options.and_then(|options| options.device.clone()).filter(|_| policy.count_by == CountBy::Devices);
    let shares = device.is_some() && before.values().any(|entry| counted(entry) == device);
    // If the new session shares the slot of its device, each session of the device is a slot of its own.
    let slot_of = |entry: &SessionRecord| counted(entry).filter(|_| !shares).ok_or(entry.session);
    // A session in line for the slot of its device will use it soon.
    let is_awaited = |entry: &SessionRecord| {
        let device = counted(entry).filter(|_| !shares);
        device.is_some() && waiting.iter().any(|waiter| waiter.device == device)
    };
    let is_lost = |entry: &SessionRecord| {
        let mut sessions = before.values().filter(|other| slot_of(other) == slot_of(entry));
        sessions.all(|other| other.status != SessionStatus::Live) && !is_awaited(entry)
    };
    let is_just_lost = |entry: &SessionRecord| {
        let mut sessions = before.values().filter(|other| slot_of(other) == slot_of(entry));
        is_lost(entry) && sessions.any(|other| was_just_lost(other, policy, *at))
    };
    let choice = options.and_then(|options| options.evict.as_ref());
    let is_named = |entry: &SessionRecord| match choice {
        Some(Evict::Sessions(named)) if policy.client_choice => {
            let mut named = before.values().filter(|other| named.iter().any(|&name| other.is_named(name)));
            named.any(|named| slot_of(named) == slot_of(entry))
        }
        Some(Evict::Sessions(_) | Evict::Oldest | Evict::Nobody) | None => false,
    };
    let taken = removed.iter().map(|removed| before[removed]).filter(|entry| is_just_lost(entry) && !is_named(entry));
    let competes = |entry: &SessionRecord| !shares || counted(entry) == device;
    let mut left = current.values().filter(|entry| entry.session != *session && competes(entry));
    if taken.count() > 0 {
        assert!(
            !matches!(choice, Some(Evict::Sessions(_) | Evict::Nobody)),
            "a slot that was just lost was given away beside those that were named"
        );
        let oldest_goes = policy.effective_when_full() == WhenFull::EvictOldest
            || policy.client_choice && choice == Some(&Evict::Oldest);
        assert!(oldest_goes, "a slot that was just lost was given to a new session");
        assert!(left.all(|left| is_just_lost(left)), "a slot that was just lost went before another one");
    }
}

/// Whether the session was lost within the grace before this time. Time in which no server ran does not count.
pub(crate) fn was_just_lost(entry: &SessionRecord, policy: &AdmissionPolicy, at: Timestamp) -> bool {
    let SessionStatus::Lingering { until } = entry.status else { return false };
    let lost_at = until.since_epoch().saturating_sub(linger(entry)).max(policy.serving_since.since_epoch());
    at.since_epoch() < lost_at.saturating_add(policy.linger_grace) && !policy.linger_grace.is_zero()
}

/// Checks that a session which was denied is told the earliest time at which one like it finds room.
fn check_time_of_room(
    record: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
    told: Option<Timestamp>,
) {
    let StoreCommand::Acquire { session, limit, options, at, .. } = command else { return };
    // One that names no session, and evicts no live one.
    let overrides = UserOverrides { when_full: Some(WhenFull::Deny), ..policy.overrides };
    let policy = policy.with_overrides(overrides);
    let options = options.as_deref().map(|options| AcquireOptions {
        evict: options.evict.clone().filter(|evict| *evict == Evict::Nobody),
        ..options.clone()
    });
    let finds_room = |at| {
        let acquire = Acquire { session: *session, token_limit: *limit, options: options.as_ref(), at };
        ledger::acquire(&mut record.clone(), acquire, &policy, liveness).is_ok()
    };
    let far = Timestamp::from_epoch(Duration::from_secs(u64::MAX / 2));
    let last =
        told.map_or(far, |told| Timestamp::from_epoch(told.since_epoch().saturating_sub(Duration::from_nanos(1))));
    let has_ahead = line::ahead(record, *session, liveness).next().is_some();
    if has_ahead && told.is_none() {
        return;
    }
    assert!(told.is_none_or(|told| *at < told), "the time at which there is room has passed");
    assert!(!finds_room(last), "there is room before {told:?}");
    // If the last sessions of a device lapse together, one like it needs a slot of its own. What those before it in line
    // will take by then, nobody knows.
    let needs_no_slot =
        policy.count_by == CountBy::Devices && options.as_ref().is_some_and(|options| options.device.is_some());
    assert!(has_ahead || needs_no_slot || told.is_none_or(finds_room), "there is no room at {told:?}");
}

/// The sessions that occupy a slot at this time.
fn alive(record: &UserRecord, at: Option<Timestamp>, liveness: &impl Fn(NodeId) -> Liveness) -> Vec<SessionRecord> {
    let mut entries = record.sessions().to_vec();
    for entry in &mut entries {
        if let Liveness::DeadSince(since) = liveness(entry.session.node()) {
            let latest = since + linger(entry);
            let until = entry.status.lingers_until().map_or(latest, |until| until.min(latest));
            entry.status = SessionStatus::Lingering { until };
        }
    }
    entries.retain(|entry| match entry.status {
        SessionStatus::Live => true,
        SessionStatus::Lingering { until } => !linger(entry).is_zero() && at.is_none_or(|at| at < until),
    });
    entries
}

fn linger(entry: &SessionRecord) -> Duration {
    entry.resumable().map_or(Duration::ZERO, |resumable| resumable.linger)
}

fn key_of(entry: &SessionRecord) -> Option<session_core::ResumeKey> {
    entry.resumable().map(|resumable| resumable.key)
}

/// The number of slots that these sessions occupy.
fn count<'a, I: Iterator<Item = &'a SessionRecord>>(entries: I, counting: CountBy) -> u32 {
    let mut alone = 0;
    let mut devices = BTreeSet::new();
    for entry in entries {
        match entry.device().filter(|_| counting == CountBy::Devices) {
            Some(device) => drop(devices.insert(device.clone())),
            None => alone += 1,
        }
    }
    alone + u32::try_from(devices.len()).expect("few")
}
