//! Debts: that every slot finds its way back into the store, however many answers are lost.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use session_core::ledger::{self, AcquireOptions, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, EndReason, Liveness, Outcome, SessionStatus, SlotLimit, StoreError, UserRecord,
};
use session_core::release_tracker::ReleaseTracker;
use session_core::{NodeId, ResumeKey, SessionId, Timestamp, UserId};

const NANOSECOND: Duration = Duration::from_nanos(1);
const GRANTED: Outcome = Outcome::granted(1);
const FOUND: Outcome = Outcome::Counted { connections: 1 };
const FAILED: Outcome = Outcome::Rejected(StoreError::Failed);

fn user() -> UserId {
    UserId::parse("ada").unwrap()
}

fn session(number: u64) -> SessionId {
    NodeId::new(0xada).session(number)
}

fn acquire(number: u64) -> StoreCommand {
    StoreCommand::Acquire { user: user(), session: session(number), limit: None, at: at(0), options: None }
}

fn release(number: u64) -> StoreCommand {
    StoreCommand::Release { user: user(), session: session(number) }
}

fn look_up(number: u64) -> StoreCommand {
    StoreCommand::CountSlots { user: user(), session: session(number), at: at(0) }
}

/// The session was lost at the 7th millisecond.
fn linger(number: u64) -> StoreCommand {
    StoreCommand::Linger { user: user(), session: session(number), at: at(7) }
}

/// An acquire of a slot that can be taken up again.
fn acquire_for_good(number: u64) -> StoreCommand {
    let options = AcquireOptions { new_resume_key: Some(ResumeKey::from_bytes([9; 32])), ..AcquireOptions::default() };
    StoreCommand::Acquire {
        user: user(),
        session: session(number),
        limit: None,
        at: at(0),
        options: Some(Box::new(options)),
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_millis(millis))
}

/// What an owner can see: (held, owed, deadline).
fn seen(tracker: &ReleaseTracker) -> (usize, usize, Option<Timestamp>) {
    (tracker.tracked(), tracker.pending(), tracker.deadline())
}

#[test]
fn an_acquire_is_submitted_only_if_there_is_room_to_owe_it() {
    let mut tracker = ReleaseTracker::new(2);
    assert_eq!(seen(&tracker), (0, 0, None));
    assert_eq!(
        [1, 2, 3].map(|number| tracker.reserve(&acquire(number))),
        [Ok(()), Ok(()), Err(StoreError::Overloaded)]
    );
    assert_eq!(tracker.tracked(), 2, "what was refused reserved nothing");

    // Whether it is under way, granted, or owed: it keeps its room until it is certainly not in the store.
    tracker.record(&acquire(1), &GRANTED, at(0));
    tracker.record(&acquire(2), &Outcome::Unknown, at(0));
    assert_eq!(tracker.reserve(&acquire(3)), Err(StoreError::Overloaded));
    tracker.record(&release(1), &FAILED, at(0));
    assert_eq!(tracker.reserve(&acquire(3)), Err(StoreError::Overloaded));

    assert_eq!(tracker.next_retry(at(50)), Some(release(1)));
    tracker.record(&release(1), &Outcome::Released, at(50));
    assert_eq!([3, 4].map(|number| tracker.reserve(&acquire(number))), [Ok(()), Err(StoreError::Overloaded)]);

    assert_eq!(ReleaseTracker::new(0).reserve(&acquire(1)), Err(StoreError::Overloaded));
}

#[test]
fn releases_and_lookups_need_no_room() {
    let mut tracker = ReleaseTracker::new(1);
    assert_eq!(tracker.reserve(&acquire(1)), Ok(()));
    for _ in 0..3 {
        assert_eq!(tracker.reserve(&release(1)), Ok(()));
        assert_eq!(tracker.reserve(&look_up(1)), Ok(()));
    }
    assert_eq!(tracker.tracked(), 1);
}

