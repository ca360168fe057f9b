//! Who applies a command, and who waits.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use session_core::ledger::StoreError;

use super::super::directory_watch::DirectoryState;
use super::super::environment::{Durability, ReopeningEnv};
use super::super::live_query::LiveQuery;
use super::super::testing::{
    FAILED, NODE, OutcomeChannel, RELEASED, TIMEOUT, UNKNOWN, acquire, found, granted, lookup, policy, release,
    unwatched,
};
use super::super::users;
use super::*;
use crate::runtime::clock::Clock;
use crate::runtime::process::Process;
use crate::store::failure::StoreFailure;
use crate::store::shared::NodeContext;

/// A writer that is shared, and its directory.
fn shared() -> (Arc<SharedWriter>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let env = |name: &str| {
        let directory = directory.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        ReopeningEnv::open(&directory, 1 << 30, Durability::Unsynced).unwrap()
    };
    let (seen_sender, _) = users::user_writer(env("users"), policy(), Clock::start(), DirectoryState::default());
    let context = NodeContext::with_policy(NODE, policy(), Process::start());
    let writer = Writer::new(env("live"), context, seen_sender, DirectoryState::default());
    (Arc::new(SharedWriter::new(Arc::new(Queue::without_clock(8)), writer)), directory)
}

/// Runs the store's thread.
fn start(shared: &Arc<SharedWriter>) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || shared.run(&unwatched()))
}

/// A completion that keeps its thread until the sender is dropped, and says when it does.
fn stalling(answers: &OutcomeChannel) -> (Completion<Outcome>, Receiver<()>, Sender<()>) {
    let ((begun, has_begun), (go_on, may_go_on)) = (channel(), channel::<()>());
    let answer = answers.completion();
    let completion = Completion::new(move |outcome| {
        begun.send(()).unwrap();
        assert!(may_go_on.recv().is_err());
        answer.answer(outcome);
    });
    (completion, has_begun, go_on)
}

#[test]
fn lone_command_is_applied_by_its_caller() {
    let (shared, _directory) = shared();
    let answers = OutcomeChannel::default();
    for (command, outcome) in
        [(acquire("ada", 1), granted(1)), (lookup("ada", 2), found(1)), (release("ada", 1), RELEASED)]
    {
        shared.submit(command, answers.completion());
        assert_eq!(answers.now(), [outcome], "before the call returns, and with no other thread");
    }
}

#[test]
fn thread_at_work_applies_the_commands_of_others() {
    let (shared, _directory) = shared();
    let (first, others) = (OutcomeChannel::default(), OutcomeChannel::default());
    let (completion, has_begun, go_on) = stalling(&first);
    let at_work = thread::spawn({
        let shared = Arc::clone(&shared);
        move || shared.submit(acquire("ada", 1), completion)
    });
    has_begun.recv_timeout(TIMEOUT).unwrap();
    let here = thread::current().id();
    let (sender, applied_by) = channel();
    let completion = Completion::new(move |outcome| sender.send((outcome, thread::current().id())).unwrap());
    shared.submit(acquire("ada", 2), completion);
    for number in [3, 4] {
        shared.submit(acquire("bob", number), others.completion());
    }
    assert_eq!(others.now(), [], "these calls return while the thread is at work");
    let worker = at_work.thread().id();
    drop(go_on);
    let by = applied_by.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(by, (granted(2), worker));
    assert_ne!(worker, here);
    at_work.join().unwrap();
    assert_eq!((first.now(), others.now()), (vec![granted(1)], vec![granted(1), granted(2)]));
    shared.submit(lookup("ada", 5), others.completion());
    assert_eq!(others.now(), [found(2)], "it is nobody's turn again");
}

/// Each answer submits the next command, as a session does that holds a lock of nobody.
fn chain(shared: &Weak<SharedWriter>, left: u64, done: Sender<thread::ThreadId>) -> Completion<Outcome> {
    let shared = shared.clone();
    Completion::new(move |outcome| {
        assert_eq!(outcome, granted(1));
        done.send(thread::current().id()).unwrap();
        let writer = shared.upgrade().expect("it is in use");
        if left > 0 {
            writer.submit(acquire(&format!("user {left}"), 1), chain(&shared, left - 1, done));
        }
    })
}

