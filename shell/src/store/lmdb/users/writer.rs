//! The thread that owns `users/`: it notes users as seen, makes updates, forgets old users, and answers queries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use session_core::ledger::StoreError;
use session_core::{Timestamp, UserId};

use super::known_user::KnownUser;
use super::overrides;
use super::queue::{CloseOnDrop, SeenSender, TakenUpdates, UpdateSender, UserQueue, UserUpdateRequest};
use super::retention::{Retention, RetentionBatch, RetentionScan};
use super::slot_query::SlotQuery;
use super::user_query::{self, UserQuery, UsersHealth, UsersUsage};
use crate::runtime::clock::Clock;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::runtime::events::{log_event, log_limited};
use crate::runtime::supervisor::PartGuard;
use crate::store::api::UserUpdate;
use crate::store::failure::StoreFailure;
use crate::store::lmdb::directory_watch::DirectoryState;
use crate::store::lmdb::environment::{Environment, ReopeningEnv, Uncommitted};
use crate::store::lmdb::error::store_error;
use crate::store::overrides_bytes::OverridesError;
use crate::store::shared::SharedPolicy;
use crate::store::user_state::UserState;
use heed::RwTxn;

/// The shortest time between two commits of seen users. Each commit waits for the disk, and copies every page that changes.
/// No command waits for it. What a killed server had not noted is noted at the user's next session.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Owns the environment of `users/`.
pub(in crate::store::lmdb) struct UserWriter {
    pub(super) env: ReopeningEnv,
    pub(super) queue: Arc<UserQueue>,
    policy: SharedPolicy,
    pub(super) clock: Clock,
    directory: DirectoryState,
    pub(super) scan: Option<RetentionScan>,
    /// How many users are noted, at most.
    max_users: usize,
    log: LogRateLimiter,
}

/// The user writer, and the sender that keeps it running. Overrides are set in `policy` once they are written.
pub(in crate::store::lmdb) fn user_writer(
    env: ReopeningEnv,
    policy: SharedPolicy,
    clock: Clock,
    directory: DirectoryState,
) -> (SeenSender, UserWriter) {
    let queue = Arc::<UserQueue>::default();
    let seen_sender = SeenSender::new(Arc::clone(&queue));
    let log = LogRateLimiter::default();
    (seen_sender, UserWriter { env, queue, policy, clock, directory, scan: None, max_users: usize::MAX, log })
}

impl UserWriter {
    /// The same, which also forgets old users.
    pub(in crate::store::lmdb) fn with_retention(self, retention: Retention, slot_query: SlotQuery) -> Self {
        let scan = RetentionScan::new(retention, slot_query, self.clock.now());
        Self { scan, ..self }
    }

    /// The same, which notes no new user while it knows this many. Users who are known already stay so, and overrides are
    /// always written.
    pub(in crate::store::lmdb) fn with_max_users(self, max_users: usize) -> Self {
        Self { max_users, ..self }
    }

    /// Submits updates and queries to this writer.
    pub(in crate::store::lmdb) fn update_sender(&self) -> UpdateSender {
        UpdateSender::new(Arc::clone(&self.queue))
    }

    /// Runs until the [`SeenSender`] is dropped.
    pub(in crate::store::lmdb) fn run(mut self, guard: &PartGuard) {
        let _closing = CloseOnDrop::new(Arc::clone(&self.queue));
        let mut next = Instant::now();
        loop {
            guard.round();
            let TakenUpdates { seen, updates, queries, is_ahead, ended } =
                self.queue.take(next, self.scan.as_ref().map(RetentionScan::due));
            if is_ahead {
                self.answer_queries(queries);
                continue;
            }
            let batch = if ended { None } else { self.next_batch() };
            self.write_seen(seen, batch);
            // After the seen users: a user to forget may be among them.
            self.apply_updates(updates);
            self.answer_queries(queries);
            if ended {
                return;
            }
            next = Instant::now() + COMMIT_INTERVAL;
        }
    }

