//! Scenarios, one per test.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::ledger::{self, AcquireOptions, KnownToken, StoreCommand};
use session_core::ledger::{EndReason, Outcome, StoreError};
use session_core::release_tracker::{ReleaseTracker, Ticket};
use session_core::{ResumeKey, Timestamp};

use super::commands::*;

#[test]
fn acquire_needs_room_in_the_tracker() {
    let mut tracker = ReleaseTracker::new(2);
    assert_eq!(state_of(&tracker), (0, 0, None));
    assert_eq!(
        [1, 2, 3].map(|number| tracker.begin(&acquire(number)).map(drop)),
        [Ok(()), Ok(()), Err(StoreError::Overloaded)]
    );
    assert_eq!(tracker.tracked(), 2, "a rejected acquire reserves nothing");

    // A session keeps its room while it is under way, granted or pending: until it is certainly not in the store.
    tracker.answered(&Ticket::from(&acquire(1)), &GRANTED, at(0));
    tracker.answered(&Ticket::from(&acquire(2)), &Outcome::Unknown, at(0));
    assert_eq!(tracker.begin(&acquire(3)).map(drop), Err(StoreError::Overloaded));
    tracker.answered(&Ticket::from(&release(1)), &FAILED, at(0));
    assert_eq!(tracker.begin(&acquire(3)).map(drop), Err(StoreError::Overloaded));

    assert_eq!(tracker.next_retry(at(50)), Some(release(1)));
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, at(50));
    assert_eq!([3, 4].map(|number| tracker.begin(&acquire(number)).map(drop)), [Ok(()), Err(StoreError::Overloaded)]);

    assert_eq!(ReleaseTracker::new(0).begin(&acquire(1)).map(drop), Err(StoreError::Overloaded));
}

#[test]
fn releases_and_lookups_need_no_room() {
    let mut tracker = ReleaseTracker::new(1);
    assert_eq!(tracker.begin(&acquire(1)).map(drop), Ok(()));
    for _ in 0..3 {
        assert_eq!(tracker.begin(&release(1)).map(drop), Ok(()));
        assert_eq!(tracker.begin(&count_slots(1)).map(drop), Ok(()));
    }
    assert_eq!(tracker.tracked(), 1);
}

/// Each row: command, outcome => the state of a tracker with one tracked session.
#[test]
fn every_outcome_of_every_command() {
    let rejections = StoreError::ALL.map(Outcome::Rejected);
    let others = [GRANTED, Outcome::Denied(None), Outcome::Released, FOUND, Outcome::Unknown];
    let outcomes: Vec<_> = others.into_iter().chain(rejections).collect();

    let kept = (1, 0, None);
    let untracked = (0, 0, None);
    let pending = (1, 1, Some(at(1050)));
    for (command, expected) in [
        (acquire(1), [kept, untracked, pending, pending, pending, untracked, untracked, untracked]),
        (release(1), [pending, pending, untracked, pending, pending, pending, pending, pending]),
        (linger(1), [pending, pending, untracked, pending, pending, pending, pending, pending]),
        (count_slots(1), [kept; 8]),
        (
            StoreCommand::ListSessions {
                user: user(),
                session: session(1),
                limit: None,
                is_unbounded: false,
                watch: None,
                at: at(0),
            },
            [kept; 8],
        ),
        (end_all(1), [kept; 8]),
    ] {
        for (outcome, expected) in outcomes.iter().zip(expected) {
            let mut tracker = ReleaseTracker::new(1);
            tracker.begin(&acquire(1)).unwrap();
            tracker.answered(&Ticket::from(&command), outcome, at(1000));
            assert_eq!(state_of(&tracker), expected, "{command:?}, {outcome:?}");
            assert_eq!([1, 2].map(|number| tracker.is_pending(session(number))), [expected.1 == 1, false]);
        }
    }
}

