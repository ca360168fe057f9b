//! Checks the lines of the sessions that wait for a slot, by the answers alone: who waits, in which order, who may pass whom,
//! and who is told that it is its turn.

use std::collections::BTreeMap;

use session_core::ledger::{
    AdmissionPolicy, ApplyResult, CountBy, Evict, Hint, LinePlace, Outcome, Resumption, SlotLimit, StoreCommand,
    UserRecord, WhenFull,
};
use session_core::{NodeId, SessionId, UserId};

/// Who waits for a slot of each user, in the order in which the store said so.
#[derive(Debug, Default)]
pub struct LineOracle {
    lines: BTreeMap<UserId, Vec<Waiter>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiter {
    session: SessionId,
    claim: Option<SlotLimit>,
}

impl LineOracle {
    /// The store applied a command to this record, and the record is `after` now. Returns what was reached, for counting.
    ///
    /// # Panics
    /// If somebody passed another session in line, if the line in the record is not the line of those who were told that they
    /// wait, or if the first in line is not told that there is a slot for it. The text says which.
    pub fn applied(
        &mut self,
        command: &StoreCommand,
        policy: &AdmissionPolicy,
        is_alive: impl Fn(NodeId) -> bool,
        result: &ApplyResult,
        (before, after): (&UserRecord, &UserRecord),
    ) -> Option<&'static str> {
        let (user, session) = (command.user(), command.session());
        let line = self.lines.entry(user.clone()).or_default();
        line.retain(|waiter| is_alive(waiter.session.node()));
        let place = line.iter().position(|waiter| waiter.session == session);
        let mut reached = None;
        match (command, &result.outcome) {
            (StoreCommand::Acquire { limit, .. }, Outcome::Granted { .. }) => {
                check_passes_nobody(
                    &line[..place.unwrap_or(line.len())],
                    command,
                    *limit,
                    policy,
                    result,
                    (before, after),
                );
                reached = place.map(|_| "granted a slot for which it waited");
                line.retain(|waiter| waiter.session != session);
            }
            (StoreCommand::Acquire { limit, options, .. }, Outcome::Waiting(usage)) => {
                assert!(options.as_ref().is_some_and(|options| options.waits), "{session} did not ask to wait");
                let waiter = Waiter { session, claim: *limit };
                let place = place.unwrap_or(line.len());
                if place == line.len() {
                    line.push(waiter);
                }
                line[place] = waiter;
                let told = LinePlace::At(u16::try_from(place + 1).expect("few wait"));
                assert_eq!(usage.line, told, "{session} was told another place");
                assert!(line.len() <= usize::from(policy.max_waiting).max(before.waiting().len()), "too many wait");
            }
            (StoreCommand::Acquire { .. }, Outcome::Denied(usage)) => {
                if usage.as_ref().is_some_and(|usage| usage.line == LinePlace::Full) {
                    assert!(place.is_none() && line.len() >= usize::from(policy.max_waiting), "the line is not full");
                    reached = Some("the line was full");
                }
                reached = reached.or(place.map(|_| "denied after it waited"));
                // It may be denied something else than a place, and wait on.
                if !usage.as_ref().is_some_and(|usage| usage.is_in_line()) {
                    line.retain(|waiter| waiter.session != session);
                }
            }
            (StoreCommand::Release { .. } | StoreCommand::Linger { .. }, Outcome::Released) => {
                reached = place.map(|_| "left the line");
                line.retain(|waiter| waiter.session != session);
            }
            _ => {}
        }
        let told: Vec<_> = line.iter().map(|waiter| waiter.session).collect();
        let recorded: Vec<_> = after.waiting().iter().map(|waiter| waiter.session).collect();
        assert_eq!(recorded, told, "{user}: the line is not that of those who were told that they wait");
        check_first_is_called(line.first(), command, policy, result, (before, after));
        reached
    }
}

/// A session that takes a free slot leaves one for each session before it that has at least its limit. Only a session
/// that may evict another one need not: it would evict the one in line as soon as that had the slot.
fn check_passes_nobody(
    ahead: &[Waiter],
    command: &StoreCommand,
    claim: Option<SlotLimit>,
    policy: &AdmissionPolicy,
    result: &ApplyResult,
    (before, after): (&UserRecord, &UserRecord),
) {
    let session = command.session();
    let Outcome::Granted { grant, .. } = &result.outcome else { return };
    let is_resumed = grant.as_ref().is_some_and(|grant| grant.resume == Resumption::Resumed);
    let takes_free_slot = !is_resumed
        && before.session(session).is_none()
        && result.ended.is_empty()
        && result.displaced.is_empty()
        && !may_evict(command, policy)
        && policy.count_by == CountBy::Sessions;
    if takes_free_slot {
        let limit_of = |claim| policy.limit_for(claim).0.slots() as usize;
        let passed = ahead.iter().filter(|waiter| limit_of(waiter.claim) >= limit_of(claim)).count();
        let left = limit_of(claim).saturating_sub(after.sessions().len());
        assert!(passed <= left, "{session} was granted a slot that one of {ahead:?} waited for before it: {command:?}");
    }
}

fn may_evict(command: &StoreCommand, policy: &AdmissionPolicy) -> bool {
    let StoreCommand::Acquire { options, .. } = command else { return false };
    let evicts_oldest = policy.effective_when_full() == WhenFull::EvictOldest;
    match options.as_ref().and_then(|options| options.evict.as_ref()) {
        Some(Evict::Nobody) => false,
        Some(Evict::Oldest) => evicts_oldest || policy.client_choice,
        Some(Evict::Sessions(_)) => policy.client_choice,
        None => evicts_oldest,
    }
}

/// If a slot is free for the first in line, it is told.
fn check_first_is_called(
    first: Option<&Waiter>,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    result: &ApplyResult,
    (before, after): (&UserRecord, &UserRecord),
) {
    let Some(first) = first.filter(|first| first.session != command.session()) else { return };
    // Where nothing has changed, it was told before.
    let seen = |record: &UserRecord| {
        let sessions: Vec<_> = record.sessions().iter().map(|entry| (entry.session, entry.status)).collect();
        (sessions, record.waiting().iter().map(|waiter| waiter.session).collect::<Vec<_>>())
    };
    let is_due = seen(before) != seen(after) || matches!(command, StoreCommand::Acquire { .. });
    let is_free = is_due && after.sessions().len() < policy.limit_for(first.claim).0.slots() as usize;
    if is_free && policy.count_by == CountBy::Sessions {
        let is_told = |hint: Hint| result.hints.iter().any(|to| to.session == first.session && to.hint == hint);
        assert!(is_told(Hint::Turn), "{first:?} is not told that it is its turn");
    }
}
