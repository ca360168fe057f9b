//! Any history of a process and its store.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{self, StoreCommand};
use session_core::ledger::{AdmissionPolicy, Liveness, Outcome, SessionStatus, SlotLimit, StoreError, UserRecord};
use session_core::release_tracker::{ReleaseTracker, Ticket};
use session_core::{SessionId, Timestamp};

use super::commands::*;

/// What happens to a command and its answer.
#[derive(Debug, Clone, Copy)]
enum StoreFault {
    Answered,
    Rejected(StoreError),
    /// The command is applied, its answer is lost.
    Applied,
    /// The command and its answer are lost.
    Lost,
    /// The answer is lost, and the command may be applied later, or never.
    Late,
}

/// One step in the life of a process and its store.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A new session acquires a slot.
    Open,
    /// A session with a slot ends.
    Close(prop::sample::Index),
    /// A session in line asks again, or ends.
    InLine(prop::sample::Index, bool),
    /// A command under way is answered, or its answer is lost.
    Answer(prop::sample::Index, StoreFault),
    /// A late command is applied, or certainly never.
    Late(prop::sample::Index, bool),
    /// Time passes, and due retries are submitted.
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let fault = prop_oneof![
        4 => Just(StoreFault::Answered),
        1 => prop::sample::select(&StoreError::ALL[..]).prop_map(StoreFault::Rejected),
        1 => Just(StoreFault::Applied),
        1 => Just(StoreFault::Lost),
        2 => Just(StoreFault::Late),
    ];
    prop_oneof![
        4 => Just(Step::Open),
        2 => index().prop_map(Step::Close),
        2 => (index(), any::<bool>()).prop_map(|(index, asks)| Step::InLine(index, asks)),
        6 => (index(), fault).prop_map(|(index, fault)| Step::Answer(index, fault)),
        1 => (index(), any::<bool>()).prop_map(|(index, result)| Step::Late(index, result)),
        2 => prop_oneof![1..500_u64, 1..20_000_u64].prop_map(Step::Pause),
    ]
}

/// A process that submits commands of sessions, and a store with every fault that its contract allows.
struct TrackerSimulation {
    tracker: ReleaseTracker,
    room: usize,
    now: Timestamp,
    record: UserRecord,
    opened: u64,
    granted: Vec<u64>,
    /// The sessions that were told that they are in line, and do nothing now.
    in_line: Vec<u64>,
    /// These, and those of them that ask again.
    known_in_line: BTreeSet<u64>,
    under_way: Vec<StoreCommand>,
    /// Commands that the store may still apply, at most one of each session.
    late: BTreeMap<SessionId, StoreCommand>,
}

/// A limit of four, and a grace period.
fn apply(record: &mut UserRecord, command: &StoreCommand) -> Outcome {
    let policy =
        AdmissionPolicy { linger: Duration::from_secs(100), ..AdmissionPolicy::new(SlotLimit::new(4).unwrap()) };
    ledger::apply(command.user(), record, command, &policy, |_| Liveness::Alive).outcome
}

/// The commands that begin and end a session. Every second session can be resumed, and some of the others wait in line.
fn acquire_and_end(number: u64) -> (StoreCommand, StoreCommand) {
    if number.is_multiple_of(4) {
        (wait(number), release(number))
    } else if number.is_multiple_of(2) {
        (acquire(number), release(number))
    } else {
        (acquire_resumable(number), linger(number))
    }
}

impl TrackerSimulation {
    fn step(&mut self, step: Step) {
        match step {
            Step::Open => {
                self.opened += 1;
                let (command, _) = acquire_and_end(self.opened);
                let full = self.tracker.tracked() == self.room;
                let admitted = self.tracker.begin(&command).map(drop);
                assert_eq!(admitted, if full { Err(StoreError::Overloaded) } else { Ok(()) });
                self.under_way.extend(admitted.is_ok().then_some(command));
            }
            Step::Close(index) if !self.granted.is_empty() => {
                let (_, command) = acquire_and_end(self.granted.swap_remove(index.index(self.granted.len())));
                assert_eq!(self.tracker.begin(&command).map(drop), Ok(()));
                self.under_way.push(command);
            }
            Step::InLine(index, asks) if !self.in_line.is_empty() => {
                let number = self.in_line.swap_remove(index.index(self.in_line.len()));
                let (acquire, end) = acquire_and_end(number);
                let command = if asks { acquire } else { end };
                assert_eq!(self.tracker.begin(&command).map(drop), Ok(()), "it is known");
                self.under_way.push(command);
            }
            Step::Answer(index, fault) if !self.under_way.is_empty() => {
                let command = self.under_way.swap_remove(index.index(self.under_way.len()));
                self.answer(&command, fault);
            }
            Step::Late(index, result) if !self.late.is_empty() => {
                let session = *self.late.keys().nth(index.index(self.late.len())).unwrap();
                let command = self.late.remove(&session).unwrap();
                if result {
                    self.apply(&command);
                }
            }
            Step::Pause(millis) => {
                self.now = self.now + Duration::from_millis(millis);
                self.submit_what_is_due();
            }
            Step::Close(_) | Step::InLine(..) | Step::Answer(..) | Step::Late(..) => {}
        }
        self.check();
    }

