//! One LMDB environment: checked when it is opened, and opened again after a failure that only this mends.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};
use thiserror::Error;

use super::directory_watch::{Mismatch, OpenFile};
use super::integrity;
use crate::runtime::events::log_limited;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::store::usage::EnvironmentUsage;

pub(super) const DATA_FILE: &str = "data.mdb";

/// An open environment with one table of records, LMDB's unnamed one.
///
/// Dropping it closes it: it is never cloned, so its owner has the only one.
pub(super) struct Environment {
    env: Env<WithoutTls>,
    pub(super) records: Database<'static, Bytes, Bytes>,
    map_pages: usize,
    /// A test has injected a fault after which LMDB takes no more transactions.
    #[cfg(test)]
    is_broken: std::cell::Cell<bool>,
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// A commit survives a power cut.
    Synced,
    /// A commit survives the process, but not a power cut.
    Unsynced,
}

/// How a commit failed.
///
/// A commit writes its meta page last, and takes effect with it. If that write fails, LMDB allows no other transaction
/// (`MDB_FATAL_ERROR` in mdb.c, which `mdb_env_write_meta` always sets when it fails). So if another transaction can begin,
/// the commit failed before that.
#[derive(Debug)]
pub(super) enum Uncommitted {
    /// Nothing was applied.
    NotApplied(heed::Error),
    /// It may have been applied.
    InDoubt(heed::Error),
}

impl From<heed::Error> for Uncommitted {
    /// An error before the commit.
    fn from(error: heed::Error) -> Self {
        Self::NotApplied(error)
    }
}

impl From<Uncommitted> for heed::Error {
    fn from(failure: Uncommitted) -> Self {
        match failure {
            Uncommitted::NotApplied(error) | Uncommitted::InDoubt(error) => error,
        }
    }
}

/// Why an environment does not open.
#[derive(Debug, Error)]
pub(super) enum EnvironmentError {
    #[error("{DATA_FILE} is damaged: {0}")]
    Damaged(String),
    #[error("{DATA_FILE}: {0}")]
    NotThere(Mismatch),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Lmdb(#[from] heed::Error),
}

impl Environment {
    /// Opens the environment in an existing directory, or creates an empty one there. The caller holds the lock of the data
    /// directory. The map's size is a multiple of every possible page size.
    pub(super) fn open(directory: &Path, map_bytes: usize, durability: Durability) -> Result<Self, EnvironmentError> {
        if let Some(damage) = integrity::check(&directory.join(DATA_FILE))? {
            return Err(EnvironmentError::Damaged(damage));
        }
        fill_lock_file(directory)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes);
        match durability {
            Durability::Synced => {}
            // SAFETY: without syncs a crash of the machine may damage the file. An environment that is opened like this is
            // recreated after a reboot, and never read.
            Durability::Unsynced => unsafe {
                options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC);
            },
        }
        // SAFETY: no one else maps or changes the file. The lock of the data directory keeps other servers out, heed refuses
        // to open one twice in this process, and visible damage was refused above.
        let env = unsafe { options.open(directory)? };
        let records = env
            .create_databases_and_commit(env.write_txn()?, |opener, txn| {
                opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .expect("the closure above never aborts");
        let map_pages = env.info().map_size / env.unnamed_database_stat().page_size.max(1) as usize;
        Ok(Self {
            env,
            records,
            map_pages,
            #[cfg(test)]
            is_broken: false.into(),
        })
    }

    pub(super) fn write(&self) -> heed::Result<RwTxn<'_>> {
        #[cfg(test)]
        if self.is_broken.get() {
            return Err(heed::MdbError::Panic.into());
        }
        self.env.write_txn()
    }

    /// Commits a transaction of [`Environment::write`].
    pub(super) fn commit(&self, txn: RwTxn<'_>) -> Result<(), Uncommitted> {
        #[cfg(test)]
        if let Some(failure) = faults::next() {
            self.is_broken.set(matches!(failure, Uncommitted::InDoubt(_)));
            return Err(failure);
        }
        txn.commit().map_err(|error| match self.write() {
            Ok(_) => Uncommitted::NotApplied(error),
            Err(_) => Uncommitted::InDoubt(error),
        })
    }

    /// The directory of its files.
    pub(super) fn directory(&self) -> &Path {
        self.env.path()
    }

    /// How many records there are.
    pub(super) fn entries(&self) -> usize {
        self.env.unnamed_database_stat().entries
    }

    /// How many pages the file has, including those at its end that are not written yet.
    pub(super) fn file_pages(&self) -> usize {
        self.env.info().last_page_number + 1
    }

    /// How many pages the map has.
    pub(super) const fn map_pages(&self) -> usize {
        self.map_pages
    }

    /// How much of the map is used.
    pub(super) fn usage(&self) -> heed::Result<EnvironmentUsage> {
        let page_bytes = u64::from(self.env.unnamed_database_stat().page_size);
        let bytes = |pages: usize| u64::try_from(pages).unwrap_or(u64::MAX).saturating_mul(page_bytes);
        let used = self.used_pages(&self.write()?)?;
        let [map_bytes, used_bytes, file_bytes] = [self.map_pages(), used, self.file_pages()].map(bytes);
        Ok(EnvironmentUsage { map_bytes, used_bytes, file_bytes })
    }