/// Each row: command, outcome => what is held and owed, of one session that has its room.
#[test]
fn what_every_answer_to_every_command_leaves() {
    let rejections = StoreError::ALL.map(Outcome::Rejected);
    let others = [GRANTED, Outcome::Denied(None), Outcome::Released, FOUND, Outcome::Unknown];
    let outcomes: Vec<_> = others.into_iter().chain(rejections).collect();

    let kept = (1, 0, None);
    let gone = (0, 0, None);
    let owed = (1, 1, Some(at(1050)));
    for (command, expected) in [
        (acquire(1), [kept, gone, owed, owed, owed, gone, gone, gone]),
        (release(1), [owed, owed, gone, owed, owed, owed, owed, owed]),
        (linger(1), [owed, owed, gone, owed, owed, owed, owed, owed]),
        (look_up(1), [kept; 8]),
        (
            StoreCommand::ListSessions {
                user: user(),
                session: session(1),
                limit: None,
                is_unbounded: false,
                at: at(0),
            },
            [kept; 8],
        ),
        (end_all(1), [kept; 8]),
    ] {
        for (outcome, expected) in outcomes.iter().zip(expected) {
            let mut tracker = ReleaseTracker::new(1);
            tracker.reserve(&acquire(1)).unwrap();
            tracker.record(&command, outcome, at(1000));
            assert_eq!(seen(&tracker), expected, "{command:?}, {outcome:?}");
            assert_eq!([1, 2].map(|number| tracker.is_pending(session(number))), [expected.1 == 1, false]);
        }
    }
}

fn end_all(number: u64) -> StoreCommand {
    let (which, by) = (ledger::EndTarget::All, EndReason::ByUser(None));
    StoreCommand::EndSessions { user: user(), session: session(number), target: which, reason: by, at: at(0) }
}

#[test]
fn what_is_to_linger_is_tried_again_as_that_and_from_the_same_time_on() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.reserve(&acquire_for_good(1)).unwrap();
    tracker.record(&acquire_for_good(1), &GRANTED, at(0));
    tracker.reserve(&linger(1)).unwrap();
    let mut now = at(1_000);
    tracker.record(&linger(1), &Outcome::Unknown, now);
    for (backoff, outcome) in [(50, FAILED), (100, Outcome::Unknown), (200, GRANTED), (400, FOUND)] {
        now = now + Duration::from_millis(backoff);
        assert_eq!(seen(&tracker), (1, 1, Some(now)));
        assert_eq!(
            [tracker.next_retry(now), tracker.next_retry(now)],
            [Some(linger(1)), None],
            "lost at the same time as ever"
        );
        assert!(tracker.is_pending(session(1)));
        tracker.record(&linger(1), &outcome, now);
    }
    now = now + Duration::from_millis(800);
    assert_eq!(tracker.next_retry(now), Some(linger(1)));
    tracker.record(&linger(1), &Outcome::Released, now);
    assert_eq!(seen(&tracker), (0, 0, None));
    assert!(!tracker.is_pending(session(1)));
}

#[test]
fn an_acquire_whose_answer_is_lost_owes_a_release_though_its_slot_could_be_taken_up_again() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.reserve(&acquire_for_good(1)).unwrap();
    tracker.record(&acquire_for_good(1), &Outcome::Unknown, at(0));
    assert_eq!(tracker.next_retry(at(50)), Some(release(1)), "its token was never told");
}

#[test]
fn a_return_whose_answer_is_lost_owes_that_its_slot_lingers_on_for_a_client_that_has_its_token() {
    let mut tracker = ReleaseTracker::new(1);
    let StoreCommand::Acquire { user, session, limit, at: asked, options } = acquire_for_good(1) else {
        unreachable!()
    };
    let options = options.map(|options| Box::new(AcquireOptions { resume: options.new_resume_key, ..*options }));
    let resume = StoreCommand::Acquire { user, session, limit, at: asked, options };
    tracker.reserve(&resume).unwrap();
    tracker.record(&resume, &Outcome::Unknown, at(7));
    let Some(StoreCommand::Linger { at: lost, .. }) = tracker.next_retry(at(57)) else {
        panic!("it would be given back")
    };
    assert_eq!(lost, at(7));
}

#[test]
fn a_release_is_tried_again_after_50_ms_and_twice_as_long_each_time_up_to_5_s() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.reserve(&acquire(1)).unwrap();
    let mut now = at(1_000);
    tracker.record(&acquire(1), &Outcome::Unknown, now);
    let schedule = [50, 100, 200, 400, 800, 1_600, 3_200].into_iter().chain([5_000; 100]);
    for (try_number, backoff) in schedule.enumerate() {
        let due = now + Duration::from_millis(backoff);
        let early = Timestamp::from_epoch(due.since_epoch() - NANOSECOND);
        assert_eq!(seen(&tracker), (1, 1, Some(due)), "try {try_number}");
        assert_eq!(tracker.next_retry(early), None, "try {try_number}");
        assert_eq!(tracker.next_retry(due), Some(release(1)), "try {try_number}");
        assert_eq!(seen(&tracker), (1, 1, None), "it is under way: still owed, not due");
        assert!(tracker.is_pending(session(1)));
        assert_eq!(tracker.next_retry(due + ReleaseTracker::LONGEST_BACKOFF), None, "one at a time");
        // The answer takes its time; the pause counts from there.
        now = due + Duration::from_millis(7);
        tracker.record(&release(1), if try_number % 2 == 0 { &Outcome::Unknown } else { &FAILED }, now);
    }
    assert_eq!(ReleaseTracker::LONGEST_BACKOFF, Duration::from_secs(5));
    assert_eq!(tracker.next_retry(now + ReleaseTracker::LONGEST_BACKOFF), Some(release(1)));
    tracker.record(&release(1), &Outcome::Released, now);
    assert_eq!(seen(&tracker), (0, 0, None));
}