/// Each row: what becomes of a session that asks again in line => the state of the tracker.
#[test]
fn session_in_line_is_tracked_until_it_is_out() {
    let ticket = Ticket::from(&wait(1));
    let (kept, settled, pending) = ((1, 0, None), (0, 0, None), (1, 1, Some(at(1050))));
    let rejections = StoreError::ALL.map(|error| (Some(Outcome::Rejected(error)), kept));
    let others = [
        // Its wait has ended, so nobody else gives the place up.
        (None, pending),
        (Some(in_line()), kept),
        (Some(denied_in_line()), kept),
        (Some(GRANTED), kept),
        (Some(Outcome::Denied(None)), settled),
        (Some(Outcome::Unknown), pending),
        (Some(FOUND), pending),
    ];
    for (answer, expected) in others.into_iter().chain(rejections) {
        let mut tracker = ReleaseTracker::new(1);
        tracker.begin(&wait(1)).unwrap();
        tracker.answered(&ticket, &in_line(), at(0));
        assert_eq!(state_of(&tracker), kept);
        // A session that is known needs no further room.
        assert_eq!(tracker.begin(&wait(1)), Ok(ticket.clone()));
        assert_eq!(tracker.begin(&wait(2)), Err(StoreError::Overloaded));
        match &answer {
            Some(outcome) => tracker.answered(&ticket, outcome, at(1000)),
            None => tracker.withdrawn(&ticket, at(1000)),
        }
        assert_eq!(state_of(&tracker), expected, "{answer:?}");
        if expected == kept {
            tracker.answered(&Ticket::from(&release(1)), &FAILED, at(1000));
            assert_eq!(state_of(&tracker), pending, "{answer:?}");
            assert_eq!(tracker.next_retry(at(1050)), Some(release(1)));
            tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, at(1050));
            assert!(tracker.is_settled(session(1)));
        }
    }
}

/// A client in line asks anew, with the resume token of a slot that it lost.
#[test]
fn token_shown_in_line_is_known_in_doubt() {
    let mut tracker = ReleaseTracker::new(1);
    let ticket = tracker.begin(&wait(1)).unwrap();
    tracker.answered(&ticket, &in_line(), at(0));
    let options = AcquireOptions { resume: Some(ResumeKey::from_bytes([7; 32])), ..AcquireOptions::default() };
    let StoreCommand::Acquire { user, session, limit, at: asked_at, .. } = wait(1) else { unreachable!() };
    let resume = StoreCommand::Acquire { user, session, limit, at: asked_at, options: Some(Box::new(options)) };
    let ticket = tracker.begin(&resume).unwrap();
    tracker.in_doubt(&ticket, at(1000));
    let retry = tracker.next_retry(at(1050));
    assert!(matches!(retry, Some(StoreCommand::Linger { token: KnownToken::Shown(_), .. })), "{retry:?}");
}

/// A session in line is denied something else, and stays.
fn denied_in_line() -> Outcome {
    let Outcome::Waiting(usage) = in_line() else { unreachable!() };
    Outcome::Denied(Some(usage))
}

/// Before the first answer the session is certainly not in line.
#[test]
fn rejected_newcomer_to_the_line_is_settled() {
    let mut tracker = ReleaseTracker::new(1);
    for is_withdrawn in [false, true] {
        let ticket = tracker.begin(&wait(1)).unwrap();
        if is_withdrawn {
            tracker.withdrawn(&ticket, at(0));
        } else {
            tracker.answered(&ticket, &FAILED, at(0));
        }
        assert_eq!(state_of(&tracker), (0, 0, None));
    }
}

fn end_all(number: u64) -> StoreCommand {
    let (which, by) = (ledger::EndTarget::All, EndReason::ByUser(None));
    StoreCommand::EndSessions { user: user(), session: session(number), target: which, reason: by, at: at(0) }
}

#[test]
fn linger_retries_keep_the_time_of_loss() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.begin(&acquire_resumable(1)).unwrap();
    tracker.answered(&Ticket::from(&acquire_resumable(1)), &GRANTED, at(0));
    tracker.begin(&linger(1)).unwrap();
    let mut now = at(1_000);
    tracker.answered(&Ticket::from(&linger(1)), &Outcome::Unknown, now);
    for (backoff, outcome) in [(50, FAILED), (100, Outcome::Unknown), (200, GRANTED), (400, FOUND)] {
        now = now + Duration::from_millis(backoff);
        assert_eq!(state_of(&tracker), (1, 1, Some(now)));
        assert_eq!(
            [tracker.next_retry(now), tracker.next_retry(now)],
            [Some(linger(1)), None],
            "the time of loss does not change"
        );
        assert!(tracker.is_pending(session(1)));
        tracker.answered(&Ticket::from(&linger(1)), &outcome, now);
    }
    now = now + Duration::from_millis(800);
    assert_eq!(tracker.next_retry(now), Some(linger(1)));
    tracker.answered(&Ticket::from(&linger(1)), &Outcome::Released, now);
    assert_eq!(state_of(&tracker), (0, 0, None));
    assert!(!tracker.is_pending(session(1)));
}

#[test]
fn unanswered_acquire_leaves_a_pending_release() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.begin(&acquire_resumable(1)).unwrap();
    tracker.answered(&Ticket::from(&acquire_resumable(1)), &Outcome::Unknown, at(0));
    assert_eq!(tracker.next_retry(at(50)), Some(release(1)), "no client has its token");
}

