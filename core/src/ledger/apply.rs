//! Applies store commands to a user's record.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::admission::{Acquire, DenyReason, admit};
use super::command::StoreCommand;
use super::end::{end_sessions, linger, release};
use super::lapsed::remove_lapsed_at;
use super::listing::list;
use super::outcome::{ApplyResult, EndReason, EndedSession, GrantDetails, Liveness, Outcome, SlotUsage, StoreError};
use super::policy::AdmissionPolicy;
use super::record::{SessionRecord, SessionStatus, UserRecord};
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
        return ApplyResult { outcome: REJECTED, ended, lapsed: Vec::new(), displaced: Vec::new() };
    }
    let lapsed = remove_lapsed_at(record, command.at(), &liveness);
    let mut displaced = Vec::new();
    let outcome = match command {
        StoreCommand::Acquire { session, limit, at, options, .. } => {
            let acquire = Acquire { session: *session, token_limit: *limit, options: options.as_deref(), at: *at };
            let lingering = lingering(record);
            match admit(record, acquire, policy, &liveness) {
                Ok(grant) => {
                    displaced = displaced_among(lingering, record, || {
                        if grant.is_resumed {
                            EndReason::Resumed
                        } else {
                            let by = record.session(*session).and_then(SessionRecord::display_name);
                            EndReason::TakenOver(by.cloned())
                        }
                    });
                    ended = grant.ended;
                    let details =
                        GrantDetails { limit: grant.limit, linger: grant.linger, is_resumed: grant.is_resumed };
                    Outcome::Granted { slots: grant.slots, grant: options.is_some().then(|| Box::new(details)) }
                }
                Err(denied) => {
                    let is_device_full = match denied.reason {
                        DenyReason::NodeDead => {
                            return ApplyResult { outcome: REJECTED, ended, lapsed, displaced };
                        }
                        DenyReason::DeviceFull => true,
                        DenyReason::LimitReached => false,
                    };
                    Outcome::Denied(options.is_some().then(|| {
                        let usage = list(record, *limit, policy, SlotUsage::MAX_SHOWN);
                        Box::new(SlotUsage { is_device_full, free_at: denied.free_at, ..usage })
                    }))
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
        StoreCommand::ListSessions { limit, is_unbounded, .. } => {
            let max = if *is_unbounded { UserRecord::MAX_SESSIONS } else { SlotUsage::MAX_SHOWN };
            Outcome::Listed(Box::new(list(record, *limit, policy, max)))
        }
        StoreCommand::EndSessions { session, target, reason, .. } => {
            let lingering = lingering(record);
            let result = end_sessions(record, *session, *target, reason, policy);
            ended = result.ended;
            displaced = displaced_among(lingering, record, || reason.clone());
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
    ApplyResult { outcome, ended, lapsed, displaced }
}

/// Those of the sessions, which lingered before the command, that have no slot any more. A session that resumes another has
/// its slot, under its own id.
fn displaced_among(
    lingering: Vec<SessionId>,
    record: &UserRecord,
    reason: impl Fn() -> EndReason,
) -> Vec<EndedSession> {
    let gone = lingering.into_iter().filter(|&session| record.session(session).is_none());
    gone.map(|session| EndedSession { session, reason: reason() }).collect()
}

fn lingering(record: &UserRecord) -> Vec<SessionId> {
    record.sessions().iter().filter(|entry| entry.status != SessionStatus::Live).map(|entry| entry.session).collect()
}

/// The answer to a command that must not be applied.
const REJECTED: Outcome = Outcome::Rejected(StoreError::Failed);
