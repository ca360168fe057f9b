//! The user writer, mostly on the test's own thread.

use std::thread;

use session_core::ledger::{SlotLimit, UserOverrides, WhenFull};

use super::super::open::open;
use super::super::queue::MAX_PENDING;
use super::*;
use crate::store::completion::Completion;
use crate::store::lmdb::environment::faults;
use crate::store::lmdb::testing::{TIMEOUT, logged, policy, unwatched};
use crate::store::pages::{PageRequest, UserFilter};
use crate::store::user_slice::UserRange;

const MAP: usize = 4 << 20;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(seconds))
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn known(environment: &Environment, id: &str) -> Option<KnownUser> {
    let txn = environment.write().unwrap();
    environment.records.get(&txn, id.as_bytes()).unwrap().map(|bytes| KnownUser::decode(bytes).unwrap())
}

#[test]
fn pending_users_are_noted_before_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (mut seen_sender, writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy(), Clock::start(), DirectoryState::default());
    seen_sender.send((0..5000).map(|number| (user(&format!("user {number}")), at(1))));
    seen_sender.send([(user("user 1"), at(2))]);
    drop(seen_sender);
    writer.run(&unwatched());
    let mut env = open(directory.path(), MAP).unwrap();
    let environment = env.environment().unwrap();
    assert_eq!(environment.entries(), 5000);
    assert_eq!(known(environment, "user 1"), Some(KnownUser { first_seen: at(1), last_seen: at(1) }));
}

#[test]
fn seen_users_beyond_the_bound_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut seen_sender, _writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy(), Clock::start(), DirectoryState::default());
    seen_sender.send((0..MAX_PENDING + 3).map(|number| (user(&format!("user {number}")), at(1))));
    seen_sender.send([(user("user 0"), at(2))]);
    assert_eq!(seen_sender.dropped, 3);
}

#[test]
fn new_users_beyond_the_bound_are_not_noted() {
    let directory = tempfile::tempdir().unwrap();
    let (_seen_sender, writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy(), Clock::start(), DirectoryState::default());
    let mut writer = writer.with_max_users(3);
    assert_eq!(update(&mut writer, &[("overridden", UserUpdate::Set(limit(7)))]), [Ok(())]);
    let see = |writer: &mut UserWriter, ids: &[&str], seconds| {
        writer.write_seen(ids.iter().map(|id| (user(id), at(seconds))).collect(), None);
    };
    see(&mut writer, &["ada", "bob"], 1);
    see(&mut writer, &["cy", "dan", "eve"], 2);
    see(&mut writer, &["ada", "fay"], 10_000);
    // Overrides are not users who were seen, and an operator can always set them.
    assert_eq!(update(&mut writer, &[("gus", UserUpdate::Set(limit(7)))]), [Ok(())]);
    let environment = writer.env.environment().unwrap();
    let noted = ["ada", "bob", "cy", "dan", "eve", "fay"].map(|id| known(environment, id).is_some());
    assert_eq!(noted, [true, true, true, false, false, false]);
    assert_eq!(known(environment, "ada").unwrap().last_seen, at(10_000), "who is known stays up to date");
    // Whom an operator forgets makes room.
    assert_eq!(update(&mut writer, &[("bob", UserUpdate::Forget)]), [Ok(())]);
    see(&mut writer, &["hal"], 10_001);
    assert!(known(writer.env.environment().unwrap(), "hal").is_some());
}

#[test]
fn unreadable_record_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = open(directory.path(), MAP).unwrap();
    let environment = env.environment().unwrap();
    let mut txn = environment.write().unwrap();
    environment.records.put(&mut txn, b"ada", &[2, 7]).unwrap();
    environment.commit(txn).unwrap();
    let seen = BTreeMap::from([(user("ada"), at(1)), (user("bob"), at(1))]);
    write(environment, &seen, usize::MAX, None, &LogRateLimiter::default()).unwrap();
    let txn = environment.write().unwrap();
    assert_eq!(environment.records.get(&txn, b"ada").unwrap(), Some([2, 7].as_slice()));
    assert!(environment.records.get(&txn, b"bob").unwrap().is_some());
}

