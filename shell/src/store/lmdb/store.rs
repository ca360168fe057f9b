//! The store on disk: two LMDB environments in one data directory.
//!
//! ```text
//! DIR/         locked while a server uses it
//! DIR/lock     has the server's process id
//! DIR/live/    the sessions that hold slots now; not synced, discarded after a reboot
//! DIR/users/   the users who were granted a slot and are not forgotten, and overrides; synced
//! ```
//!
//! `live/` is written through its memory map where that is safe ([`live_writes`](super::live_writes)). It may be mounted from
//! a memory file system, or be a link to a directory there ([`live`](super::live)).
//!
//! LMDB has one writer at a time. The thread that submits a command applies it to `live/` itself, unless another thread is at
//! work there: then that one applies it, too, with all that have queued up, in one transaction ([`SharedWriter`]). The users whom
//! it admits go to the user writer ([`users`]), a thread that owns `users/`. No command waits for that one. Before it forgets
//! users, it asks which of them hold slots. A thread beside `live/` answers queries and sweeps, and a third one watches that the
//! directory is still where it was ([`directory_watch`](super::directory_watch)).

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use session_core::ledger::{AdmissionPolicy, Outcome, SlotLimit, StoreCommand};
use session_core::{NodeId, UserId};

use super::directory_watch::{DirectoryWatch, OpenFile};
use super::error::OpenError;
use super::health;
use super::live;
use super::live_query::LiveQuery;
use super::live_writes::LiveWrites;
use super::queue::Queue;
use super::shared_writer::SharedWriter;
use super::user_list;
use super::users::{self, Retention, SlotQuery, UpdateSender};
use super::writer::Writer;
use crate::runtime::process::Process;
use crate::runtime::supervisor::{Part, PartGuard};
use crate::store::api::{HealthFuture, Store, StoreFuture, UsageFuture, UserUpdate};
use crate::store::completion::Completion;
use crate::store::directory_lock::DirectoryLock;
use crate::store::failure::StoreFailure;
use crate::store::pages::{Page, PageRequest, StoredSession, StoredUser, UserFilter};
use crate::store::shared::{NodeContext, SharedPolicy};
use crate::store::user_state::UserState;

/// Keeps slots and users in LMDB, in two environments of one data directory: `live/` and `users/`.
pub struct LmdbStore {
    queue: Arc<Queue>,
    writer: Arc<SharedWriter>,
    running: Arc<RunningThreads>,
    /// Released when the store is closed and its threads, which hold it too, have ended.
    lock: Mutex<Option<Arc<DirectoryLock>>>,
    context: NodeContext,
    updates: UpdateSender,
    known_users: usize,
}

/// Where and how large an [`LmdbStore`] is.
#[derive(Debug, Clone)]
pub struct LmdbConfig {
    /// The data directory. It is created if it does not exist.
    pub directory: PathBuf,
    /// The policy for users without overrides.
    pub policy: AdmissionPolicy,
    /// The maximum size of `live/` in bytes, at least 1 MiB, rounded up to whole MiB. Disk and memory are used as needed. Above
    /// nine tenths of it, acquires are rejected.
    pub live_map_bytes: usize,
    /// How `live/` is written.
    pub live_writes: LiveWrites,
    /// The same for `users/`, where it is address space. Above nine tenths of it, new users are not noted; admission goes on.
    pub users_map_bytes: usize,
    /// A user without slots is forgotten this long after the last grant. That can be later, by at most the sum of: one hour;
    /// 1/24 of this time (at most a day); 3.5 hours for every ten million users. A restart begins the scan again. Time before
    /// a start in which no slot was granted may not count.
    pub forget_after: Retention,
    /// How many users are known, at most. Above it, new users are not noted; admission goes on.
    pub max_known_users: usize,
    /// How many commands may wait, at least 1, before others than releases are rejected.
    pub queue_capacity: usize,
}

impl LmdbConfig {
    const MIB: usize = 1 << 20;

    /// 64 GiB on 64-bit machines, else 256 MiB.
    pub const DEFAULT_MAP_BYTES: usize = if usize::BITS >= 64 { 64 << 30 } else { 256 << 20 };

    /// The default number of commands that may wait.
    pub const DEFAULT_QUEUE_CAPACITY: usize = 8192;

    /// The default number of known users. They take 1 to 3 GB.
    pub const DEFAULT_MAX_KNOWN_USERS: usize = 10_000_000;

