//! One suite that every store passes: the contract of `session_core::ledger`.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use session_core::ledger::{self, AcquireOptions, EndTarget, Grant, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, EndReason, EndedSession, Evict, Liveness, Outcome, SessionStatus, SlotLimit, StoreError,
    UserRecord, WhenFull,
};
use session_core::{DisplayName, NodeId, ResumeKey, SessionId, Timestamp, UserId};
use shell::store::{Completion, LmdbConfig, LmdbStore, MemoryStore, SessionNotifier, Store};
use tempfile::TempDir;
use tests::test_server::NODE;
use tests::waiting::TIMEOUT;

/// A store, and what must outlive it.
struct Subject {
    store: Arc<dyn Store>,
    heard: Receiver<Heard>,
    hears: Sender<Heard>,
    _directory: Option<TempDir>,
}

/// What a store lets the world know, in its order.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The answer to a command that [`Subject::tell`] submitted.
    Answer(Outcome),
    /// Who lost a slot.
    Ended(Vec<EndedSession>),
}

struct Ear(Sender<Heard>);

impl SessionNotifier for Ear {
    fn notify(&self, ended: Vec<EndedSession>) {
        // Fails when the test no longer listens.
        let _unheard = self.0.send(Heard::Ended(ended));
    }
}

fn subject(store: impl Store + 'static, directory: Option<TempDir>) -> Subject {
    let (hears, heard) = channel();
    store.set_notifier(Arc::new(Ear(hears.clone())));
    Subject { store: Arc::new(store), heard, hears, _directory: directory }
}

fn memory(limit: SlotLimit) -> Subject {
    subject(MemoryStore::new(NODE, limit), None)
}

fn lmdb(limit: SlotLimit) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(&LmdbConfig::new(directory.path(), limit), NODE).unwrap();
    subject(store, Some(directory))
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
    goes_by_the_limit_that_is_claimed_or_else_by_the_last_that_was_set, admits_exactly_the_limit_under_a_race, keeps_users_apart, rejects_after_close_and_answers_everything, tells_whom_a_newcomer_ends_once_and_before_the_answer,
    swaps_many_slots_in_one_go, moves_a_slot_to_whoever_shows_its_token, keeps_a_lost_session_s_slot_until_its_time_is_over,
    gives_a_lingering_slot_to_a_newcomer_and_tells_nobody, lists_and_ends);
suite!(lmdb: grants_up_to_the_limit, is_idempotent, keeps_the_order_of_a_session, agrees_with_the_rule,
    goes_by_the_limit_that_is_claimed_or_else_by_the_last_that_was_set, admits_exactly_the_limit_under_a_race, keeps_users_apart, rejects_after_close_and_answers_everything, tells_whom_a_newcomer_ends_once_and_before_the_answer,
    swaps_many_slots_in_one_go, moves_a_slot_to_whoever_shows_its_token, keeps_a_lost_session_s_slot_until_its_time_is_over,
    gives_a_lingering_slot_to_a_newcomer_and_tells_nobody, lists_and_ends);

fn grants_up_to_the_limit(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(3).unwrap());
    for held in 1..=3 {
        assert_eq!(subject.ask(acquire("ada", held)), Outcome::granted(u32::try_from(held).unwrap()));
    }
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::Denied(None));
    assert_eq!(subject.ask(lookup("ada", 4)), Outcome::Counted { connections: 3 });
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { connections: 2 });
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::granted(3));
    assert_eq!(subject.ask(acquire("ada", 5)), Outcome::Denied(None));
}

fn goes_by_the_limit_that_is_claimed_or_else_by_the_last_that_was_set(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    let claim = |number, slots| StoreCommand::Acquire {
        user: user("ada"),
        session: session(number),
        limit: Some(SlotLimit::new(slots).unwrap()),
        at: Timestamp::default(),
        options: None,
    };
    let granted = Outcome::granted;
    assert_eq!(subject.ask(claim(1, 0)), Outcome::Denied(None));
    assert_eq!(subject.ask(acquire("ada", 1)), granted(1));
    assert_eq!(subject.ask(acquire("ada", 2)), Outcome::Denied(None));
    assert_eq!(subject.ask(claim(2, 2)), granted(2));
    assert_eq!(subject.ask(claim(3, 2)), Outcome::Denied(None));
    subject.store.set_policy(AdmissionPolicy::new(SlotLimit::new(4).unwrap()));
    assert_eq!([acquire("ada", 3), acquire("ada", 4)].map(|asked| subject.ask(asked)), [granted(3), granted(4)]);
    assert_eq!(subject.ask(acquire("ada", 5)), Outcome::Denied(None));
    subject.store.set_policy(AdmissionPolicy::new(SlotLimit::new(2).unwrap()));
    assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(acquire("ada", 6)), Outcome::Denied(None));
    assert_eq!(subject.ask(release("ada", 3)), Outcome::Released);
    assert_eq!(subject.ask(acquire("ada", 6)), granted(2));
}

