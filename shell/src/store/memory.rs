//! A store in memory: for tests, and for servers that may forget their users when they stop.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session_core::ledger::{self, ApplyResult, EndedSession, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, Liveness, Outcome, SessionStatus, SlotLimit, StoreError, UserOverrides, UserRecord,
};
use session_core::{NodeId, Timestamp, UserId};

use super::api::{HealthFuture, Store, StoreFuture, UsageFuture, UserUpdate};
use super::completion::Completion;
use super::failure::StoreFailure;
use super::health::StoreHealth;
use super::notifier::{log_displaced, log_lapsed};
use super::pages::{Page, PageRequest, SessionPageBuilder, StoredSession, StoredUser, UserFilter};
use super::shared::NodeContext;
use super::usage::StoreUsage;
use super::user_slice::UserRange;
use super::user_state::{SeenState, SessionCounts, UserState};
use crate::runtime::process::Process;

/// Keeps the records of users who hold a slot, and the overrides that are set, until it is closed.
pub struct MemoryStore {
    context: NodeContext,
    /// `None` once the store is closed.
    records: Mutex<Option<Records>>,
}

#[derive(Default)]
struct Records {
    by_user: HashMap<UserId, UserRecord>,
    lost: LingeringQueue,
}

/// Users with lingering sessions, each once, and when to look at the user again. It finds the sessions of users who never
/// come back.
#[derive(Default)]
struct LingeringQueue {
    queue: VecDeque<(Timestamp, UserId)>,
    users: HashSet<UserId>,
}

impl LingeringQueue {
    fn push(&mut self, until: Timestamp, user: &UserId) {
        if self.users.insert(user.clone()) {
            self.queue.push_back((until, user.clone()));
        }
    }

    fn next(&mut self, now: Timestamp) -> Option<UserId> {
        self.queue.front().filter(|(until, _)| *until <= now)?;
        let (_, user) = self.queue.pop_front()?;
        self.users.remove(&user);
        Some(user)
    }
}

impl MemoryStore {
    /// An empty store for one node, where a user may hold `limit` slots.
    #[must_use]
    pub fn new(node: NodeId, limit: SlotLimit) -> Self {
        Self::with_policy(node, AdmissionPolicy::new(limit))
    }

    /// An empty store for one node, with this policy, and with a clock of its own.
    #[must_use]
    pub fn with_policy(node: NodeId, policy: AdmissionPolicy) -> Self {
        Self::in_process(node, policy, Process::start())
    }

