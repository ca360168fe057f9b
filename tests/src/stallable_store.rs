//! A memory store that a test can stall.

use std::collections::VecDeque;
use std::future::ready;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session_core::UserId;
use session_core::ledger::{Outcome, SlotLimit, StoreCommand, StoreError};
use shell::store::{
    Completion, HealthFuture, MemoryStore, NodeContext, Page, PageRequest, Store, StoreFailure, StoreFuture,
    StoredSession, StoredUser, UsageFuture, UserFilter, UserState, UserUpdate,
};

use crate::test_server::NODE;

/// A [`MemoryStore`] of [`NODE`]. While it is stalled, commands and updates wait until the test lets them go on.
pub struct StallableStore {
    inner: MemoryStore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_stalled: bool,
    /// Why every command is rejected, if it is. Updates are not.
    rejection: Option<StoreError>,
    /// Whether it cannot say what it keeps of users.
    has_lost_users: bool,
    waiting: VecDeque<Waiting>,
}

enum Waiting {
    Command {
        command: StoreCommand,
        completion: Completion<Outcome>,
        /// The store has begun to apply it.
        has_begun: bool,
    },
    Update(UserId, UserUpdate, Completion<Result<UserState, StoreFailure>>),
}

impl StallableStore {
    /// A store that works, with this limit.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        let limit = SlotLimit::new(limit).expect("a limit that a test names is below the ceiling");
        Arc::new(Self { inner: MemoryStore::new(NODE, limit), state: Mutex::default() })
    }

    /// The same, stalled from the start.
    #[must_use]
    pub fn stalled(limit: u32) -> Arc<Self> {
        let store = Self::new(limit);
        store.stall();
        store
    }

    /// Lets everything wait from now on.
    pub fn stall(&self) {
        self.lock().is_stalled = true;
    }

    /// Rejects every command from now on.
    pub fn reject_commands(&self, error: StoreError) {
        self.lock().rejection = Some(error);
    }

    /// Cannot say from now on what it keeps of users.
    pub fn lose_users(&self) {
        self.lock().has_lost_users = true;
    }

    /// How many commands and updates wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The commands that wait, the oldest first.
    pub fn waiting_commands(&self) -> Vec<StoreCommand> {
        let state = self.lock();
        let commands = state.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Command { command, .. } => Some(command.clone()),
            Waiting::Update(..) => None,
        });
        commands.collect()
    }

    /// Begins to apply the commands that wait. From now on their callers cannot withdraw them.
    pub fn begin(&self) {
        self.lock().waiting.retain_mut(|waiting| match waiting {
            Waiting::Command { completion, has_begun, .. } => {
                *has_begun = *has_begun || completion.claim();
                *has_begun
            }
            Waiting::Update(..) => true,
        });
    }

    /// Carries out what has waited longest, if anything waits.
    pub fn step(&self) {
        let first = self.lock().waiting.pop_front();
        if let Some(first) = first {
            self.carry_out(first);
        }
    }

    /// Carries out the update that has waited longest, before the commands that wait.
    ///
    /// # Panics
    /// If no update waits.
    pub fn step_update(&self) {
        let update = {
            let mut state = self.lock();
            let at = state.waiting.iter().position(|waiting| matches!(waiting, Waiting::Update(..)));
            state.waiting.remove(at.expect("an update waits")).expect("it is in the queue")
        };
        self.carry_out(update);
    }

    /// Carries out everything that waits, in order, and stalls no more.
    pub fn recover(&self) {
        // Under the lock: a command that comes meanwhile must not overtake them.
        let mut state = self.lock();
        state.is_stalled = false;
        for waiting in mem::take(&mut state.waiting) {
            self.carry_out(waiting);
        }
    }

    fn carry_out(&self, waiting: Waiting) {
        match waiting {
            Waiting::Command { command, completion, has_begun: false } => self.inner.submit(command, completion),
            Waiting::Command { command, completion, has_begun: true } => {
                self.inner.submit(command, Completion::new(|outcome| completion.answer(outcome)));
            }
            Waiting::Update(user, update, completion) => self.inner.update_user(user, update, completion),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for StallableStore {
    fn context(&self) -> &NodeContext {
        self.inner.context()
    }

    fn submit(&self, command: StoreCommand, completion: Completion<Outcome>) {
        let mut state = self.lock();
        if let Some(error) = state.rejection {
            drop(state);
            completion.answer(Outcome::Rejected(error));
        } else if state.is_stalled {
            state.waiting.push_back(Waiting::Command { command, completion, has_begun: false });
        } else {
            drop(state);
            self.inner.submit(command, completion);
        }
    }

    fn update_user(&self, user: UserId, update: UserUpdate, completion: Completion<Result<UserState, StoreFailure>>) {
        let mut state = self.lock();
        if state.is_stalled {
            state.waiting.push_back(Waiting::Update(user, update, completion));
        } else {
            drop(state);
            self.inner.update_user(user, update, completion);
        }
    }

    fn find_user(&self, user: UserId) -> StoreFuture<'_, UserState> {
        if self.lock().has_lost_users {
            return Box::pin(ready(Err(StoreFailure::Rejected(StoreError::Failed))));
        }
        self.inner.find_user(user)
    }

    fn list_users(&self, filter: UserFilter, page: PageRequest) -> StoreFuture<'_, Page<StoredUser>> {
        self.inner.list_users(filter, page)
    }

    fn list_sessions(&self, user: Option<UserId>, page: PageRequest) -> StoreFuture<'_, Page<StoredSession>> {
        self.inner.list_sessions(user, page)
    }

    fn usage(&self) -> UsageFuture<'_> {
        self.inner.usage()
    }

    fn health(&self) -> HealthFuture<'_> {
        self.inner.health()
    }

    fn close(&self, timeout: Duration) -> StoreFuture<'_, ()> {
        self.inner.close(timeout)
    }
}