#[test]
fn caller_hands_over_after_some_batches() {
    let (shared, _directory) = shared();
    let (sender, done) = channel();
    shared.submit(acquire("first", 1), chain(&Arc::downgrade(&shared), 19, sender));
    let here = thread::current().id();
    let by_caller = done.try_iter().collect::<Vec<_>>();
    assert_eq!(by_caller, vec![here; 4], "the caller returns, with no thread to hand over to yet");
    let thread = start(&shared);
    let by_thread: Vec<_> = (0..16).map(|_| done.recv_timeout(TIMEOUT).unwrap()).collect();
    assert_eq!(by_thread, vec![thread.thread().id(); 16]);
    shared.queue.close();
    thread.join().unwrap();
}

#[test]
fn query_is_answered_while_callers_come_and_go() {
    let (shared, _directory) = shared();
    let thread = start(&shared);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let callers = scope.spawn(|| {
            let answers = OutcomeChannel::default();
            while !stop.load(Ordering::Relaxed) {
                shared.submit(lookup("ada", 1), answers.completion());
                assert_eq!(answers.next(), found(0));
            }
        });
        for _ in 0..50 {
            let (completion, answer) = Completion::channel();
            shared.queue.ask(LiveQuery::Usage(completion));
            assert!(smol::block_on(answer).is_ok());
        }
        stop.store(true, Ordering::Relaxed);
        callers.join().unwrap();
    });
    shared.queue.close();
    thread.join().unwrap();
    let (completion, answer) = Completion::channel();
    shared.queue.ask(LiveQuery::Usage(completion));
    assert_eq!(smol::block_on(answer), Err(StoreFailure::Rejected(StoreError::Failed)));
}

#[test]
fn panicking_caller_fails_the_store() {
    let (shared, _directory) = shared();
    let answers = OutcomeChannel::default();
    let thread = start(&shared);
    let caller = thread::spawn({
        let (shared, behind) = (Arc::clone(&shared), answers.completion());
        move || panic_in_own_turn(&shared, behind)
    });
    assert!(caller.join().is_err());
    assert_eq!(answers.next(), FAILED, "what was queued behind it");
    shared.submit(acquire("ada", 3), answers.completion());
    assert_eq!(answers.next(), FAILED);
    assert!(thread.join().is_err(), "the part of the process that the supervisor watches ends, too");
}

/// Submits commands until this thread applies one itself, because the store's thread is not at work. Then the answer queues
/// another command behind it, and panics.
fn panic_in_own_turn(shared: &SharedWriter, behind: Completion<Outcome>) {
    let here = thread::current().id();
    let behind = Arc::new(Mutex::new(Some(behind)));
    loop {
        let (queue, behind) = (Arc::clone(&shared.queue), Arc::clone(&behind));
        let (applied, is_applied) = channel();
        let completion = Completion::new(move |_| {
            if thread::current().id() == here {
                queue.push(acquire("ada", 2), behind.lock().unwrap().take().unwrap());
                panic!("an answer that panics, on purpose");
            }
            applied.send(()).unwrap();
        });
        shared.submit(acquire("ada", 1), completion);
        is_applied.recv_timeout(TIMEOUT).unwrap();
    }
}

#[test]
fn panicking_thread_answers_pending_commands() {
    let (shared, _directory) = shared();
    let answers = OutcomeChannel::default();
    shared.queue.push(acquire("ada", 1), Completion::new(|_| panic!("an answer that panics, on purpose")));
    shared.queue.push(acquire("ada", 2), answers.completion());
    assert!(start(&shared).join().is_err());
    assert_eq!(answers.next(), UNKNOWN);
    shared.submit(acquire("ada", 3), answers.completion());
    assert_eq!(answers.next(), FAILED);
}

#[test]
fn commands_of_a_session_keep_their_order() {
    let (shared, _directory) = shared();
    let thread = start(&shared);
    thread::scope(|scope| {
        for session in 1..=4 {
            let shared = &shared;
            scope.spawn(move || {
                let answers = OutcomeChannel::default();
                let user = format!("user {session}");
                for _ in 0..500 {
                    // Releases are not counted against the capacity, and nothing here waits for the answer before.
                    shared.submit(acquire(&user, session), answers.completion());
                    shared.submit(release(&user, session), answers.completion());
                    assert_eq!([answers.next(), answers.next()], [granted(1), RELEASED]);
                    shared.submit(lookup(&user, session), answers.completion());
                    assert_eq!(answers.next(), found(0));
                }
            });
        }
    });
    shared.queue.close();
    thread.join().unwrap();
}
