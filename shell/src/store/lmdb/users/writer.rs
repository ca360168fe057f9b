//! The directory `users/`: everybody who was granted a slot and is not [forgotten](forget). It has a thread of its own,
//! for which no admission ever waits.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, mem};

use heed::RwTxn;
use session_core::ledger::{StoreError, UserOverrides};
use session_core::{Timestamp, UserId};

use super::known_user::KnownUser;
use super::overrides;
use super::retention::{Retention, RetentionBatch, RetentionScan};
use super::slot_query::SlotQuery;
use crate::runtime::clock::Clock;
use crate::runtime::log::LogRateLimiter;
use crate::store::lmdb::OpenError;
use crate::store::lmdb::environment::{
    DATA_FILE, Durability, Environment, EnvironmentError, ReopeningEnv, Uncommitted,
};
use crate::store::lmdb::writer::store_error;
use crate::store::{SharedPolicy, UpdateCompletion, UserUpdate};

/// How many users may wait to be noted. The next is dropped, and noted at its next session.
const MAX_PENDING: usize = 64 * 1024;

/// How often there is a commit, at most: each waits for the disk, and copies every page on which somebody is noted or
/// forgotten. Nobody waits for it, and what a killed server had not noted yet is noted at the user's next session.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Opens `users/`, or makes it.
pub(in crate::store::lmdb) fn open(directory: &Path, map_bytes: usize) -> Result<ReopeningEnv, OpenError> {
    if is_data_missing(directory) {
        tracing::warn!(directory = %directory.display(), "data.mdb is gone or empty: everybody known is forgotten");
    }
    let env = ReopeningEnv::open(directory, map_bytes, Durability::Synced).map_err(|error| match error {
        EnvironmentError::Damaged(_)
        | EnvironmentError::Lmdb(heed::Error::Mdb(
            heed::MdbError::Invalid | heed::MdbError::Corrupted | heed::MdbError::PageNotFound,
        )) => OpenError::UsersDamaged { directory: directory.into(), source: error.into() },
        EnvironmentError::Gone | EnvironmentError::Io(_) | EnvironmentError::Lmdb(_) => {
            OpenError::Users { directory: directory.into(), source: error.into() }
        }
    })?;
    // A synced file that its directory has forgotten does not outlive a power cut.
    let sync = |path: &Path| fs::File::open(path).and_then(|directory| directory.sync_all());
    sync(directory)
        .and_then(|()| directory.parent().map_or(Ok(()), sync))
        .map_err(|source: io::Error| OpenError::Directory { directory: directory.into(), source })?;
    Ok(env)
}

/// Whether an environment was here, as the lock file it leaves behind tells, and its data are not.
fn is_data_missing(directory: &Path) -> bool {
    let has_data = fs::metadata(directory.join(DATA_FILE)).is_ok_and(|file| file.len() > 0);
    directory.join("lock.mdb").exists() && !has_data
}

/// Where users to be noted are handed in. Dropping it ends the [`UserWriter`] once all are noted.
#[derive(Debug)]
pub(in crate::store::lmdb) struct SeenSender {
    queue: Arc<UserQueue>,
    dropped: u64,
    log: LogRateLimiter,
}

/// What runs on the thread.
pub(in crate::store::lmdb) struct UserWriter {
    pub(super) env: ReopeningEnv,
    pub(super) queue: Arc<UserQueue>,
    policy: SharedPolicy,
    pub(super) clock: Clock,
    pub(super) scan: Option<RetentionScan>,
    log: LogRateLimiter,
}

/// Where the notes lie between the two. To hand one in wakes nobody, but for the first after a while: a wake for each
/// costs more than all else that is done for it.
#[derive(Debug, Default)]
pub(super) struct UserQueue {
    pending: Mutex<Pending>,
    /// Told of the first note on an empty desk, and of the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    /// Who was seen, and when first.
    seen: HashMap<UserId, Timestamp>,
    /// What is to be changed, in this order.
    updates: Vec<(UserId, UserUpdate, UpdateCompletion)>,
    ended: bool,
    /// Nobody comes to the desk any more.
    closed: bool,
}

