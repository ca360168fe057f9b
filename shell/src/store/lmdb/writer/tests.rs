//! The writer on the test's own thread.

mod failures;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use session_core::NodeId;
use session_core::ledger::{AcquireOptions, EndTarget, EndedSession, KnownToken};
use session_core::ledger::{AdmissionPolicy, EndReason, SessionRecord, SessionStatus, UserRecord, WhenFull};

use super::super::environment::{DATA_FILE, Durability, Uncommitted, faults};
use super::super::testing::{
    EndedChannel, FAILED, FULL, NODE, OTHER_NODE, OutcomeChannel, RELEASED, UNKNOWN, acquire, acquire_for,
    acquire_with, config, found, granted, logged, lookup, release, resumable, user,
};
use super::super::users;
use super::*;
use crate::runtime::clock::{Clock, ManualClock};
use crate::runtime::process::Process;
use crate::store::completion::Completion;
use crate::store::pages::PageRequest;

/// A writer on the test's own thread.
fn writer(directory: &Path, node: NodeId) -> Writer {
    let config = config(directory);
    let env = |name: &str| {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        ReopeningEnv::open(&directory, 1 << 30, Durability::Unsynced).unwrap()
    };
    let context = NodeContext::new(node, config.policy, Process::start());
    let (seen_sender, _) =
        users::user_writer(env("users"), context.policy().clone(), Clock::start(), DirectoryState::default());
    Writer::new(env("live"), context, seen_sender, DirectoryState::default())
}

/// The same with a map of 1 MiB.
fn small_writer(directory: &Path, node: NodeId) -> Writer {
    let mut writer = writer(directory, node);
    let small = directory.join("small");
    std::fs::create_dir_all(&small).unwrap();
    writer.live = ReopeningEnv::open(&small, 1 << 20, Durability::Unsynced).unwrap();
    writer.batch = writer.live.environment().map(batch_for).unwrap();
    writer
}

/// The same with a map that is written through and grows.
fn mapped_writer(directory: &Path, node: NodeId) -> Writer {
    let mut writer = writer(directory, node);
    let mapped = directory.join("mapped");
    std::fs::create_dir_all(&mapped).unwrap();
    writer.live = ReopeningEnv::open(&mapped, 64 << 20, Durability::Mapped).unwrap();
    writer
}

fn fail_next_commit() {
    faults::fail([Uncommitted::InDoubt(heed::Error::Io(ErrorKind::Other.into()))]);
}

/// Serves the commands as one batch, as the store's thread does.
fn serve(writer: &mut Writer, commands: impl IntoIterator<Item = StoreCommand>) -> Vec<Outcome> {
    let answers = OutcomeChannel::default();
    let mut batch = commands.into_iter().map(|command| (command, answers.completion())).collect();
    writer.serve_and_sweep(&mut batch);
    assert!(batch.is_empty());
    answers.now()
}

fn put(writer: &mut Writer, key: &str, bytes: &[u8]) {
    let environment = writer.live.environment().unwrap();
    let mut txn = environment.write().unwrap();
    environment.records.put(&mut txn, key.as_bytes(), bytes).unwrap();
    environment.commit(txn).unwrap();
}

fn bytes(writer: &mut Writer, key: &str) -> Option<Vec<u8>> {
    let environment = writer.live.environment().unwrap();
    let txn = environment.write().unwrap();
    environment.records.get(&txn, key.as_bytes()).unwrap().map(<[u8]>::to_vec)
}

/// Takes steps of the sweep until it is over, and says how many.
fn sweep(writer: &mut Writer) -> usize {
    for steps in 0..100_000 {
        if writer.sweep == SweepPosition::Over {
            return steps;
        }
        writer.sweep_at = Instant::now();
        serve(writer, []);
    }
    panic!("the sweep comes to an end");
}

#[test]
fn batch_is_applied_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    let outcomes = serve(
        &mut writer,
        [
            acquire("ada", 1),
            acquire("ada", 2),
            acquire("ada", 3),
            acquire("bob", 4),
            release("ada", 1),
            acquire("ada", 3),
            lookup("ada", 3),
            release("bob", 4),
        ],
    );
    let expected =
        [granted(1), granted(2), Outcome::Denied(None), granted(1), RELEASED, granted(2), found(2), RELEASED];
    assert_eq!(outcomes, expected);
    assert_eq!(bytes(&mut writer, "bob"), None);
    let ada = UserRecord::decode(&bytes(&mut writer, "ada").unwrap()).unwrap();
    let sessions: Vec<_> = ada.sessions().iter().map(|record| record.session.number()).collect();
    assert_eq!(sessions, [2, 3]);
}

#[test]
fn empty_record_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    serve(&mut writer, [acquire("ada", 1)]);
    assert!(bytes(&mut writer, "ada").is_some());
    serve(&mut writer, [release("ada", 1)]);
    assert_eq!(bytes(&mut writer, "ada"), None);
}

