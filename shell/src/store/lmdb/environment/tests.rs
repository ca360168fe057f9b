//! Opening, growing and opening again.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::store::lmdb::mapped_file::faults::fail_allocations;
use crate::store::lmdb::testing::logged;

#[test]
fn the_used_pages_shrink_when_records_go() {
    let directory = tempfile::tempdir().unwrap();
    let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
    let mut txn = environment.write().unwrap();
    for number in 0..2000_u32 {
        environment.records.put(&mut txn, &number.to_be_bytes(), &[0; 200]).unwrap();
    }
    assert!(environment.used_pages(&txn).unwrap() > 100);
    for number in 0..2000_u32 {
        environment.records.delete(&mut txn, &number.to_be_bytes()).unwrap();
    }
    assert_eq!(environment.used_pages(&txn).unwrap(), 0);
}

#[test]
fn pages_of_every_kind_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
    let mut txn = environment.write().unwrap();
    for number in 0..2000 {
        environment.records.put(&mut txn, format!("{number:0>200}").as_bytes(), &[]).unwrap();
    }
    let small = environment.used_pages(&txn).unwrap();
    for number in 0..10_u32 {
        environment.records.put(&mut txn, &number.to_be_bytes(), &[0; 9000]).unwrap();
    }
    let large = environment.used_pages(&txn).unwrap() - small;
    assert!((30..=32).contains(&large), "10 records of three pages take {large}");
    environment.commit(txn).unwrap();
    let bytes = fs::metadata(directory.path().join(DATA_FILE)).unwrap().len();
    let pages = environment.file_pages();
    let usage = environment.usage().unwrap();
    assert_eq!((usage.map_bytes, usage.file_bytes), (4 << 20, bytes));
    assert!(usage.used_bytes > large as u64 * 4096 && usage.used_bytes < bytes, "{usage:?}");
    assert_eq!(bytes, pages as u64 * u64::from(environment.env.unnamed_database_stat().page_size));
    assert!((100..pages - large).contains(&small), "{small} of {pages}");
}

#[test]
fn only_unsynced_environments_skip_the_sync() {
    let directory = tempfile::tempdir().unwrap();
    let unsynced = EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC;
    for (durability, expected) in [(Durability::Unsynced, unsynced), (Durability::Synced, EnvFlags::empty())] {
        let environment = Environment::open(directory.path(), 4 << 20, durability).unwrap();
        assert_eq!(environment.env.flags().unwrap().unwrap() & unsynced, expected);
    }
}

#[test]
fn lock_file_is_filled_up_to_its_length() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lock.mdb");
    for (before, after) in [(0, 8192), (100, 8192), (10_000, 10_000)] {
        fs::write(&file, vec![1; before]).unwrap();
        fill_lock_file(directory.path()).unwrap();
        let bytes = fs::read(&file).unwrap();
        assert_eq!((bytes.len(), &bytes[..before]), (after, &*vec![1; before]));
    }
}

#[test]
fn reopening_backs_off_up_to_five_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
    let (data, aside) = (directory.path().join(DATA_FILE), directory.path().join("aside"));
    fs::rename(&data, &aside).unwrap();
    env.break_down();
    for millis in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
        let (pause, start) = (Duration::from_millis(millis), Instant::now());
        assert_eq!(env.backoff, pause);
        env.retry_at = start;
        assert!(env.environment().is_none());
        assert!(env.retry_at >= start + pause);
    }
    fs::rename(&aside, &data).unwrap();
    env.retry_at = Instant::now() + Duration::from_secs(1000);
    assert!(env.environment().is_none(), "it is not time yet");
    env.retry_at = Instant::now();
    assert!(env.environment().is_some());
    assert_eq!(env.backoff, ReopeningEnv::FIRST_BACKOFF);
}

