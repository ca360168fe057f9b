//! The store as a whole. The writer's own tests drive it without its thread.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use session_core::ledger::{AcquireOptions, KnownToken, StoreCommand};
use session_core::ledger::{AdmissionPolicy, Outcome, SlotLimit, StoreError};
use session_core::{DisplayName, NodeId, Timestamp};

use super::environment::DATA_FILE;
use super::testing::*;
use super::users::{self, KnownUser, KnownUserError};
use super::{LmdbConfig, LmdbStore, OpenError};
use crate::runtime::clock::{Clock, ManualClock};
use crate::runtime::process::Process;
use crate::store::directory_lock::LockHolder;
use crate::store::pages::PageRequest;
use crate::store::{Store as _, StoreHealth};

const HOUR: Duration = Duration::from_secs(3600);

fn open(directory: &Path, node: NodeId) -> LmdbStore {
    LmdbStore::open_under_boot(&config(directory), node, Process::start(), Some("one boot")).unwrap()
}

#[test]
fn store_grants_denies_releases_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), NODE);
    assert_eq!(ask(&store, lookup("ada", 1)), found(0));
    assert_eq!(ask(&store, acquire("ada", 1)), granted(1));
    assert_eq!(ask(&store, acquire("ada", 1)), granted(1));
    assert_eq!(ask(&store, acquire("ada", 2)), granted(2));
    assert_eq!(ask(&store, acquire("ada", 3)), Outcome::Denied(None));
    assert_eq!(ask(&store, acquire("bob", 4)), granted(1));
    assert_eq!(ask(&store, lookup("ada", 1)), found(2));
    assert_eq!(ask(&store, release("ada", 3)), Outcome::Released);
    assert_eq!(ask(&store, release("ada", 1)), Outcome::Released);
    assert_eq!(ask(&store, release("ada", 1)), Outcome::Released);
    assert_eq!(ask(&store, acquire("ada", 3)), granted(2));
    assert_eq!(ask(&store, lookup("bob", 4)), found(1));
}

#[test]
fn sessions_of_another_node_lapse() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), NODE);
    assert_eq!(ask(&store, acquire("ada", 1)), granted(1));
    assert_eq!(ask(&store, acquire("ada", 2)), granted(2));
    assert!(close(&store, TIMEOUT));
    let same = open(directory.path(), NODE);
    assert_eq!(ask(&same, acquire("ada", 3)), Outcome::Denied(None));
    drop(same);
    let other = open(directory.path(), OTHER_NODE);
    assert_eq!(ask(&other, acquire_for("ada", OTHER_NODE.session(1))), granted(1));
}

#[test]
fn resumable_slots_of_a_killed_server_linger() {
    let directory = tempfile::tempdir().unwrap();
    let open = |node, linger| {
        let policy = AdmissionPolicy { linger, ..config(directory.path()).policy };
        LmdbStore::open_under_boot(
            &LmdbConfig { policy, ..config(directory.path()) },
            node,
            Process::start(),
            Some("one boot"),
        )
        .unwrap()
    };
    let now = Clock::start().now();
    let store = open(NODE, Duration::ZERO);
    assert!(matches!(
        ask(&store, acquire_with("eve", NODE.session(1), now, resumable())),
        Outcome::Granted { slots: 1, .. }
    ));
    store.set_policy(AdmissionPolicy { linger: HOUR, ..config(directory.path()).policy });
    for user in ["ada", "joe"] {
        ask(&store, acquire_with(user, NODE.session(1), now, resumable()));
        assert_eq!(ask(&store, acquire(user, 2)), granted(2));
    }
    drop(store);

    // The policy of now does not change what was granted before.
    let store = open(OTHER_NODE, Duration::ZERO);
    let count = |user, at| {
        let command = StoreCommand::CountSlots { user: self::user(user), session: OTHER_NODE.session(1), at };
        ask(&store, command)
    };
    assert_eq!(["eve", "ada", "joe"].map(|user| count(user, now)), [found(0), found(1), found(1)]);
    let resume = AcquireOptions { resume: Some(KEY), ..resumable() };
    let outcome = ask(&store, acquire_with("ada", OTHER_NODE.session(1), now, resume));
    let Outcome::Granted { slots: 1, grant: Some(grant) } = outcome else { panic!("{outcome:?}") };
    assert_eq!(grant.resume, session_core::ledger::Resumption::Resumed);
    assert_eq!(grant.linger, HOUR);
    assert_eq!(count("joe", now + HOUR), found(1), "from the start of this one on, which was later");
    assert_eq!(["ada", "joe"].map(|user| count(user, now + HOUR * 2)), [found(1), found(0)]);
}