/// What lay on the desk.
pub(super) struct TakenUpdates {
    pub(super) seen: BTreeMap<UserId, Timestamp>,
    pub(super) updates: Vec<(UserId, UserUpdate, UpdateCompletion)>,
    /// Whether this is all.
    pub(super) ended: bool,
}

/// Where changes to what is kept of users are handed in.
#[derive(Debug, Clone)]
pub(in crate::store::lmdb) struct UpdateSender(Arc<UserQueue>);

impl UpdateSender {
    pub(in crate::store::lmdb) fn submit(&self, user: UserId, update: UserUpdate, done: UpdateCompletion) {
        let mut pile = self.0.lock();
        if pile.closed {
            drop(pile);
            return done.answer(Err(StoreError::Failed));
        }
        pile.updates.push((user, update, done));
        drop(pile);
        self.0.changed.notify_one();
    }
}

/// Sees to it that nobody waits at a desk to which nobody comes.
struct CloseOnDrop(Arc<UserQueue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut pile = self.0.lock();
        pile.closed = true;
        let left = mem::take(&mut pile.updates);
        drop(pile);
        for (_, _, done) in left {
            done.answer(Err(StoreError::Failed));
        }
    }
}

impl UserQueue {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every change is a single operation of the map, so a poisoned one is still whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a note about the user lies here.
    fn has(&self, user: &UserId) -> bool {
        self.lock().seen.contains_key(user)
    }

    /// All notes, once there are any or a step is due, and `until` has come; or at the end, or at once if something is to
    /// be changed, for which somebody waits. In order, so that neighbours in the tree are noted together.
    pub(super) fn take(&self, until: Instant, due: Option<Instant>) -> TakenUpdates {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let pile = self.lock();
        let is_urgent = |pile: &Pending| pile.ended || !pile.updates.is_empty();
        let idle = |pile: &mut Pending| pile.seen.is_empty() && !is_urgent(pile);
        let pile = match due {
            None => self.changed.wait_while(pile, idle).unwrap_or_else(PoisonError::into_inner),
            Some(due) => {
                self.changed.wait_timeout_while(pile, left(due), idle).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let mut pile = self
            .changed
            .wait_timeout_while(pile, left(until), |pile| !is_urgent(pile))
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let (seen, updates, ended) = (mem::take(&mut pile.seen), mem::take(&mut pile.updates), pile.ended);
        drop(pile);
        TakenUpdates { seen: seen.into_iter().collect(), updates, ended }
    }
}

/// Both ends. What is set for users is in force by these terms once it is written down.
pub(in crate::store::lmdb) fn user_writer(env: ReopeningEnv, policy: SharedPolicy) -> (SeenSender, UserWriter) {
    let queue = Arc::<UserQueue>::default();
    let seen_sender = SeenSender { queue: Arc::clone(&queue), dropped: 0, log: LogRateLimiter::default() };
    (seen_sender, UserWriter { env, queue, policy, clock: Clock::start(), scan: None, log: LogRateLimiter::default() })
}

impl SeenSender {
    /// Has these users noted, as far as there is room for them. The earliest time counts: some seconds later are not
    /// worth a write.
    pub(in crate::store::lmdb) fn send(&mut self, users: impl IntoIterator<Item = (UserId, Timestamp)>) {
        let mut pile = self.queue.lock();
        let was_empty = pile.seen.is_empty();
        let before = self.dropped;
        for (user, at) in users {
            if pile.seen.len() < MAX_PENDING {
                pile.seen.entry(user).or_insert(at);
            } else if !pile.seen.contains_key(&user) {
                self.dropped += 1;
            }
        }
        let is_news = was_empty && !pile.seen.is_empty();
        drop(pile);
        if is_news {
            self.queue.changed.notify_one();
        }
        if self.dropped > before && self.log.check().is_some() {
            tracing::warn!(dropped = self.dropped, "users are not noted as seen: more came than can be written");
        }
    }
}

impl Drop for SeenSender {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.changed.notify_one();
    }
}

impl UserWriter {
    /// Has it forget users, too.
    pub(in crate::store::lmdb) fn with_retention(self, forget: Retention, inquiry: SlotQuery) -> Self {
        let sweep = RetentionScan::new(forget, inquiry, self.clock.now());
        Self { scan: sweep, ..self }
    }