fn is_idempotent(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    for _ in 0..3 {
        assert_eq!(subject.ask(acquire("ada", 1)), Outcome::granted(1));
    }
    for _ in 0..3 {
        assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
        assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { connections: 0 });
    }
    assert_eq!(subject.ask(release("nobody", 9)), Outcome::Released, "releasing what is not held changes nothing");
}

fn keeps_the_order_of_a_session(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    // Nobody waits for an answer, so a store that batches gets them all at once.
    let turns = (0..100).flat_map(|_| [acquire("ada", 1), release("ada", 1)]);
    let commands = turns.chain([acquire("ada", 2), release("ada", 1)]);
    let answers: Vec<_> = commands.map(|command| subject.submit(command)).collect();
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.recv_timeout(TIMEOUT).unwrap()).collect();
    for pair in outcomes[..200].chunks(2) {
        assert_eq!(pair, [Outcome::granted(1), Outcome::Released]);
    }
    assert_eq!(outcomes[200..], [Outcome::granted(1), Outcome::Released]);
    assert_eq!(subject.ask(lookup("ada", 2)), Outcome::Counted { connections: 1 }, "session 1 released nothing of 2's");
}

/// Any history over a few users has the outcomes that the rule gives, and ends whom it ends, whatever the store does with
/// batches.
fn agrees_with_the_rule(open: fn(SlotLimit) -> Subject) {
    let command = (0..8_u8, 0..4_u8, 1..8_u64, 0..8_u64).prop_map(|(kind, user, session, other)| {
        let user = format!("user {user}");
        match kind {
            0 => acquire(&user, session),
            1 => release(&user, session),
            2 => lookup(&user, session),
            3 => StoreCommand::Linger { user: self::user(&user), session: self::session(session), at: at(0) },
            4 => wishing(&user, session, 0, AcquireOptions { resume: Some(key(other)), ..options(session) }),
            5 => end(&user, session, if other == 0 { EndTarget::All } else { EndTarget::One(self::session(other)) }),
            _ => wishing(&user, session, 0, options(session)),
        }
    });
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(commands in vec(command, 0..300), when_full in prop::sample::select(&[WhenFull::Deny, WhenFull::EvictOldest][..]))| {
        let policy = AdmissionPolicy { when_full, ..policy(3) };
        let subject = open(policy.limit);
        subject.store.set_policy(policy);
        let answers: Vec<_> = commands.iter().map(|command| subject.submit(command.clone())).collect();
        let mut records = BTreeMap::<UserId, UserRecord>::new();
        let mut ended = Vec::new();
        for (command, answer) in commands.iter().zip(answers) {
            let record = records.entry(command.user().clone()).or_default();
            let expected = ledger::apply(record, command, &policy, |_| Liveness::Alive);
            prop_assert_eq!(answer.recv_timeout(TIMEOUT).unwrap(), expected.outcome, "{:?}", command);
            ended.extend(expected.ended);
        }
        prop_assert_eq!(subject.ended(), ended);
    });
}

