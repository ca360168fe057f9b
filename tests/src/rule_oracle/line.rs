//! Checks the line of those who wait for a slot.
//!
//! It knows nothing of how the rule looks after the line. It asks the rule what a session would get if nobody waited, and
//! derives from that who is before whom.

use std::collections::BTreeSet;

use session_core::ledger::{self, Acquire, AcquireOptions, ApplyResult, Hint, LinePlace, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, CountBy, DenyReason, Evict, Liveness, Outcome, SessionStatus, SlotUsage, UserRecord,
    WaitingSession, WhenFull,
};
use session_core::{NodeId, SessionId, Timestamp};

/// Checks what a command did to the line, and whom it told.
pub(super) fn check(
    before: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
    result: &ApplyResult,
    after: &UserRecord,
) {
    for waiter in after.waiting() {
        let session = waiter.session;
        assert!(after.session(session).is_none(), "{session} has a slot and waits");
        assert_eq!(liveness(session.node()), Liveness::Alive, "{session} waits, and its node is dead");
    }
    check_who_waits(before, command, policy, liveness, &result.outcome, after);
    if let StoreCommand::Acquire { .. } = command {
        check_order(before, command, policy, liveness, &result.outcome, after);
    }
    check_watches(before, command, after);
    check_hints(before, command, policy, liveness, result, after);
}

/// The sessions in line before this one. All of them, if it is not in line.
pub(super) fn ahead(
    record: &UserRecord,
    session: SessionId,
    liveness: &impl Fn(NodeId) -> Liveness,
) -> impl Iterator<Item = WaitingSession> {
    let line = alive(record, liveness);
    line.into_iter().take_while(move |waiter| waiter.session != session)
}

/// How many sessions in line before the one that asks would find room.
pub(super) fn called_ahead(
    before: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
) -> usize {
    let ahead: Vec<_> = ahead(before, command.session(), liveness).collect();
    seat(before, &ahead, policy, liveness, command.at().unwrap_or_default()).1.len()
}

/// The sessions in line whose nodes are alive.
pub(super) fn alive(record: &UserRecord, liveness: &impl Fn(NodeId) -> Liveness) -> Vec<WaitingSession> {
    let mut line = record.waiting().to_vec();
    line.retain(|waiter| liveness(waiter.session.node()) == Liveness::Alive);
    line
}

/// Who joins the line, stays there and leaves it, and what it is told.
fn check_who_waits(
    before: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
    outcome: &Outcome,
    after: &UserRecord,
) {
    let mut expected = alive(before, liveness);
    let (session, held) = (command.session(), expected.len());
    let old = expected.iter().position(|waiter| waiter.session == session);
    match command {
        StoreCommand::Release { .. } | StoreCommand::Linger { .. } => {
            expected.retain(|waiter| waiter.session != session);
        }
        StoreCommand::CountSlots { .. }
        | StoreCommand::ListSessions { .. }
        | StoreCommand::EndSessions { .. }
        | StoreCommand::Renew { .. } => {}
        StoreCommand::Acquire { limit, options, at, .. } => {
            let options = options.as_deref();
            let is_banned = policy.limit_for(*limit).0.slots() == 0;
            let may_wait = |usage: &SlotUsage| {
                options.is_some_and(|options| options.waits)
                    && !is_banned
                    && matches!(usage.denied, Some(DenyReason::LimitReached | DenyReason::DeviceFull))
            };
            let most = usize::from(policy.max_waiting).min(UserRecord::MAX_WAITING);
            match outcome {
                Outcome::Waiting(usage) => {
                    assert!(may_wait(usage), "{session} waits, and may not or does not want to: {usage:?}");
                    let options = options.expect("it wants to wait");
                    let since = old.map_or(*at, |old| expected[old].since);
                    let spares_lingering = options.evict == Some(Evict::Nobody);
                    let device = options.device.clone();
                    let own = WaitingSession { session, since, claim: *limit, device, spares_lingering };
                    let at = old.unwrap_or(held);
                    expected.splice(at..(at + 1).min(held), [own]);
                    assert!(old.is_some() || held < most, "{session} joined a full line");
                    assert_eq!(usage.line, LinePlace::At(u16::try_from(at + 1).expect("few")), "not its place");
                }
                Outcome::Denied(usage) => {
                    let line = usage.as_ref().map_or(LinePlace::NotInLine, |usage| usage.line);
                    let is_full = usage.as_ref().is_some_and(|usage| may_wait(usage));
                    assert_eq!(line == LinePlace::Full, is_full, "{session}: {usage:?}");
                    assert!(!is_full || old.is_none() && held >= most, "the line of {held} is not full");
                    // It may be denied something else than a place, and wait on.
                    let waits = options.is_some_and(|options| options.waits) && !is_banned;
                    let is_other = usage.as_ref().is_some_and(|usage| {
                        matches!(usage.denied, Some(DenyReason::Gone | DenyReason::NotResumed(_)))
                    });
                    let stays = old.filter(|_| waits && is_other);
                    match stays {
                        Some(old) => assert_eq!(line, LinePlace::At(u16::try_from(old + 1).expect("few"))),
                        None => {
                            assert!(!matches!(line, LinePlace::At(_)), "{session} was denied, and waits");
                            expected.retain(|waiter| waiter.session != session);
                        }
                    }
                }
                _ => expected.retain(|waiter| waiter.session != session),
            }
        }
    }
    assert_eq!(after.waiting(), expected, "others wait, or in another order");
    if let Outcome::Denied(Some(usage)) | Outcome::Waiting(usage) | Outcome::Listed(usage) = outcome {
        assert_eq!(usize::from(usage.waiting), expected.len());
    }
}