#[test]
fn unchanged_batch_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    serve(&mut writer, [acquire("ada", 1)]);
    fail_next_commit();
    // Nor does a step of the sweep that removes nothing.
    (writer.sweep, writer.sweep_at) = (SweepPosition::Start, Instant::now());
    let outcomes = serve(&mut writer, [lookup("ada", 1), acquire("ada", 1), acquire("bob", 2), release("bob", 2)]);
    assert_eq!(outcomes, [found(1), granted(1), granted(1), Outcome::Released]);
    assert_eq!(writer.sweep, SweepPosition::Over);
    assert!(faults::next().is_some(), "there was no commit");
}

/// A writer with `evict-oldest` and a linger of this many seconds, and the sessions that it notifies.
fn evicting_writer(directory: &Path, node: NodeId, linger: u64) -> (Writer, Receiver<Vec<EndedSession>>) {
    let writer = writer(directory, node);
    let (when_full, linger) = (WhenFull::EvictOldest, Duration::from_secs(linger));
    writer.context.set_policy(AdmissionPolicy { when_full, linger, ..config(directory).policy });
    let (notifier, ended_sessions) = EndedChannel::new();
    writer.context.set_notifier(notifier);
    (writer, ended_sessions)
}

fn taken_over(number: u64) -> EndedSession {
    EndedSession { session: NODE.session(number), reason: EndReason::TakenOver(None) }
}

/// A writer after another node, which held slots of these users.
fn successor(directory: &Path, linger: u64, left: &[(&str, AcquireOptions)]) -> (Writer, Arc<ManualClock>) {
    let (mut dead, _) = evicting_writer(directory, OTHER_NODE, linger);
    for (number, (user, options)) in (1..).zip(left) {
        let session = OTHER_NODE.session(number);
        let outcome = serve(&mut dead, [acquire_with(user, session, at(1), options.clone())]);
        assert!(matches!(outcome[..], [Outcome::Granted { slots: 1, .. }]), "{outcome:?}");
    }
    drop(dead);
    let (mut writer, _) = evicting_writer(directory, NODE, linger);
    let manual_clock = Arc::<ManualClock>::default();
    manual_clock.set(at(1000));
    let process = Process::with_clock(Clock::manual(Arc::clone(&manual_clock)));
    writer.context = writer.context.moved_to(process);
    writer.started_at = at(1000);
    (writer, manual_clock)
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(second))
}

fn step_of_the_sweep(writer: &mut Writer) {
    writer.sweep_at = Instant::now();
    serve(writer, []);
}

#[test]
fn sweep_removes_lingering_sessions_in_a_later_pass() {
    let directory = tempfile::tempdir().unwrap();
    let left = [("ada", resumable()), ("bob", AcquireOptions::default())];
    let (mut writer, manual_clock) = successor(directory.path(), 100, &left);
    let start = Instant::now();
    step_of_the_sweep(&mut writer);
    // The session can be resumed, and another restart does not extend its time.
    let record = UserRecord::decode(&bytes(&mut writer, "ada").unwrap()).unwrap();
    assert_eq!(record.sessions()[0].status, SessionStatus::Lingering { until: at(1100) });
    assert_eq!(bytes(&mut writer, "bob"), None);
    assert_eq!(writer.sweep, SweepPosition::Start, "there will be another pass");
    assert!(writer.sweep_at >= start + Duration::from_secs(100), "once it has lingered for its time");

    manual_clock.set(Timestamp::from_epoch(Duration::from_millis(1_099_999)));
    step_of_the_sweep(&mut writer);
    assert!(bytes(&mut writer, "ada").is_some());
    manual_clock.set(at(1100));
    step_of_the_sweep(&mut writer);
    assert_eq!(bytes(&mut writer, "ada"), None);
    assert_eq!(writer.sweep, SweepPosition::Over);
}

#[test]
fn callers_do_not_sweep() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = successor(directory.path(), 1, &[("ada", AcquireOptions::default())]);
    let answers = OutcomeChannel::default();
    writer.serve(&mut [(acquire("bob", 1), answers.completion())].into());
    assert_eq!((answers.now(), &writer.sweep), (vec![granted(1)], &SweepPosition::Start));
    assert!(bytes(&mut writer, "ada").is_some() && writer.wait_timeout() == Duration::ZERO, "it is due");
}

