//! Applies store commands to a user's record.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::admission::{Acquire, Denied, Grant, admit};
use super::command::StoreCommand;
use super::end::{end_sessions, linger, release};
use super::lapsed::remove_lapsed_at;
use super::line::called;
use super::listing::list;
use super::outcome::{
    ApplyResult, DenyReason, GrantDetails, Hint, LinePlace, Liveness, Outcome, SessionHint, SlotUsage, StoreError,
};
use super::policy::AdmissionPolicy;
use super::record::{SessionStatus, UserRecord};
use super::renewal::{Renewal, renew};
use super::slots::Slots;
use crate::id::{NodeId, SessionId, UserId};

/// Applies a command to the record of its user. `user` is the user whose record it is: the key that the store read it with.
///
/// A store calls this with each command, between reading the record and writing it. An application that keeps its
/// records itself can call [`acquire`](super::acquire) and its siblings, whose answers have types of their own.
///
/// Removes lapsed sessions first, as [`remove_lapsed`](super::remove_lapsed) does. So the record may have changed whatever
/// the outcome is. An acquire for a session of a dead node is rejected: the session would lapse at once.
///
/// A command of another user is rejected, and nothing changes: the limit of one user must not be spent from the record of
/// another.
pub fn apply(
    user: &UserId,
    record: &mut UserRecord,
    command: &StoreCommand,
    policy: &AdmissionPolicy,
    liveness: impl Fn(NodeId) -> Liveness,
) -> ApplyResult {
    let mut ended = Vec::new();
    if command.user() != user {
        let (lapsed, displaced, hints) = (Vec::new(), Vec::new(), Vec::new());
        return ApplyResult { outcome: REJECTED, ended, lapsed, displaced, hints };
    }
    let before = has_listeners(record).then(|| Seen::of(record));
    let lapsed = remove_lapsed_at(record, command.at(), &liveness);
    let mut displaced = Vec::new();
    let outcome = match command {
        StoreCommand::Acquire { session, limit, at, options, .. } => {
            let acquire = Acquire { session: *session, token_limit: *limit, options: options.as_deref(), at: *at };
            match admit(record, acquire, policy, &liveness) {
                Ok(Grant { slots, limit, linger, slot, since, resume, ended: live, displaced: lingering, evicted }) => {
                    (ended, displaced) = (live, lingering);
                    let details = || GrantDetails { limit, linger, slot, since, resume, evicted: evicted.into() };
                    Outcome::Granted { slots, grant: options.is_some().then(|| Box::new(details())) }
                }
                Err(Denied { reason: DenyReason::NodeDead, .. }) => REJECTED,
                Err(Denied { reason, free_at, line, .. }) => {
                    let usage = || {
                        let usage = list(record, *limit, policy, SlotUsage::MAX_SHOWN);
                        Box::new(SlotUsage { denied: Some(reason), free_at, line, ..usage })
                    };
                    match line {
                        LinePlace::At(_) if reason.allows_waiting() => Outcome::Waiting(usage()),
                        LinePlace::At(_) | LinePlace::NotInLine | LinePlace::Full => {
                            Outcome::Denied(options.is_some().then(usage))
                        }
                    }
                }
            }
        }
        StoreCommand::Release { session, .. } => {
            release(record, *session);
            Outcome::Released
        }
        StoreCommand::Linger { session, at, token, .. } => {
            linger(record, *session, *at, token);
            Outcome::Released
        }
        StoreCommand::CountSlots { .. } => Outcome::Counted { slots: Slots::count_in(record, policy.count_by) },
        StoreCommand::ListSessions { session, limit, is_unbounded, watch, .. } => {
            let own = record.sessions_mut().iter_mut().find(|entry| entry.session == *session);
            if let (Some(own), Some(watch)) = (own, watch) {
                // A lost session has nobody to tell.
                own.watches = *watch && own.status == SessionStatus::Live;
            }
            let max = if *is_unbounded { UserRecord::MAX_SESSIONS } else { SlotUsage::MAX_SHOWN };
            Outcome::Listed(Box::new(list(record, *limit, policy, max)))
        }
        StoreCommand::EndSessions { session, target, reason, .. } => {
            let result = end_sessions(record, *session, *target, reason, policy);
            (ended, displaced) = (result.ended, result.displaced);
            // A record has at most 1024 sessions.
            let before = u16::try_from(result.before).unwrap_or(u16::MAX);
            Outcome::Ended { sessions: result.sessions, before, slots: result.slots }
        }
        StoreCommand::Renew { session, limit, device, .. } => {
            let renewal = Renewal { session: *session, token_limit: *limit, device: device.as_ref() };
            match renew(record, renewal, policy) {
                Ok(slots) => Outcome::Counted { slots },
                Err(denied) => Outcome::NotRenewed(denied),
            }
        }
    };
    let hints = before.map_or_else(Vec::new, |before| hints(&before, record, command, policy));
    record.forget_if_empty();
    ApplyResult { outcome, ended, lapsed, displaced, hints }
}

/// Whether any session wants to know what happens to the record.
fn has_listeners(record: &UserRecord) -> bool {
    !record.waiting().is_empty() || record.sessions().iter().any(|entry| entry.watches)
}

/// The hints for the sessions that wait or watch. A session that acquires or lists needs none: its answer tells it all.
fn hints(before: &Seen, record: &UserRecord, command: &StoreCommand, policy: &AdmissionPolicy) -> Vec<SessionHint> {
    let mut hints = Vec::new();
    let is_told_all = matches!(command, StoreCommand::Acquire { .. } | StoreCommand::ListSessions { .. });
    let mut add = |session, hint| {
        if !(is_told_all && session == command.session()) {
            hints.push(SessionHint { session, hint });
        }
    };
    let has_changed = *before != Seen::of(record);
    if has_changed {
        let watching = record.sessions().iter().filter(|entry| entry.watches).map(|entry| entry.session);
        watching.chain(record.waiting().iter().map(|waiter| waiter.session)).for_each(|to| add(to, Hint::Changed));
    }
    if !has_changed && !matches!(command, StoreCommand::Acquire { .. }) {
        return hints;
    }
    // A release says no time. It frees no slot that only time frees. A session that waits for such a slot asks by itself.
    let now = command.at().unwrap_or_default();
    called(record, policy, now).into_iter().for_each(|to| add(to, Hint::Turn));
    hints
}

/// What a client sees of a record: if it is the same, nobody has to look again.
#[derive(PartialEq)]
struct Seen {
    sessions: Vec<(SessionId, SessionStatus)>,
    waiting: Vec<SessionId>,
}

impl Seen {
    fn of(record: &UserRecord) -> Self {
        let sessions = record.sessions().iter().map(|entry| (entry.session, entry.status)).collect();
        Self { sessions, waiting: record.waiting().iter().map(|waiter| waiter.session).collect() }
    }
}

/// The answer to a command that must not be applied.
const REJECTED: Outcome = Outcome::Rejected(StoreError::Failed);
