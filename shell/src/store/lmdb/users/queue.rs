//! The queue of the thread that owns `users/`: users to note as seen, updates, and queries.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use session_core::ledger::StoreError;
use session_core::{Timestamp, UserId};

use super::user_query::UserQuery;
use crate::runtime::events::log_limited;
use crate::runtime::events::rate_limiter::LogRateLimiter;
use crate::store::api::UserUpdate;
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::user_slice::{UserRange, UserSlice};
use crate::store::user_state::UserState;

/// Answers an update with what was kept before.
pub(in crate::store::lmdb) type UpdateCompletion = Completion<Result<UserState, StoreFailure>>;

/// An update of a user, and its completion.
pub(super) type UserUpdateRequest = (UserId, UserUpdate, UpdateCompletion);

/// How many users may wait to be noted. The next one is dropped, and noted at the user's next session.
pub(super) const MAX_PENDING: usize = 64 * 1024;

/// How many queries may wait. Only operators ask them.
const MAX_QUERIES: usize = 64;

/// Sends users to note as seen. When it is dropped, the user writer notes what is pending, and ends.
#[derive(Debug)]
pub(in crate::store::lmdb) struct SeenSender {
    pub(super) queue: Arc<UserQueue>,
    pub(super) dropped: u64,
    log: LogRateLimiter,
}

/// What is pending between the senders and the user writer. Only the first seen user of a batch wakes the thread: a wake-up
/// for each costs more than all the other work for it.
#[derive(Debug, Default)]
pub(super) struct UserQueue {
    pending: Mutex<Pending>,
    /// Notified of the first seen user, of every update and query, and of the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The users that were seen, with the earliest time.
    pub(super) seen: HashMap<UserId, Timestamp>,
    /// Updates, in their order.
    updates: Vec<UserUpdateRequest>,
    queries: Vec<UserQuery>,
    ended: bool,
    /// The user writer is gone.
    closed: bool,
}

/// What the user writer takes out of the queue.
#[derive(Debug, Default)]
pub(super) struct TakenUpdates {
    pub(super) seen: BTreeMap<UserId, Timestamp>,
    pub(super) updates: Vec<UserUpdateRequest>,
    pub(super) queries: Vec<UserQuery>,
    /// Whether only queries were taken, because it is not time for the rest.
    pub(super) is_ahead: bool,
    /// Whether nothing will follow.
    pub(super) ended: bool,
}

/// Submits updates and queries.
#[derive(Debug, Clone)]
pub(in crate::store::lmdb) struct UpdateSender(Arc<UserQueue>);

impl UpdateSender {
    pub(super) fn new(queue: Arc<UserQueue>) -> Self {
        Self(queue)
    }

    pub(in crate::store::lmdb) fn submit(&self, user: UserId, update: UserUpdate, completion: UpdateCompletion) {
        let mut pending = self.0.lock();
        if pending.closed {
            drop(pending);
            return completion.answer(Err(StoreFailure::Rejected(StoreError::Failed)));
        }
        pending.updates.push((user, update, completion));
        drop(pending);
        self.0.changed.notify_one();
    }
}

impl UpdateSender {
    /// Submits a query, or rejects it at once.
    pub(in crate::store::lmdb) fn ask(&self, query: UserQuery) {
        let mut pending = self.0.lock();
        let error = if pending.closed {
            StoreError::Failed
        } else if pending.queries.len() >= MAX_QUERIES {
            StoreError::Overloaded
        } else {
            pending.queries.push(query);
            drop(pending);
            self.0.changed.notify_one();
            return;
        };
        drop(pending);
        query.reject(error);
    }
}

/// Rejects everything pending, and everything later, if the user writer ends or panics.
pub(super) struct CloseOnDrop(Arc<UserQueue>);

