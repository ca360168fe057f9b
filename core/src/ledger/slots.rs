//! The sessions of a record, grouped into slots.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::command::Evict;
use super::limit::SlotLimit;
use super::policy::{AdmissionPolicy, CountBy, WhenFull};
use super::record::{SessionRecord, UserRecord};
use crate::id::{DisplayName, SessionId};
use crate::time::Timestamp;

/// The slots of a record, in the order of their oldest session.
pub(super) struct Slots<'a>(Vec<Slot<'a>>);

/// One slot: one session, or all sessions of one device.
pub(super) struct Slot<'a> {
    /// At least one, oldest first.
    pub(super) sessions: Vec<&'a SessionRecord>,
    device: Option<&'a DisplayName>,
}

/// Whether the oldest session is evicted for a client with this choice.
pub(super) fn evicts_oldest(policy: &AdmissionPolicy, choice: Option<&Evict>) -> bool {
    let is_default = policy.effective_when_full() == WhenFull::EvictOldest;
    match choice {
        None => is_default,
        Some(Evict::Oldest) => is_default || policy.client_choice,
        Some(Evict::Sessions(_) | Evict::Nobody) => false,
    }
}

impl<'a> Slots<'a> {
    pub(super) fn from_record(record: &'a UserRecord, counting: CountBy) -> Self {
        let mut slots: Vec<Slot<'a>> = Vec::with_capacity(record.sessions().len());
        let mut devices = BTreeMap::new();
        for entry in record.sessions() {
            let device = match counting {
                CountBy::Sessions => None,
                CountBy::Devices => entry.device(),
            };
            match device.and_then(|device| devices.get(device)) {
                Some(&at) => {
                    let slot: &mut Slot<'a> = &mut slots[at];
                    slot.sessions.push(entry);
                }
                None => {
                    if let Some(device) = device {
                        devices.insert(device, slots.len());
                    }
                    slots.push(Slot { sessions: [entry].into(), device });
                }
            }
        }
        Self(slots)
    }

    /// Counts the slots of a record. Cheaper than [`Slots::from_record`] if sessions are counted.
    pub(super) fn count_in(record: &UserRecord, counting: CountBy) -> u32 {
        let count = match counting {
            CountBy::Sessions => record.sessions().len(),
            CountBy::Devices => Slots::from_record(record, counting).0.len(),
        };
        u32::try_from(count).expect("a record has at most 1024 sessions")
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("a record has at most 1024 sessions")
    }