#[test]
fn each_debt_has_a_backoff_of_its_own() {
    let mut tracker = ReleaseTracker::new(2);
    for number in [1, 2] {
        tracker.reserve(&acquire(number)).unwrap();
    }
    tracker.record(&acquire(1), &Outcome::Unknown, at(0));
    assert_eq!(tracker.next_retry(at(50)), Some(release(1)));
    tracker.record(&release(1), &Outcome::Unknown, at(50));
    // Due at 150 now. The other one is younger but due earlier.
    tracker.record(&acquire(2), &Outcome::Unknown, at(60));
    assert_eq!(tracker.deadline(), Some(at(110)));
    assert_eq!([tracker.next_retry(at(149)), tracker.next_retry(at(149))], [Some(release(2)), None]);
    assert_eq!(tracker.deadline(), Some(at(150)));
    assert_eq!([tracker.next_retry(at(150)), tracker.next_retry(at(150))], [Some(release(1)), None]);
}

#[test]
fn a_session_whose_room_is_free_again_owes_from_the_start() {
    let mut tracker = ReleaseTracker::new(1);
    for now in [1_000, 2_000] {
        tracker.reserve(&acquire(1)).unwrap();
        tracker.record(&acquire(1), &Outcome::Unknown, at(now));
        assert_eq!(tracker.deadline(), Some(at(now + 50)), "no backoff is inherited from a debt that is paid");
        assert_eq!(tracker.next_retry(at(now + 50)), Some(release(1)));
        tracker.record(&release(1), &Outcome::Released, at(now + 50));
        assert_eq!(seen(&tracker), (0, 0, None));
    }
}

#[test]
fn so_many_releases_are_tried_at_once_and_no_more() {
    assert_eq!(ReleaseTracker::MAX_UNDER_WAY, 64);
    let mut tracker = ReleaseTracker::new(100);
    for number in 0..100 {
        tracker.reserve(&acquire(number)).unwrap();
        tracker.record(&acquire(number), &Outcome::Unknown, at(0));
    }
    let now = at(1_000);
    let first: Vec<_> = std::iter::from_fn(|| tracker.next_retry(now)).collect();
    assert_eq!(first, (0..64).map(release).collect::<Vec<_>>());
    assert_eq!(seen(&tracker), (100, 100, None), "no tick until one of them is answered");

    // One answered makes room for one more, however it was answered.
    tracker.record(&first[0], &Outcome::Released, now);
    assert_eq!(seen(&tracker), (99, 99, Some(at(50))));
    assert_eq!([tracker.next_retry(now), tracker.next_retry(now)], [Some(release(64)), None]);
    tracker.record(&first[1], &Outcome::Unknown, now);
    assert_eq!([tracker.next_retry(now), tracker.next_retry(now)], [Some(release(65)), None]);

    // With the store well again all of them come back.
    let mut under_way: Vec<_> = first[2..].iter().cloned().chain([64, 65].map(release)).collect();
    let mut now = now;
    while let Some(command) = under_way.pop() {
        tracker.record(&command, &Outcome::Released, now);
        now = now.max(tracker.deadline().unwrap_or(now));
        under_way.extend(tracker.next_retry(now));
    }
    assert_eq!(seen(&tracker), (0, 0, None));
}

/// The answer to an acquire is lost, and the release that a connection in panic submitted behind it fails, too.
#[test]
fn a_debt_that_is_incurred_twice_is_one_debt() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.reserve(&acquire(1)).unwrap();
    tracker.record(&acquire(1), &Outcome::Unknown, at(0));
    tracker.record(&release(1), &Outcome::Unknown, at(10));
    assert_eq!(seen(&tracker), (1, 1, Some(at(50))));
    assert_eq!([tracker.next_retry(at(99)), tracker.next_retry(at(99))], [Some(release(1)), None]);
    // And if it fails while it is tried again: once more, later.
    tracker.record(&release(1), &Outcome::Unknown, at(100));
    assert_eq!(seen(&tracker), (1, 1, Some(at(200))));
}