impl CloseOnDrop {
    pub(super) fn new(queue: Arc<UserQueue>) -> Self {
        Self(queue)
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut pending = self.0.lock();
        pending.closed = true;
        let (left, queries) = (mem::take(&mut pending.updates), mem::take(&mut pending.queries));
        drop(pending);
        queries.into_iter().for_each(|query| query.reject(StoreError::Failed));
        for (_, _, completion) in left {
            completion.answer(Err(StoreFailure::Rejected(StoreError::Failed)));
        }
    }
}

impl UserQueue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every change is a single operation of the map, so a poisoned one is still whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first users of a range that are pending as seen.
    pub(super) fn seen_in(&self, range: &UserRange) -> UserSlice<Timestamp> {
        range.first_of(self.lock().seen.iter().map(|(user, at)| (user, *at)))
    }

    /// When each of these users was seen, if that is pending.
    pub(super) fn seen_at(&self, users: &[UserId]) -> Vec<Option<Timestamp>> {
        let pending = self.lock();
        users.iter().map(|user| pending.seen.get(user).copied()).collect()
    }

    /// Whether this user is pending as seen.
    pub(super) fn has(&self, user: &UserId) -> bool {
        self.lock().seen.contains_key(user)
    }

    /// Takes everything, once it is `until` and there are seen users or the scan is `due`. At once if there are updates, whose
    /// callers wait, or at the end. Queries come ahead of the rest if it is not time for that.
    ///
    /// Seen users are sorted, so that neighbours in the tree are written together.
    pub(super) fn take(&self, until: Instant, due: Option<Instant>) -> TakenUpdates {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let pending = self.lock();
        let is_urgent = |pending: &Pending| pending.ended || !pending.updates.is_empty() || !pending.queries.is_empty();
        let idle = |pending: &mut Pending| pending.seen.is_empty() && !is_urgent(pending);
        let pending = match due {
            None => self.changed.wait_while(pending, idle).unwrap_or_else(PoisonError::into_inner),
            Some(due) => {
                self.changed.wait_timeout_while(pending, left(due), idle).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let mut pending = self
            .changed
            .wait_timeout_while(pending, left(until), |pending| !is_urgent(pending))
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let queries = mem::take(&mut pending.queries);
        let has_come = |time: Instant| time <= Instant::now();
        let is_time = has_come(until) && (!pending.seen.is_empty() || due.is_some_and(has_come));
        // A query must not commit the rest early: a list of many pages would sync the disk for each page.
        if !queries.is_empty() && pending.updates.is_empty() && !pending.ended && !is_time {
            return TakenUpdates { queries, is_ahead: true, ..TakenUpdates::default() };
        }
        let (seen, updates, ended) = (mem::take(&mut pending.seen), mem::take(&mut pending.updates), pending.ended);
        drop(pending);
        TakenUpdates { seen: seen.into_iter().collect(), updates, queries, is_ahead: false, ended }
    }
}

impl SeenSender {
    pub(super) fn new(queue: Arc<UserQueue>) -> Self {
        Self { queue, dropped: 0, log: LogRateLimiter::default() }
    }

    /// Sends these users, as many as there is room for. The earliest time of a user counts: a later one, by seconds, is not
    /// worth a write.
    pub(in crate::store::lmdb) fn send(&mut self, users: impl IntoIterator<Item = (UserId, Timestamp)>) {
        let mut pending = self.queue.lock();
        let was_empty = pending.seen.is_empty();
        let before = self.dropped;
        for (user, at) in users {
            if pending.seen.len() < MAX_PENDING {
                pending.seen.entry(user).or_insert(at);
            } else if !pending.seen.contains_key(&user) {
                self.dropped += 1;
            }
        }
        let is_news = was_empty && !pending.seen.is_empty();
        drop(pending);
        if is_news {
            self.queue.changed.notify_one();
        }
        if self.dropped > before {
            log_limited!(self.log, users_not_queued { dropped: self.dropped });
        }
    }
}

impl Drop for SeenSender {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.changed.notify_one();
    }
}
