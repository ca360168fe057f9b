//! One suite that every store passes: the contract of `session_core::ledger`.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use session_core::ledger::{self, Command};
use session_core::{Cause, Limit, Liveness, NodeId, Outcome, SessionId, Time, UserId, UserRecord};
use shell::store::{Done, LmdbConfig, LmdbStore, MemoryStore, Store};
use tempfile::TempDir;
use tests::peer::{NODE, PATIENCE};

/// A store, and what must outlive it.
struct Subject {
    store: Arc<dyn Store>,
    _directory: Option<TempDir>,
}

fn memory(limit: Limit) -> Subject {
    Subject { store: Arc::new(MemoryStore::new(NODE, limit)), _directory: None }
}

fn lmdb(limit: Limit) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(&LmdbConfig::new(directory.path(), limit), NODE).unwrap();
    Subject { store: Arc::new(store), _directory: Some(directory) }
}

/// Makes a module with the whole suite for one store.
macro_rules! suite {
    ($store:ident: $($test:ident),+ $(,)?) => {
        mod $store {
            $(#[test]
            fn $test() {
                super::$test(super::$store);
            })+
        }
    };
}

suite!(memory: grants_up_to_the_limit, is_idempotent, keeps_the_order_of_a_session, agrees_with_the_rule,
    goes_by_the_limit_that_is_claimed_or_else_by_the_last_that_was_set, admits_exactly_the_limit_under_a_race, keeps_users_apart, rejects_after_close_and_answers_everything);
suite!(lmdb: grants_up_to_the_limit, is_idempotent, keeps_the_order_of_a_session, agrees_with_the_rule,
    goes_by_the_limit_that_is_claimed_or_else_by_the_last_that_was_set, admits_exactly_the_limit_under_a_race, keeps_users_apart, rejects_after_close_and_answers_everything);

fn grants_up_to_the_limit(open: fn(Limit) -> Subject) {
    let subject = open(Limit::new(3).unwrap());
    for held in 1..=3 {
        assert_eq!(subject.ask(acquire("ada", held)), Outcome::Granted { connections: u32::try_from(held).unwrap() });
    }
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::Denied);
    assert_eq!(subject.ask(lookup("ada", 4)), Outcome::Found { connections: 3 });
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Found { connections: 2 });
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::Granted { connections: 3 });
    assert_eq!(subject.ask(acquire("ada", 5)), Outcome::Denied);
}

fn goes_by_the_limit_that_is_claimed_or_else_by_the_last_that_was_set(open: fn(Limit) -> Subject) {
    let subject = open(Limit::new(1).unwrap());
    let claim = |number, slots| Command::Acquire {
        user: user("ada"),
        session: session(number),
        limit: Some(Limit::new(slots).unwrap()),
        at: Time::default(),
    };
    let granted = |connections| Outcome::Granted { connections };
    assert_eq!(subject.ask(claim(1, 0)), Outcome::Denied);
    assert_eq!(subject.ask(acquire("ada", 1)), granted(1));
    assert_eq!(subject.ask(acquire("ada", 2)), Outcome::Denied);
    assert_eq!(subject.ask(claim(2, 2)), granted(2));
    assert_eq!(subject.ask(claim(3, 2)), Outcome::Denied);
    subject.store.set_limit(Limit::new(4).unwrap());
    assert_eq!([acquire("ada", 3), acquire("ada", 4)].map(|asked| subject.ask(asked)), [granted(3), granted(4)]);
    assert_eq!(subject.ask(acquire("ada", 5)), Outcome::Denied);
    subject.store.set_limit(Limit::new(2).unwrap());
    assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(acquire("ada", 6)), Outcome::Denied);
    assert_eq!(subject.ask(release("ada", 3)), Outcome::Released);
    assert_eq!(subject.ask(acquire("ada", 6)), granted(2));
}

fn is_idempotent(open: fn(Limit) -> Subject) {
    let subject = open(Limit::new(2).unwrap());
    for _ in 0..3 {
        assert_eq!(subject.ask(acquire("ada", 1)), Outcome::Granted { connections: 1 });
    }
    for _ in 0..3 {
        assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
        assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Found { connections: 0 });
    }
    assert_eq!(subject.ask(release("nobody", 9)), Outcome::Released, "releasing what is not held changes nothing");
}

fn keeps_the_order_of_a_session(open: fn(Limit) -> Subject) {
    let subject = open(Limit::new(1).unwrap());
    // Nobody waits for an answer, so a store that batches gets them all at once.
    let turns = (0..100).flat_map(|_| [acquire("ada", 1), release("ada", 1)]);
    let commands = turns.chain([acquire("ada", 2), release("ada", 1)]);
    let answers: Vec<_> = commands.map(|command| subject.submit(command)).collect();
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.recv_timeout(PATIENCE).unwrap()).collect();
    for pair in outcomes[..200].chunks(2) {
        assert_eq!(pair, [Outcome::Granted { connections: 1 }, Outcome::Released]);
    }
    assert_eq!(outcomes[200..], [Outcome::Granted { connections: 1 }, Outcome::Released]);
    assert_eq!(subject.ask(lookup("ada", 2)), Outcome::Found { connections: 1 }, "session 1 released nothing of 2's");
}

