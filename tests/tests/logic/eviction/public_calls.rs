//! Any sequence of calls that the ledger offers to an application which keeps its records itself.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{
    self, Acquire, AcquireOptions, AdmissionPolicy, CountBy, EndReason, EndTarget, EndedSession, Evict, KnownToken,
    Liveness, SessionStatus, UserRecord, WhenFull,
};
use session_core::{NodeId, SessionId, Timestamp};

use super::one_user::{LINGER, at, key, limit, name};

/// One call. Few sessions and keys make calls meet.
#[derive(Debug, Clone)]
enum Call {
    Acquire { session: u64, device: Option<u8>, evict: Option<u8>, resume: Option<u8>, waits: bool },
    Release { session: u64 },
    Linger { session: u64 },
    End { asker: u64, which: u64, by_operator: bool },
    Excess,
    RemoveLapsed,
    Pass { seconds: u64 },
    Dies { node: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    let session = || 1..9_u64;
    prop_oneof![
        8 => (session(), prop::option::of(0..3_u8), prop::option::of(0..8_u8), prop::option::of(1..9_u8), any::<bool>())
            .prop_map(|(session, device, evict, resume, waits)| Call::Acquire { session, device, evict, resume, waits }),
        2 => session().prop_map(|session| Call::Release { session }),
        5 => session().prop_map(|session| Call::Linger { session }),
        1 => (session(), session(), any::<bool>())
            .prop_map(|(asker, which, by_operator)| Call::End { asker, which, by_operator }),
        1 => Just(Call::Excess),
        1 => Just(Call::RemoveLapsed),
        2 => (0..8_u64).prop_map(|seconds| Call::Pass { seconds }),
        1 => (0..3_u64).prop_map(|node| Call::Dies { node }),
    ]
}

fn id(number: u64) -> SessionId {
    NodeId::new(number % 3).session(number)
}

/// A record, and the grants that its application has to honour: those of sessions that did not release, were not lost, and
/// were not reported as ended.
#[derive(Debug)]
struct Application {
    record: UserRecord,
    policy: AdmissionPolicy,
    outstanding: BTreeSet<SessionId>,
    dead: BTreeSet<NodeId>,
    died_at: Timestamp,
    second: u64,
}

impl Application {
    fn call(&mut self, call: &Call) {
        let now = at(self.second);
        let (dead, since) = (self.dead.clone(), self.died_at);
        let liveness = |node| if dead.contains(&node) { Liveness::DeadSince(since) } else { Liveness::Alive };
        match *call {
            Call::Acquire { session, device, evict, resume, waits } => {
                let options = AcquireOptions {
                    device: device.and_then(|device| name(&device.to_string())),
                    label: None,
                    resume: resume.map(key),
                    new_resume_key: Some(key(u8::try_from(session).unwrap())),
                    evict: evict.map(|which| match which {
                        0 => Evict::Nobody,
                        1 => Evict::Oldest,
                        _ => Evict::Sessions([id(u64::from(which)), id(u64::from(which) + 1)].into()),
                    }),
                    must_resume: false,
                    waits,
                };
                let acquire = Acquire { session: id(session), token_limit: None, options: Some(&options), at: now };
                if let Ok(grant) = ledger::acquire(&mut self.record, acquire, &self.policy, liveness) {
                    self.ended(grant.ended);
                    self.outstanding.insert(id(session));
                }
            }
            Call::Release { session } => {
                ledger::release(&mut self.record, id(session));
                self.outstanding.remove(&id(session));
            }
            Call::Linger { session } => {
                ledger::linger(&mut self.record, id(session), now, &KnownToken::Granted);
                self.outstanding.remove(&id(session));
            }
            Call::End { asker, which, by_operator } => {
                let reason = if by_operator { EndReason::ByOperator } else { EndReason::ByUser(None) };
                let target = EndTarget::One(id(which));
                let result = ledger::end_sessions(&mut self.record, id(asker), target, &reason, &self.policy);
                self.ended(result.ended);
            }
            Call::Excess => {
                let target = EndTarget::Excess { limit: self.policy.limit, dry_run: false };
                let (asker, reason) = (id(0), EndReason::ByOperator);
                let result = ledger::end_sessions(&mut self.record, asker, target, &reason, &self.policy);
                self.ended(result.ended);
            }
            Call::RemoveLapsed => drop(ledger::remove_lapsed(&mut self.record, now, liveness)),
            Call::Pass { seconds } => self.second += seconds,
            Call::Dies { node } => {
                // A dead process serves nobody.
                self.died_at = now;
                self.dead.insert(NodeId::new(node));
                self.outstanding.retain(|session| session.node() != NodeId::new(node));
            }
        }
    }

