//! The line of the sessions that wait for a slot of their user.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::command::{AcquireOptions, Evict};
use super::limit::SlotLimit;
use super::outcome::LinePlace;
use super::policy::AdmissionPolicy;
use super::record::{SessionRecord, UserRecord, WaitingSession};
use super::room::{Room, find_room};
use crate::id::{DisplayName, SessionId};
use crate::time::Timestamp;

/// The sessions in line that would be admitted now, in order. Each has to be told that it is its turn
/// ([`Event::Hinted`](crate::session::Event::Hinted)); then it asks again. Call [`remove_lapsed`](super::remove_lapsed) first.
///
/// [`apply`](super::apply()) does this after each command. An application that keeps the records itself calls it after
/// [`release`](super::release), [`linger`](super::linger) and [`end_sessions`](super::end_sessions).
#[must_use]
pub fn called(record: &UserRecord, policy: &AdmissionPolicy, now: Timestamp) -> Vec<SessionId> {
    seat(record, record.waiting(), policy, now).1
}

/// Lets each of these sessions take the slot that it finds, in order. Returns the record as it would be then, and those that
/// found one. The record is copied only if one does.
///
/// So whoever comes later finds what they leave: nobody takes a slot that somebody before could take. A session whose token
/// claims a lower limit may have to wait while one behind it finds room.
pub(super) fn seat<'a>(
    record: &'a UserRecord,
    waiting: &[WaitingSession],
    policy: &AdmissionPolicy,
    now: Timestamp,
) -> (Cow<'a, UserRecord>, Vec<SessionId>) {
    let (mut record, mut seated) = (Cow::Borrowed(record), Vec::new());
    for waiter in waiting {
        let (limit, _) = policy.limit_for(waiter.claim);
        let choice = waiter.spares_lingering.then_some(Evict::Nobody);
        let Room::AfterEvicting(victims) =
            find_room(&record, limit, waiter.device.as_ref(), choice.as_ref(), policy, now)
        else {
            continue;
        };
        let sessions = record.to_mut().sessions_mut();
        sessions.retain(|entry| !victims.contains(&entry.session));
        sessions.push(waiter.seated(now));
        seated.push(waiter.session);
    }
    (record, seated)
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
    let device: Option<DisplayName> = options.device.clone();
    let line = record.waiting_mut();
    let place = match line.iter_mut().position(|waiter| waiter.session == session) {
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
    LinePlace::At(u16::try_from(place + 1).expect("few wait"))
}

/// Takes a session out of the line. Returns whether it was there.
pub(super) fn leave(record: &mut UserRecord, session: SessionId) -> bool {
    if record.waiting().is_empty() {
        return false;
    }
    let before = record.waiting().len();
    record.waiting_mut().retain(|waiter| waiter.session != session);
    record.waiting().len() < before
}

impl WaitingSession {
    /// The session as it would be with a slot, for those behind it.
    pub(super) fn seated(&self, now: Timestamp) -> SessionRecord {
        let mut seated = SessionRecord { claim: self.claim, ..SessionRecord::new(self.session, now) };
        seated.set_device(self.device.clone());
        seated
    }
}