#[test]
fn sessions_lost_after_a_pass_are_swept_later() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, manual_clock) = successor(directory.path(), 1, &[]);
    sweep(&mut writer);
    let session = NODE.session(1);
    let lost = StoreCommand::Linger { user: user("ada"), session, at: at(1000), token: KnownToken::Granted };
    let start = Instant::now();
    serve(&mut writer, [acquire_with("ada", session, at(1000), resumable()), lost]);
    assert_eq!(writer.sweep, SweepPosition::Start);
    assert!(writer.sweep_at >= start + SWEEP_AGAIN, "not too often");
    manual_clock.set(at(1001));
    step_of_the_sweep(&mut writer);
    assert_eq!((bytes(&mut writer, "ada"), writer.sweep), (None, SweepPosition::Over));
}

#[test]
fn killed_nodes_slot_lingers_from_its_successors_start() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = successor(directory.path(), 100, &[("ada", resumable()), ("bob", AcquireOptions::default())]);
    writer.sweep = SweepPosition::Over;
    let look = |id, millis| StoreCommand::CountSlots {
        user: user(id),
        session: NODE.session(9),
        at: Timestamp::from_epoch(Duration::from_millis(millis)),
    };
    assert_eq!(serve(&mut writer, [look("bob", 1_000_000), look("ada", 1_099_999)]), [found(0), found(1)]);
    // The time is written now, so another restart does not extend it.
    let record = UserRecord::decode(&bytes(&mut writer, "ada").unwrap()).unwrap();
    assert_eq!(record.sessions()[0].status, SessionStatus::Lingering { until: at(1100) });
    assert_eq!(serve(&mut writer, [look("ada", 1_100_000)]), [found(0)]);
    assert_eq!(bytes(&mut writer, "ada"), None);
}

#[test]
fn unreadable_record_rejects_its_user() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    writer.sweep = SweepPosition::Over;
    put(&mut writer, "ada", &[9]);
    let outcomes = serve(&mut writer, [acquire("ada", 1), release("ada", 1), lookup("ada", 1), acquire("bob", 2)]);
    assert_eq!(outcomes, [FAILED, FAILED, FAILED, granted(1)]);
    assert_eq!(bytes(&mut writer, "ada"), Some(vec![9]));
}

/// A record goes bad while its session lives. A later pass of the sweep removed it, and the user was admitted anew.
#[test]
fn sweep_keeps_an_unreadable_record_of_live_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = successor(directory.path(), 1, &[("lost", resumable())]);
    writer.sweep_at += Duration::from_secs(1000);
    assert_eq!(serve(&mut writer, [acquire("ada", 1), acquire("bob", 2)]), [granted(1), granted(1)]);
    put(&mut writer, "ada", &[9]);
    // While the first pass is under way, and in a later one.
    step_of_the_sweep(&mut writer);
    assert_eq!(writer.sweep, SweepPosition::Start, "a session lingers, so there is another pass");
    put(&mut writer, "bob", &[9]);
    step_of_the_sweep(&mut writer);
    for user in ["ada", "bob"] {
        assert_eq!(bytes(&mut writer, user), Some(vec![9]));
        assert_eq!(serve(&mut writer, [acquire(user, 3), release(user, 1), lookup(user, 1)]), vec![FAILED; 3]);
    }
    assert!(writer.health().has_unreadable);
    drop(writer);
    // For the next server every session in it has lapsed.
    let (mut next, _) = successor(directory.path(), 1, &[]);
    assert_eq!(serve(&mut next, [acquire("ada", 1)]), [FAILED], "the user comes back before the sweep");
    step_of_the_sweep(&mut next);
    assert_eq!((bytes(&mut next, "ada"), bytes(&mut next, "bob")), (None, None));
    assert_eq!(serve(&mut next, [acquire("ada", 1)]), [granted(1)]);
    assert!(!next.health().has_unreadable);
}

#[test]
fn first_pass_forgets_what_it_wrote_at_its_bound() {
    let mut first_pass = FirstPass::new();
    first_pass.wrote(b"ada");
    assert!(first_pass.is_left_behind(b"bob") && !first_pass.is_left_behind(b"ada"));
    for number in 0..=FirstPass::MAX_USERS {
        first_pass.wrote(&number.to_be_bytes());
    }
    assert!(!first_pass.is_left_behind(b"bob"), "no record counts as left behind");
}

#[test]
fn sweep_removes_only_sessions_of_dead_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let mut dead = writer(directory.path(), OTHER_NODE);
    for number in 0..1000 {
        serve(&mut dead, [acquire_for(&format!("user {number}"), OTHER_NODE.session(number))]);
    }
    put(&mut dead, "user 500", &[9]);
    drop(dead);
    let mut writer = writer(directory.path(), NODE);
    writer.sweep_at += Duration::from_secs(1000);
    assert_eq!(serve(&mut writer, [acquire("user 7", 1), acquire("new", 2)]), [granted(1), granted(1)]);
    assert_eq!(writer.sweep, SweepPosition::Start, "its first step is not due");
    assert!(writer.wait_timeout() > Duration::from_secs(900));
    let start = Instant::now();
    assert_eq!(sweep(&mut writer), 4, "1001 records in steps of 256");
    assert!(writer.sweep_at >= start + SWEEP_PAUSE);
    assert_eq!(writer.wait_timeout(), SWEEP_AGAIN);
    assert_eq!(writer.live.environment().unwrap().entries(), 2);
    assert_eq!(serve(&mut writer, [lookup("user 7", 1), lookup("new", 2)]), [found(1), found(1)]);
}

