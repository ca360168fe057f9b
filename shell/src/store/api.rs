//! What the rest of the process asks of a store.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use session_core::ledger::{AdmissionPolicy, Liveness, Outcome, StoreCommand, UserOverrides};
use session_core::{NodeId, SessionId, UserId};

use super::completion::Completion;
use super::failure::StoreFailure;
use super::health::StoreHealth;
use super::nodes::{Burial, NodeList, SharedSettings};
use super::notifier::SessionNotifier;
use super::pages::{Page, PageRequest, StoredSession, StoredUser, UserFilter};
use super::shared::NodeContext;
use super::usage::StoreUsage;
use super::user_state::UserState;

/// What a store answers to a question. Dropping the future gives up the question, which costs the store nothing.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreFailure>>;

/// What a store says of its health. It cannot fail: a store that does not work says so.
pub type HealthFuture<'a> = BoxFuture<'a, StoreHealth>;

/// What a store says of what it holds. It cannot fail.
pub type UsageFuture<'a> = BoxFuture<'a, StoreUsage>;

/// Keeps the users' records and applies [`session_core::ledger::apply`] to them, atomically for each user. The contract
/// stands in [`session_core::ledger`].
///
/// A store may be in this process, on its disk, or on a network. So every call that reads or changes shared data is
/// asynchronous, and may fail or time out:
///
/// - *Changes* ([`Store::submit`], [`Store::update_user`]) take a [`Completion`], which says when they are settled. `submit`
///   is the hot path: one box a command. Once the store has begun to apply a change it carries it out, even if the caller
///   stops waiting. A command whose caller stopped waiting before is withdrawn ([`Completion::claim`]).
/// - *Questions* return a [`StoreFuture`]. The caller sets the time limit and drops the future when it has passed.
///
/// The store knows which nodes are alive. The caller never decides that: it names itself by [`Store::node`].
pub trait Store: Send + Sync {
    /// What this store knows of the process that opened it.
    fn context(&self) -> &NodeContext;

    /// Submits a session's command. It never waits for a network, nor until another thread has applied its commands.
    ///
    /// A store in this process may apply the command on this thread, and what others queue meanwhile. Then a disk that stalls
    /// holds this thread up, but at most one thread at a time. The completion may be answered before this returns. Commands of one session are applied in the order of these
    /// calls, or not at all.
    ///
    /// Just before the store begins to apply a command it calls [`Completion::claim`]. If that is false, the caller has
    /// withdrawn the command: it is certainly not applied, ends no session, and needs no answer. A store that several
    /// processes share claims where the command leaves this process for good.
    fn submit(&self, command: StoreCommand, completion: Completion<Outcome>);

    /// Changes what is kept of a user beside slots. It is in force, for every later command and after a restart of a
    /// store that outlives its process, once the completion has answered `Ok`.
    ///
    /// The answer is what was kept before. The store reads it in the same step as it makes the change: nothing else changes
    /// it in between.
    fn update_user(&self, user: UserId, update: UserUpdate, completion: Completion<Result<UserState, StoreFailure>>);

    /// What is kept of a user beside slots. Of a user whose first grant is some seconds old this may be nothing yet.
    fn find_user(&self, user: UserId) -> StoreFuture<'_, UserState>;

    /// One page of the users that the store knows. Each page looks at a bounded number of users. It has everybody who holds
    /// a slot. A user who was granted the first slot some seconds ago, and has given it up again, may be missing.
    fn list_users(&self, filter: UserFilter, page: PageRequest) -> StoreFuture<'_, Page<StoredUser>>;

    /// One page of the sessions that hold a slot now: those of one user, or of all.
    fn list_sessions(&self, user: Option<UserId>, page: PageRequest) -> StoreFuture<'_, Page<StoredSession>>;

    /// How much the store holds. It answers soon, also if the store does not work: then it leaves out what it cannot say.
    fn usage(&self) -> UsageFuture<'_>;

