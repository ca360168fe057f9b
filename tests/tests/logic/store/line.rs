//! Sessions that wait in line for a slot, and sessions that watch.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use session_core::ledger::{AcquireOptions, Hint, LinePlace, Outcome, SessionHint, SlotLimit, StoreCommand};
use session_core::ledger::{AdmissionPolicy, SlotUsage};
use tests::waiting::TIMEOUT;

use super::harness::*;

pub(super) fn admits_those_in_line_in_their_order(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { max_waiting: 3, ..policy(1) });
    assert!(matches!(subject.ask(acquire("ada", 1)), Outcome::Granted { .. }));
    for number in 2..=4 {
        assert_eq!(place(&subject.ask(wait("ada", number))), LinePlace::At(u16::try_from(number - 1).unwrap()));
    }
    assert_eq!(place(&subject.ask(wait("ada", 5))), LinePlace::Full);
    assert_eq!(place(&subject.ask(wait("ada", 3))), LinePlace::At(2), "a session that asks again keeps its place");
    assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { slots: 1 });
    subject.ask(acquire("bob", 11));
    assert_eq!(place(&subject.ask(wait("bob", 12))), LinePlace::At(1), "each user has a line");
    drain(&subject);

    // A slot is free, and belongs to the first in line.
    assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
    assert_eq!(next_turn(&subject), 2);
    for number in [3, 4, 9] {
        assert!(!is_granted(&subject.ask(acquire_with("ada", number + 20, 0, AcquireOptions::default()))));
    }
    assert_eq!(place(&subject.ask(wait("ada", 4))), LinePlace::At(3));
    drain(&subject);
    // The first leaves. The next one is called, and is admitted.
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(next_turn(&subject), 3);
    assert!(is_granted(&subject.ask(wait("ada", 3))));
    assert_eq!(place(&subject.ask(wait("ada", 4))), LinePlace::At(1));
    // It does not want to wait any more.
    let last = subject.ask(acquire_with("ada", 4, 0, AcquireOptions::default()));
    assert_eq!(place(&last), LinePlace::NotInLine);
    drain(&subject);
    assert_eq!(subject.ask(release("ada", 3)), Outcome::Released);
    assert!(is_granted(&subject.ask(acquire_with("ada", 6, 0, AcquireOptions::default()))), "nobody is in line");
    assert_eq!(drain(&subject), [], "who left is not told");
}

pub(super) fn tells_those_who_watch_or_wait(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    let watch = |number, watch| StoreCommand::ListSessions {
        user: user("ada"),
        session: session(number),
        limit: None,
        is_unbounded: false,
        watch: Some(watch),
        at: at(0),
    };
    let changed = |numbers: &[u64]| -> Vec<SessionHint> {
        numbers.iter().map(|&number| SessionHint { session: session(number), hint: Hint::Changed }).collect()
    };
    subject.ask(acquire("ada", 1));
    assert!(matches!(subject.ask(watch(1, true)), Outcome::Listed(_)));
    assert_eq!(drain(&subject), [], "its own command tells it all");
    subject.ask(acquire("ada", 2));
    assert_eq!(drain(&subject), changed(&[1]));
    subject.ask(lookup("ada", 2));
    subject.ask(acquire("bob", 3));
    assert_eq!(drain(&subject), [], "nothing changed for the user");
    subject.ask(wait("ada", 4));
    assert_eq!(drain(&subject), changed(&[1]));
    subject.ask(wait("ada", 5));
    assert_eq!(drain(&subject), changed(&[1, 4]));
    subject.ask(watch(1, false));
    subject.ask(release("ada", 5));
    assert_eq!(drain(&subject), changed(&[4]));
    subject.ask(release("ada", 2));
    assert_eq!(next_turn(&subject), 4);
}

/// A user with so many sessions that some stores keep each apart.
pub(super) fn keeps_a_line_behind_many_sessions(open: fn(SlotLimit) -> Subject) {
    const LIMIT: u64 = 1000;
    const WAITING: u64 = 20;

    let subject = open(SlotLimit::new(1000).unwrap());
    subject.store.set_policy(AdmissionPolicy { max_waiting: 64, ..policy(1000) });
    for first in (1..=LIMIT).step_by(250) {
        let answers: Vec<_> = (first..first + 250).map(|number| subject.submit(acquire("ada", number))).collect();
        assert!(answers.iter().all(|answer| is_granted(&answer.recv_timeout(TIMEOUT).unwrap())));
    }
    for number in LIMIT + 1..=LIMIT + WAITING {
        let expected = LinePlace::At(u16::try_from(number - LIMIT).unwrap());
        assert_eq!(place(&subject.ask(wait("ada", number))), expected);
    }
    drain(&subject);
    // One goes from the middle of the line, and one asks again.
    subject.ask(release("ada", LIMIT + 10));
    assert_eq!(place(&subject.ask(wait("ada", LIMIT + 11))), LinePlace::At(10));
    drain(&subject);
    let mut expected: Vec<_> = (LIMIT + 1..=LIMIT + WAITING).filter(|number| *number != LIMIT + 10).collect();
    for (number, next) in (1..).step_by(37).zip(expected.clone()) {
        subject.ask(release("ada", number));
        assert_eq!(next_turn(&subject), next);
        assert!(is_granted(&subject.ask(wait("ada", next))));
        drain(&subject);
    }
    let held = subject.sessions(Some("ada"), 500);
    let held: Vec<_> = held.into_iter().map(|entry| entry.record.session.number()).filter(|n| *n > LIMIT).collect();
    expected.sort_unstable();
    assert_eq!(held, expected);
    assert_eq!(subject.ask(lookup("ada", 2)), Outcome::Counted { slots: 1000 });
}