    fn submit_what_is_due(&mut self) {
        let due = |tracker: &ReleaseTracker, now| tracker.deadline().is_some_and(|deadline| deadline <= now);
        while due(&self.tracker, self.now) {
            let command = self.tracker.next_retry(self.now).expect("at its deadline something is due");
            assert!(!self.under_way.contains(&command), "one release of a session at a time");
            self.under_way.push(command);
        }
        assert_eq!(self.tracker.next_retry(self.now), None, "nothing is due before its deadline");
    }

    fn answer(&mut self, command: &StoreCommand, fault: StoreFault) {
        let outcome = match fault {
            StoreFault::Answered => self.apply(command),
            StoreFault::Rejected(cause) => Outcome::Rejected(cause),
            StoreFault::Applied => {
                self.apply(command);
                Outcome::Unknown
            }
            StoreFault::Lost => Outcome::Unknown,
            StoreFault::Late => {
                // Two late commands of a session are applied in order.
                if let Some(earlier) = self.late.insert(command.session(), command.clone()) {
                    let _outcome = apply(&mut self.record, &earlier);
                }
                Outcome::Unknown
            }
        };
        if let StoreCommand::Acquire { session, .. } = command {
            let number = session.number();
            let was_in_line = self.known_in_line.contains(&number);
            match &outcome {
                Outcome::Granted { .. } => self.granted.push(number),
                Outcome::Waiting(_) => self.in_line.push(number),
                // It goes on waiting.
                Outcome::Rejected(_) if was_in_line => self.in_line.push(number),
                _ => {}
            }
            match &outcome {
                Outcome::Waiting(_) => drop(self.known_in_line.insert(number)),
                Outcome::Rejected(_) => {}
                _ => drop(self.known_in_line.remove(&number)),
            }
        }
        self.tracker.answered(&Ticket::from(command), &outcome, self.now);
    }

    /// Applies a command, after a late one of the same session.
    fn apply(&mut self, command: &StoreCommand) -> Outcome {
        if let Some(earlier) = self.late.remove(&command.session()) {
            let _outcome = apply(&mut self.record, &earlier);
        }
        apply(&mut self.record, command)
    }

    /// The sessions whose slots, or places in line, must be released. Lingering slots need no release.
    fn live(&self) -> impl Iterator<Item = SessionId> {
        let slots = self.record.sessions().iter().filter(|entry| entry.status == SessionStatus::Live);
        slots.map(|entry| entry.session).chain(self.record.waiting().iter().map(|waiter| waiter.session))
    }

    fn check(&self) {
        let (tracked, pending, deadline) = state_of(&self.tracker);
        assert!(pending <= tracked && tracked <= self.room, "pending {pending}, tracked {tracked}, room {}", self.room);
        let acquires = |command: &&StoreCommand| matches!(command, StoreCommand::Acquire { .. });
        let may_hold: BTreeSet<_> = self
            .live()
            .chain(self.late.values().chain(&self.under_way).filter(acquires).map(StoreCommand::session))
            .collect();
        assert!(may_hold.len() <= tracked, "a slot that nothing would release: {may_hold:?}");
        for session in may_hold {
            let served = self.granted.contains(&session.number()) || self.in_line.contains(&session.number());
            let under_way = self.under_way.iter().any(|command| command.session() == session);
            assert!(served || under_way || self.tracker.is_pending(session), "{session} is not released by anything");
        }
        assert!(deadline.is_none() || pending > 0);
    }

    /// The store has no more faults, and all sessions end.
    fn end(mut self) {
        for command in std::mem::take(&mut self.under_way) {
            self.answer(&command, StoreFault::Answered);
        }
        for number in std::mem::take(&mut self.granted).into_iter().chain(std::mem::take(&mut self.in_line)) {
            self.answer(&acquire_and_end(number).1, StoreFault::Answered);
        }
        let well_since = self.now;
        while let Some(deadline) = self.tracker.deadline() {
            self.now = self.now.max(deadline);
            self.submit_what_is_due();
            for command in std::mem::take(&mut self.under_way) {
                self.answer(&command, StoreFault::Answered);
            }
            self.check();
        }
        assert!(self.now <= well_since + ReleaseTracker::LONGEST_BACKOFF);
        assert_eq!(state_of(&self.tracker), (0, 0, None));
        assert_eq!(self.live().next(), None);
        assert!(
            self.record.sessions().iter().all(|entry| entry.session.number() % 2 == 1),
            "only resumable sessions linger"
        );
        assert!(self.late.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_releases_every_slot(room in 0..8_usize, steps in prop::collection::vec(step(), 0..120)) {
        let mut simulation = TrackerSimulation {
            tracker: ReleaseTracker::new(room),
            room,
            now: at(0),
            record: UserRecord::default(),
            opened: 0,
            granted: Vec::new(),
            in_line: Vec::new(),
            known_in_line: BTreeSet::new(),
            under_way: Vec::new(),
            late: BTreeMap::new(),
        };
        for step in steps {
            simulation.step(step);
        }
        simulation.end();
    }
}