    fn ended(&mut self, ended: Vec<EndedSession>) {
        for EndedSession { session, .. } in ended {
            // Without `remove_lapsed` before, sessions of dead nodes are ended as well.
            let was_served = self.outstanding.remove(&session) || self.dead.contains(&session.node());
            assert!(was_served, "{session} is ended, but had no grant");
        }
    }

    fn check(&self) {
        let has_slot = |session: SessionId| self.record.session(session).is_some();
        let waiting = self.record.waiting();
        assert!(waiting.len() <= usize::from(self.policy.max_waiting), "too many wait: {self:?}");
        assert!(waiting.iter().all(|waiter| !has_slot(waiter.session)), "a session with a slot waits: {self:?}");
        let live = |session: &SessionId| {
            self.record.session(*session).is_some_and(|entry| entry.status == SessionStatus::Live)
        };
        assert!(
            self.outstanding.iter().all(live),
            "a grant is outstanding and its slot can go without notice: {self:?}"
        );
        let granted = self.record.sessions().iter().filter(|entry| self.outstanding.contains(&entry.session));
        let slots = match self.policy.count_by {
            CountBy::Sessions => granted.count(),
            CountBy::Devices => {
                let (of_device, alone): (Vec<_>, Vec<_>) = granted.partition(|entry| entry.device().is_some());
                of_device.iter().filter_map(|entry| entry.device()).collect::<BTreeSet<_>>().len() + alone.len()
            }
        };
        assert!(slots <= self.policy.limit.slots() as usize, "{slots} grants are outstanding: {self:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_shrink_iters: 50_000, ..ProptestConfig::default() })]

    #[test]
    fn outstanding_grants_stay_within_the_limit(
        slots in 0..4_u32,
        bits: u8,
        calls in prop::collection::vec(call(), 1..60),
    ) {
        let has = |bit: u8| bits & bit != 0;
        let policy = AdmissionPolicy {
            when_full: if has(1) { WhenFull::EvictOldest } else { WhenFull::Deny },
            client_choice: has(2),
            lingering_first: has(4),
            count_by: if has(8) { CountBy::Devices } else { CountBy::Sessions },
            sessions_per_device: 2.try_into().unwrap(),
            linger: if has(16) { LINGER } else { Duration::ZERO },
            max_waiting: 3,
            linger_grace: if has(32) { Duration::ZERO } else { AdmissionPolicy::DEFAULT_LINGER_GRACE },
            ..AdmissionPolicy::new(limit(slots))
        };
        let mut application = Application {
            record: UserRecord::default(),
            policy,
            outstanding: BTreeSet::new(),
            dead: BTreeSet::new(),
            died_at: at(0),
            second: 1,
        };
        for call in calls {
            application.call(&call);
            application.check();
        }
    }
}

/// Once, the entry kept lingering: the next acquire took the slot, and nobody was told.
#[test]
fn session_that_lingers_is_live_after_its_acquire() {
    let policy = AdmissionPolicy { linger: LINGER, ..AdmissionPolicy::new(limit(1)) };
    let mut record = UserRecord::default();
    let options = AcquireOptions { new_resume_key: Some(key(1)), ..AcquireOptions::default() };
    let acquire = |record: &mut UserRecord, number| {
        let acquire = Acquire { session: id(number), token_limit: None, options: Some(&options), at: at(1) };
        ledger::acquire(record, acquire, &policy, |_| Liveness::Alive)
    };
    let _granted = acquire(&mut record, 1).unwrap();
    ledger::linger(&mut record, id(1), at(1), &KnownToken::Granted);
    assert_eq!(acquire(&mut record, 1).unwrap().slots, 1);
    assert_eq!(record.session(id(1)).unwrap().status, SessionStatus::Live);
    assert!(acquire(&mut record, 2).is_err(), "the slot is taken");
}
