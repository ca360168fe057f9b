//! Finds room for one more session, and which sessions are evicted for it.

use alloc::vec::Vec;
use core::cell::LazyCell;

use super::command::Evict;
use super::limit::SlotLimit;
use super::outcome::DenyReason;
use super::policy::{AdmissionPolicy, CountBy};
use super::record::{SessionRecord, SessionStatus, UserRecord};
use super::slots::{Slot, Slots, evicts_oldest};
use crate::id::{DisplayName, SessionId};
use crate::time::Timestamp;

/// Whether there is room for one more session.
pub(super) enum Room {
    /// There is, after these sessions were evicted. The list may be empty.
    AfterEvicting(Vec<SessionId>),
    /// There is none.
    None {
        reason: DenyReason,
        /// When there will be, if that is known.
        free_at: Option<Timestamp>,
    },
}

/// Whether a session of this device finds room under this limit, if it chooses so whom to evict.
pub(super) fn find_room(
    record: &UserRecord,
    limit: SlotLimit,
    device: Option<&DisplayName>,
    choice: Option<&Evict>,
    policy: &AdmissionPolicy,
    at: Timestamp,
) -> Room {
    let slots = LazyCell::new(|| Slots::from_record(record, policy.count_by));
    find_room_in(record, &slots, limit, device, choice, policy, at)
}

/// As [`find_room`], for a record whose slots are listed at most once for several sessions.
pub(super) fn find_room_in<'a>(
    record: &'a UserRecord,
    slots: &LazyCell<Slots<'a>, impl FnOnce() -> Slots<'a>>,
    limit: SlotLimit,
    device: Option<&DisplayName>,
    choice: Option<&Evict>,
    policy: &AdmissionPolicy,
    at: Timestamp,
) -> Room {
    if limit.slots() == 0 {
        return Room::None { reason: DenyReason::LimitReached, free_at: None };
    }
    let fits_record = record.sessions().len() < UserRecord::MAX_SESSIONS;
    // The usual case, without a list of slots.
    if policy.count_by == CountBy::Sessions && fits_record && Slots::count_in(record, policy.count_by) < limit.slots() {
        return Room::AfterEvicting(Vec::new());
    }
    // As usual for those who wait: nothing lingers, and nobody is evicted.
    let names_any = matches!(choice, Some(Evict::Sessions(chosen)) if !chosen.is_empty());
    let evicts_nobody = !names_any && !evicts_oldest(policy, choice);
    let is_live = |entry: &SessionRecord| entry.status == SessionStatus::Live;
    if policy.count_by == CountBy::Sessions && evicts_nobody && record.sessions().iter().all(is_live) {
        return Room::None { reason: DenyReason::LimitReached, free_at: None };
    }
    // A session of a known device shares that device's slot. It competes only with the other sessions of the device.
    let may_share = policy.reuses_above_limit || slots.count() <= limit.slots();
    let shared = device.filter(|_| may_share).and_then(|device| slots.of_device(device)).map(Slot::split_by_session);
    let is_shared = shared.is_some();
    let max = if is_shared { u32::from(policy.sessions_per_device.get()) } else { limit.slots() };
    let slots = shared.as_ref().unwrap_or(slots);
    let mut held = slots.count();
    let mut sessions = record.sessions().len();
    let mut victims = Vec::new();
    for slot in slots.victims(policy, choice, at) {
        if held < max && sessions < UserRecord::MAX_SESSIONS {
            break;
        }
        held -= 1;
        sessions -= slot.sessions.len();
        victims.extend(slot.sessions.iter().map(|entry| entry.session));
    }
    if held < max && sessions < UserRecord::MAX_SESSIONS {
        return Room::AfterEvicting(victims);
    }
    let reason = if names_gone(record, choice, policy) {
        DenyReason::Gone
    } else if is_shared && slots.count() >= max {
        DenyReason::DeviceFull
    } else {
        DenyReason::LimitReached
    };
    Room::None { reason, free_at: slots.room_at(max, policy, choice) }
}

/// Whether a session that the client may choose, and did, is not there.
pub(super) fn names_gone(record: &UserRecord, choice: Option<&Evict>, policy: &AdmissionPolicy) -> bool {
    let is_gone = |&id: &SessionId| !record.sessions().iter().any(|entry| entry.is_named(id));
    match choice {
        Some(Evict::Sessions(chosen)) => policy.client_choice && chosen.iter().any(is_gone),
        Some(Evict::Oldest | Evict::Nobody) | None => false,
    }
}