    /// How many pages hold records.
    ///
    /// This shrinks when records are deleted. The number of the last page does not: LMDB keeps free pages and reuses them. The
    /// few pages that list the free ones are not counted.
    pub(super) fn used_pages(&self, txn: &RwTxn<'_>) -> heed::Result<usize> {
        let stat = self.records.stat(txn)?;
        Ok(stat.branch_pages + stat.leaf_pages + stat.overflow_pages)
    }
}

/// Writes LMDB's lock file to its full length. LMDB itself would only extend it, map it and write to the map, which ends the
/// process with SIGBUS on a full disk. LMDB initialises the content if no other process has the file open.
fn fill_lock_file(directory: &Path) -> io::Result<()> {
    const BYTES: u64 = 8192;
    let mut file = fs::File::options().create(true).append(true).open(directory.join("lock.mdb"))?;
    let missing = BYTES.saturating_sub(file.metadata()?.len());
    io::copy(&mut io::repeat(0).take(missing), &mut file).map(drop)
}

/// Keeps an environment open for the thread that owns it.
pub(super) struct ReopeningEnv {
    directory: PathBuf,
    /// The file that was opened first. No other is opened later.
    file: OpenFile,
    map_bytes: usize,
    durability: Durability,
    environment: Option<Environment>,
    backoff: Duration,
    retry_at: Instant,
    log: LogRateLimiter,
}

impl ReopeningEnv {
    const FIRST_BACKOFF: Duration = Duration::from_millis(100);
    const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

    pub(super) fn open(directory: &Path, map_bytes: usize, durability: Durability) -> Result<Self, EnvironmentError> {
        let environment = Environment::open(directory, map_bytes, durability)?;
        Ok(Self {
            directory: directory.into(),
            file: OpenFile::at(&directory.join(DATA_FILE))?,
            map_bytes,
            durability,
            environment: Some(environment),
            backoff: Self::FIRST_BACKOFF,
            retry_at: Instant::now(),
            log: LogRateLimiter::default(),
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of the environment.
    pub(super) const fn file(&self) -> &OpenFile {
        &self.file
    }

    /// The environment, if it is open or can be opened again now.
    pub(super) fn environment(&mut self) -> Option<&Environment> {
        if self.environment.is_none() && Instant::now() >= self.retry_at {
            match self.reopen() {
                Ok(environment) => {
                    log_limited!(self.log, store_reopened { directory: display(self.directory.display()) });
                    self.environment = Some(environment);
                    self.backoff = Self::FIRST_BACKOFF;
                }
                Err(error) => {
                    let directory = self.directory.display();
                    log_limited!(self.log, store_not_opened { directory: display(directory), error: display(error) });
                    self.retry_at = Instant::now() + self.backoff;
                    self.backoff = (self.backoff * 2).min(Self::LONGEST_BACKOFF);
                }
            }
        }
        self.environment.as_ref()
    }

    /// Closes the environment if it takes no more transactions, as after a failed write of its meta page. Call this after a
    /// failure.
    pub(super) fn check(&mut self) {
        let error = self.environment.as_ref().and_then(|environment| environment.write().err());
        if let Some(error) = error {
            let directory = self.directory.display();
            log_limited!(self.log, store_closed { directory: display(directory), error: display(error) });
            self.environment = None;
            self.retry_at = Instant::now();
        }
    }

    /// Opens the environment again. Never creates an empty one instead of one that is gone, and never opens another file,
    /// such as a copy: what this process wrote there still counts.
    fn reopen(&self) -> Result<Environment, EnvironmentError> {
        self.file.check().map_err(EnvironmentError::NotThere)?;
        if fs::metadata(&self.file.path)?.len() == 0 {
            return Err(EnvironmentError::NotThere(Mismatch::Gone));
        }
        Environment::open(&self.directory, self.map_bytes, self.durability)
    }
}

#[cfg(test)]
pub(super) mod faults {
    use super::{Instant, ReopeningEnv, Uncommitted};
    use std::cell::RefCell;
    use std::collections::VecDeque;

    thread_local! {
        static FAILURES: RefCell<VecDeque<Uncommitted>> = const { RefCell::new(VecDeque::new()) };
    }

    /// Has the next commits on this thread fail. They are not applied, and one in doubt is the environment's last.
    pub(in super::super) fn fail(failures: impl IntoIterator<Item = Uncommitted>) {
        FAILURES.with_borrow_mut(|next| next.extend(failures));
    }

    /// The failure that is next, which is then over.
    pub(in super::super) fn next() -> Option<Uncommitted> {
        FAILURES.with_borrow_mut(VecDeque::pop_front)
    }

    impl ReopeningEnv {
        /// Closes the environment, as after a fatal failure.
        pub(in super::super) fn break_down(&mut self) {
            self.environment = None;
            self.retry_at = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