#[test]
fn withdrawn_acquire_owes_no_release() {
    let mut tracker = ReleaseTracker::new(1);
    for command in [acquire(1), acquire_resumable(1)] {
        let ticket = tracker.begin(&command).unwrap();
        tracker.withdrawn(&ticket, at(0));
        assert_eq!(state_of(&tracker), (0, 0, None));
    }
    // What else is withdrawn changes nothing: the session still has its slot.
    tracker.begin(&acquire(1)).unwrap();
    tracker.withdrawn(&Ticket::from(&count_slots(1)), at(0));
    assert_eq!(state_of(&tracker), (1, 0, None));
    for release in [release(1), linger(1)] {
        tracker.withdrawn(&Ticket::from(&release), at(0));
        assert_eq!(state_of(&tracker), (1, 1, Some(at(50))), "a slot is released in the end");
    }
}

#[test]
fn unanswered_resume_leaves_a_pending_linger() {
    let mut tracker = ReleaseTracker::new(1);
    let StoreCommand::Acquire { user, session, limit, at: at_acquire, options } = acquire_resumable(1) else {
        unreachable!()
    };
    let options = options.map(|options| Box::new(AcquireOptions { resume: options.new_resume_key, ..*options }));
    let resume = StoreCommand::Acquire { user, session, limit, at: at_acquire, options };
    tracker.begin(&resume).unwrap();
    tracker.answered(&Ticket::from(&resume), &Outcome::Unknown, at(7));
    // With the token that it showed, for the ledger to compare. Whatever the tries come to.
    let shown = ResumeKey::from_bytes([9; 32]);
    let (user, session) = (resume.user().clone(), resume.session());
    let linger = StoreCommand::Linger { user, session, at: at(7), token: KnownToken::Shown(Box::new(shown)) };
    assert_eq!(tracker.next_retry(at(57)), Some(linger.clone()));
    tracker.answered(&Ticket::from(&linger), &FAILED, at(60));
    assert_eq!(tracker.next_retry(at(160)), Some(linger));
}

#[test]
fn release_backoff_doubles_up_to_5_s() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.begin(&acquire(1)).unwrap();
    let mut now = at(1_000);
    tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Unknown, now);
    let schedule = [50, 100, 200, 400, 800, 1_600, 3_200].into_iter().chain([5_000; 100]);
    for (try_number, backoff) in schedule.enumerate() {
        let due = now + Duration::from_millis(backoff);
        let early = Timestamp::from_epoch(due.since_epoch() - NANOSECOND);
        assert_eq!(state_of(&tracker), (1, 1, Some(due)), "try {try_number}");
        assert_eq!(tracker.next_retry(early), None, "try {try_number}");
        assert_eq!(tracker.next_retry(due), Some(release(1)), "try {try_number}");
        assert_eq!(state_of(&tracker), (1, 1, None), "under way: pending, not due");
        assert!(tracker.is_pending(session(1)));
        assert_eq!(tracker.next_retry(due + ReleaseTracker::LONGEST_BACKOFF), None, "one at a time");
        // The backoff counts from the answer, not from the retry.
        now = due + Duration::from_millis(7);
        tracker.answered(
            &Ticket::from(&release(1)),
            if try_number % 2 == 0 { &Outcome::Unknown } else { &FAILED },
            now,
        );
    }
    assert_eq!(ReleaseTracker::LONGEST_BACKOFF, Duration::from_secs(5));
    assert_eq!(tracker.next_retry(now + ReleaseTracker::LONGEST_BACKOFF), Some(release(1)));
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, now);
    assert_eq!(state_of(&tracker), (0, 0, None));
}

#[test]
fn each_release_has_its_own_backoff() {
    let mut tracker = ReleaseTracker::new(2);
    for number in [1, 2] {
        tracker.begin(&acquire(number)).unwrap();
    }
    tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Unknown, at(0));
    assert_eq!(tracker.next_retry(at(50)), Some(release(1)));
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Unknown, at(50));
    // Due at 150 now. The second one is recorded later but due earlier.
    tracker.answered(&Ticket::from(&acquire(2)), &Outcome::Unknown, at(60));
    assert_eq!(tracker.deadline(), Some(at(110)));
    assert_eq!([tracker.next_retry(at(149)), tracker.next_retry(at(149))], [Some(release(2)), None]);
    assert_eq!(tracker.deadline(), Some(at(150)));
    assert_eq!([tracker.next_retry(at(150)), tracker.next_retry(at(150))], [Some(release(1)), None]);
}