/// Nobody takes a slot that somebody before it could take, and nobody is denied one that is left for it.
fn check_order(
    before: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
    outcome: &Outcome,
    after: &UserRecord,
) {
    let StoreCommand::Acquire { session, limit, options, at, .. } = command else { return };
    let options = options.as_deref();
    let ahead: Vec<_> = ahead(before, *session, liveness).collect();
    let (left, called) = seat(before, &ahead, policy, liveness, *at);
    let gives_way = match options.and_then(|options| options.evict.as_ref()) {
        None => policy.effective_when_full() == WhenFull::EvictOldest,
        Some(Evict::Oldest) => policy.client_choice || policy.effective_when_full() == WhenFull::EvictOldest,
        Some(Evict::Sessions(_) | Evict::Nobody) => false,
    };
    match outcome {
        Outcome::Granted { .. } => {
            let own = after.session(*session).expect("it was granted a slot");
            let is_new = before.session(*session).is_none() && own.slot.first_session() == *session;
            // Who evicts any session would evict one that took a free slot before it.
            if !is_new || gives_way {
                return;
            }
            let (_, still) = seat(after, &ahead, policy, liveness, *at);
            for waiter in &called {
                assert!(still.contains(waiter), "{session} took the slot of {waiter}, which is before it in line");
            }
            check_free_slots(before, after, &ahead, policy, liveness, command);
        }
        Outcome::Denied(Some(usage)) | Outcome::Waiting(usage) => {
            if !matches!(usage.denied, Some(DenyReason::LimitReached | DenyReason::DeviceFull)) {
                return;
            }
            let options = options.map(|options| AcquireOptions { resume: None, ..options.clone() });
            let finds_room = |record: &UserRecord| {
                let mut record = without_line(record);
                let acquire = Acquire { session: *session, token_limit: *limit, options: options.as_ref(), at: *at };
                let is_granted = ledger::acquire(&mut record, acquire, policy, liveness).is_ok();
                is_granted.then_some(record)
            };
            // If it went first, would those before it still find room?
            let leaves_room = |then: &UserRecord| seat(then, &ahead, policy, liveness, *at).1.is_superset(&called);
            let is_spare = finds_room(&left).is_some() && finds_room(before).is_some_and(|then| leaves_room(&then));
            // Those who wait although the oldest is evicted began to under another policy. Whom each of them evicts depends on
            // who goes first.
            // Beside one that spares lingering slots, the rule may deny a slot for a moment: until those who were called have
            // asked, and evicted whom they do.
            let is_certain =
                policy.effective_when_full() == WhenFull::Deny && !ahead.iter().any(|waiter| waiter.spares_lingering);
            assert!(!is_spare || !is_certain, "{session} was denied a slot that nobody before it needs");
        }
        _ => {}
    }
}

/// Counts, where one session is one slot: an empty slot is of the first in line whose limit allows it.
fn check_free_slots(
    before: &UserRecord,
    after: &UserRecord,
    ahead: &[WaitingSession],
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
    command: &StoreCommand,
) {
    let StoreCommand::Acquire { session, limit, at, .. } = command else { return };
    let mut held = before.clone();
    ledger::remove_lapsed(&mut held, *at, liveness);
    let evicted_nobody = after.sessions().len() == held.sessions().len() + 1;
    if policy.count_by == CountBy::Devices || !evicted_nobody {
        return;
    }
    let limit = policy.limit_for(*limit).0.slots() as usize;
    let is_first = |waiter: &&WaitingSession| policy.limit_for(waiter.claim).0.slots() as usize >= limit;
    let first = ahead.iter().filter(is_first).count();
    let free = limit.saturating_sub(held.sessions().len());
    assert!(first < free, "{session} took one of {free} free slots, and {first} are before it in line");
}