/// Makes these updates: the answers.
fn update(writer: &mut UserWriter, updates: &[(&str, UserUpdate)]) -> Vec<Result<(), StoreFailure>> {
    let (answer, answered) = std::sync::mpsc::channel();
    let completion = || {
        let answer = answer.clone();
        Completion::new(move |result: Result<UserState, _>| answer.send(result.map(drop)).unwrap())
    };
    writer.apply_updates(updates.iter().map(|&(id, update)| (user(id), update, completion())).collect());
    answered.try_iter().collect()
}

fn limit(slots: u32) -> UserOverrides {
    UserOverrides { limit: Some(SlotLimit::new(slots).unwrap()), when_full: None }
}

#[test]
fn overrides_survive_a_restart_until_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let policy = policy();
    let (_seen_sender, mut writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy.clone(), Clock::start(), DirectoryState::default());
    writer.write_seen([(user("ada"), at(1)), (user("bob"), at(1))].into(), None);
    let (overrides, other) = (limit(7), UserOverrides { when_full: Some(WhenFull::EvictOldest), ..limit(0) });
    let updates =
        [("ada", UserUpdate::Set(overrides)), ("eve", UserUpdate::Set(limit(1))), ("eve", UserUpdate::Set(other))];
    assert_eq!(update(&mut writer, &updates), [Ok(()); 3]);
    assert_eq!((policy.for_user(&user("ada")).overrides, policy.for_user(&user("eve")).overrides), (overrides, other));
    assert_eq!(policy.for_user(&user("bob")).overrides, UserOverrides::default());
    drop(writer);

    let mut env = open(directory.path(), MAP).unwrap();
    let environment = env.environment().unwrap();
    assert_eq!(overrides::read_all(environment).unwrap(), [(user("ada"), overrides), (user("eve"), other)].into());
    assert_eq!(environment.entries(), 4, "two who were seen, two for whom something is set");
    let (_seen_sender, mut writer) = user_writer(env, policy.clone(), Clock::start(), DirectoryState::default());
    let updates = [("ada", UserUpdate::Forget), ("eve", UserUpdate::Set(UserOverrides::default()))];
    assert_eq!(update(&mut writer, &updates), [Ok(()); 2]);
    assert_eq!((policy.users_with_overrides(), policy.for_user(&user("ada")).overrides), (0, UserOverrides::default()));
    let environment = writer.env.environment().unwrap();
    assert!(overrides::read_all(environment).unwrap().is_empty());
    assert_eq!(environment.entries(), 1, "bob is still known");
}

#[test]
fn unwritten_overrides_are_not_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let policy = policy();
    let (_seen_sender, mut writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy.clone(), Clock::start(), DirectoryState::default());
    let full = heed::Error::Mdb(heed::MdbError::MapFull);
    for (failure, cause) in [
        (Uncommitted::NotApplied(full), StoreFailure::Rejected(StoreError::Full)),
        (Uncommitted::InDoubt(heed::Error::Io(std::io::ErrorKind::Other.into())), StoreFailure::InDoubt),
        (Uncommitted::InDoubt(heed::Error::Io(std::io::ErrorKind::StorageFull.into())), StoreFailure::InDoubt),
    ] {
        faults::fail([failure]);
        assert_eq!(update(&mut writer, &[("ada", UserUpdate::Set(limit(7)))]), [Err(cause)]);
        assert_eq!(policy.users_with_overrides(), 0);
    }
}

