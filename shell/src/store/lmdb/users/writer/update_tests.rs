//! What an update answers, and what is found of users.

use session_core::ledger::{SlotLimit, UserOverrides};

use super::super::open::open;
use super::*;
use crate::store::completion::Completion;
use crate::store::lmdb::testing::{policy, user};
use crate::store::user_state::{SeenState, UserSeen};

const MAP: usize = 4 << 20;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(seconds))
}

fn limit(slots: u32) -> UserOverrides {
    UserOverrides { limit: Some(SlotLimit::new(slots).unwrap()), when_full: None }
}

fn seen(first: u64, last: u64) -> SeenState {
    SeenState::At(UserSeen { first: at(first), last: at(last) })
}

fn writer(directory: &tempfile::TempDir) -> (SeenSender, UserWriter) {
    user_writer(open(directory.path(), MAP).unwrap(), policy(), Clock::start(), DirectoryState::default())
}

/// Makes these updates in one transaction: what was kept before each.
fn update(writer: &mut UserWriter, updates: &[(&str, UserUpdate)]) -> Vec<Result<UserState, StoreFailure>> {
    let (sender, answers) = std::sync::mpsc::channel();
    let request = |&(id, update): &(&str, UserUpdate)| {
        let sender = sender.clone();
        (user(id), update, Completion::new(move |answer| sender.send(answer).unwrap()))
    };
    writer.apply_updates(updates.iter().map(request).collect());
    answers.try_iter().collect()
}

fn find(writer: &mut UserWriter, ids: &[&str]) -> Vec<UserState> {
    let (completion, found) = Completion::channel();
    writer.answer_queries(vec![UserQuery::Find(ids.iter().map(|id| user(id)).collect(), completion)]);
    smol::block_on(found).unwrap()
}

#[test]
fn update_answers_what_was_kept_before() {
    let directory = tempfile::tempdir().unwrap();
    let (_seen_sender, mut writer) = writer(&directory);
    writer.write_seen([(user("ada"), at(1))].into(), None);
    writer.write_seen([(user("ada"), at(9000))].into(), None);
    let updates = [
        ("ada", UserUpdate::Set(limit(5))),
        ("eve", UserUpdate::Set(limit(1))),
        ("ada", UserUpdate::Set(limit(7))),
        ("ada", UserUpdate::Forget),
        ("ada", UserUpdate::Forget),
    ];
    let state = |overrides, seen| Ok(UserState { overrides, seen });
    let ada = seen(1, 9000);
    assert_eq!(
        update(&mut writer, &updates),
        [
            state(UserOverrides::default(), ada),
            Ok(UserState::default()),
            state(limit(5), ada),
            state(limit(7), ada),
            Ok(UserState::default()),
        ]
    );
}

#[test]
fn update_without_a_change_commits_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_seen_sender, mut writer) = writer(&directory);
    assert!(update(&mut writer, &[("ada", UserUpdate::Set(limit(5)))])[0].is_ok());
    crate::store::lmdb::environment::faults::fail([Uncommitted::NotApplied(heed::Error::Mdb(heed::MdbError::MapFull))]);
    let nothing = [("ada", UserUpdate::Set(limit(5))), ("nobody", UserUpdate::Forget)];
    assert_eq!(
        update(&mut writer, &nothing),
        [Ok(UserState { overrides: limit(5), seen: SeenState::Never }), Ok(UserState::default())]
    );
    assert!(update(&mut writer, &[("ada", UserUpdate::Forget)])[0].is_err(), "this one is not committed");
}

#[test]
fn unreadable_overrides_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (_seen_sender, mut writer) = writer(&directory);
    let environment = writer.env.environment().unwrap();
    let mut txn = environment.write().unwrap();
    environment.records.put(&mut txn, &overrides::key(&user("ada")), &[2, 0]).unwrap();
    environment.commit(txn).unwrap();
    let failed = Err(StoreFailure::Rejected(StoreError::Failed));
    assert_eq!(update(&mut writer, &[("ada", UserUpdate::Set(limit(5)))]), [failed]);
    let environment = writer.env.environment().unwrap();
    let txn = environment.write().unwrap();
    assert_eq!(environment.records.get(&txn, &overrides::key(&user("ada"))).unwrap(), Some([2, 0].as_slice()));
}

#[test]
fn users_are_found_before_they_are_noted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut seen_sender, mut writer) = writer(&directory);
    writer.write_seen([(user("ada"), at(1))].into(), None);
    seen_sender.send([(user("ada"), at(5)), (user("bob"), at(6))]);
    let environment = writer.env.environment().unwrap();
    let mut txn = environment.write().unwrap();
    environment.records.put(&mut txn, b"eve", &[2, 7]).unwrap();
    environment.commit(txn).unwrap();
    let found: Vec<_> =
        find(&mut writer, &["ada", "bob", "eve", "nobody"]).into_iter().map(|state| state.seen).collect();
    assert_eq!(found, [seen(1, 5), seen(6, 6), SeenState::Unreadable, SeenState::Never]);
}