    /// Where changes are handed in.
    pub(in crate::store::lmdb) fn update_sender(&self) -> UpdateSender {
        UpdateSender(Arc::clone(&self.queue))
    }

    /// Notes users until the other end is dropped, and forgets others meanwhile.
    pub(in crate::store::lmdb) fn run(mut self) {
        let _closing = CloseOnDrop(Arc::clone(&self.queue));
        let mut next = Instant::now();
        loop {
            let TakenUpdates { seen, updates, ended } =
                self.queue.take(next, self.scan.as_ref().map(RetentionScan::due));
            let step = if ended { None } else { self.next_batch() };
            self.write_seen(seen, step);
            // Behind the notes: what is forgotten was perhaps only noted now.
            self.apply_updates(updates);
            if ended {
                return;
            }
            next = Instant::now() + COMMIT_INTERVAL;
        }
    }

    /// Changes what is kept of users, all in one transaction, and says so.
    fn apply_updates(&mut self, updates: Vec<(UserId, UserUpdate, UpdateCompletion)>) {
        if updates.is_empty() {
            return;
        }
        let result = match self.env.environment() {
            Some(environment) => write_updates(environment, &updates),
            None => Err(StoreError::Failed),
        };
        if let Err(cause) = result {
            tracing::error!(
                changes = updates.len(),
                why = cause.message(),
                "what is set for users is not written down"
            );
            self.env.check();
        }
        for (user, update, done) in updates {
            if result.is_ok() {
                self.policy.set_overrides(&user, overrides_after(update));
            }
            done.answer(result);
        }
    }

    /// The next step of the sweep, if it is due.
    pub(super) fn next_batch(&mut self) -> Option<RetentionBatch> {
        let sweep = self.scan.as_mut().filter(|sweep| sweep.due() <= Instant::now())?;
        match sweep.next_batch(self.env.environment()?, self.clock.now()) {
            Ok(step) => Some(step),
            Err(error) => {
                if let Some(suppressed) = self.log.check() {
                    tracing::error!(%error, suppressed, "the known users cannot be looked through, nobody is forgotten");
                }
                sweep.batch_failed();
                self.env.check();
                None
            }
        }
    }