    fn answer_queries(&mut self, queries: Vec<UserQuery>) {
        for query in queries {
            match query {
                UserQuery::List(range, completion) => completion.answer(match self.env.environment() {
                    Some(environment) => {
                        user_query::list_users(environment, &self.policy, &range, self.queue.seen_in(&range))
                    }
                    None => Err(StoreFailure::Rejected(StoreError::Failed)),
                }),
                UserQuery::Find(users, completion) => completion.answer(match self.env.environment() {
                    Some(environment) => {
                        user_query::find_users(environment, &self.policy, &users, &self.queue.seen_at(&users))
                    }
                    None => Err(StoreFailure::Rejected(StoreError::Failed)),
                }),
                UserQuery::Health(completion) => completion.answer(Ok(self.health())),
                UserQuery::Usage(completion) => {
                    completion.answer(self.usage().ok_or(StoreFailure::Rejected(StoreError::Failed)));
                }
            }
        }
    }

    fn usage(&mut self) -> Option<UsersUsage> {
        let max_known_users = self.max_users;
        let environment = self.env.environment()?;
        let known_users = environment.entries().saturating_sub(self.policy.users_with_overrides());
        Some(UsersUsage { environment: environment.usage().ok()?, known_users, max_known_users })
    }

    fn health(&mut self) -> UsersHealth {
        let is_full = self.env.environment().map(|environment| is_nearly_full(environment, &environment.write()?));
        match is_full {
            Some(Ok(is_full)) => UsersHealth { is_closed: false, is_full },
            Some(Err(_)) => {
                self.env.check();
                UsersHealth { is_closed: true, is_full: false }
            }
            None => UsersHealth { is_closed: true, is_full: false },
        }
    }

    /// Makes the updates in one transaction, and answers them.
    fn apply_updates(&mut self, updates: Vec<UserUpdateRequest>) {
        if updates.is_empty() {
            return;
        }
        let result = match self.env.environment() {
            // An update in a directory that is lost would be gone at the next start.
            Some(environment) if !self.directory.is_lost() => write_updates(environment, &updates),
            Some(_) | None => Err(StoreFailure::Rejected(StoreError::Failed)),
        };
        if let Err(failure) = &result {
            log_event!(updates_not_written { updates: updates.len(), reason: display(failure) });
            self.env.check();
        }
        let answers = match result {
            Ok(before) => before.into_iter().map(Ok).collect(),
            Err(failure) => vec![Err(failure); updates.len()],
        };
        for ((user, update, completion), answer) in updates.into_iter().zip(answers) {
            if answer.is_ok() {
                self.policy.set_overrides(&user, update.overrides());
            }
            completion.answer(answer);
        }
    }

    /// The next batch of the retention scan, if it is due.
    pub(super) fn next_batch(&mut self) -> Option<RetentionBatch> {
        let scan = self.scan.as_mut().filter(|scan| scan.due() <= Instant::now())?;
        match scan.next_batch(self.env.environment()?, self.clock.now()) {
            Ok(batch) => Some(batch),
            Err(error) => {
                log_limited!(self.log, users_unreadable { error: display(error) });
                scan.batch_failed();
                self.env.check();
                None
            }
        }
    }

    /// Notes the users that were seen, and forgets the users that the scan found.
    pub(super) fn write_seen(&mut self, mut seen: BTreeMap<UserId, Timestamp>, mut batch: Option<RetentionBatch>) {
        let Some(environment) = self.env.environment() else { return };
        let known = environment.entries().saturating_sub(self.policy.users_with_overrides());
        let room = self.max_users.saturating_sub(known);
        if let Some(batch) = &mut batch {
            for user in batch.holding.drain(..) {
                seen.entry(user).or_insert(batch.now);
            }
            batch.forgettable.retain(|user| !seen.contains_key(user) && !self.queue.has(user));
        }
        let mut written = write(environment, &seen, room, batch.as_ref(), &self.log);
        let mut failed = written.is_err();
        if let Err(error) = &written {
            log_limited!(self.log, users_not_noted { users: seen.len(), error: display(error) });
            // Each by itself: forgetting frees room for the notes, but may also be what there was no room for.
            if batch.is_some() {
                written = write(environment, &BTreeMap::new(), room, batch.as_ref(), &self.log);
                let noted = write(environment, &seen, room, None, &self.log);
                failed = written.is_err() || noted.is_err();
            }
        }
        if let (Some(scan), Some(batch)) = (&mut self.scan, batch) {
            match written {
                Ok(forgotten) => scan.finish_batch(
                    batch,
                    forgotten,
                    environment.entries().saturating_sub(self.policy.users_with_overrides()),
                ),
                Err(_) => scan.batch_failed(),
            }
        }
        if failed {
            self.env.check();
        }
    }
}

