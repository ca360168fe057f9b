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
use super::mapped_file::MappedFile;
use super::torn_commit;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};
use crate::store::usage::EnvironmentUsage;

pub(super) const DATA_FILE: &str = "data.mdb";

/// An open environment with one table of records, LMDB's unnamed one.
///
/// Dropping it closes it: it is never cloned, so its owner has the only one.
pub(super) struct Environment {
    env: Env<WithoutTls>,
    pub(super) records: Database<'static, Bytes, Bytes>,
    /// The largest size of the map.
    map_bytes: usize,
    page_bytes: usize,
    /// The file, if it is written through the map. The map is as large as the file then, and grows with it.
    mapped: Option<MappedFile>,
    /// A test has injected a fault after which LMDB takes no more transactions.
    #[cfg(test)]
    is_broken: std::cell::Cell<bool>,
}

/// What a commit survives, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// A commit survives a power cut.
    Synced,
    /// A commit survives the process, but not a power cut. A system call writes each page.
    Unsynced,
    /// The same, but pages are written through the memory map, into blocks that were allocated before.
    Mapped,
}

impl Durability {
    /// For LMDB.
    const fn flags(self) -> EnvFlags {
        let unsynced = EnvFlags::NO_SYNC.union(EnvFlags::NO_META_SYNC);
        match self {
            Self::Synced => EnvFlags::empty(),
            Self::Unsynced => unsynced,
            Self::Mapped => unsynced.union(EnvFlags::WRITE_MAP),
        }
    }
}

