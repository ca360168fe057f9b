//! Says who holds a user's slots.

use super::limit::SlotLimit;
use super::outcome::{LinePlace, SlotUsage};
use super::policy::AdmissionPolicy;
use super::record::UserRecord;
use super::slots::Slots;

/// Counts the user's slots. Call [`remove_lapsed`](super::remove_lapsed) first, or lapsed sessions count as well.
#[must_use]
pub fn count(record: &UserRecord, policy: &AdmissionPolicy) -> u32 {
    Slots::count_in(record, policy.count_by)
}

/// Lists the sessions that hold the user's slots, oldest first, at most `max` of them. Call
/// [`remove_lapsed`](super::remove_lapsed) first, or lapsed sessions are listed as well.
///
/// `token_limit` is the limit that the user's token claims.
#[must_use]
pub fn list(record: &UserRecord, token_limit: Option<SlotLimit>, policy: &AdmissionPolicy, max: usize) -> SlotUsage {
    let (limit, limit_source) = policy.limit_for(token_limit);
    let slots = Slots::from_record(record, policy.count_by);
    SlotUsage {
        limit,
        limit_source,
        slots: slots.count(),
        sessions: record.sessions().iter().take(max).cloned().collect(),
        free_at: slots.free_at(limit.slots()),
        denied: None,
        client_choice: policy.client_choice && limit.slots() > 0,
        waiting: u16::try_from(record.waiting().len()).unwrap_or(u16::MAX),
        line: LinePlace::NotInLine,
    }
}