/// A store whose process has this time, and where slots linger for an hour.
fn open_at(directory: &Path, node: NodeId, second: u64) -> (LmdbStore, Arc<ManualClock>) {
    let manual_clock = Arc::<ManualClock>::default();
    manual_clock.set(Timestamp::from_epoch(Duration::from_secs(second)));
    let process = Process::with_clock(Clock::manual(Arc::clone(&manual_clock)));
    let policy = AdmissionPolicy { linger: HOUR, ..config(directory).policy };
    let config = LmdbConfig { policy, ..config(directory) };
    (LmdbStore::open_under_boot(&config, node, process, Some("one boot")).unwrap(), manual_clock)
}

fn listed(store: &LmdbStore) -> usize {
    smol::block_on(store.list_sessions(None, PageRequest::first(10))).unwrap().items.len()
}

#[test]
fn store_has_the_clock_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let (store, manual_clock) = open_at(directory.path(), NODE, 1000);
    let at = Timestamp::from_epoch(Duration::from_secs(1000));
    ask(&store, acquire_with("ada", NODE.session(1), at, resumable()));
    ask(&store, StoreCommand::Linger { user: user("ada"), session: NODE.session(1), at, token: KnownToken::Granted });
    assert_eq!((listed(&store), store.context().process().clock.now()), (1, at));
    manual_clock.set(Timestamp::from_epoch(Duration::from_secs(1000 + 3599)));
    assert_eq!(listed(&store), 1);
    manual_clock.set(Timestamp::from_epoch(Duration::from_secs(1000 + 3600)));
    assert_eq!(listed(&store), 0, "what lingers by one clock lapses by the same");
}

#[test]
fn clock_set_before_a_restart_moves_the_grace_period() {
    // When the first server lingered, when the next one starts, and how long the slot is kept then.
    for (next, kept) in [(1000 + 1800, 1800), (1000 + 3600, 0), (10, 3600)] {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_at(directory.path(), NODE, 1000);
        let at = Timestamp::from_epoch(Duration::from_secs(1000));
        ask(&store, acquire_with("ada", NODE.session(1), at, resumable()));
        ask(
            &store,
            StoreCommand::Linger { user: user("ada"), session: NODE.session(1), at, token: KnownToken::Granted },
        );
        drop(store);
        let (store, manual_clock) = open_at(directory.path(), OTHER_NODE, next);
        assert_eq!(listed(&store), usize::from(kept > 0), "after {next}");
        manual_clock.set(Timestamp::from_epoch(Duration::from_secs(next + kept)));
        assert_eq!(listed(&store), 0, "after {next}");
    }
}

#[test]
fn slot_lost_before_a_restart_is_kept_from_newcomers() {
    // Whether the first server stopped in good order, long before the next one starts.
    for is_in_order in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let at = |second| Timestamp::from_epoch(Duration::from_secs(second));
        let (store, _) = open_at(directory.path(), NODE, 1000);
        ask(&store, acquire_with("ada", NODE.session(1), at(1000), resumable()));
        let lose = StoreCommand::Linger {
            user: user("ada"),
            session: NODE.session(1),
            at: at(1000),
            token: KnownToken::Granted,
        };
        if is_in_order {
            assert_eq!(ask(&store, lose), Outcome::Released);
        }
        drop(store);
        let (store, manual_clock) = open_at(directory.path(), OTHER_NODE, 2000);
        // A configuration that is read again does not begin the grace anew.
        manual_clock.set(at(2003));
        let one = SlotLimit::new(1).unwrap();
        store.set_policy(AdmissionPolicy { limit: one, linger: HOUR, ..config(directory.path()).policy });
        let newcomer = |number, second| {
            let options = AcquireOptions::default();
            ask(&store, acquire_with("ada", OTHER_NODE.session(number), at(second), options))
        };
        let Outcome::Denied(Some(usage)) = newcomer(1, 2004) else { panic!("it is in") };
        assert_eq!(usage.free_at, Some(at(2005)), "five seconds after the start");
        assert!(matches!(newcomer(1, 2005), Outcome::Granted { slots: 1, .. }));
    }
}