/// Makes the updates in one transaction. Returns what was kept before each.
fn write_updates(environment: &Environment, updates: &[UserUpdateRequest]) -> Result<Vec<UserState>, StoreFailure> {
    let written = || -> Result<Result<Vec<UserState>, OverridesError>, Uncommitted> {
        let mut txn = environment.write()?;
        let mut before = Vec::new();
        let mut is_changed = false;
        for (user, update, _) in updates {
            let known = environment.records.get(&txn, user.as_str().as_bytes())?;
            let seen = known.map(user_query::seen_state).unwrap_or_default();
            let state = match overrides::get(environment, &txn, user)? {
                Ok(overrides) => UserState { overrides, seen },
                Err(error) => return Ok(Err(error)),
            };
            before.push(state);
            if update.changes(state) {
                is_changed = true;
                overrides::put(environment, &mut txn, user, update.overrides())?;
                if *update == UserUpdate::Forget {
                    environment.records.delete(&mut txn, user.as_str().as_bytes())?;
                }
            }
        }
        // What changes nothing need not wait for the disk.
        if is_changed {
            environment.commit(txn)?;
        }
        Ok(Ok(before))
    };
    let written = written().map_err(|failure| {
        let in_doubt = matches!(failure, Uncommitted::InDoubt(_));
        let error = heed::Error::from(failure);
        log_event!(users_not_written { error: display(&error) });
        let rejected = || StoreFailure::Rejected(store_error(&error, environment.directory()));
        if in_doubt { StoreFailure::InDoubt } else { rejected() }
    })?;
    written.map_err(|error| {
        log_event!(overrides_unreadable { error: display(&error) });
        StoreFailure::Rejected(StoreError::Failed)
    })
}

/// Notes these users and forgets those that the scan found, in one transaction, if there is anything to write. Of users who
/// are not known yet it notes as many as there is `room` for. Returns how many were forgotten.
fn write(
    environment: &Environment,
    seen: &BTreeMap<UserId, Timestamp>,
    mut room: usize,
    batch: Option<&RetentionBatch>,
    log: &LogRateLimiter,
) -> heed::Result<usize> {
    let mut txn = environment.write()?;
    let mut changed = false;
    let mut without_room = 0_usize;
    for (user, &at) in seen {
        let key = user.as_str().as_bytes();
        let known = match environment.records.get(&txn, key)?.map(KnownUser::decode).transpose() {
            Ok(known) => known,
            // A later version of this software may have written it, so it is not overwritten.
            Err(error) => {
                log_limited!(log, known_user_unreadable { user, error: display(error) });
                continue;
            }
        };
        let is_new = known.is_none();
        if is_new && (room == 0 || is_nearly_full(environment, &txn)?) {
            without_room += 1;
        } else if let Some(user) = KnownUser::touch(known, at) {
            environment.records.put(&mut txn, key, &user.encode())?;
            changed = true;
            room -= usize::from(is_new);
        }
    }
    if without_room > 0 {
        log_limited!(log, users_without_room { users: without_room });
    }
    let forgotten = batch.map_or(Ok(0), |batch| batch.delete(environment, &mut txn))?;
    if changed || forgotten > 0 {
        environment.commit(txn)?;
    }
    Ok(forgotten)
}

/// Whether only the reserve is left: for users who are known already, and for forgetting. LMDB copies a page to change it, so
/// even a delete needs room.
fn is_nearly_full(environment: &Environment, txn: &RwTxn<'_>) -> heed::Result<bool> {
    Ok(environment.used_pages(txn)? >= environment.map_pages() / 10 * 9)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod update_tests;