/// A user whose sessions all wait holds nothing.
pub(super) fn lists_nobody_who_only_waits(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.ask(acquire("ada", 1));
    subject.ask(wait("ada", 2));
    let of_ada = |subject: &Subject| {
        let mut users = subject.users(9);
        users.retain(|entry| entry.user == user("ada"));
        users.pop().map(|entry| entry.sessions)
    };
    assert_eq!(subject.sessions(None, 9).len(), 1);
    assert_eq!(of_ada(&subject).map(|counts| counts.live), Some(1));
    subject.ask(release("ada", 1));
    assert_eq!(subject.sessions(None, 9), []);
    assert_eq!(subject.sessions(Some("ada"), 9), []);
    assert_eq!(subject.users_like("", true, 9), []);
    assert!(of_ada(&subject).is_none_or(|counts| counts.live == 0));
    assert!(is_granted(&subject.ask(wait("ada", 2))));
    assert_eq!(subject.users_like("", true, 9).len(), 1);
}

/// Sessions of a few users take turns, from many threads at once.
pub(super) fn gives_everybody_in_line_a_turn(open: fn(SlotLimit) -> Subject) {
    const USERS: usize = 3;
    const SESSIONS: u64 = 8;
    const TURNS: u32 = 5;
    const MAX_ASKS: u32 = 100_000;

    let subject = open(SlotLimit::new(1).unwrap());
    let clients = &subject.clients;
    let holders: [AtomicU32; USERS] = Default::default();
    let turns = AtomicU32::new(0);
    let take_turns = |index: usize, number: u64| {
        let name = format!("user {index}");
        for _ in 0..TURNS {
            let ask = || clients.submit(wait(&name, number)).recv_timeout(TIMEOUT).expect("every command is answered");
            let asks = (0..MAX_ASKS).find(|_| {
                let outcome = ask();
                assert!(is_granted(&outcome) || matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
                is_granted(&outcome)
            });
            assert!(asks.is_some(), "it waits in vain");
            assert_eq!(holders[index].fetch_add(1, Ordering::SeqCst), 0, "two are in at once");
            turns.fetch_add(1, Ordering::SeqCst);
            holders[index].fetch_sub(1, Ordering::SeqCst);
            let _released = clients.submit(release(&name, number)).recv_timeout(TIMEOUT);
        }
    };
    thread::scope(|scope| {
        for (index, number) in (0..USERS).flat_map(|index| (1..=SESSIONS).map(move |number| (index, number))) {
            let take_turns = &take_turns;
            let number = u64::try_from(index).unwrap() * SESSIONS + number;
            scope.spawn(move || take_turns(index, number));
        }
    });
    assert_eq!(u64::from(turns.into_inner()), USERS as u64 * SESSIONS * u64::from(TURNS));
    assert_eq!(subject.sessions(None, 9), []);
    let Outcome::Granted { .. } = subject.ask(acquire("user 0", 99)) else { panic!("nobody is in line") };
}

pub(super) fn wait(name: &str, number: u64) -> StoreCommand {
    acquire_with(name, number, 0, AcquireOptions { waits: true, ..AcquireOptions::default() })
}

fn place(outcome: &Outcome) -> LinePlace {
    usage(outcome).line
}

fn usage(outcome: &Outcome) -> &SlotUsage {
    match outcome {
        Outcome::Waiting(usage) | Outcome::Denied(Some(usage)) => usage,
        _ => panic!("no place: {outcome:?}"),
    }
}

pub(super) fn is_granted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Granted { .. })
}

/// The next session that is told that it is its turn.
fn next_turn(subject: &Subject) -> u64 {
    loop {
        let Observed::Hinted(hints) = subject.next() else { panic!("only hints are expected") };
        let mut turns = hints.into_iter().filter(|hint| hint.hint == Hint::Turn);
        if let Some(SessionHint { session, .. }) = turns.next() {
            assert_eq!(turns.next(), None, "one slot is free");
            return session.number();
        }
    }
}

/// The hints since the last call, up to the last answered command.
fn drain(subject: &Subject) -> Vec<SessionHint> {
    // A store hints before it answers a later command of that user.
    for user in ["ada", "bob"] {
        subject.ask(lookup(user, 99));
    }
    let hints = subject.observed.try_iter().flat_map(|observed| match observed {
        Observed::Hinted(hints) => hints,
        other => panic!("only hints are expected: {other:?}"),
    });
    hints.collect()
}
