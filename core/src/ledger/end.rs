//! Takes slots back: release, linger, and ending sessions of others.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::command::{EndTarget, KnownToken};
use super::end_reason::EndReason;
use super::line;
use super::outcome::EndedSession;
use super::policy::AdmissionPolicy;
use super::record::{FormerEnd, SessionRecord, SessionStatus, UserRecord};
use super::slots::Slots;
use crate::id::SessionId;
use crate::time::Timestamp;

/// Sessions were ended, or would be in a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the ended sessions have to be told"]
pub struct EndResult {
    /// All of them, also those that only lingered.
    pub sessions: Box<[SessionId]>,
    /// The live ones among them. Each has to be told.
    pub ended: Vec<EndedSession>,
    /// Those that only lingered. Nobody has to be told: their clients are gone.
    pub displaced: Vec<EndedSession>,
    /// The slots that the user held before.
    pub before: u32,
    /// The slots that the user holds now.
    pub slots: u32,
}

/// Gives the session's slot back, if it has one. Returns whether it had one. A session in line leaves the line.
pub fn release(record: &mut UserRecord, session: SessionId) -> bool {
    line::leave(record, session);
    let before = record.sessions().len();
    record.sessions_mut().retain(|entry| entry.session != session);
    record.sessions().len() < before
}

/// Keeps the slot of a lost session for its grace period, if its client can resume it: the slot has a resume token, `token`
/// says that the client has it, and there is a grace period. Otherwise gives the slot back: nobody could take it up again.
///
/// `lost_at` is when the session was lost. The grace period begins then. It does not begin again if the session lingers
/// already. A session in line leaves the line.
pub fn linger(record: &mut UserRecord, session: SessionId, lost_at: Timestamp, token: &KnownToken) {
    line::leave(record, session);
    record.sessions_mut().retain_mut(|entry| {
        if entry.session != session {
            return true;
        }
        if entry.status == SessionStatus::Live {
            entry.status = SessionStatus::Lingering { until: lost_at + entry.linger() };
            entry.watches = false;
        }
        let is_known = match token {
            KnownToken::Granted => true,
            KnownToken::Shown(key) => entry.resumable().is_some_and(|resumable| resumable.key == **key),
        };
        is_known && !entry.linger().is_zero()
    });
}

/// Ends sessions of the user. `asker` is the session that asks: it is never ended itself.
///
/// A session of the user ([`EndReason::ByUser`]) ends others only while it has a slot itself. `ByUser(None)` is completed
/// with the label or device of the asker. Call [`remove_lapsed`](super::remove_lapsed) first.
pub fn end_sessions(
    record: &mut UserRecord,
    asker: SessionId,
    target: EndTarget,
    reason: &EndReason,
    policy: &AdmissionPolicy,
) -> EndResult {
    let before = Slots::count_in(record, policy.count_by);
    let mut sessions: Vec<_> = match target {
        EndTarget::One(session) => Slots::from_record(record, policy.count_by).ended_with(session, asker),
        EndTarget::All => record.sessions().iter().map(|entry| entry.session).collect(),
        EndTarget::Excess { limit, .. } => Slots::from_record(record, policy.count_by).over_limit(limit),
    };
    let may_end = !matches!(reason, EndReason::ByUser(_)) || record.session(asker).is_some();
    sessions.retain(|&session| may_end && session != asker);
    let mut removed = Vec::new();
    let named;
    let reason = if *reason == EndReason::ByUser(None) {
        named = EndReason::ByUser(record.session(asker).and_then(SessionRecord::names));
        &named
    } else {
        reason
    };
    if !matches!(target, EndTarget::Excess { dry_run: true, .. }) {
        removed = remove(record, &sessions);
    }
    let slots = Slots::count_in(record, policy.count_by);
    let (ended, displaced) = split_by_status(&removed, reason);
    EndResult { sessions: sessions.into(), ended, displaced, before, slots }
}

/// Removes these sessions from the record, which remembers that their slots were taken. Returns what was removed.
pub(super) fn remove(record: &mut UserRecord, sessions: &[SessionId]) -> Vec<SessionRecord> {
    let removed: Vec<_> = record.sessions_mut().extract_if(.., |entry| sessions.contains(&entry.session)).collect();
    for entry in &removed {
        record.remember(entry, FormerEnd::Taken);
    }
    removed
}

/// The live ones of these sessions, which have to be told the reason, and those that only lingered.
pub(super) fn split_by_status(removed: &[SessionRecord], reason: &EndReason) -> (Vec<EndedSession>, Vec<EndedSession>) {
    let of = |is_live: bool| {
        let removed = removed.iter().filter(|entry| (entry.status == SessionStatus::Live) == is_live);
        removed.map(|entry| EndedSession { session: entry.session, reason: reason.clone() }).collect()
    };
    (of(true), of(false))
}