#[test]
fn reboot_empties_slots_and_keeps_users() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), NODE);
    assert_eq!(store.known_users(), 0);
    assert_eq!(ask(&store, acquire("ada", 1)), granted(1));
    assert_eq!(ask(&store, acquire("bob", 2)), granted(1));
    drop(store);
    let store =
        LmdbStore::open_under_boot(&config(directory.path()), NODE, Process::start(), Some("another boot")).unwrap();
    assert_eq!(store.known_users(), 2);
    assert_eq!(format!("{store:?}"), "LmdbStore { known_users: 2, .. }");
    assert_eq!(ask(&store, lookup("ada", 1)), found(0));
}

#[test]
fn damaged_slots_are_discarded() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), NODE));
    let data = directory.path().join("live").join(DATA_FILE);
    fs::write(data, "not a database").unwrap();
    let store = open(directory.path(), NODE);
    assert_eq!(ask(&store, acquire("ada", 1)), granted(1));
}

#[test]
fn damaged_users_do_not_open() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), NODE));
    fs::write(directory.path().join("users").join(DATA_FILE), "not a database").unwrap();
    let error = LmdbStore::open(&config(directory.path()), NODE).unwrap_err();
    assert!(matches!(error, OpenError::UsersDamaged { .. }), "{error:?}");
}

#[test]
fn second_store_is_refused_until_the_first_closes() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), NODE);
    let error = LmdbStore::open(&config(directory.path()), OTHER_NODE).unwrap_err();
    assert!(matches!(error, OpenError::InUse { holder: LockHolder::ThisProcess, .. }), "{error:?}");
    assert!(close(&first, TIMEOUT));
    drop(open(directory.path(), OTHER_NODE));
}

#[test]
fn linked_live_belongs_to_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| {
        let data = directory.path().join(name);
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink("../shared", data.join("live")).unwrap();
        data
    });
    let store = open(&first, NODE);
    let error = LmdbStore::open(&config(&second), OTHER_NODE).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { directory, .. } if *directory == second.join("live")), "{error:?}");
    assert!(close(&store, TIMEOUT));
    drop(open(&second, OTHER_NODE));
}

#[test]
fn invalid_configurations_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let refused = |config: LmdbConfig| LmdbStore::open(&config, NODE).unwrap_err().to_string();
    for bytes in [0, (1 << 20) - 1, usize::MAX] {
        assert!(refused(LmdbConfig { live_map_bytes: bytes, ..config.clone() }).contains(&bytes.to_string()));
        assert!(refused(LmdbConfig { users_map_bytes: bytes, ..config.clone() }).contains(&bytes.to_string()));
    }
    assert!(refused(LmdbConfig { queue_capacity: 0, ..config.clone() }).contains("the least is 1"));
    fs::write(directory.path().join("file"), "").unwrap();
    let file = directory.path().join("file").join("directory");
    assert!(refused(LmdbConfig { directory: file.clone(), ..config }).contains(file.to_str().unwrap()));
}

#[test]
fn defaults_open() {
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig::new(directory.path(), SlotLimit::default());
    if cfg!(target_pointer_width = "64") {
        assert_eq!([config.live_map_bytes, config.users_map_bytes], [64 << 30; 2]);
    }
    drop(LmdbStore::open(&config, NODE).unwrap());
}

#[test]
fn closing_answers_everything_and_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), NODE);
    let answers = OutcomeChannel::default();
    for number in 0..5000 {
        store.submit(acquire(&format!("user {number}"), number), answers.completion());
    }
    assert!(close(&store, TIMEOUT));
    assert_eq!(answers.now(), vec![granted(1); 5000]);
    assert_eq!(ask(&store, release("user 1", 1)), Outcome::Rejected(StoreError::Failed));
    assert!(close(&store, Duration::ZERO));
    drop(store);
    assert_eq!(open(directory.path(), NODE).known_users(), 5000);
}