#[test]
fn reopening_never_replaces_gone_or_damaged_data() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
    env.check();
    assert!(env.environment().is_some());
    env.break_down();
    assert!(env.environment().is_some());

    let data = directory.path().join(DATA_FILE);
    let whole = fs::read(&data).unwrap();
    env.break_down();
    fs::write(&data, &whole[..100]).unwrap();
    assert!(env.environment().is_none());
    env.break_down();
    let aside = directory.path().join("aside");
    fs::rename(&data, &aside).unwrap();
    assert!(env.environment().is_none());
    assert!(matches!(env.reopen(), Err(EnvironmentError::NotThere(Mismatch::Gone))));
    assert!(!data.exists());
    env.break_down();
    fs::write(&data, &whole).unwrap();
    assert!(env.environment().is_none());
    let copy = env.reopen();
    assert!(matches!(copy, Err(EnvironmentError::NotThere(Mismatch::Replaced))), "a copy may be older");
    fs::rename(&aside, &data).unwrap();
    env.break_down();
    fs::write(&data, "").unwrap();
    assert!(env.environment().is_none());
    env.break_down();
    fs::write(&data, &whole).unwrap();
    assert!(env.environment().is_some(), "it is the same file");
}

/// Nobody was killed, so the newest commit was acknowledged.
#[test]
fn reopening_never_goes_back_to_an_older_commit() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 4 << 20, Durability::Mapped).unwrap();
    fill(&mut env, 0, 20);
    let data = fs::File::options().write(true).open(file(directory.path())).unwrap();
    let before = fs::read(file(directory.path())).unwrap();
    fill(&mut env, 20, 30);
    let after = fs::read(file(directory.path())).unwrap();
    env.break_down();
    // The pages that only the last commit has are damaged.
    let changed = |page: &usize| before[*page..*page + 4096] != after[*page..*page + 4096];
    for page in (2 * 4096..after.len()).step_by(4096).filter(changed) {
        data.write_all_at(&[0; 4096], page as u64).unwrap();
    }
    // Whether it opens does not matter here.
    let _is_open = env.environment().is_some();
    let meta_pages = &fs::read(file(directory.path())).unwrap()[..2 * 4096];
    assert!(*meta_pages == after[..2 * 4096], "the commit still counts");
    env.break_down();
    data.write_all_at(&after, 0).unwrap();
    assert_records(env.environment().unwrap(), 30);
}

const RECORD: [u8; 500] = [7; 500];

fn put(environment: &Environment, numbers: std::ops::Range<u32>) -> heed::Result<()> {
    let mut txn = environment.write()?;
    for number in numbers {
        environment.records.put(&mut txn, &number.to_be_bytes(), &RECORD)?;
    }
    Ok(environment.commit(txn)?)
}

/// Puts records up to this number, in transactions of ten. The map grows when it must.
fn fill(env: &mut ReopeningEnv, first: u32, count: u32) {
    for first in (first..count).step_by(10) {
        while let Err(error) = put(env.environment().unwrap(), first..first + 10) {
            assert!(matches!(error, heed::Error::Mdb(heed::MdbError::MapFull)), "{error}");
            assert!(env.grow(), "at record {first}");
        }
    }
}

fn assert_records(environment: &Environment, count: u32) {
    let txn = environment.write().unwrap();
    for number in 0..count {
        assert_eq!(environment.records.get(&txn, &number.to_be_bytes()).unwrap(), Some(&RECORD[..]), "{number}");
    }
    assert_eq!(environment.entries(), count as usize);
}

fn file(directory: &Path) -> PathBuf {
    directory.join(DATA_FILE)
}

#[test]
fn mapped_file_always_has_blocks() {
    use std::os::unix::fs::MetadataExt as _;

    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
    let mut sizes = Vec::new();
    for count in (0..20_000).step_by(100) {
        fill(&mut env, count, count + 100);
        let environment = env.environment().unwrap();
        let metadata = fs::metadata(file(directory.path())).unwrap();
        assert!(metadata.blocks() * 512 >= metadata.len(), "a hole could end the process on a full disk");
        assert_eq!(environment.env.info().map_size as u64, metadata.len());
        assert_eq!(environment.env.flags().unwrap().unwrap() & EnvFlags::WRITE_MAP, EnvFlags::WRITE_MAP);
        sizes.push(metadata.len() >> 20);
    }
    sizes.dedup();
    assert_eq!(sizes, [1, 2, 4, 8, 16]);
    assert_records(env.environment().unwrap(), 20_000);
    let usage = env.environment().unwrap().usage().unwrap();
    assert_eq!((usage.map_bytes, usage.file_bytes), (64 << 20, 16 << 20));
}

