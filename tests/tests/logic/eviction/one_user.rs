//! One user and the commands of its sessions.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use session_core::ledger::{self, AcquireOptions, EndTarget, SlotUsage, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, CountBy, EndReason, EndedSession, Evict, KnownToken, Liveness, Outcome, SessionHint, UserRecord,
    WhenFull,
};
use session_core::{NodeId, ResumeKey, SessionId, Timestamp};

use tests::rule_oracle;
pub(super) use tests::values::{at_second as at, limit, name, user};

pub(super) const HERE: NodeId = NodeId::new(1);
pub(super) const THERE: NodeId = NodeId::new(2);
pub(super) const LINGER: Duration = Duration::from_secs(10);

pub(super) fn id(number: u64) -> SessionId {
    HERE.session(number)
}

pub(super) fn key(number: u8) -> ResumeKey {
    ResumeKey::from_bytes([number; 32])
}

/// Lost slots linger, and are given to new sessions at once.
pub(super) fn policy(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { linger: LINGER, linger_grace: Duration::ZERO, ..AdmissionPolicy::new(limit(slots)) }
}

pub(super) fn client_choice_policy(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { client_choice: true, ..policy(slots) }
}

pub(super) fn evict_oldest_policy(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(slots) }
}

pub(super) fn devices_policy(slots: u32) -> AdmissionPolicy {
    AdmissionPolicy {
        count_by: CountBy::Devices,
        sessions_per_device: 3.try_into().unwrap(),
        ..client_choice_policy(slots)
    }
}

/// Applies commands to one user's record. The `n`th command happens at second `n`.
#[derive(Debug, Default, Clone)]
pub(super) struct UserHarness {
    pub(super) record: UserRecord,
    pub(super) second: u64,
    pub(super) dead: BTreeMap<NodeId, Timestamp>,
    pub(super) ended: Vec<EndedSession>,
    pub(super) hints: Vec<SessionHint>,
}

impl UserHarness {
    pub(super) fn apply(&mut self, policy: &AdmissionPolicy, command: &StoreCommand) -> Outcome {
        let dead = self.dead.clone();
        let liveness = |node| dead.get(&node).map_or(Liveness::Alive, |&since| Liveness::DeadSince(since));
        let result = ledger::apply(&user(), &mut self.record, command, policy, liveness);
        (self.ended, self.hints) = (result.ended, result.hints);
        result.outcome
    }

    /// As [`UserHarness::apply`]. The independent check judges the result.
    pub(super) fn apply_judged(&mut self, policy: &AdmissionPolicy, command: &StoreCommand) -> Outcome {
        let before = self.record.clone();
        let dead = self.dead.clone();
        let liveness = |node| dead.get(&node).map_or(Liveness::Alive, |&since| Liveness::DeadSince(since));
        let result = ledger::apply(&user(), &mut self.record, command, policy, liveness);
        // It cannot judge who was ended where an id is used again.
        if !matches!(command, StoreCommand::EndSessions { .. }) {
            rule_oracle::check(&before, command, policy, liveness, &result, &self.record);
        }
        (self.ended, self.hints) = (result.ended, result.hints);
        result.outcome
    }

    pub(super) fn next_second(&mut self) -> Timestamp {
        self.second += 1;
        at(self.second)
    }

    pub(super) fn acquire(
        &mut self,
        policy: &AdmissionPolicy,
        session: SessionId,
        options: Option<AcquireOptions>,
    ) -> Outcome {
        let at = self.next_second();
        self.apply(
            policy,
            &StoreCommand::Acquire { user: user(), session, limit: None, at, options: options.map(Box::new) },
        )
    }

    /// A session of a plain client.
    pub(super) fn acquire_plain(&mut self, policy: &AdmissionPolicy, number: u64) -> Outcome {
        self.acquire(policy, id(number), None)
    }