/// How a commit failed.
///
/// A commit writes its meta page last, and takes effect with it. If that write fails, LMDB allows no other transaction
/// (`MDB_FATAL_ERROR` in mdb.c, which `mdb_env_write_meta` always sets when it fails). So if another transaction can begin,
/// the commit failed before that. Through the map this write is a few stores, the number of the transaction last. It cannot
/// fail, so no commit there is in doubt.
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
    /// There may be less room than the map needs, or the file system cannot promise it.
    #[error("the blocks of {DATA_FILE} cannot be allocated: {0}")]
    NotAllocated(io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Lmdb(#[from] heed::Error),
}

impl Environment {
    /// Opens the environment in an existing directory, or creates an empty one there. The caller holds the lock of the data
    /// directory. The map's size is a multiple of every possible page size.
    pub(super) fn open(directory: &Path, map_bytes: usize, durability: Durability) -> Result<Self, EnvironmentError> {
        // A synced environment is never written through its map.
        if durability != Durability::Synced && torn_commit::undo(&directory.join(DATA_FILE))? {
            log_event!(commit_undone { directory: display(directory.display()) });
        }
        Self::open_as_it_is(directory, map_bytes, durability)
    }

    /// As [`Environment::open`], but takes the newest commit as whole: this process made it, and was not killed.
    fn open_as_it_is(directory: &Path, map_bytes: usize, durability: Durability) -> Result<Self, EnvironmentError> {
        if let Some(damage) = integrity::check(&directory.join(DATA_FILE))? {
            return Err(EnvironmentError::Damaged(damage));
        }
        fill_lock_file(directory)?;
        let is_mapped = durability == Durability::Mapped;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(if is_mapped { first_map(directory, map_bytes)? } else { map_bytes });
        // SAFETY: without syncs a crash of the machine may damage the file. An environment that is opened like this is
        // recreated after a reboot, and never read. A wild write could damage a file that is written through its map. So it
        // could damage everything else in this process.
        unsafe { options.flags(durability.flags()) };
        // SAFETY: no one else maps or changes the file. The lock of the data directory keeps other servers out, heed refuses
        // to open one twice in this process, and visible damage was refused above.
        let env = unsafe { options.open(directory)? };
        // Before anything is written through the map. LMDB creates its first pages with a system call.
        let allocate = || {
            MappedFile::allocate(env.try_clone_inner_file()?, env.info().map_size, map_bytes)
                .map_err(EnvironmentError::NotAllocated)
        };
        let mapped = if is_mapped { Some(allocate()?) } else { None };
        let records = env
            .create_databases_and_commit(env.write_txn()?, |opener, txn| {
                opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .expect("the closure above never aborts");
        let map_bytes = env.info().map_size.max(map_bytes);
        let page_bytes = env.unnamed_database_stat().page_size.max(1) as usize;
        Ok(Self {
            env,
            records,
            map_bytes,
            page_bytes,
            mapped,
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
    ///
    /// If it would leave less than a tenth of a map that can still grow, the map is full: it must grow before. So a map that
    /// cannot grow has the room that releases need.
    pub(super) fn commit(&self, txn: RwTxn<'_>) -> Result<(), Uncommitted> {
        if self.can_grow() && self.is_nearly_full(&txn)? {
            return Err(heed::Error::from(heed::MdbError::MapFull).into());
        }
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

    /// Makes the map larger, if it is written through and below its largest size. Whether it has.
    ///
    /// After an error of LMDB the environment must be closed.
    pub(super) fn grow(&mut self) -> Result<bool, GrowError> {
        let may_grow = |mapped: &&mut MappedFile| mapped.can_grow() || mapped.is_retry_due();
        let Some(mapped) = self.mapped.as_mut().filter(may_grow) else { return Ok(false) };
        let bytes = mapped.grow().map_err(GrowError::NoRoom)?;
        #[cfg(test)]
        if faults::take_failed_resize() {
            return Err(GrowError::NotMapped(heed::Error::Io(io::ErrorKind::OutOfMemory.into())));
        }
        // SAFETY: no transaction is open, because each borrows this environment, which is borrowed mutably here. The
        // environment is never cloned, and the lock of the data directory keeps other processes out.
        unsafe { self.env.resize(bytes) }.map_err(GrowError::NotMapped)?;
        Ok(true)
    }

    /// Whether the map may grow. After the disk had no room, it may not for a while.
    fn can_grow(&self) -> bool {
        self.mapped.as_ref().is_some_and(MappedFile::can_grow)
    }

    /// Whether less than a tenth of the map is free.
    fn is_nearly_full(&self, txn: &RwTxn<'_>) -> heed::Result<bool> {
        let bytes = self.mapped.as_ref().map_or(self.map_bytes, MappedFile::bytes);
        Ok(self.used_pages(txn)? >= Self::room_for_acquires(bytes / self.page_bytes))
    }

    /// How many pages the file has, including those at its end that are not written yet.
    pub(super) fn file_pages(&self) -> usize {
        match &self.mapped {
            Some(mapped) => mapped.bytes() / self.page_bytes,
            None => self.env.info().last_page_number + 1,
        }
    }

    /// How many pages the map can have. If the disk has no room for more, those that it has now.
    pub(super) fn map_pages(&self) -> usize {
        let bytes = match &self.mapped {
            Some(mapped) if !mapped.can_grow() => mapped.bytes(),
            Some(_) | None => self.map_bytes,
        };
        bytes / self.page_bytes
    }

    /// How many pages of so many acquires may fill. The last tenth is for releases.
    pub(super) const fn room_for_acquires(pages: usize) -> usize {
        pages / 10 * 9
    }

    /// How much of the map is used.
    pub(super) fn usage(&self) -> heed::Result<EnvironmentUsage> {
        let used = self.used_pages(&self.write()?)?;
        let [used_bytes, file_bytes] = [used, self.file_pages()].map(|pages| pages.saturating_mul(self.page_bytes));
        let [map_bytes, used_bytes, file_bytes] =
            [self.map_bytes, used_bytes, file_bytes].map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
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

/// Why a map has not grown.
#[derive(Debug, Error)]
pub(super) enum GrowError {
    /// It is as it was.
    #[error("no room on the disk: {0}")]
    NoRoom(io::Error),
    /// LMDB has let go of the old map and has no new one.
    #[error(transparent)]
    NotMapped(heed::Error),
}

/// The first size of a map that is written through.
fn first_map(directory: &Path, map_bytes: usize) -> io::Result<usize> {
    let file_bytes = match fs::metadata(directory.join(DATA_FILE)) {
        Ok(file) => file.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(MappedFile::first_map(file_bytes, map_bytes))
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

    /// Makes the map larger after a transaction did not fit. Whether it is worth trying again.
    pub(super) fn grow(&mut self) -> bool {
        let grown = self.environment.as_mut().map_or(Ok(false), Environment::grow);
        grown.unwrap_or_else(|error| {
            let directory = self.directory.display();
            match error {
                GrowError::NoRoom(error) => {
                    log_limited!(self.log, slots_not_extended { directory: display(directory), error: display(error) });
                    false
                }
                GrowError::NotMapped(error) => {
                    log_limited!(self.log, store_closed { directory: display(directory), error: display(error) });
                    self.environment = None;
                    self.retry_at = Instant::now();
                    true
                }
            }
        })
    }

    /// The environment, if it is open or can be opened again now.
    pub(super) fn environment(&mut self) -> Option<&Environment> {
        let mapped = self.environment.as_ref().and_then(|environment| environment.mapped.as_ref());
        // It was needed before. Until then the map counts as one of this size.
        if mapped.is_some_and(MappedFile::is_retry_due) {
            self.grow();
        }
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
        Environment::open_as_it_is(&self.directory, self.map_bytes, self.durability)
    }
}

#[cfg(test)]
pub(super) mod faults {
    use super::{Instant, MappedFile, ReopeningEnv, Uncommitted};
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    thread_local! {
        static FAILURES: RefCell<VecDeque<Uncommitted>> = const { RefCell::new(VecDeque::new()) };
        static RESIZE_FAILS: Cell<bool> = const { Cell::new(false) };
    }

    /// Has the next resize of a map on this thread fail. Its file has grown.
    pub(in super::super) fn fail_resize() {
        RESIZE_FAILS.set(true);
    }

    pub(super) fn take_failed_resize() -> bool {
        RESIZE_FAILS.take()
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

        /// Has the next use try to grow, as after a while.
        pub(in super::super) fn hurry_growth(&mut self) {
            let mapped = self.environment.as_mut().and_then(|environment| environment.mapped.as_mut());
            mapped.map(MappedFile::hurry).unwrap();
        }
    }
}

#[cfg(test)]
mod tests;