    /// An empty store for one node, with this policy, in this process.
    #[must_use]
    pub fn in_process(node: NodeId, policy: AdmissionPolicy, process: Process) -> Self {
        Self { context: NodeContext::new(node, policy, process), records: Mutex::new(Some(Records::default())) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Records>> {
        // `ledger::apply` does not panic, so a poisoned map is still whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn liveness(&self, node: NodeId) -> Liveness {
        // No other node ever had this store.
        if node == self.context.node() { Liveness::Alive } else { Liveness::DeadSince(Timestamp::default()) }
    }

    /// Each page looks at every user, so it takes longer the more there are. Commands wait meanwhile.
    fn user_page(&self, filter: &UserFilter, request: &PageRequest) -> Result<Page<StoredUser>, StoreFailure> {
        let range = UserRange::new(filter, request)?;
        let now = self.context.clock().now();
        let records = self.lock();
        let records = records.as_ref().ok_or(CLOSED)?;
        let mut current = Vec::new();
        for (user, record) in records.holders(now, |user| range.contains(user), range.limit + 1) {
            let mut record = record.clone();
            ledger::remove_lapsed(&mut record, now, |node| self.liveness(node));
            current.push((user, record));
        }
        let holders = range.first_of(current.iter().map(|(user, record)| (*user, record)));
        let overrides = if filter.with_sessions {
            holders.map(|record| (Some(record), None::<UserOverrides>))
        } else {
            holders.merge(self.context.policy().overrides_in(&range))
        };
        Ok(overrides.into_page(range.limit, |user, (record, overrides)| {
            let state = UserState { overrides: overrides.unwrap_or_else(|| self.overrides(&user)), seen: seen(record) };
            StoredUser { user, state, sessions: record.map(SessionCounts::of_record).unwrap_or_default() }
        }))
    }

    fn overrides(&self, user: &UserId) -> UserOverrides {
        self.context.policy_for(user).overrides
    }

    /// What is kept of a user. `None` if the store is closed.
    fn state(&self, user: &UserId) -> Option<UserState> {
        let records = self.lock();
        let record = records.as_ref()?.by_user.get(user);
        Some(UserState { overrides: self.overrides(user), seen: seen(record) })
    }

    fn session_page(&self, user: Option<&UserId>, request: &PageRequest) -> Result<Page<StoredSession>, StoreFailure> {
        let (mut page, now) = (SessionPageBuilder::new(request)?, self.context.clock().now());
        let records = self.lock();
        let records = records.as_ref().ok_or(CLOSED)?;
        let holders = match user {
            Some(user) => records.by_user.get_key_value(user).into_iter().collect(),
            None => {
                let first = page.first_user().cloned();
                let is_wanted = |user: &UserId| first.as_ref().is_none_or(|first| user >= first);
                // Each has a session for this page, except perhaps the first. One more tells whether this page is the last.
                records.holders(now, is_wanted, request.limit() + 2)
            }
        };
        for (user, record) in holders {
            let mut record = record.clone();
            ledger::remove_lapsed(&mut record, now, |node| self.liveness(node));
            if !page.add(user, &record) {
                return Ok(page.finish_full());
            }
        }
        Ok(page.finish())
    }

    fn apply(&self, command: &StoreCommand) -> Outcome {
        let mut records = self.lock();
        let Some(records) = &mut *records else { return Outcome::Rejected(StoreError::Failed) };
        let policy = self.context.policy_for(command.user());
        let liveness = |node| self.liveness(node);
        let Records { by_user, lost } = records;
        let ApplyResult { outcome, ended, lapsed, displaced, hints } = match by_user.entry(command.user().clone()) {
            Entry::Occupied(mut entry) => {
                let result = ledger::apply(command.user(), entry.get_mut(), command, &policy, liveness);
                if entry.get().is_empty() {
                    entry.remove();
                }
                result
            }
            Entry::Vacant(entry) => {
                let mut record = UserRecord::default();
                let result = ledger::apply(entry.key(), &mut record, command, &policy, liveness);
                if !record.is_empty() {
                    entry.insert(record);
                }
                result
            }
        };
        // Under the lock: otherwise a later command of this user could be answered first.
        self.context.notify(command.user(), ended);
        self.context.hint(hints);
        lapsed.into_iter().for_each(|session| log_lapsed(command.user(), session));
        for EndedSession { session, reason } in displaced {
            log_displaced(command.user(), session, &reason);
        }
        if let StoreCommand::Linger { user, at, .. } = command
            && let Some(until) = by_user.get(user).and_then(|record| lingers_until(record, *at))
        {
            lost.push(until, user);
        }
        if let Some(now) = command.at() {
            for _ in 0..SWEEP_STEPS {
                let Some(user) = lost.next(now) else { break };
                let Entry::Occupied(mut entry) = by_user.entry(user) else { continue };
                let lapsed = ledger::remove_lapsed(entry.get_mut(), now, liveness);
                lapsed.into_iter().for_each(|session| log_lapsed(entry.key(), session));
                if let Some(until) = lingers_until(entry.get(), now) {
                    lost.push(until, entry.key());
                } else if entry.get().is_empty() {
                    entry.remove();
                }
            }
        }
        outcome
    }
}

impl Records {
    /// The first of the users who hold a slot now, in the order of their ids.
    fn holders(
        &self,
        now: Timestamp,
        is_wanted: impl Fn(&UserId) -> bool,
        limit: usize,
    ) -> Vec<(&UserId, &UserRecord)> {
        let holds_slot = |status: SessionStatus| status.lingers_until().is_none_or(|until| now < until);
        let holds = |record: &UserRecord| record.sessions().iter().any(|session| holds_slot(session.status));
        let holders = self.by_user.iter().filter(|(user, record)| is_wanted(user) && holds(record));
        let mut holders: Vec<_> = holders.collect();
        if holders.len() > limit {
            holders.select_nth_unstable_by_key(limit, |&(user, _)| user);
            holders.truncate(limit);
        }
        holders.sort_unstable_by_key(|&(user, _)| user);
        holders
    }
}

/// When the user was granted the slots that are held. This store keeps no more.
fn seen(record: Option<&UserRecord>) -> SeenState {
    SeenState::Never.with_grants(record.iter().flat_map(|record| record.sessions()).map(|session| session.since))
}

/// The answer of a store that is closed.
const CLOSED: StoreFailure = StoreFailure::Rejected(StoreError::Failed);

/// How many users of the queue each command looks at. More than one, so that the queue shrinks faster than it grows.
const SWEEP_STEPS: usize = 2;

/// When the last of the sessions that linger after this time has lapsed. `None` if none lingers.
fn lingers_until(record: &UserRecord, now: Timestamp) -> Option<Timestamp> {
    let ends = record.sessions().iter().filter_map(|session| session.status.lingers_until());
    ends.filter(|&until| until > now).max()
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("node", &self.context.node()).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn context(&self) -> &NodeContext {
        &self.context
    }

    fn submit(&self, command: StoreCommand, mut completion: Completion<Outcome>) {
        if completion.claim() {
            completion.answer(self.apply(&command));
        }
    }

    fn update_user(&self, user: UserId, update: UserUpdate, completion: Completion<Result<UserState, StoreFailure>>) {
        let before = {
            let records = self.lock();
            records.as_ref().map(|records| {
                let seen = seen(records.by_user.get(&user));
                UserState { overrides: self.context.policy().set_overrides(&user, update.overrides()), seen }
            })
        };
        completion.answer(before.ok_or(CLOSED));
    }

    fn find_user(&self, user: UserId) -> StoreFuture<'_, UserState> {
        Box::pin(ready(self.state(&user).ok_or(CLOSED)))
    }

    fn list_users(&self, filter: UserFilter, page: PageRequest) -> StoreFuture<'_, Page<StoredUser>> {
        Box::pin(ready(self.user_page(&filter, &page)))
    }