    /// A session whose slot can be resumed with the key of its number.
    pub(super) fn acquire_resumable(&mut self, policy: &AdmissionPolicy, number: u64) -> Outcome {
        let fresh = Some(key(u8::try_from(number).unwrap()));
        self.acquire(policy, id(number), Some(AcquireOptions { new_resume_key: fresh, ..AcquireOptions::default() }))
    }

    pub(super) fn acquire_on_device(&mut self, policy: &AdmissionPolicy, number: u64, device: &str) -> Outcome {
        let fresh = Some(key(u8::try_from(number).unwrap()));
        self.acquire(
            policy,
            id(number),
            Some(AcquireOptions { device: name(device), new_resume_key: fresh, ..AcquireOptions::default() }),
        )
    }

    pub(super) fn acquire_evicting(&mut self, policy: &AdmissionPolicy, number: u64, evict: Evict) -> Outcome {
        self.acquire(
            policy,
            id(number),
            Some(AcquireOptions { evict: Some(evict), label: name("new"), ..AcquireOptions::default() }),
        )
    }

    pub(super) fn resume(&mut self, policy: &AdmissionPolicy, number: u64, shown: u8) -> Outcome {
        let options =
            AcquireOptions { resume: Some(key(shown)), new_resume_key: Some(key(200)), ..AcquireOptions::default() };
        self.acquire(policy, id(number), Some(options))
    }

    pub(super) fn release(&mut self, number: u64) -> Outcome {
        self.apply(&policy(9), &StoreCommand::Release { user: user(), session: id(number) })
    }

    pub(super) fn linger(&mut self, number: u64) -> Outcome {
        let at = self.next_second();
        self.apply(
            &policy(9),
            &StoreCommand::Linger { user: user(), session: id(number), at, token: KnownToken::Granted },
        )
    }

    pub(super) fn count_at(&mut self, policy: &AdmissionPolicy, at: Timestamp) -> u32 {
        let outcome = self.apply(policy, &StoreCommand::CountSlots { user: user(), session: id(0), at });
        let Outcome::Counted { slots } = outcome else { panic!("{outcome:?}") };
        slots
    }

    pub(super) fn count(&mut self, policy: &AdmissionPolicy) -> u32 {
        self.count_at(policy, at(self.second))
    }

    pub(super) fn list(&mut self, policy: &AdmissionPolicy) -> SlotUsage {
        let at = at(self.second);
        let outcome = self.apply(
            policy,
            &StoreCommand::ListSessions {
                user: user(),
                session: id(0),
                limit: None,
                is_unbounded: false,
                watch: None,
                at,
            },
        );
        let Outcome::Listed(usage) = outcome else { panic!("{outcome:?}") };
        *usage
    }

    pub(super) fn end(&mut self, policy: &AdmissionPolicy, asker: u64, which: EndTarget, by: EndReason) -> Vec<u64> {
        let at = at(self.second);
        let held = self.clone().count(policy);
        let outcome = self.apply(
            policy,
            &StoreCommand::EndSessions { user: user(), session: id(asker), target: which, reason: by, at },
        );
        let Outcome::Ended { sessions, before, slots } = outcome else { panic!("{outcome:?}") };
        assert_eq!((u32::from(before), slots), (held, self.clone().count(policy)));
        sessions.iter().map(|session| session.number()).collect()
    }

    pub(super) fn session_numbers(&self) -> Vec<u64> {
        self.record.sessions().iter().map(|entry| entry.session.number()).collect()
    }

    /// The sessions that the last command notified of their end.
    pub(super) fn notified(&self) -> Vec<u64> {
        self.ended.iter().map(|ended| ended.session.number()).collect()
    }
}

pub(super) fn granted(slots: u32) -> Outcome {
    Outcome::granted(slots)
}

pub(super) fn is_granted(outcome: &Outcome, expected: u32) -> bool {
    matches!(outcome, Outcome::Granted { slots, .. } if *slots == expected)
}

pub(super) fn is_denied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Denied(_))
}

pub(super) fn ended(number: u64, how: EndReason) -> EndedSession {
    EndedSession { session: id(number), reason: how }
}