#[test]
fn a_debt_that_is_paid_while_it_waits_is_forgotten_and_others_go_on() {
    let mut tracker = ReleaseTracker::new(2);
    tracker.reserve(&acquire(1)).unwrap();
    tracker.record(&acquire(1), &Outcome::Unknown, at(0));
    tracker.record(&release(1), &Outcome::Released, at(0));
    assert_eq!(seen(&tracker), (0, 0, None));
    tracker.reserve(&acquire(2)).unwrap();
    tracker.record(&acquire(2), &Outcome::Unknown, at(0));
    assert_eq!(seen(&tracker), (1, 1, Some(at(50))));
}

#[test]
fn a_debt_that_is_paid_while_it_is_tried_again_makes_room_for_others() {
    let mut tracker = ReleaseTracker::new(1);
    for _ in 0..2 * ReleaseTracker::MAX_UNDER_WAY {
        tracker.reserve(&acquire(1)).unwrap();
        tracker.record(&acquire(1), &Outcome::Unknown, at(0));
        assert_eq!(tracker.next_retry(at(50)), Some(release(1)));
        tracker.record(&release(1), &Outcome::Released, at(50));
        assert_eq!(seen(&tracker), (0, 0, None));
    }
}

#[test]
fn room_is_given_back_once_however_often_it_is_settled() {
    let mut tracker = ReleaseTracker::new(2);
    tracker.reserve(&acquire(1)).unwrap();
    tracker.reserve(&acquire(2)).unwrap();
    tracker.record(&acquire(2), &GRANTED, at(0));
    tracker.record(&acquire(1), &Outcome::Denied(None), at(0));
    tracker.record(&release(1), &Outcome::Released, at(0));
    assert_eq!(tracker.tracked(), 1, "session 2 still holds its slot");
    tracker.reserve(&acquire(3)).unwrap();
    assert_eq!(tracker.reserve(&acquire(4)), Err(StoreError::Overloaded));
}

#[test]
fn a_late_answer_about_a_session_that_is_settled_owes_nothing() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.reserve(&acquire(1)).unwrap();
    tracker.record(&release(1), &Outcome::Released, at(0));
    tracker.record(&acquire(1), &Outcome::Unknown, at(0));
    assert_eq!(seen(&tracker), (0, 0, None));
}

/// What becomes of a command on its way to a store and back.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    Rejected(StoreError),
    /// The answer is lost, the command was applied.
    Applied,
    /// The answer is lost, and so was the command.
    Lost,
    /// The answer is lost, and the command may be applied later, or never.
    Late,
}

/// One step in the life of a process and its store.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A new session asks for a slot.
    Open,
    /// A session that was granted one gives it back.
    Close(prop::sample::Index),
    /// A command under way ends.
    Answer(prop::sample::Index, Fate),
    /// A command whose answer was lost is applied after all, or certainly never.
    Late(prop::sample::Index, bool),
    /// Time passes, and what is due is submitted.
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let fate = prop_oneof![
        4 => Just(Fate::Answered),
        1 => prop::sample::select(&StoreError::ALL[..]).prop_map(Fate::Rejected),
        1 => Just(Fate::Applied),
        1 => Just(Fate::Lost),
        2 => Just(Fate::Late),
    ];
    prop_oneof![
        4 => Just(Step::Open),
        2 => index().prop_map(Step::Close),
        6 => (index(), fate).prop_map(|(index, fate)| Step::Answer(index, fate)),
        1 => (index(), any::<bool>()).prop_map(|(index, result)| Step::Late(index, result)),
        2 => prop_oneof![1..500_u64, 1..20_000_u64].prop_map(Step::Pause),
    ]
}

/// A process that submits as sessions do, and a store that keeps its contract and no more.
struct World {
    tracker: ReleaseTracker,
    room: usize,
    now: Timestamp,
    record: UserRecord,
    opened: u64,
    granted: Vec<u64>,
    under_way: Vec<StoreCommand>,
    /// Commands that the store may still apply, at most one of each session.
    late: BTreeMap<SessionId, StoreCommand>,
}

/// Four slots, of which some linger.
fn apply(record: &mut UserRecord, command: &StoreCommand) -> Outcome {
    let policy =
        AdmissionPolicy { linger: Duration::from_secs(100), ..AdmissionPolicy::new(SlotLimit::new(4).unwrap()) };
    ledger::apply(record, command, &policy, |_| Liveness::Alive).outcome
}

