//! The shared store, as the server of one node sees it.

use std::sync::Arc;
use std::time::Duration;

use session_core::UserId;
use session_core::ledger::{Outcome, StoreCommand, StoreError};
use shell::store::{
    Completion, HealthFuture, NodeContext, Page, PageRequest, Store, StoreFailure, StoreFuture, StoredSession,
    StoredUser, UsageFuture, UserFilter, UserState, UserUpdate,
};

use super::{Queued, SharedStore};

/// The shared store, as one node sees it.
pub(in crate::simulation) struct NodeStore {
    pub(super) shared: Arc<SharedStore>,
    pub(super) context: NodeContext,
}

impl Store for NodeStore {
    fn context(&self) -> &NodeContext {
        &self.context
    }

    fn submit(&self, command: StoreCommand, completion: Completion<Outcome>) {
        let mut inner = self.shared.lock();
        if !inner.alive.contains(&command.session().node()) {
            // A dead process submits nothing; only what it leaves behind is taken apart.
            drop(inner);
            drop(completion);
            return;
        }
        let refused = match () {
            () if command.is_release() => None,
            () if inner.full && matches!(command, StoreCommand::Acquire { .. }) => Some(StoreError::Full),
            () if inner.queue.len() >= SharedStore::MAX_QUEUE => Some(StoreError::Overloaded),
            () => None,
        };
        match refused {
            None => inner.queue.push_back(Queued { command, completion: Some(completion), has_begun: false }),
            Some(error) => {
                drop(inner);
                completion.answer(Outcome::Rejected(error));
            }
        }
    }

    fn update_user(&self, _: UserId, _: UserUpdate, _: Completion<Result<UserState, StoreFailure>>) {
        unreachable!("the simulation has no operator");
    }

    fn find_user(&self, _: UserId) -> StoreFuture<'_, UserState> {
        unreachable!("the simulation has no operator");
    }

    fn list_users(&self, _: UserFilter, _: PageRequest) -> StoreFuture<'_, Page<StoredUser>> {
        unreachable!("the simulation has no operator");
    }

    fn list_sessions(&self, _: Option<UserId>, _: PageRequest) -> StoreFuture<'_, Page<StoredSession>> {
        unreachable!("the simulation has no operator");
    }

    fn usage(&self) -> UsageFuture<'_> {
        unreachable!("the simulation has no operator");
    }

    fn health(&self) -> HealthFuture<'_> {
        unreachable!("the simulation has no operator");
    }

    fn close(&self, _timeout: Duration) -> StoreFuture<'_, ()> {
        unreachable!("simulated servers are killed");
    }
}