    /// How the store is doing. It answers soon, also if the store does not work: that is what it says then.
    fn health(&self) -> HealthFuture<'_>;

    /// Takes no more commands (they are rejected), applies those submitted, answers them, and closes.
    ///
    /// The store begins to close when this is called. The future waits for the end, at most for `timeout`, and then fails
    /// with [`StoreFailure::TimedOut`]. Calling it again waits again.
    fn close(&self, timeout: Duration) -> StoreFuture<'_, ()>;

    /// Whether other processes serve sessions of the same users from this store. Then a session's slot is given up only once its
    /// client is served no more.
    fn is_shared(&self) -> bool {
        false
    }

    /// The client of this session is about to be told that it is in. False if it must not be: then the session has lost its slot,
    /// and has to be released.
    #[must_use = "if it is false, the client must not be told"]
    fn tell(&self, _user: &UserId, _session: SessionId) -> bool {
        true
    }

    /// Whether this process may serve the sessions of this user now. Otherwise nothing more must be sent to their clients.
    fn may_serve(&self, _user: &UserId) -> bool {
        true
    }

    /// The client of a session that has lost its slot is served no more.
    fn closed(&self, _user: &UserId, _session: SessionId) {}

    /// This process, as the store's records name it: the node of every session that it serves.
    fn node(&self) -> NodeId {
        self.context().node()
    }

    /// Sets whom to notify of sessions that lost their slots. Once, before the first command.
    fn set_notifier(&self, notifier: Arc<dyn SessionNotifier>) {
        self.context().set_notifier(notifier);
    }

    /// Sets this process's policy. It holds for every command that is submitted after this returns, and may hold for
    /// those that wait. Its `overrides` are ignored.
    fn set_policy(&self, policy: AdmissionPolicy) {
        self.context().set_policy(policy);
    }

    /// The policy in force for a user, with the user's overrides.
    fn policy_for<'a>(&'a self, user: &'a UserId) -> StoreFuture<'a, AdmissionPolicy> {
        Box::pin(ready(Ok(self.context().policy_for(user))))
    }

    /// The nodes that share this store, with their liveness. A node that is not listed is dead: its sessions hold no slots
    /// except those that linger.
    ///
    /// By default that is this node alone, for a store that no other process can open.
    fn nodes(&self) -> StoreFuture<'_, Vec<NodeStatus>> {
        Box::pin(ready(Ok(vec![NodeStatus { node: self.node(), liveness: Liveness::Alive }])))
    }

    /// Tells the servers that share this store which settings this one has. At the start, and after each reload.
    fn share_settings(&self, _settings: SharedSettings) {}

    /// The nodes that share this store, for operators. `None` if no other server can.
    fn list_nodes(&self) -> StoreFuture<'_, Option<NodeList>> {
        Box::pin(ready(Ok(None)))
    }

    /// Declares another node dead at once, because an operator knows that it is. It waits for that for as long as a call may take.
    fn bury(&self, _node: NodeId) -> StoreFuture<'_, Burial> {
        Box::pin(ready(Ok(Burial::NotShared)))
    }
}

/// A change of what is kept of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserUpdate {
    /// Replaces the user's overrides.
    Set(UserOverrides),
    /// Forgets the user: the overrides, and when the user was seen. Slots stay.
    Forget,
}

impl UserUpdate {
    /// The user's overrides after this change.
    #[must_use]
    pub fn overrides(self) -> UserOverrides {
        match self {
            Self::Set(overrides) => overrides,
            Self::Forget => UserOverrides::default(),
        }
    }

    /// Whether this changes anything of what was kept.
    #[must_use]
    pub fn changes(self, before: UserState) -> bool {
        match self {
            Self::Set(overrides) => overrides != before.overrides,
            Self::Forget => !before.is_empty(),
        }
    }
}

/// A node that shares the store, and whether it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStatus {
    /// Which node.
    pub node: NodeId,
    /// Whether it still serves its sessions.
    pub liveness: Liveness,
}
