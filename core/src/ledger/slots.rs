//! A record's holds as the slots that they make.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::command::Evict;
use super::limit::SlotLimit;
use super::policy::{AdmissionPolicy, CountBy, WhenFull};
use super::record::{SessionRecord, UserRecord};
use crate::id::{DisplayName, SessionId};
use crate::time::Timestamp;

/// The slots that a record's holds make, in the order of their oldest hold.
pub(super) struct Slots<'a>(Vec<Slot<'a>>);

/// One slot: the hold of one session, or those of all of a device's.
pub(super) struct Slot<'a> {
    /// At least one, oldest first.
    pub(super) sessions: Vec<&'a SessionRecord>,
    device: Option<&'a DisplayName>,
}

impl<'a> Slots<'a> {
    pub(super) fn from_record(record: &'a UserRecord, counting: CountBy) -> Self {
        let mut slots: Vec<Slot<'a>> = Vec::with_capacity(record.sessions().len());
        let mut devices = BTreeMap::new();
        for hold in record.sessions() {
            let device = match counting {
                CountBy::Sessions => None,
                CountBy::Devices => hold.device(),
            };
            match device.and_then(|device| devices.get(device)) {
                Some(&at) => {
                    let slot: &mut Slot<'a> = &mut slots[at];
                    slot.sessions.push(hold);
                }
                None => {
                    if let Some(device) = device {
                        devices.insert(device, slots.len());
                    }
                    slots.push(Slot { sessions: [hold].into(), device });
                }
            }
        }
        Self(slots)
    }

    /// How many slots a record's holds make, which is all that most want to know.
    pub(super) fn count_in(record: &UserRecord, counting: CountBy) -> u32 {
        let count = match counting {
            CountBy::Sessions => record.sessions().len(),
            CountBy::Devices => Slots::from_record(record, counting).0.len(),
        };
        u32::try_from(count).expect("a record has few holds")
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a record has few holds")
    }

    /// The slot that this device has already.
    pub(super) fn of_device(&self, device: &DisplayName) -> Option<&Slot<'a>> {
        self.0.iter().find(|slot| slot.device == Some(device))
    }

    /// The slots that may be taken away for a newcomer, in the order in which they are.
    pub(super) fn victims(&self, policy: &AdmissionPolicy, choice: Option<&Evict>) -> Vec<&Slot<'a>> {
        // To want nobody ended needs no leave.
        if choice == Some(&Evict::Nobody) {
            return Vec::new();
        }
        let mut lingering: Vec<_> = self
            .0
            .iter()
            .filter_map(|slot| Some((slot.lingers_until()?, slot)))
            .filter(|_| policy.lingering_first)
            .collect();
        // A stable sort: of those that end at the same time the oldest comes first.
        lingering.sort_by_key(|&(until, _)| until);
        let mut victims: Vec<_> = lingering.into_iter().map(|(_, slot)| slot).collect();
        let is_left = |slot: &&Slot<'a>| !(policy.lingering_first && slot.lingers_until().is_some());
        match (choice.filter(|_| policy.client_choice), policy.effective_when_full()) {
            (Some(Evict::Sessions(sessions)), _) => {
                for &session in sessions {
                    let chosen = self.0.iter().find(|slot| slot.is_held_by(session)).filter(is_left);
                    if let Some(chosen) = chosen
                        && !victims.iter().any(|victim| victim.is_held_by(session))
                    {
                        victims.push(chosen);
                    }
                }
            }
            (Some(Evict::Oldest), _) | (None, WhenFull::EvictOldest) => victims.extend(self.0.iter().filter(is_left)),
            (Some(Evict::Nobody), _) | (None, WhenFull::Deny) => {}
        }
        victims
    }

    /// Who holds a slot beyond the limit: of the newest slots.
    pub(super) fn over_limit(&self, limit: SlotLimit) -> Vec<SessionId> {
        let most = usize::try_from(limit.slots()).unwrap_or(usize::MAX);
        let newest = self.0.iter().skip(most).rev();
        newest.flat_map(|slot| slot.sessions.iter().map(|hold| hold.session)).collect()
    }

    /// When so many slots have lingered for their time that one more has its place among the `most` there may be, if nobody
    /// comes or goes until then.
    pub(super) fn free_at(&self, most: u32) -> Option<Timestamp> {
        let needed = (self.count() + 1).checked_sub(most)?;
        let mut ends: Vec<_> = self.0.iter().filter_map(Slot::lingers_until).collect();
        ends.sort_unstable();
        ends.get(usize::try_from(needed).ok()?.checked_sub(1)?).copied()
    }
}

impl<'a> Slot<'a> {
    /// Its holds, each as a slot of its own.
    pub(super) fn split_by_session(&self) -> Slots<'a> {
        Slots(self.sessions.iter().map(|&hold| Slot { sessions: [hold].into(), device: None }).collect())
    }

    fn is_held_by(&self, session: SessionId) -> bool {
        self.sessions.iter().any(|hold| hold.session == session)
    }

    /// When it is free, if nobody takes it up: when all of its holds only linger.
    fn lingers_until(&self) -> Option<Timestamp> {
        let ends = self.sessions.iter().map(|session| session.status.lingers_until());
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}