/// Only its own list command makes a session watch. It ceases to with its connection.
fn check_watches(before: &UserRecord, command: &StoreCommand, after: &UserRecord) {
    for entry in after.sessions() {
        let was = before.session(entry.session).is_some_and(|before| before.watches);
        let said = match command {
            StoreCommand::ListSessions { session, watch, .. } if *session == entry.session => *watch,
            _ => None,
        };
        let is_live = entry.status == SessionStatus::Live;
        assert_eq!(entry.watches, said.unwrap_or(was) && is_live, "{} watches, or does not", entry.session);
    }
}

/// Exactly those are told who wait or watch, and exactly those called whose turn it is.
fn check_hints(
    before: &UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
    result: &ApplyResult,
    after: &UserRecord,
) {
    // Its answer tells a session that acquires or lists all.
    let is_told_all = matches!(command, StoreCommand::Acquire { .. } | StoreCommand::ListSessions { .. });
    let asker = Some(command.session()).filter(|_| is_told_all);
    let hinted = |hint: Hint| {
        let all: Vec<_> =
            result.hints.iter().filter(|hinted| hinted.hint == hint).map(|hinted| hinted.session).collect();
        let once: BTreeSet<_> = all.iter().copied().collect();
        assert_eq!(all.len(), once.len(), "somebody is told twice: {all:?}");
        assert!(asker.is_none_or(|asker| !once.contains(&asker)), "the asker is told by its answer");
        once
    };
    let seen = |record: &UserRecord| {
        let list: Vec<_> = record.sessions().iter().map(|entry| (entry.session, entry.status)).collect();
        (list, record.waiting().iter().map(|waiter| waiter.session).collect::<Vec<_>>())
    };
    let has_changed = seen(before) != seen(after);
    let watching = after.sessions().iter().filter(|entry| entry.watches).map(|entry| entry.session);
    let listeners: BTreeSet<_> = watching.chain(after.waiting().iter().map(|waiter| waiter.session)).collect();
    let expected = listeners.into_iter().filter(|&session| has_changed && Some(session) != asker).collect();
    assert_eq!(hinted(Hint::Changed), expected, "not exactly those who wait or watch were told of a change");

    let turns = hinted(Hint::Turn);
    let own = BTreeSet::from_iter(asker);
    let called = |policy: &AdmissionPolicy, at| &seat(after, after.waiting(), policy, liveness, at).1 - &own;
    match command.at() {
        // Where nothing has changed, they were called before.
        _ if !has_changed && !matches!(command, StoreCommand::Acquire { .. }) => {
            assert!(turns.is_empty(), "{turns:?} were called again, although nothing has changed");
        }
        Some(at) => assert_eq!(turns, called(policy, at), "not exactly those were called whose turn it is"),
        // Without a time no slot counts that only time frees. A session before another one may take the lingering slot that
        // the other one would share, so it is not enough that whoever finds room without lingering slots is called.
        None => {
            let expected = called(policy, Timestamp::default());
            assert_eq!(turns, expected, "not exactly those were called whose turn it is without a time");
        }
    }
}

/// Lets each of these sessions take the slot that it finds, in order. Returns the record then, and those that found one.
pub(super) fn seat(
    record: &UserRecord,
    waiting: &[WaitingSession],
    policy: &AdmissionPolicy,
    liveness: &impl Fn(NodeId) -> Liveness,
    at: Timestamp,
) -> (UserRecord, BTreeSet<SessionId>) {
    let mut record = without_line(record);
    let mut called = BTreeSet::new();
    for waiter in waiting {
        let options = AcquireOptions {
            device: waiter.device.clone(),
            // Nobody who waits ends a live session.
            evict: Some(if waiter.spares_lingering { Evict::Nobody } else { Evict::Sessions(Box::default()) }),
            ..AcquireOptions::default()
        };
        let acquire = Acquire { session: waiter.session, token_limit: waiter.claim, options: Some(&options), at };
        if ledger::acquire(&mut record, acquire, policy, liveness).is_ok() {
            called.insert(waiter.session);
        }
    }
    (record, called)
}

fn without_line(record: &UserRecord) -> UserRecord {
    record.clone().with_waiting(Vec::new()).expect("a shorter line is a good one")
}
