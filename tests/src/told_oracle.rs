//! Checks what people outside see: which clients were told that they are in, and are still served.
//!
//! The records of the store say who holds a slot. They do not say who was told so. While sessions take one another's place,
//! a client may still believe that it is in although its session lost the slot.

use std::collections::{BTreeMap, BTreeSet};

use session_core::ledger::{AdmissionPolicy, CountBy, EvictedSession, Outcome, Resumption, StoreCommand, UserRecord};
use session_core::{DisplayName, SessionId, UserId};

/// What a store granted, and in which order.
#[derive(Debug, Default)]
pub struct ToldOracle {
    grants: BTreeMap<SessionId, Grant>,
    /// How many grants there were so far.
    count: u64,
    /// How many checks there were of several clients that were in at once, one of which had just been told.
    pub checks: u64,
}

#[derive(Debug)]
struct Grant {
    order: u64,
    user: UserId,
    /// How many slots the user may have, at most, when this grant is told.
    slots: usize,
    /// Who held the user's slots, this session included, with the device if it is what counts.
    holders: BTreeMap<SessionId, Option<DisplayName>>,
}

impl ToldOracle {
    /// The store applied a command of a session, and the record is now this.
    pub fn applied(
        &mut self,
        command: &StoreCommand,
        policy: &AdmissionPolicy,
        outcome: &Outcome,
        record: &UserRecord,
    ) {
        let (StoreCommand::Acquire { user, session, limit, .. }, Outcome::Granted { grant, .. }) = (command, outcome)
        else {
            return;
        };
        let holders = record.sessions().iter().map(|entry| {
            let device = entry.device().filter(|_| policy.count_by == CountBy::Devices);
            (entry.session, device.cloned())
        });
        let holders: BTreeMap<_, _> = holders.collect();
        // A session that resumes a slot, or shares that of its device, adds none. The slots may be more than its limit, which
        // was lowered, or is claimed by its token.
        let of_others = slots(holders.iter().filter(|(holder, _)| *holder != session).map(|(_, device)| device));
        let is_resumed = grant.as_ref().is_some_and(|grant| grant.resume == Resumption::Resumed);
        let own = holders.get(session).cloned().flatten();
        let is_of_own_device =
            |evicted: &EvictedSession| own.is_some() && evicted.names.as_ref().is_some_and(|names| names.device == own);
        let replaces = grant.as_ref().is_some_and(|grant| grant.evicted.iter().any(is_of_own_device));
        let slots = if is_resumed || replaces || of_others == slots(holders.values()) {
            slots(holders.values())
        } else {
            policy.limit_for(*limit).0.slots() as usize
        };
        self.grants.insert(*session, Grant { order: self.count, user: user.clone(), slots, holders });
        self.count += 1;
    }

    /// Checks the clients of one server that were told that they are in, and are served: neither was a close frame written,
    /// nor is the socket gone, nor did the client say BYE.
    ///
    /// # Panics
    /// If a user has more of them than the limit allowed when the last of them was granted its slot, or one that had lost
    /// its slot before that.
    pub fn check(&mut self, served: impl IntoIterator<Item = SessionId>) {
        let mut users = BTreeMap::<&UserId, Vec<(SessionId, &Grant)>>::new();
        for session in served {
            let grant = self.grants.get(&session).expect("only a session that was granted a slot is told so");
            users.entry(&grant.user).or_default().push((session, grant));
        }
        for (user, served) in users {
            let &(newest, grant) = served.iter().max_by_key(|(_, grant)| grant.order).expect("one at least");
            self.checks += u64::from(served.len() > 1);
            for (session, _) in &served {
                assert!(
                    grant.holders.contains_key(session),
                    "{user}: session {newest} was told that it is in, while {session}, which had lost its slot before, \
                     had not been told and was served"
                );
            }
            let in_use = slots(served.iter().map(|(session, _)| &grant.holders[session]));
            assert!(in_use <= grant.slots, "{user} has {in_use} slots in use of {}: {served:?}", grant.slots);
        }
    }
}

/// How many slots these sessions share: those of one device share one.
fn slots<'a, S: Iterator<Item = &'a Option<DisplayName>>>(sessions: S) -> usize {
    let mut devices = BTreeSet::new();
    sessions.filter(|device| device.as_ref().is_none_or(|device| devices.insert(device))).count()
}
