//! Removes sessions that have lapsed: they hold no slot any more.

use alloc::vec::Vec;

use super::outcome::Liveness;
use super::record::{FormerEnd, SessionRecord, SessionStatus, UserRecord};
use crate::id::{NodeId, SessionId};
use crate::time::Timestamp;

/// Removes the sessions that have lapsed, and those in line whose node is dead. Lets resumable sessions of dead nodes linger.
///
/// A session lapses when its grace period ends, or when its node dies and no client can resume it. From then on it holds no
/// slot, even while the record still has it.
///
/// [`apply`](super::apply()) begins with this. A store also calls it for records that no command touches. Returns the removed
/// sessions.
pub fn remove_lapsed(record: &mut UserRecord, now: Timestamp, liveness: impl Fn(NodeId) -> Liveness) -> Vec<SessionId> {
    remove_lapsed_at(record, Some(now), &liveness)
}

/// As [`remove_lapsed`]. Without a time, no grace period has ended.
pub(super) fn remove_lapsed_at(
    record: &mut UserRecord,
    now: Option<Timestamp>,
    liveness: &impl Fn(NodeId) -> Liveness,
) -> Vec<SessionId> {
    if !record.waiting().is_empty() {
        record.waiting_mut().retain(|waiter| liveness(waiter.session.node()) == Liveness::Alive);
    }
    let lapsed: Vec<_> = record.sessions_mut().extract_if(.., |entry| !stays(entry, now, liveness)).collect();
    for entry in &lapsed {
        record.remember(entry, FormerEnd::Expired);
    }
    lapsed.into_iter().map(|entry| entry.session).collect()
}

/// Whether the session has not lapsed. Lets it linger if its node is dead.
fn stays(entry: &mut SessionRecord, now: Option<Timestamp>, liveness: &impl Fn(NodeId) -> Liveness) -> bool {
    if let Liveness::DeadSince(since) = liveness(entry.session.node()) {
        let latest = since + entry.linger();
        entry.status = match entry.status {
            SessionStatus::Live if entry.linger().is_zero() => return false,
            SessionStatus::Live => {
                entry.watches = false;
                SessionStatus::Lingering { until: latest }
            }
            // A later end was written by a node whose clock was ahead.
            SessionStatus::Lingering { until } => SessionStatus::Lingering { until: until.min(latest) },
        };
    }
    match entry.status {
        SessionStatus::Live => true,
        SessionStatus::Lingering { until } => now.is_none_or(|now| now < until),
    }
}