    /// The defaults, in this directory and with this limit.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, limit: SlotLimit) -> Self {
        Self {
            directory: directory.into(),
            policy: AdmissionPolicy::new(limit),
            live_map_bytes: Self::DEFAULT_MAP_BYTES,
            live_writes: LiveWrites::default(),
            users_map_bytes: Self::DEFAULT_MAP_BYTES,
            forget_after: Retention::default(),
            max_known_users: Self::DEFAULT_MAX_KNOWN_USERS,
            queue_capacity: Self::DEFAULT_QUEUE_CAPACITY,
        }
    }
}

impl LmdbStore {
    /// How long dropping a store waits for it to close, unless [`Store::close`] has waited before.
    pub const DROP_TIMEOUT: Duration = Duration::from_secs(5);

    /// Whether this directory has a server's data.
    #[must_use]
    pub fn is_in(directory: &Path) -> bool {
        directory.join("users").is_dir()
    }

    /// Opens the data directory for `node`, which must be a fresh id: the sessions of all other nodes in it lapse, except
    /// those that linger.
    ///
    /// # Errors
    /// [`OpenError`] says why it cannot be opened, and what to do.
    pub fn open(config: &LmdbConfig, node: NodeId) -> Result<Self, OpenError> {
        Self::open_in_process(config, node, Process::start())
    }

    /// As [`LmdbStore::open`], with the clock of this process. Its supervisor watches the store's threads.
    ///
    /// # Errors
    /// As [`LmdbStore::open`].
    pub fn open_in_process(config: &LmdbConfig, node: NodeId, process: Process) -> Result<Self, OpenError> {
        Self::open_under_boot(config, node, process, live::boot_id().as_deref())
    }

    pub(super) fn open_under_boot(
        config: &LmdbConfig,
        node: NodeId,
        process: Process,
        boot: Option<&str>,
    ) -> Result<Self, OpenError> {
        let &LmdbConfig {
            ref directory,
            policy,
            live_map_bytes,
            live_writes,
            users_map_bytes,
            forget_after,
            max_known_users,
            queue_capacity,
        } = config;
        let [live_map, users_map] = [map_bytes(live_map_bytes)?, map_bytes(users_map_bytes)?];
        if queue_capacity == 0 {
            return Err(OpenError::QueueCapacity);
        }
        let make = |directory: PathBuf| match live::create(&directory) {
            Ok(()) => Ok(directory),
            Err(source) => Err(OpenError::directory(directory, source)),
        };
        make(directory.clone())?;
        let acquire = |directory: &Path| {
            DirectoryLock::acquire(directory).map_err(|error| OpenError::from_lock(directory, error))
        };
        let mut lock = acquire(directory)?;
        let mut users = users::open(&make(directory.join("users"))?, users_map)?;
        let live = make(directory.join("live"))?;
        // Another data directory may lead to the same one.
        if live.is_symlink() {
            lock = lock.with(acquire(&live)?);
        }
        let lock = Arc::new(lock);
        let live = live::open(&live, live_map, live_writes, boot)?;

        let overrides = users
            .environment()
            .map_or_else(|| Ok(HashMap::new()), users::read_all)
            .map_err(|source| OpenError::UsersDamaged { directory: directory.join("users"), source })?;
        let known_users = users.environment().map_or(0, |users| users.entries()) - overrides.len();
        let locked = lock.id().map_err(|source| OpenError::Directory { directory: directory.clone(), source })?;
        let locked = OpenFile { path: directory.clone(), id: locked };
        let (watch, directory_state, stop_watch) =
            DirectoryWatch::new(vec![locked, users.file().clone(), live.file().clone()]);
        let queue = Arc::new(Queue::new(queue_capacity));
        let context = NodeContext::with_policy(node, SharedPolicy::new(policy, overrides), process);
        let (seen_sender, user_writer) =
            users::user_writer(users, context.policy().clone(), context.clock().clone(), directory_state.clone());
        let updates = user_writer.update_sender();
        let slot_query = SlotQuery::new(Arc::clone(&queue), node, context.clock().clone());
        let user_writer = user_writer.with_retention(forget_after, slot_query).with_max_users(max_known_users);
        let writer = Writer::new(live, context.clone(), seen_sender, directory_state);
        let writer = Arc::new(SharedWriter::new(Arc::clone(&queue), writer));
        let running = Arc::new(RunningThreads::default());
        let spawn = |part, work: Box<dyn FnOnce(&PartGuard) + Send>| spawn(part, &context, &lock, &running, work);
        // If a thread does not start, those before it end by themselves: what they wait for is dropped with the others' work.
        spawn(Part::StoreWatch, Box::new(move |guard| watch.run(guard)))?;
        spawn(Part::StoreUsers, Box::new(move |guard| user_writer.run(guard)))?;
        let running_writer = Arc::clone(&writer);
        let work = move |guard: &PartGuard| {
            let _stop_watch = stop_watch;
            running_writer.run(guard);
        };
        spawn(Part::StoreLive, Box::new(work))?;
        Ok(Self { queue, writer, running, lock: Mutex::new(Some(lock)), context, updates, known_users })
    }