    /// Writes down who was seen, and forgets whom the step has found.
    pub(super) fn write_seen(&mut self, mut seen: BTreeMap<UserId, Timestamp>, mut step: Option<RetentionBatch>) {
        let Some(environment) = self.env.environment() else { return };
        if let Some(step) = &mut step {
            for user in step.holding.drain(..) {
                seen.entry(user).or_insert(step.now);
            }
            step.forgettable.retain(|user| !seen.contains_key(user) && !self.queue.has(user));
        }
        let mut written = write(environment, &seen, step.as_ref(), &self.log);
        let mut failed = written.is_err();
        if let Err(error) = &written {
            if let Some(suppressed) = self.log.check() {
                tracing::error!(seen = seen.len(), %error, suppressed, "users are not noted as seen, or not forgotten");
            }
            // Each by itself: to forget makes room for the notes, and may have been what there was no room for.
            if step.is_some() {
                written = write(environment, &BTreeMap::new(), step.as_ref(), &self.log);
                let noted = write(environment, &seen, None, &self.log);
                failed = written.is_err() || noted.is_err();
            }
        }
        if let (Some(sweep), Some(step)) = (&mut self.scan, step) {
            match written {
                Ok(forgotten) => sweep.finish_batch(
                    step,
                    forgotten,
                    environment.entries().saturating_sub(self.policy.users_with_overrides()),
                ),
                Err(_) => sweep.batch_failed(),
            }
        }
        if failed {
            self.env.check();
        }
    }
}

fn overrides_after(update: UserUpdate) -> UserOverrides {
    match update {
        UserUpdate::Set(overrides) => overrides,
        UserUpdate::Forget => UserOverrides::default(),
    }
}

fn write_updates(
    environment: &Environment,
    updates: &[(UserId, UserUpdate, UpdateCompletion)],
) -> Result<(), StoreError> {
    let written = || -> Result<(), Uncommitted> {
        let mut txn = environment.write()?;
        for (user, update, _) in updates {
            overrides::put(environment, &mut txn, user, overrides_after(*update))?;
            if *update == UserUpdate::Forget {
                environment.records.delete(&mut txn, user.as_str().as_bytes())?;
            }
        }
        environment.commit(txn)
    };
    written().map_err(|failure| {
        // What may be on disk is said by no cause to be certainly not.
        let in_doubt = matches!(failure, Uncommitted::InDoubt(_));
        let error = heed::Error::from(failure);
        tracing::error!(%error, "the known users cannot be written to");
        if in_doubt { StoreError::Failed } else { store_error(&error) }
    })
}

/// Notes these users and forgets whom the step has found, in one transaction if there is anything to write. How many
/// were forgotten.
fn write(
    environment: &Environment,
    seen: &BTreeMap<UserId, Timestamp>,
    step: Option<&RetentionBatch>,
    log: &LogRateLimiter,
) -> heed::Result<usize> {
    let mut txn = environment.write()?;
    let mut changed = false;
    let mut without_room = 0_usize;
    for (user, &at) in seen {
        let key = user.as_str().as_bytes();
        let known = match environment.records.get(&txn, key)?.map(KnownUser::decode).transpose() {
            Ok(known) => known,
            // What cannot be read may be of a later version of this software: it is not ours to write over.
            Err(error) => {
                if let Some(suppressed) = log.check() {
                    tracing::error!(%user, %error, suppressed, "a known user's record cannot be read and is left alone");
                }
                continue;
            }
        };
        if known.is_none() && is_nearly_full(environment, &txn)? {
            without_room += 1;
        } else if let Some(user) = KnownUser::touch(known, at) {
            environment.records.put(&mut txn, key, &user.encode())?;
            changed = true;
        }
    }
    if without_room > 0
        && let Some(suppressed) = log.check()
    {
        tracing::error!(users = without_room, suppressed, "new users are not noted: there is no room for them");
    }
    let forgotten = step.map_or(Ok(0), |step| step.delete(environment, &mut txn))?;
    if changed || forgotten > 0 {
        environment.commit(txn)?;
    }
    Ok(forgotten)
}

/// Whether what is left is kept for those who are known, and for forgetting: LMDB copies a page to change it, so even a
/// delete needs room.
fn is_nearly_full(environment: &Environment, txn: &RwTxn<'_>) -> heed::Result<bool> {
    Ok(environment.used_pages(txn)? >= environment.map_pages() / 10 * 9)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use session_core::ledger::{SlotLimit, WhenFull};

    use super::*;
    use crate::store::lmdb::environment::faults;
    use crate::store::lmdb::testing::{TIMEOUT, logged, policy};

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
    fn what_is_queued_is_noted_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (mut seen_sender, writer) = user_writer(open(directory.path(), MAP).unwrap(), policy());
        seen_sender.send((0..5000).map(|number| (user(&format!("user {number}")), at(1))));
        seen_sender.send([(user("user 1"), at(2))]);
        drop(seen_sender);
        writer.run();
        let mut env = open(directory.path(), MAP).unwrap();
        let environment = env.environment().unwrap();
        assert_eq!(environment.entries(), 5000);
        assert_eq!(known(environment, "user 1"), Some(KnownUser { first_seen: at(1), last_seen: at(1) }));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (mut seen_sender, _writer) = user_writer(open(directory.path(), MAP).unwrap(), policy());
        seen_sender.send((0..MAX_PENDING + 3).map(|number| (user(&format!("user {number}")), at(1))));
        seen_sender.send([(user("user 0"), at(2))]);
        assert_eq!(seen_sender.dropped, 3);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut env = open(directory.path(), MAP).unwrap();
        let environment = env.environment().unwrap();
        let mut txn = environment.write().unwrap();
        environment.records.put(&mut txn, b"ada", &[2, 7]).unwrap();
        environment.commit(txn).unwrap();
        let seen = BTreeMap::from([(user("ada"), at(1)), (user("bob"), at(1))]);
        write(environment, &seen, None, &LogRateLimiter::default()).unwrap();
        let txn = environment.write().unwrap();
        assert_eq!(environment.records.get(&txn, b"ada").unwrap(), Some([2, 7].as_slice()));
        assert!(environment.records.get(&txn, b"bob").unwrap().is_some());
    }