#[test]
fn map_full_of_dead_sessions_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let mut dead = small_writer(directory.path(), OTHER_NODE);
    let mut number = 0;
    let name = |number: u64| format!("{:0>250}", number * 7919 % 100_003);
    while serve(&mut dead, [acquire_for(&name(number), OTHER_NODE.session(number))]) == [granted(1)] {
        number += 1;
    }
    let environment = dead.live.environment().unwrap();
    let used = environment.used_pages(&environment.write().unwrap()).unwrap();
    assert!((225..=228).contains(&used), "{used} of 256 pages are used, the last tenth is for releases");
    drop(dead);
    let mut writer = small_writer(directory.path(), NODE);
    writer.sweep_at += Duration::from_secs(1000);
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [FULL]);
    let steps = sweep(&mut writer);
    assert!(steps > 0, "{number} records in {steps} steps");
    assert_eq!(writer.live.environment().unwrap().entries(), 0);
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [granted(1)]);
}

#[test]
fn uncommitted_sweep_step_is_taken_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut dead = writer(directory.path(), OTHER_NODE);
    serve(&mut dead, [acquire_for("ada", OTHER_NODE.session(1))]);
    drop(dead);
    let mut writer = writer(directory.path(), NODE);
    fail_next_commit();
    let start = Instant::now();
    serve(&mut writer, []);
    assert_eq!(writer.sweep, SweepPosition::Start);
    assert!(writer.sweep_at >= start + SWEEP_RETRY);
    assert!(bytes(&mut writer, "ada").is_some());
    sweep(&mut writer);
    assert_eq!(bytes(&mut writer, "ada"), None);
}

#[test]
fn batch_is_small_in_a_small_map() {
    for (map_bytes, batch) in [(1 << 20, 1), (16 << 20, 17), (1 << 30, BATCH_MAX)] {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::open(directory.path(), map_bytes, Durability::Unsynced).unwrap();
        assert_eq!(batch_for(&environment), batch);
    }
}

#[test]
fn health_says_what_the_writer_knows() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = small_writer(directory.path(), NODE);
    let well = LiveHealth {
        is_closed: false,
        is_full: false,
        is_ballast_missing: false,
        is_lost: false,
        has_unreadable: false,
    };
    assert_eq!(writer.health(), well);
    writer.ballast_file.remove();
    assert_eq!(writer.health(), LiveHealth { is_full: true, is_ballast_missing: true, ..well });
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [FULL], "a small file has no room either");
    writer.ballast_file = BallastFile::create(writer.live.directory());
    assert_eq!(writer.health(), well);
    fail_next_commit();
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [UNKNOWN]);
    std::fs::rename(directory.path().join("small").join(DATA_FILE), directory.path().join("aside")).unwrap();
    assert!(writer.health().is_closed);
    assert_eq!(serve(&mut writer, [acquire("ada", 1)]), [FAILED]);
}

#[test]
fn page_looks_at_few_records() {
    let directory = tempfile::tempdir().unwrap();
    let writer = &mut writer(directory.path(), NODE);
    let environment = writer.live.environment().unwrap();
    let mut txn = environment.write().unwrap();
    // The session has lapsed: its node is dead.
    let mut bytes = Vec::new();
    let lapsed = vec![SessionRecord::new(OTHER_NODE.session(1), Timestamp::default())];
    UserRecord::from_sessions(lapsed).unwrap().encode(&mut bytes);
    for number in 0..5000 {
        environment.records.put(&mut txn, format!("user {number}").as_bytes(), &bytes).unwrap();
    }
    environment.commit(txn).unwrap();
    assert_eq!(serve(writer, [acquire("user last", 7)]), [granted(1)]);
    let (mut request, mut pages) = (PageRequest::first(1000), 0);
    let listed = loop {
        let (completion, page) = Completion::channel();
        writer.answer([LiveQuery::ListSessions(None, request, completion)]);
        let page = smol::block_on(page).unwrap();
        pages += 1;
        let Some(next) = page.next else { break page.items };
        assert_eq!(page.items, []);
        request = PageRequest { after: Some(next), limit: 1000 };
    };
    assert_eq!((pages, listed.len(), listed[0].record.session), (5, 1, NODE.session(7)));
}

#[test]
fn ballast_lies_beside_the_slots() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = writer(directory.path(), NODE);
    assert!(writer.ballast_file.exists() && directory.path().join("live").join("ballast").exists());
}