    /// How many users the store knew when it was opened.
    #[must_use]
    pub const fn known_users(&self) -> usize {
        self.known_users
    }
}

impl Store for LmdbStore {
    fn context(&self) -> &NodeContext {
        &self.context
    }

    fn submit(&self, command: StoreCommand, completion: Completion<Outcome>) {
        self.writer.submit(command, completion);
    }

    fn update_user(&self, user: UserId, update: UserUpdate, completion: Completion<Result<UserState, StoreFailure>>) {
        self.updates.submit(user, update, completion);
    }

    fn find_user(&self, user: UserId) -> StoreFuture<'_, UserState> {
        Box::pin(user_list::find(&self.updates, user))
    }

    fn list_users(&self, filter: UserFilter, page: PageRequest) -> StoreFuture<'_, Page<StoredUser>> {
        Box::pin(async move { user_list::list(&self.queue, &self.updates, &filter, &page).await })
    }

    fn list_sessions(&self, user: Option<UserId>, page: PageRequest) -> StoreFuture<'_, Page<StoredSession>> {
        let (completion, answer) = Completion::channel();
        self.queue.ask(LiveQuery::ListSessions(user, page, completion));
        Box::pin(answer)
    }

    fn usage(&self) -> UsageFuture<'_> {
        Box::pin(health::usage(&self.queue, &self.updates, self.context.policy().users_with_overrides()))
    }

    fn health(&self) -> HealthFuture<'_> {
        Box::pin(health::check(&self.queue, &self.updates))
    }

    fn close(&self, timeout: Duration) -> StoreFuture<'_, ()> {
        self.queue.close();
        let running = Arc::clone(&self.running);
        Box::pin(async move {
            let has_ended = smol::unblock(move || running.wait(timeout)).await;
            self.release_lock();
            if has_ended { Ok(()) } else { Err(StoreFailure::TimedOut) }
        })
    }
}

impl LmdbStore {
    /// From here on the threads alone hold the directory's lock, for as long as they run. Whether this was the first time.
    fn release_lock(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

impl Drop for LmdbStore {
    fn drop(&mut self) {
        // The writer ends once the queue is empty. It owns the only sender of seen users, whose end ends the user writer.
        self.queue.close();
        if self.release_lock() {
            self.running.wait(Self::DROP_TIMEOUT);
        }
    }
}

impl fmt::Debug for LmdbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LmdbStore").field("known_users", &self.known_users).finish_non_exhaustive()
    }
}

fn map_bytes(bytes: usize) -> Result<usize, OpenError> {
    match bytes.checked_next_multiple_of(LmdbConfig::MIB) {
        Some(whole) if bytes >= LmdbConfig::MIB => Ok(whole),
        Some(_) | None => Err(OpenError::MapSize { bytes }),
    }
}

/// How many threads use the directory.
#[derive(Debug, Default)]
struct RunningThreads {
    threads: Mutex<usize>,
    ended: Condvar,
}

/// Counts one thread, until dropped.
struct ThreadGuard(Arc<RunningThreads>);

impl RunningThreads {
    /// Waits until none is left, at most for `within`. Whether none is.
    fn wait(&self, within: Duration) -> bool {
        let threads = self.lock();
        let (threads, _) = self
            .ended
            .wait_timeout_while(threads, within, |threads| *threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *threads == 0
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThreadGuard {
    fn start(running: &Arc<RunningThreads>) -> Self {
        *running.lock() += 1;
        Self(Arc::clone(running))
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.ended.notify_all();
    }
}

/// Starts a thread that keeps the directory locked. It is not joined: the last thing it does is to leave the count.
fn spawn(
    part: Part,
    context: &NodeContext,
    lock: &Arc<DirectoryLock>,
    running: &Arc<RunningThreads>,
    work: impl FnOnce(&PartGuard) + Send + 'static,
) -> Result<(), OpenError> {
    let run = ThreadGuard::start(running);
    let (lock, supervisor) = (Arc::clone(lock), context.process().supervisor.clone());
    let body = move || {
        // Dropped in this order, also by a panic: the environment (by `work`), the guard, the lock, the count.
        let _run = run;
        let _lock = lock;
        let guard = supervisor.watch(part);
        work(&guard);
        guard.finish();
    };
    thread::Builder::new().name(part.name().into()).spawn(body).map(drop).map_err(|source| OpenError::Thread { source })
}