    #[test]
    fn data_that_were_taken_away_are_missed_and_only_they() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_data_missing(directory.path()), "nothing was there yet");
        drop(open(directory.path(), 4 << 20).unwrap());
        assert!(!is_data_missing(directory.path()), "nobody is known, and nothing is missing");
        fs::write(directory.path().join(DATA_FILE), "").unwrap();
        assert!(is_data_missing(directory.path()));
        fs::remove_file(directory.path().join(DATA_FILE)).unwrap();
        assert!(is_data_missing(directory.path()));
    }

    #[test]
    fn damage_is_told_in_words() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path(), MAP).unwrap());
        fs::write(directory.path().join("data.mdb"), [1; 9000]).unwrap();
        let error = open(directory.path(), MAP).err().unwrap();
        assert!(matches!(error, OpenError::UsersDamaged { .. }), "{error:?}");
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }

    /// Has it changed, as an operator would: what came of it.
    fn amend(writer: &mut UserWriter, changes: &[(&str, UserUpdate)]) -> Vec<Result<(), StoreError>> {
        let (answer, answered) = std::sync::mpsc::channel();
        let done = || {
            let answer = answer.clone();
            UpdateCompletion::new(move |result| answer.send(result).unwrap())
        };
        writer.apply_updates(changes.iter().map(|&(id, update)| (user(id), update, done())).collect());
        answered.try_iter().collect()
    }

    fn limit(slots: u32) -> UserOverrides {
        UserOverrides { limit: Some(SlotLimit::new(slots).unwrap()), when_full: None }
    }

    #[test]
    fn what_is_set_for_a_user_is_in_force_and_outlives_the_process_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy();
        let (_seen_sender, mut writer) = user_writer(open(directory.path(), MAP).unwrap(), policy.clone());
        writer.write_seen([(user("ada"), at(1)), (user("bob"), at(1))].into(), None);
        let (overrides, other) = (limit(7), UserOverrides { when_full: Some(WhenFull::EvictOldest), ..limit(0) });
        let changes =
            [("ada", UserUpdate::Set(overrides)), ("eve", UserUpdate::Set(limit(1))), ("eve", UserUpdate::Set(other))];
        assert_eq!(amend(&mut writer, &changes), [Ok(()); 3]);
        assert_eq!(
            (policy.for_user(&user("ada")).overrides, policy.for_user(&user("eve")).overrides),
            (overrides, other)
        );
        assert_eq!(policy.for_user(&user("bob")).overrides, UserOverrides::default());
        drop(writer);

        let mut env = open(directory.path(), MAP).unwrap();
        let environment = env.environment().unwrap();
        assert_eq!(overrides::read_all(environment).unwrap(), [(user("ada"), overrides), (user("eve"), other)].into());
        assert_eq!(environment.entries(), 4, "two who were seen, two for whom something is set");
        let (_seen_sender, mut writer) = user_writer(env, policy.clone());
        let changes = [("ada", UserUpdate::Forget), ("eve", UserUpdate::Set(UserOverrides::default()))];
        assert_eq!(amend(&mut writer, &changes), [Ok(()); 2]);
        assert_eq!(
            (policy.users_with_overrides(), policy.for_user(&user("ada")).overrides),
            (0, UserOverrides::default())
        );
        let environment = writer.env.environment().unwrap();
        assert!(overrides::read_all(environment).unwrap().is_empty());
        assert_eq!(environment.entries(), 1, "bob is still known");
    }

    #[test]
    fn what_is_not_written_down_is_not_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy();
        let (_seen_sender, mut writer) = user_writer(open(directory.path(), MAP).unwrap(), policy.clone());
        let full = heed::Error::Mdb(heed::MdbError::MapFull);
        for (failure, cause) in [
            (Uncommitted::NotApplied(full), StoreError::Full),
            (Uncommitted::InDoubt(heed::Error::Io(io::ErrorKind::Other.into())), StoreError::Failed),
            (Uncommitted::InDoubt(heed::Error::Io(io::ErrorKind::StorageFull.into())), StoreError::Failed),
        ] {
            faults::fail([failure]);
            assert_eq!(amend(&mut writer, &[("ada", UserUpdate::Set(limit(7)))]), [Err(cause)]);
            assert_eq!(policy.users_with_overrides(), 0);
        }
    }

    #[test]
    fn a_change_does_not_wait_for_notes_and_is_answered_even_if_nobody_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy();
        let (mut seen_sender, writer) = user_writer(open(directory.path(), MAP).unwrap(), policy.clone());
        let updates = writer.update_sender();
        let recording = thread::spawn(move || writer.run());
        // So that it pauses.
        seen_sender.send([(user("ada"), at(1))]);
        let (answer, answered) = std::sync::mpsc::channel();
        let submit = |overrides| {
            let answer = answer.clone();
            let done = UpdateCompletion::new(move |result| answer.send(result).unwrap());
            updates.submit(user("ada"), UserUpdate::Set(overrides), done);
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
        assert_eq!(answered.recv_timeout(TIMEOUT), Ok(Err(StoreError::Failed)));
        assert_eq!(policy.for_user(&user("ada")).overrides, limit(3));
    }

    #[test]
    fn who_is_dropped_is_told_in_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let (mut seen_sender, _writer) = user_writer(open(directory.path(), MAP).unwrap(), policy());
        assert_eq!(
            logged(|| seen_sender.send((0..MAX_PENDING).map(|number| (user(&format!("user {number}")), at(1))))),
            ""
        );
        let lines = logged(|| seen_sender.send(["ada", "bob"].map(|id| (user(id), at(1)))));
        assert!(lines.contains("users are not noted") && lines.contains("dropped=2"), "{lines}");
    }

    #[test]
    fn the_first_is_noted_at_once_and_the_next_after_a_pause_or_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (mut seen_sender, writer) = user_writer(open(directory.path(), MAP).unwrap(), policy());
        let queue = Arc::clone(&seen_sender.queue);
        let are_taken = |within| {
            let start = Instant::now();
            while !queue.lock().seen.is_empty() && start.elapsed() < within {
                thread::sleep(Duration::from_millis(1));
            }
            queue.lock().seen.is_empty()
        };
        let recording = thread::spawn(move || writer.run());
        // It is to sleep by now, and to be woken.
        thread::sleep(Duration::from_millis(50));
        seen_sender.send([(user("ada"), at(1))]);
        assert!(are_taken(TIMEOUT));
        seen_sender.send([(user("bob"), at(1))]);
        assert!(!are_taken(Duration::from_millis(100)));
        drop(seen_sender);
        recording.join().unwrap();
        assert_eq!(open(directory.path(), MAP).unwrap().environment().unwrap().entries(), 2);
    }
}