    /// The slot of this device.
    pub(super) fn of_device(&self, device: &DisplayName) -> Option<&Slot<'a>> {
        self.0.iter().find(|slot| slot.device == Some(device))
    }

    /// The sessions that end together if the one that `id` names is ended by `asker`: those of its slot. In a slot that the
    /// asker shares, that one alone, because the asker keeps the slot.
    pub(super) fn ended_with(&self, id: SessionId, asker: SessionId) -> Vec<SessionId> {
        match self.0.iter().find(|slot| slot.is_named(id)) {
            None => Vec::new(),
            Some(slot) if slot.is_held_by(asker) => {
                let named = slot.sessions.iter().filter(|entry| entry.is_named(id));
                named.map(|entry| entry.session).collect()
            }
            Some(slot) => slot.sessions.iter().map(|entry| entry.session).collect(),
        }
    }

    /// The slots that may be evicted for a new session at this time, in the order in which they are.
    ///
    /// A slot that was just lost is kept for its client: no rule frees it because it lingers, and where the oldest slot is
    /// evicted it goes last. So with `evict-oldest` a session is still never denied. A client that names the slot means it.
    pub(super) fn victims(&self, policy: &AdmissionPolicy, choice: Option<&Evict>, at: Timestamp) -> Vec<&Slot<'a>> {
        // A client may forbid evictions even if it may not choose sessions to evict.
        if choice == Some(&Evict::Nobody) {
            return Vec::new();
        }
        let is_kept = |slot: &&Slot<'a>| slot.kept_until(policy).is_some_and(|until| at < until);
        let goes_first = |slot: &&Slot<'a>| policy.lingering_first && slot.lingers_until().is_some() && !is_kept(slot);
        let mut lingering: Vec<_> =
            self.0.iter().filter(goes_first).filter_map(|slot| Some((slot.lingers_until()?, slot))).collect();
        // A stable sort: of two slots that end at the same time, the older one goes first.
        lingering.sort_by_key(|&(until, _)| until);
        let mut victims: Vec<_> = lingering.into_iter().map(|(_, slot)| slot).collect();
        let is_left = |slot: &&Slot<'a>| !goes_first(slot);
        let oldest = || {
            let of = |kept| self.0.iter().filter(is_left).filter(move |slot| is_kept(slot) == kept);
            of(false).chain(of(true))
        };
        match choice {
            Some(Evict::Sessions(sessions)) if policy.client_choice => {
                for &session in sessions {
                    let chosen = self.0.iter().find(|slot| slot.is_named(session)).filter(is_left);
                    if let Some(chosen) = chosen
                        && !victims.iter().any(|victim| victim.is_named(session))
                    {
                        victims.push(chosen);
                    }
                }
            }
            // A client that names sessions does not mean others.
            Some(Evict::Sessions(_) | Evict::Nobody) => {}
            Some(Evict::Oldest) | None if evicts_oldest(policy, choice) => victims.extend(oldest()),
            Some(Evict::Oldest) | None => {}
        }
        victims
    }

    /// The sessions of the newest slots that are over the limit.
    pub(super) fn over_limit(&self, limit: SlotLimit) -> Vec<SessionId> {
        let max = usize::try_from(limit.slots()).unwrap_or(usize::MAX);
        let newest = self.0.iter().skip(max).rev();
        newest.flat_map(|slot| slot.sessions.iter().map(|entry| entry.session)).collect()
    }

    /// The time at which enough lingering sessions will have lapsed for one more session to fit under `max`. `None` if that
    /// never happens by itself. Assumes that no other session starts or ends.
    pub(super) fn free_at(&self, max: u32) -> Option<Timestamp> {
        self.time_of_room(max, Slot::lingers_until)
    }

    /// The time at which a new session that was denied will find room under `max`, because enough lingering sessions have
    /// lapsed or are no longer kept for their clients. `None` if that never happens by itself. Assumes that no other session
    /// starts or ends.
    pub(super) fn room_at(&self, max: u32, policy: &AdmissionPolicy, choice: Option<&Evict>) -> Option<Timestamp> {
        if policy.lingering_first && choice != Some(&Evict::Nobody) {
            self.time_of_room(max, |slot| slot.kept_until(policy))
        } else {
            self.free_at(max)
        }
    }

    fn time_of_room(&self, max: u32, ends_at: impl Fn(&Slot<'a>) -> Option<Timestamp>) -> Option<Timestamp> {
        let needed = (self.count() + 1).checked_sub(max)?;
        let mut ends: Vec<_> = self.0.iter().filter_map(ends_at).collect();
        ends.sort_unstable();
        ends.get(usize::try_from(needed).ok()?.checked_sub(1)?).copied()
    }
}

impl<'a> Slot<'a> {
    /// The sessions of this slot, each as a slot of its own.
    pub(super) fn split_by_session(&self) -> Slots<'a> {
        Slots(self.sessions.iter().map(|&entry| Slot { sessions: [entry].into(), device: None }).collect())
    }

    fn is_held_by(&self, session: SessionId) -> bool {
        self.sessions.iter().any(|entry| entry.session == session)
    }

    fn is_named(&self, id: SessionId) -> bool {
        self.sessions.iter().any(|entry| entry.is_named(id))
    }

    /// When the slot becomes free by itself. `None` if one of its sessions is live.
    fn lingers_until(&self) -> Option<Timestamp> {
        let ends = self.sessions.iter().map(|session| session.status.lingers_until());
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Until when the slot is kept for the clients that lost it. `None` if one of its sessions is live.
    fn kept_until(&self, policy: &AdmissionPolicy) -> Option<Timestamp> {
        let ends = self.sessions.iter().map(|session| {
            let until = session.status.lingers_until()?;
            let lost_at = Timestamp::from_epoch(until.since_epoch().saturating_sub(session.linger()));
            Some(policy.kept_until(lost_at).min(until))
        });
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}
