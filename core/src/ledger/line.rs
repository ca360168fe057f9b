//! The line of the sessions that wait for a slot of their user.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::LazyCell;

use super::command::{AcquireOptions, Evict};
use super::limit::SlotLimit;
use super::outcome::LinePlace;
use super::policy::AdmissionPolicy;
use super::record::{SessionRecord, UserRecord, WaitingSession};
use super::room::{Room, find_room_in};
use super::slots::Slots;
use crate::id::{DisplayName, SessionId};
use crate::time::Timestamp;

/// The sessions in line that would be admitted now, in order. Each has to be told that it is its turn
/// ([`Event::Hinted`](crate::session::Event::Hinted)); then it asks again. Call [`remove_lapsed`](super::remove_lapsed) first.
///
/// [`apply`](super::apply()) does this after each command. An application that keeps the records itself calls it after each
/// call that may free a slot or move the line: [`acquire`](super::acquire), [`release`](super::release),
/// [`linger`](super::linger), [`end_sessions`](super::end_sessions) and [`remove_lapsed`](super::remove_lapsed).
#[must_use]
pub fn called(record: &UserRecord, policy: &AdmissionPolicy, now: Timestamp) -> Vec<SessionId> {
    called_among(record, record.waiting(), policy, now)
}

/// Those of these sessions that would be admitted now, if they asked one after the other. A session finds the slots that those
/// before it leave. A session whose token claims a lower limit may have to wait while one behind it finds room.
///
/// The record is copied only if one finds room.
pub(super) fn called_among(
    record: &UserRecord,
    waiting: &[WaitingSession],
    policy: &AdmissionPolicy,
    now: Timestamp,
) -> Vec<SessionId> {
    let (mut record, mut called) = (Cow::Borrowed(record), Vec::new());
    let mut rest = waiting;
    while let Some((place, victims)) = first_with_room(&record, rest, policy, now) {
        let sessions = record.to_mut().sessions_mut();
        sessions.retain(|entry| !victims.contains(&entry.session));
        sessions.push(rest[place].seated(now));
        called.push(rest[place].session);
        rest = &rest[place + 1..];
    }
    called
}

/// The first of these sessions that finds room, and whom it evicts. None of them ends a live session: it would not wait if it
/// could.
fn first_with_room(
    record: &UserRecord,
    waiting: &[WaitingSession],
    policy: &AdmissionPolicy,
    now: Timestamp,
) -> Option<(usize, Vec<SessionId>)> {
    let slots = LazyCell::new(|| Slots::from_record(record, policy.count_by));
    let names_nobody = Evict::Sessions(Box::default());
    waiting.iter().enumerate().find_map(|(place, waiter)| {
        let (limit, _) = policy.limit_for(waiter.claim);
        let choice = if waiter.spares_lingering { &Evict::Nobody } else { &names_nobody };
        match find_room_in(record, &slots, limit, waiter.device.as_ref(), Some(choice), policy, now) {
            Room::AfterEvicting(victims) => Some((place, victims)),
            Room::None { .. } => None,
        }
    })
}

/// Puts a denied session into the line, or keeps its place there.
pub(super) fn join(
    record: &mut UserRecord,
    session: SessionId,
    claim: Option<SlotLimit>,
    options: &AcquireOptions,
    policy: &AdmissionPolicy,
    now: Timestamp,
) -> LinePlace {
    let spares_lingering = options.evict == Some(Evict::Nobody);
    let device = options.device.clone();
    let place = record.place_in_line(session);
    let line = record.waiting_mut();
    let place = match place {
        Some(place) => {
            let since = line[place].since;
            line[place] = WaitingSession { session, since, claim, device, spares_lingering };
            place
        }
        None if line.len() >= UserRecord::MAX_WAITING.min(policy.max_waiting.into()) => return LinePlace::Full,
        None => {
            line.push(WaitingSession { session, since: now, claim, device, spares_lingering });
            line.len() - 1
        }
    };
    at(place)
}

/// Keeps the place of a session that is denied something else, if it still wants to wait. Otherwise takes it out of the line.
pub(super) fn stay(record: &mut UserRecord, session: SessionId, waits: bool) -> LinePlace {
    if let Some(place) = record.place_in_line(session).filter(|_| waits) {
        return at(place);
    }
    leave(record, session);
    LinePlace::NotInLine
}

/// The place of the session that has so many before it.
fn at(before: usize) -> LinePlace {
    LinePlace::At(u16::try_from(before + 1).expect("few wait"))
}

/// Takes a session out of the line, if it is there.
pub(super) fn leave(record: &mut UserRecord, session: SessionId) {
    record.waiting_mut().retain(|waiter| waiter.session != session);
}

/// A session as it would be with a slot, for those behind it.
pub(super) fn seated(
    session: SessionId,
    claim: Option<SlotLimit>,
    device: Option<&DisplayName>,
    now: Timestamp,
) -> SessionRecord {
    let mut seated = SessionRecord { claim, ..SessionRecord::new(session, now) };
    seated.set_device(device.cloned());
    seated
}

impl WaitingSession {
    /// As [`seated`].
    pub(super) fn seated(&self, now: Timestamp) -> SessionRecord {
        seated(self.session, self.claim, self.device.as_ref(), now)
    }
}