#[test]
fn map_does_not_grow_beyond_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 3 << 20, Durability::Mapped).unwrap();
    let mut count = 0;
    loop {
        match put(env.environment().unwrap(), count..count + 10) {
            Ok(()) => count += 10,
            Err(_) if env.grow() => {}
            Err(_) => break,
        }
    }
    assert_eq!(fs::metadata(file(directory.path())).unwrap().len(), 3 << 20);
    let environment = env.environment().unwrap();
    assert_eq!((environment.map_pages(), environment.file_pages()), (768, 768));
    // Its last tenth can be used, too.
    assert!(environment.used_pages(&environment.write().unwrap()).unwrap() > 740);
    assert_records(environment, count);
}

/// What a kill leaves is what other processes read.
#[test]
fn killed_process_leaves_every_committed_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
    for count in (0..10_000).step_by(500) {
        fill(&mut env, count, count + 500);
        let environment = env.environment().unwrap();
        let mut txn = environment.write().unwrap();
        for number in 0..count + 600 {
            // The map may be too small for all of it.
            if environment.records.put(&mut txn, &number.to_be_bytes(), b"not committed").is_err() {
                break;
            }
        }
        for durability in [Durability::Mapped, Durability::Unsynced] {
            let killed = tempfile::tempdir().unwrap();
            fs::copy(file(directory.path()), file(killed.path())).unwrap();
            let environment = Environment::open(killed.path(), 64 << 20, durability).unwrap();
            assert_records(&environment, count + 500);
        }
    }
}

#[test]
fn both_ways_of_writing_read_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    for durability in [Durability::Mapped, Durability::Unsynced, Durability::Mapped, Durability::Mapped] {
        let mut env = ReopeningEnv::open(directory.path(), 64 << 20, durability).unwrap();
        assert_records(env.environment().unwrap(), count);
        fill(&mut env, count, count + 4000);
        count += 4000;
        assert_records(env.environment().unwrap(), count);
    }
}

#[test]
fn map_that_cannot_grow_tries_again_later() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
    fill(&mut env, 0, 1000);
    let pages = env.environment().unwrap().file_pages();
    assert!(pages < env.environment().unwrap().map_pages());
    fail_allocations(usize::MAX);
    let lines = logged(|| assert!(!env.grow()));
    assert!(lines.contains("slots_not_extended"), "{lines}");
    fail_allocations(0);
    assert_eq!(env.environment().unwrap().map_pages(), pages, "it counts as full");
    assert!(!env.grow(), "it is not time yet");
    env.hurry_growth();
    fail_allocations(usize::MAX);
    assert_eq!(env.environment().unwrap().map_pages(), pages, "the disk still has no room");
    fail_allocations(0);
    assert_eq!(env.environment().unwrap().map_pages(), pages, "it is not time yet");
    env.hurry_growth();
    assert_eq!(env.environment().unwrap().file_pages(), 2 * pages);
    assert!(env.environment().unwrap().map_pages() > 2 * pages);
    assert_records(env.environment().unwrap(), 1000);
}

#[test]
fn map_grows_by_less_on_a_disk_with_little_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
    let size = || fs::metadata(file(directory.path())).unwrap().len() >> 20;
    for expected in [2, 4, 8] {
        assert!(env.grow());
        assert_eq!(size(), expected);
    }
    // There is no room for 8 MiB, nor for 4.
    fail_allocations(2);
    assert!(env.grow());
    assert_eq!(size(), 10);
}

#[test]
fn failed_resize_opens_the_environment_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
    fill(&mut env, 0, 1000);
    faults::fail_resize();
    assert!(env.grow(), "it is worth trying again");
    assert_records(env.environment().unwrap(), 1000);
    fill(&mut env, 1000, 3000);
    assert_records(env.environment().unwrap(), 3000);
}

#[test]
fn file_without_blocks_gets_them_when_it_is_opened() {
    use std::os::unix::fs::MetadataExt as _;

    let directory = tempfile::tempdir().unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 64 << 20, Durability::Unsynced).unwrap();
    fill(&mut env, 0, 10);
    drop(env);
    fs::File::options().write(true).open(file(directory.path())).unwrap().set_len(5 << 20).unwrap();
    let mut env = ReopeningEnv::open(directory.path(), 64 << 20, Durability::Mapped).unwrap();
    assert!(fs::metadata(file(directory.path())).unwrap().blocks() * 512 >= 5 << 20);
    assert_records(env.environment().unwrap(), 10);
    drop(env);
    fail_allocations(1);
    let refused = Environment::open(directory.path(), 64 << 20, Durability::Mapped);
    assert!(matches!(refused, Err(EnvironmentError::NotAllocated(_))));
}