#[test]
fn backoff_starts_again_for_a_new_release() {
    let mut tracker = ReleaseTracker::new(1);
    for now in [1_000, 2_000] {
        tracker.begin(&acquire(1)).unwrap();
        tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Unknown, at(now));
        assert_eq!(tracker.deadline(), Some(at(now + 50)), "the backoff starts again");
        assert_eq!(tracker.next_retry(at(now + 50)), Some(release(1)));
        tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, at(now + 50));
        assert_eq!(state_of(&tracker), (0, 0, None));
    }
}

#[test]
fn at_most_64_releases_are_under_way() {
    assert_eq!(ReleaseTracker::MAX_UNDER_WAY, 64);
    let mut tracker = ReleaseTracker::new(100);
    for number in 0..100 {
        tracker.begin(&acquire(number)).unwrap();
        tracker.answered(&Ticket::from(&acquire(number)), &Outcome::Unknown, at(0));
    }
    let now = at(1_000);
    let first: Vec<_> = std::iter::from_fn(|| tracker.next_retry(now)).collect();
    assert_eq!(first, (0..64).map(release).collect::<Vec<_>>());
    assert_eq!(state_of(&tracker), (100, 100, None), "no tick until one of them is answered");

    // Each answer makes room for one more retry, whatever its outcome.
    tracker.answered(&Ticket::from(&first[0]), &Outcome::Released, now);
    assert_eq!(state_of(&tracker), (99, 99, Some(at(50))));
    assert_eq!([tracker.next_retry(now), tracker.next_retry(now)], [Some(release(64)), None]);
    tracker.answered(&Ticket::from(&first[1]), &Outcome::Unknown, now);
    assert_eq!([tracker.next_retry(now), tracker.next_retry(now)], [Some(release(65)), None]);

    // Once the store answers again, all are released.
    let mut under_way: Vec<_> = first[2..].iter().cloned().chain([64, 65].map(release)).collect();
    let mut now = now;
    while let Some(command) = under_way.pop() {
        tracker.answered(&Ticket::from(&command), &Outcome::Released, now);
        now = now.max(tracker.deadline().unwrap_or(now));
        under_way.extend(tracker.next_retry(now));
    }
    assert_eq!(state_of(&tracker), (0, 0, None));
}

/// The answer to an acquire is lost. The release that a panicking connection submitted after it fails, too.
#[test]
fn release_recorded_twice_is_pending_once() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.begin(&acquire(1)).unwrap();
    tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Unknown, at(0));
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Unknown, at(10));
    assert_eq!(state_of(&tracker), (1, 1, Some(at(50))));
    assert_eq!([tracker.next_retry(at(99)), tracker.next_retry(at(99))], [Some(release(1)), None]);
    // If the retry fails, it is due again later.
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Unknown, at(100));
    assert_eq!(state_of(&tracker), (1, 1, Some(at(200))));
}

#[test]
fn confirmed_release_is_no_longer_pending() {
    let mut tracker = ReleaseTracker::new(2);
    tracker.begin(&acquire(1)).unwrap();
    tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Unknown, at(0));
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, at(0));
    assert_eq!(state_of(&tracker), (0, 0, None));
    tracker.begin(&acquire(2)).unwrap();
    tracker.answered(&Ticket::from(&acquire(2)), &Outcome::Unknown, at(0));
    assert_eq!(state_of(&tracker), (1, 1, Some(at(50))));
}

#[test]
fn confirmed_retry_makes_room_for_others() {
    let mut tracker = ReleaseTracker::new(1);
    for _ in 0..2 * ReleaseTracker::MAX_UNDER_WAY {
        tracker.begin(&acquire(1)).unwrap();
        tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Unknown, at(0));
        assert_eq!(tracker.next_retry(at(50)), Some(release(1)));
        tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, at(50));
        assert_eq!(state_of(&tracker), (0, 0, None));
    }
}

#[test]
fn room_is_freed_once_per_session() {
    let mut tracker = ReleaseTracker::new(2);
    tracker.begin(&acquire(1)).unwrap();
    tracker.begin(&acquire(2)).unwrap();
    tracker.answered(&Ticket::from(&acquire(2)), &GRANTED, at(0));
    tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Denied(None), at(0));
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, at(0));
    assert_eq!(tracker.tracked(), 1, "session 2 still holds its slot");
    tracker.begin(&acquire(3)).unwrap();
    assert_eq!(tracker.begin(&acquire(4)).map(drop), Err(StoreError::Overloaded));
}

#[test]
fn late_answer_leaves_nothing_pending() {
    let mut tracker = ReleaseTracker::new(1);
    tracker.begin(&acquire(1)).unwrap();
    tracker.answered(&Ticket::from(&release(1)), &Outcome::Released, at(0));
    tracker.answered(&Ticket::from(&acquire(1)), &Outcome::Unknown, at(0));
    assert_eq!(state_of(&tracker), (0, 0, None));
}