#[test]
fn full_map_rejects_acquires_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig { live_map_bytes: 1 << 20, ..config(directory.path()) };
    let store = LmdbStore::open(&config, NODE).unwrap();
    let name = |number: u64| format!("{number:0>200}");
    // Twice: the second time every page was in use before.
    for _ in 0..2 {
        let mut held = 0;
        while ask(&store, acquire(&name(held), held)) == granted(1) {
            held += 1;
            assert!(held < 100_000, "a map of 1 MiB gets full");
        }
        assert!(held > 500, "{held} users fit");
        assert_eq!(ask(&store, acquire(&name(held), held)), Outcome::Rejected(StoreError::Full));
        let health = smol::block_on(store.health());
        assert!(matches!(health, StoreHealth::Degraded { refusal: Some(StoreError::Full), .. }), "{health:?}");
        assert_eq!(ask(&store, lookup(&name(0), 0)), found(1));
        // In an order that touches another page each time, and many at once.
        let answers = OutcomeChannel::default();
        for number in (0..held).map(|number| number * 769 % held) {
            store.submit(release(&name(number), number), answers.completion());
        }
        for _ in 0..held {
            assert_eq!(answers.next(), Outcome::Released);
        }
        assert_eq!(smol::block_on(store.health()), StoreHealth::Ready);
    }
}

#[test]
fn every_slot_of_a_large_record_comes_back_in_a_full_map() {
    // In one value it would take twenty pages side by side.
    const HELD: u64 = 400;
    let name = |number: u64| format!("{number:0>200}");
    let policy = AdmissionPolicy::new(SlotLimit::new(1024).unwrap());
    let words = DisplayName::parse(&"x".repeat(64)).unwrap();
    let options = AcquireOptions { device: Some(words.clone()), label: Some(words), ..resumable() };
    for mib in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let config = LmdbConfig { live_map_bytes: mib << 20, policy, ..config(directory.path()) };
        let store = LmdbStore::open(&config, NODE).unwrap();
        let granted_to_ada = (0..HELD).take_while(|&number| {
            let at = Timestamp::from_epoch(Duration::from_secs(number));
            let outcome = ask(&store, acquire_with("ada", NODE.session(number + 1), at, options.clone()));
            matches!(outcome, Outcome::Granted { .. })
        });
        let held = u64::try_from(granted_to_ada.count()).unwrap();
        assert_eq!(held, HELD, "in {mib} MiB");
        // Others fill the map, go and come, so that what is free lies scattered.
        let mut others: Vec<u64> = Vec::new();
        let mut next = HELD;
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3 {
            while ask(&store, acquire(&name(next), next)) == granted(1) {
                others.push(next);
                next += 1;
            }
            for _ in 0..others.len() / 3 {
                let number = others.swap_remove(random.usize(..others.len()));
                assert_eq!(ask(&store, release(&name(number), number)), RELEASED);
            }
        }
        while ask(&store, acquire(&name(next), next)) == granted(1) {
            others.push(next);
            next += 1;
        }
        // The map is full. Every second first, so that the record stays large for long.
        let of_ada: Vec<_> = (1..=held).step_by(2).chain((2..=held).step_by(2)).collect();
        for (left, number) in (0..held).rev().zip(of_ada) {
            assert_eq!(ask(&store, release("ada", number)), RELEASED, "{left} left in {mib} MiB");
            assert_eq!(ask(&store, lookup("ada", 0)), found(u32::try_from(left).unwrap()));
        }
        for number in others {
            assert_eq!(ask(&store, release(&name(number), number)), RELEASED);
        }
        assert_eq!((listed(&store), ask(&store, acquire("ada", 1))), (0, granted(1)));
    }
}

/// What `users/` has of ada after these sessions. All of them still hold their slots.
fn known_after(sessions: &[u64]) -> Result<KnownUser, KnownUserError> {
    let directory = tempfile::tempdir().unwrap();
    for &session in sessions {
        let store = open(directory.path(), NODE);
        assert!(matches!(ask(&store, acquire("ada", session)), Outcome::Granted { .. }));
        assert!(close(&store, TIMEOUT));
    }
    let mut users = users::open(&directory.path().join("users"), 4 << 20).unwrap();
    let environment = users.environment().unwrap();
    let txn = environment.write().unwrap();
    KnownUser::decode(environment.records.get(&txn, b"ada").unwrap().unwrap())
}

#[test]
fn users_are_known_with_first_and_recent_session() {
    let at = |second| Timestamp::from_epoch(Duration::from_secs(second));
    assert_eq!(known_after(&[7, 8]), Ok(KnownUser { first_seen: at(7), last_seen: at(7) }));
    // Also for a user who never leaves, so that the later session is not the first of the slots held.
    assert_eq!(known_after(&[7, 90_000]), Ok(KnownUser { first_seen: at(7), last_seen: at(90_000) }));
}