fn admits_exactly_the_limit_under_a_race(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(3).unwrap());
    let barrier = Barrier::new(8);
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                let (store, barrier) = (&*subject.store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let answers: Vec<_> = (0..50).map(|at| submit(store, acquire("ada", thread * 100 + at))).collect();
                    answers.iter().map(|answer| answer.recv_timeout(TIMEOUT).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    outcomes.retain(|outcome| *outcome != Outcome::Denied(None));
    outcomes.sort_unstable_by_key(|outcome| format!("{outcome:?}"));
    assert_eq!(outcomes, [1, 2, 3].map(Outcome::granted));
}

fn keeps_users_apart(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    let long = "x".repeat(UserId::MAX_BYTES);
    let almost = "x".repeat(UserId::MAX_BYTES - 1);
    for (number, user) in ["a", "A", "ab", "é", "e\u{301}", " ", &long, &almost].into_iter().enumerate() {
        let session = u64::try_from(number).unwrap();
        assert_eq!(subject.ask(acquire(user, session)), Outcome::granted(1), "{user:?}");
        assert_eq!(subject.ask(acquire(user, 100 + session)), Outcome::Denied(None), "{user:?}");
    }
}

fn rejects_after_close_and_answers_everything(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    let answers: Vec<_> = (0..500).map(|at| subject.submit(acquire(&format!("user {at}"), at))).collect();
    assert_eq!(smol::block_on(subject.store.close(TIMEOUT)), Ok(()), "it closes in time");
    for answer in answers {
        assert_eq!(answer.recv_timeout(TIMEOUT), Ok(Outcome::granted(1)), "what it took it applies");
    }
    assert_eq!(subject.ask(acquire("late", 1)), Outcome::Rejected(StoreError::Failed));
    assert_eq!(subject.ask(release("user 0", 0)), Outcome::Rejected(StoreError::Failed));
    assert_eq!(smol::block_on(subject.store.close(TIMEOUT)), Ok(()), "closing twice is the same as closing once");
}

fn tells_whom_a_newcomer_ends_once_and_before_the_answer(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    subject.store.set_policy(policy(2));
    for number in [1, 2] {
        subject.ask(wishing("ada", number, 0, options(number)));
    }
    let Outcome::Denied(Some(listing)) = subject.ask(wishing("ada", 3, 0, options(3))) else {
        panic!("both are taken")
    };
    assert_eq!(listing.sessions.iter().map(|hold| hold.session).collect::<Vec<_>>(), [1, 2].map(session));
    assert_eq!(subject.ended(), [], "who is refused ends nobody");

    let choice = |ids: &[u64]| Some(Evict::Sessions(ids.iter().map(|&number| session(number)).collect()));
    subject.tell(wishing("ada", 3, 0, AcquireOptions { evict: choice(&[2]), ..options(3) }));
    assert_eq!(subject.hear(), Heard::Ended(vec![ended(2, EndReason::TakenOver(Some(label(3))))]));
    assert!(matches!(subject.hear(), Heard::Answer(Outcome::Granted { connections: 2, .. })));
    // What the two of them say later finds nothing.
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { connections: 2 });

    subject.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    subject.tell(acquire("ada", 4));
    assert_eq!(subject.hear(), Heard::Ended([1, 3].map(|number| ended(number, EndReason::TakenOver(None))).to_vec()));
    assert_eq!(subject.hear(), Heard::Answer(Outcome::granted(1)));
    assert_eq!(subject.ended(), [], "once");
}

/// A store that batches gets them all at once: each of them ends the one before it.
fn swaps_many_slots_in_one_go(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    let answers: Vec<_> = (1..=100).map(|number| subject.submit(wishing("ada", number, 0, options(number)))).collect();
    let late = subject.submit(release("ada", 1));
    for answer in answers {
        let outcome = answer.recv_timeout(TIMEOUT).unwrap();
        assert!(matches!(outcome, Outcome::Granted { connections: 1, .. }), "{outcome:?}");
    }
    assert_eq!(late.recv_timeout(TIMEOUT), Ok(Outcome::Released));
    let swapped = |number| ended(number, EndReason::TakenOver(Some(label(number + 1))));
    assert_eq!(subject.ended(), (1..100).map(swapped).collect::<Vec<_>>());
    assert_eq!(subject.ask(lookup("ada", 100)), Outcome::Counted { connections: 1 });
}

fn moves_a_slot_to_whoever_shows_its_token(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(policy(1));
    let grant = |is_resumed| {
        let grant = Grant { limit: SlotLimit::new(1).unwrap(), linger: LINGER, is_resumed };
        Outcome::Granted { connections: 1, grant: Some(Box::new(grant)) }
    };
    let resume =
        |user, number, token| wishing(user, number, 1, AcquireOptions { resume: Some(key(token)), ..options(number) });
    assert_eq!(subject.ask(wishing("ada", 1, 0, options(1))), grant(false));
    assert_eq!(subject.ask(resume("bob", 9, 1)), grant(false), "of another user it is worth nothing");
    assert!(matches!(subject.ask(resume("ada", 2, 7)), Outcome::Denied(_)), "nor is another token");
    // From a session that lives, then from one that is lost.
    subject.tell(resume("ada", 2, 1));
    assert_eq!(
        [subject.hear(), subject.hear()],
        [Heard::Ended(vec![ended(1, EndReason::Resumed)]), Heard::Answer(grant(true)),]
    );
    assert_eq!(subject.ask(lose("ada", 1, 1)), Outcome::Released, "it was another's already");
    assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
    assert!(matches!(subject.ask(wishing("ada", 8, 1, options(8))), Outcome::Denied(_)), "2 lives");
    assert_eq!(subject.ask(lose("ada", 2, 1)), Outcome::Released);
    assert_eq!(subject.ask(resume("ada", 3, 1)), grant(true));
    assert_eq!(subject.ended(), [], "nobody was there to be told");
}