    fn list_sessions(&self, user: Option<UserId>, page: PageRequest) -> StoreFuture<'_, Page<StoredSession>> {
        Box::pin(ready(self.session_page(user.as_ref(), &page)))
    }

    fn usage(&self) -> UsageFuture<'_> {
        let now = self.context.clock().now();
        let known = self.lock().as_ref().map(|records| records.holders(now, |_| true, usize::MAX).len());
        let users_with_overrides = Some(self.context.policy().users_with_overrides());
        Box::pin(ready(StoreUsage { known_users: known, users_with_overrides, ..StoreUsage::default() }))
    }

    fn health(&self) -> HealthFuture<'_> {
        let health = if self.lock().is_some() {
            StoreHealth::Ready
        } else {
            StoreHealth::Unavailable { refusal: StoreError::Failed, problem: "the store is closed".into() }
        };
        Box::pin(ready(health))
    }

    fn close(&self, _timeout: Duration) -> StoreFuture<'_, ()> {
        *self.lock() = None;
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use session_core::ledger::{AcquireOptions, KnownToken};
    use session_core::{ResumeKey, SessionId};

    use super::*;

    const NODE: NodeId = NodeId::new(1);
    const LINGER: Duration = Duration::from_secs(10);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(second))
    }

    fn user(number: u64) -> UserId {
        UserId::parse(&format!("user {number}")).unwrap()
    }

    fn lose(store: &MemoryStore, number: u64, second: u64) {
        let (user, session): (_, SessionId) = (user(number), NODE.session(number));
        let options = Some(Box::new(AcquireOptions {
            new_resume_key: Some(ResumeKey::from_bytes([7; 32])),
            ..AcquireOptions::default()
        }));
        let acquire = StoreCommand::Acquire { user: user.clone(), session, limit: None, at: at(second), options };
        assert!(matches!(store.apply(&acquire), Outcome::Granted { .. }));
        assert_eq!(
            store.apply(&StoreCommand::Linger { user, session, at: at(second), token: KnownToken::Granted }),
            Outcome::Released
        );
    }

    fn kept(store: &MemoryStore) -> (usize, usize, usize) {
        let records = store.records.lock().unwrap();
        let Records { by_user, lost } = records.as_ref().unwrap();
        (by_user.len(), lost.queue.len(), lost.users.len())
    }

    #[test]
    fn lapsed_sessions_of_absent_users_are_removed() {
        let policy = AdmissionPolicy { linger: LINGER, ..AdmissionPolicy::new(SlotLimit::default()) };
        let store = MemoryStore::with_policy(NODE, policy);
        for second in 0..100 {
            lose(&store, second, second);
            let lingering = usize::try_from(second.min(9) + 1).unwrap();
            assert_eq!(kept(&store), (lingering, lingering, lingering), "in second {second}");
        }
        let lookup = |second| {
            drop(store.apply(&StoreCommand::CountSlots { user: user(0), session: NODE.session(0), at: at(second) }))
        };
        (0..10).for_each(|_| lookup(200));
        assert_eq!(kept(&store), (0, 0, 0));
        for second in 300..400 {
            lose(&store, 7, second);
            drop(store.apply(&StoreCommand::Release { user: user(7), session: NODE.session(7) }));
        }
        assert_eq!(kept(&store).2, 1, "a user waits once");
    }
}