/// Any history over a few users has the outcomes that the rule gives, whatever the store does with batches.
fn agrees_with_the_rule(open: fn(Limit) -> Subject) {
    let command = (0..3_u8, 0..4_u8, 1..8_u64).prop_map(|(kind, user, session)| {
        let user = format!("user {user}");
        match kind {
            0 => acquire(&user, session),
            1 => release(&user, session),
            _ => lookup(&user, session),
        }
    });
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(commands in vec(command, 0..300))| {
        let limit = Limit::new(3).unwrap();
        let subject = open(limit);
        let answers: Vec<_> = commands.iter().map(|command| subject.submit(command.clone())).collect();
        let mut records = BTreeMap::<UserId, UserRecord>::new();
        for (command, answer) in commands.iter().zip(answers) {
            let record = records.entry(command.user().clone()).or_default();
            let expected = ledger::apply(record, command, limit, |_| Liveness::Alive);
            prop_assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), expected, "{:?}", command);
        }
    });
}

fn admits_exactly_the_limit_under_a_race(open: fn(Limit) -> Subject) {
    let subject = open(Limit::new(3).unwrap());
    let barrier = Barrier::new(8);
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                let (subject, barrier) = (&subject, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let answers: Vec<_> = (0..50).map(|at| subject.submit(acquire("ada", thread * 100 + at))).collect();
                    answers.iter().map(|answer| answer.recv_timeout(PATIENCE).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    outcomes.retain(|outcome| *outcome != Outcome::Denied);
    outcomes.sort_unstable_by_key(|outcome| format!("{outcome:?}"));
    assert_eq!(outcomes, [1, 2, 3].map(|connections| Outcome::Granted { connections }));
}

fn keeps_users_apart(open: fn(Limit) -> Subject) {
    let subject = open(Limit::new(1).unwrap());
    let long = "x".repeat(UserId::MAX_BYTES);
    let almost = "x".repeat(UserId::MAX_BYTES - 1);
    for (number, user) in ["a", "A", "ab", "é", "e\u{301}", " ", &long, &almost].into_iter().enumerate() {
        let session = u64::try_from(number).unwrap();
        assert_eq!(subject.ask(acquire(user, session)), Outcome::Granted { connections: 1 }, "{user:?}");
        assert_eq!(subject.ask(acquire(user, 100 + session)), Outcome::Denied, "{user:?}");
    }
}

fn rejects_after_close_and_answers_everything(open: fn(Limit) -> Subject) {
    let subject = open(Limit::new(1).unwrap());
    let answers: Vec<_> = (0..500).map(|at| subject.submit(acquire(&format!("user {at}"), at))).collect();
    assert!(subject.store.close(PATIENCE), "it closes in time");
    for answer in answers {
        assert_eq!(answer.recv_timeout(PATIENCE), Ok(Outcome::Granted { connections: 1 }), "what it took it applies");
    }
    assert_eq!(subject.ask(acquire("late", 1)), Outcome::Rejected(Cause::Failed));
    assert_eq!(subject.ask(release("user 0", 0)), Outcome::Rejected(Cause::Failed));
    assert!(subject.store.close(PATIENCE), "closing twice is the same as closing once");
}

/// What a killed server leaves behind is void for the next one, and what it is told later does no harm.
#[test]
fn slots_of_another_node_are_void_in_lmdb() {
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig::new(directory.path(), Limit::new(2).unwrap());
    let first = Subject { store: Arc::new(LmdbStore::open(&config, NODE).unwrap()), _directory: None };
    for session in 1..=2 {
        first.ask(acquire("ada", session));
    }
    drop(first);
    let next = NodeId::new(0xbeef);
    let second = Subject { store: Arc::new(LmdbStore::open(&config, next).unwrap()), _directory: None };
    let again = |session| Command::Acquire {
        user: user("ada"),
        session: next.session(session),
        limit: None,
        at: Time::default(),
    };
    assert_eq!(second.ask(again(1)), Outcome::Granted { connections: 1 });
    assert_eq!(second.ask(release("ada", 1)), Outcome::Released, "of the old node");
    assert_eq!(second.ask(again(2)), Outcome::Granted { connections: 2 });
    assert_eq!(second.ask(again(3)), Outcome::Denied);
}

impl Subject {
    fn submit(&self, command: Command) -> Receiver<Outcome> {
        let (sender, receiver) = channel();
        self.store.submit(command, Done::new(move |outcome| sender.send(outcome).expect("somebody waits")));
        receiver
    }

    fn ask(&self, command: Command) -> Outcome {
        self.submit(command).recv_timeout(PATIENCE).expect("every command is answered")
    }
}

fn acquire(name: &str, number: u64) -> Command {
    Command::Acquire { user: user(name), session: session(number), limit: None, at: Time::default() }
}

fn release(name: &str, number: u64) -> Command {
    Command::Release { user: user(name), session: session(number) }
}

fn lookup(name: &str, number: u64) -> Command {
    Command::Lookup { user: user(name), session: session(number) }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn session(number: u64) -> SessionId {
    NODE.session(number)
}