fn keeps_a_lost_session_s_slot_until_its_time_is_over(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { lingering_first: false, ..policy(1) });
    subject.ask(wishing("ada", 1, 0, options(1)));
    for second in [5, 6] {
        assert_eq!(subject.ask(lose("ada", 1, second)), Outcome::Released, "that it was lost is said once");
    }
    let Outcome::Denied(Some(listing)) = subject.ask(wishing("ada", 2, 14, options(2))) else { panic!("it is kept") };
    assert_eq!(listing.free_at, Some(at(15)));
    assert_eq!(listing.sessions[0].status, SessionStatus::Lingering { until: at(15) });
    assert!(matches!(subject.ask(wishing("ada", 2, 15, options(2))), Outcome::Granted { connections: 1, .. }));
    // What has no token is given back at once.
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    subject.ask(acquire("ada", 3));
    assert_eq!(subject.ask(lose("ada", 3, 15)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 3)), Outcome::Counted { connections: 0 });
    assert_eq!(subject.ended(), []);
}

fn gives_a_lingering_slot_to_a_newcomer_and_tells_nobody(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    subject.store.set_policy(policy(2));
    for number in [1, 2] {
        subject.ask(wishing("ada", number, 0, options(number)));
    }
    subject.ask(lose("ada", 2, 1));
    assert_eq!(subject.ask(acquire("ada", 3)), Outcome::granted(2));
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::Denied(None), "1 lives");
    let resume = AcquireOptions { resume: Some(key(2)), ..options(5) };
    assert!(matches!(subject.ask(wishing("ada", 5, 2, resume)), Outcome::Denied(_)), "the token went with the slot");
    assert_eq!(subject.ended(), []);
}

fn lists_and_ends(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(5).unwrap());
    subject.store.set_policy(policy(5));
    for number in 1..=4 {
        subject.ask(wishing("ada", number, number, options(number)));
    }
    subject.ask(wishing("bob", 9, 0, options(9)));
    let list = StoreCommand::ListSessions {
        user: user("ada"),
        session: session(1),
        limit: None,
        is_unbounded: false,
        at: at(5),
    };
    let Outcome::Listed(listing) = subject.ask(list) else { panic!("it is answered by a list") };
    assert_eq!((listing.limit.slots(), listing.connections, listing.free_at), (5, 4, None));
    let seen: Vec<_> = listing.sessions.iter().map(|hold| (hold.session, hold.since, hold.label().cloned())).collect();
    assert_eq!(seen, [1, 2, 3, 4].map(|number| (session(number), at(number), Some(label(number)))));

    let ended_are = |numbers: &[u64], connections| Outcome::Ended {
        sessions: numbers.iter().map(|&number| session(number)).collect(),
        connections,
    };
    subject.tell(end("ada", 1, EndTarget::One(session(3))));
    assert_eq!(subject.hear(), Heard::Ended(vec![ended(3, EndReason::ByUser(Some(label(1))))]));
    assert_eq!(subject.hear(), Heard::Answer(ended_are(&[3], 3)));
    for gone in [3, 9] {
        assert_eq!(subject.ask(end("ada", 1, EndTarget::One(session(gone)))), ended_are(&[], 3), "not ada's");
    }
    assert_eq!(subject.ask(end("ada", 3, EndTarget::All)), ended_are(&[], 3), "3 has lost its own slot");
    subject.store.set_policy(policy(2));
    assert_eq!(subject.ask(end("ada", 7, EndTarget::Excess { dry_run: true })), ended_are(&[], 3), "nobody asks");
    assert_eq!(subject.ask(end("ada", 1, EndTarget::Excess { dry_run: true })), ended_are(&[4], 3));
    assert_eq!(subject.ended(), [], "that only says who it would be");
    assert_eq!(subject.ask(end("ada", 1, EndTarget::All)), ended_are(&[2, 4], 1));
    assert_eq!(subject.ended(), [2, 4].map(|number| ended(number, EndReason::ByUser(Some(label(1))))));
    assert_eq!(subject.ask(lookup("bob", 9)), Outcome::Counted { connections: 1 });
}