/// How a session asks for its slot, and how it gives it up: every other one may come back.
fn come_and_go(number: u64) -> (StoreCommand, StoreCommand) {
    if number.is_multiple_of(2) {
        (acquire(number), release(number))
    } else {
        (acquire_for_good(number), linger(number))
    }
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Open => {
                self.opened += 1;
                let (command, _) = come_and_go(self.opened);
                let full = self.tracker.tracked() == self.room;
                let admitted = self.tracker.reserve(&command);
                assert_eq!(admitted, if full { Err(StoreError::Overloaded) } else { Ok(()) });
                self.under_way.extend(admitted.is_ok().then_some(command));
            }
            Step::Close(index) if !self.granted.is_empty() => {
                let (_, command) = come_and_go(self.granted.swap_remove(index.index(self.granted.len())));
                assert_eq!(self.tracker.reserve(&command), Ok(()));
                self.under_way.push(command);
            }
            Step::Answer(index, fate) if !self.under_way.is_empty() => {
                let command = self.under_way.swap_remove(index.index(self.under_way.len()));
                self.answer(&command, fate);
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
            Step::Close(_) | Step::Answer(..) | Step::Late(..) => {}
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

    fn answer(&mut self, command: &StoreCommand, fate: Fate) {
        let outcome = match fate {
            Fate::Answered => self.apply(command),
            Fate::Rejected(cause) => Outcome::Rejected(cause),
            Fate::Applied => {
                self.apply(command);
                Outcome::Unknown
            }
            Fate::Lost => Outcome::Unknown,
            Fate::Late => {
                // Two that are late: in order.
                if let Some(elder) = self.late.insert(command.session(), command.clone()) {
                    let _outcome = apply(&mut self.record, &elder);
                }
                Outcome::Unknown
            }
        };
        if let (StoreCommand::Acquire { session, .. }, Outcome::Granted { .. }) = (command, &outcome) {
            self.granted.push(session.number());
        }
        self.tracker.record(command, &outcome, self.now);
    }

    /// Applies a command, and before it what is late of the same session: in order, or not at all.
    fn apply(&mut self, command: &StoreCommand) -> Outcome {
        if let Some(elder) = self.late.remove(&command.session()) {
            let _outcome = apply(&mut self.record, &elder);
        }
        apply(&mut self.record, command)
    }

    /// Whose slots somebody has to give back: those that linger are nobody's.
    fn live(&self) -> impl Iterator<Item = SessionId> {
        self.record.sessions().iter().filter(|hold| hold.status == SessionStatus::Live).map(|hold| hold.session)
    }

    fn check(&self) {
        let (held, owed, deadline) = seen(&self.tracker);
        assert!(owed <= held && held <= self.room, "owed {owed}, held {held}, room {}", self.room);
        let acquires = |command: &&StoreCommand| matches!(command, StoreCommand::Acquire { .. });
        let may_hold: BTreeSet<_> = self
            .live()
            .chain(self.late.values().chain(&self.under_way).filter(acquires).map(StoreCommand::session))
            .collect();
        assert!(may_hold.len() <= held, "a slot that nobody would give back: {may_hold:?}");
        for session in may_hold {
            let served = self.granted.contains(&session.number());
            let under_way = self.under_way.iter().any(|command| command.session() == session);
            assert!(served || under_way || self.tracker.is_pending(session), "{session} is forgotten");
        }
        assert!(deadline.is_none() || owed > 0);
    }

    /// The store is well again and everybody leaves.
    fn end(mut self) {
        for command in std::mem::take(&mut self.under_way) {
            self.answer(&command, Fate::Answered);
        }
        for number in std::mem::take(&mut self.granted) {
            self.answer(&come_and_go(number).1, Fate::Answered);
        }
        let well_since = self.now;
        while let Some(deadline) = self.tracker.deadline() {
            self.now = self.now.max(deadline);
            self.submit_what_is_due();
            for command in std::mem::take(&mut self.under_way) {
                self.answer(&command, Fate::Answered);
            }
            self.check();
        }
        assert!(self.now <= well_since + ReleaseTracker::LONGEST_BACKOFF);
        assert_eq!(seen(&self.tracker), (0, 0, None));
        assert_eq!(self.live().next(), None);
        assert!(
            self.record.sessions().iter().all(|hold| hold.session.number() % 2 == 1),
            "only who may come back lingers"
        );
        assert!(self.late.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_slot_comes_back_whatever_was_lost(room in 0..8_usize, steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World {
            tracker: ReleaseTracker::new(room),
            room,
            now: at(0),
            record: UserRecord::default(),
            opened: 0,
            granted: Vec::new(),
            under_way: Vec::new(),
            late: BTreeMap::new(),
        };
        for step in steps {
            world.step(step);
        }
        world.end();
    }
}