#[test]
fn update_does_not_wait_and_is_always_answered() {
    let directory = tempfile::tempdir().unwrap();
    let policy = policy();
    let (mut seen_sender, writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy.clone(), Clock::start(), DirectoryState::default());
    let updates = writer.update_sender();
    let recording = thread::spawn(move || writer.run(&unwatched()));
    // So that the writer pauses after a commit.
    seen_sender.send([(user("ada"), at(1))]);
    let (answer, answered) = std::sync::mpsc::channel();
    let submit = |overrides| {
        let answer = answer.clone();
        let completion = Completion::new(move |result: Result<UserState, _>| answer.send(result.map(drop)).unwrap());
        updates.submit(user("ada"), UserUpdate::Set(overrides), completion);
    };
    let start = Instant::now();
    for slots in 1..=3 {
        submit(limit(slots));
        assert_eq!(answered.recv_timeout(TIMEOUT), Ok(Ok(())));
        assert_eq!(policy.for_user(&user("ada")).overrides, limit(slots));
    }
    assert!(start.elapsed() < COMMIT_INTERVAL, "{:?}", start.elapsed());
    drop(seen_sender);
    recording.join().unwrap();
    submit(limit(4));
    assert_eq!(answered.recv_timeout(TIMEOUT), Ok(Err(StoreFailure::Rejected(StoreError::Failed))));
    assert_eq!(policy.for_user(&user("ada")).overrides, limit(3));
}

#[test]
fn dropped_users_are_logged() {
    let directory = tempfile::tempdir().unwrap();
    let (mut seen_sender, _writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy(), Clock::start(), DirectoryState::default());
    assert_eq!(
        logged(|| seen_sender.send((0..MAX_PENDING).map(|number| (user(&format!("user {number}")), at(1))))),
        ""
    );
    let lines = logged(|| seen_sender.send(["ada", "bob"].map(|id| (user(id), at(1)))));
    assert!(lines.contains("users are not noted") && lines.contains("dropped=2"), "{lines}");
}

#[test]
fn first_user_is_noted_at_once_next_later() {
    let directory = tempfile::tempdir().unwrap();
    let (mut seen_sender, writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy(), Clock::start(), DirectoryState::default());
    let queue = Arc::clone(&seen_sender.queue);
    let are_taken = |within| {
        let start = Instant::now();
        while !queue.lock().seen.is_empty() && start.elapsed() < within {
            thread::sleep(Duration::from_millis(1));
        }
        queue.lock().seen.is_empty()
    };
    let recording = thread::spawn(move || writer.run(&unwatched()));
    // By now it should sleep, and have to be woken.
    thread::sleep(Duration::from_millis(50));
    seen_sender.send([(user("ada"), at(1))]);
    assert!(are_taken(TIMEOUT));
    seen_sender.send([(user("bob"), at(1))]);
    assert!(!are_taken(Duration::from_millis(100)));
    drop(seen_sender);
    recording.join().unwrap();
    assert_eq!(open(directory.path(), MAP).unwrap().environment().unwrap().entries(), 2);
}

#[test]
fn query_is_answered_between_commits_and_rejected_after_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (mut seen_sender, writer) =
        user_writer(open(directory.path(), MAP).unwrap(), policy(), Clock::start(), DirectoryState::default());
    let (updates, queue) = (writer.update_sender(), Arc::clone(&seen_sender.queue));
    let list = || {
        let (completion, slice) = Completion::channel();
        let range = UserRange::new(&UserFilter::default(), &PageRequest::first(10)).unwrap();
        updates.ask(UserQuery::List(range, completion));
        smol::block_on(slice).map(|slice| slice.items.into_iter().map(|(user, _)| user).collect::<Vec<_>>())
    };
    let recording = thread::spawn(move || writer.run(&unwatched()));
    let start = Instant::now();
    seen_sender.send([(user("ada"), at(1))]);
    while queue.has(&user("ada")) {
        assert!(start.elapsed() < TIMEOUT);
    }
    // From here on the writer pauses. A query neither waits for the end of the pause nor ends it, and finds who is pending.
    seen_sender.send([(user("bob"), at(1))]);
    for _ in 0..100 {
        assert_eq!(list(), Ok(vec![user("ada"), user("bob")]));
    }
    assert!(queue.has(&user("bob")));
    assert!(start.elapsed() < COMMIT_INTERVAL, "{:?}", start.elapsed());
    drop(seen_sender);
    recording.join().unwrap();
    assert_eq!(list(), Err(StoreFailure::Rejected(StoreError::Failed)));
}