/// What a killed server leaves behind is void for the next one, and what it is told later does no harm.
#[test]
fn slots_of_another_node_are_void_in_lmdb() {
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig::new(directory.path(), SlotLimit::new(2).unwrap());
    let first = subject(LmdbStore::open(&config, NODE).unwrap(), None);
    for session in 1..=2 {
        first.ask(acquire("ada", session));
    }
    drop(first);
    let next = NodeId::new(0xbeef);
    let second = subject(LmdbStore::open(&config, next).unwrap(), None);
    let again = |session| StoreCommand::Acquire {
        user: user("ada"),
        session: next.session(session),
        limit: None,
        at: Timestamp::default(),
        options: None,
    };
    assert_eq!(second.ask(again(1)), Outcome::granted(1));
    assert_eq!(second.ask(release("ada", 1)), Outcome::Released, "of the old node");
    assert_eq!(second.ask(again(2)), Outcome::granted(2));
    assert_eq!(second.ask(again(3)), Outcome::Denied(None));
}

fn submit(store: &dyn Store, command: StoreCommand) -> Receiver<Outcome> {
    let (sender, receiver) = channel();
    store.submit(command, Completion::new(move |outcome| sender.send(outcome).expect("somebody waits")));
    receiver
}

impl Subject {
    fn submit(&self, command: StoreCommand) -> Receiver<Outcome> {
        submit(&*self.store, command)
    }

    fn ask(&self, command: StoreCommand) -> Outcome {
        self.submit(command).recv_timeout(TIMEOUT).expect("every command is answered")
    }

    /// Submits a command whose answer is heard in the order of all else.
    fn tell(&self, command: StoreCommand) {
        let hears = self.hears.clone();
        self.store.submit(command, Completion::new(move |outcome| hears.send(Heard::Answer(outcome)).unwrap()));
    }

    fn hear(&self) -> Heard {
        self.heard.recv_timeout(TIMEOUT).expect("the store says something")
    }

    /// Who has lost a slot since. Whoever lost it to a command that is answered is among them.
    fn ended(&self) -> Vec<EndedSession> {
        let heard = self.heard.try_iter().flat_map(|heard| match heard {
            Heard::Ended(ended) => ended,
            Heard::Answer(outcome) => panic!("nobody waited for {outcome:?}"),
        });
        heard.collect()
    }
}

fn acquire(name: &str, number: u64) -> StoreCommand {
    StoreCommand::Acquire {
        user: user(name),
        session: session(number),
        limit: None,
        at: Timestamp::default(),
        options: None,
    }
}

fn release(name: &str, number: u64) -> StoreCommand {
    StoreCommand::Release { user: user(name), session: session(number) }
}

fn lookup(name: &str, number: u64) -> StoreCommand {
    StoreCommand::CountSlots { user: user(name), session: session(number), at: at(0) }
}

fn lose(name: &str, number: u64, second: u64) -> StoreCommand {
    StoreCommand::Linger { user: user(name), session: session(number), at: at(second) }
}

fn end(name: &str, asker: u64, which: EndTarget) -> StoreCommand {
    StoreCommand::EndSessions {
        user: user(name),
        session: session(asker),
        target: which,
        reason: EndReason::ByUser(None),
        at: at(0),
    }
}

fn wishing(name: &str, number: u64, second: u64, options: AcquireOptions) -> StoreCommand {
    let (user, session, at) = (user(name), session(number), at(second));
    StoreCommand::Acquire { user, session, limit: None, at, options: Some(Box::new(options)) }
}

/// What a session says that calls itself by its number, and can be taken up again.
fn options(number: u64) -> AcquireOptions {
    AcquireOptions { label: Some(label(number)), new_resume_key: Some(key(number)), ..AcquireOptions::default() }
}

fn key(number: u64) -> ResumeKey {
    ResumeKey::from_bytes([u8::try_from(number).unwrap(); 32])
}

fn label(number: u64) -> DisplayName {
    DisplayName::parse(&format!("session {number}")).unwrap()
}

/// So many slots, which linger for ten seconds; and a client may choose.
fn policy(limit: u32) -> AdmissionPolicy {
    AdmissionPolicy { client_choice: true, linger: LINGER, ..AdmissionPolicy::new(SlotLimit::new(limit).unwrap()) }
}

const LINGER: Duration = Duration::from_secs(10);

/// In a future so far that what lingers until then does so by a store's own clock, too.
fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(4_000_000_000 + second))
}

fn ended(number: u64, how: EndReason) -> EndedSession {
    EndedSession { session: session(number), reason: how }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn session(number: u64) -> SessionId {
    NODE.session(number)
}
