//! What goes into a [`Bucket`](super::Bucket) and what comes out.

use alloc::vec::Vec;

use super::overrides::OverridesOutcome;
use super::own_session::CallId;
use crate::cluster::membership::FenceReason;
use crate::cluster::shared_store::{Answer, Request};
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{EndedSession, Outcome, SessionHint, StoreCommand, UserOverrides};

/// Names a request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happens to a [`Bucket`](super::Bucket).
#[derive(Debug)]
pub enum BucketEvent {
    /// Time has passed.
    Tick,
    /// A session, or the process, asks.
    Submit(CallId, StoreCommand),
    /// The operator replaces the overrides of a user. While the node may not admit sessions, that is rejected.
    SetOverrides(CallId, UserId, UserOverrides),
    /// The store answered.
    Answered(RequestId, Answer),
    /// There is another connection to the store, with a higher number. What was not answered on the one before never is.
    Reconnected(u64),
    /// A hint of the store came: the record of this user has changed.
    Hinted(UserId),
    /// A session of this user that has lost its slot is served no more.
    Closed(UserId, SessionId),
    /// The node has another id. New sessions have that one, and no session has had it before.
    Joins(NodeId),
    /// An operator declares another node dead. Nothing happens if this node does not see it alive, or has that id itself.
    ///
    /// The others free its slots at their next beats. If it still runs, its sessions end at its next beat, and until then its users
    /// may have more sessions than the limit.
    Bury(NodeId),
    /// The node stops. Before [`Bucket::is_idle`](super::Bucket::is_idle) this does nothing: others would take the node for gone.
    Leaves,
}

/// What a [`Bucket`](super::Bucket) wants.
#[derive(Debug, Default)]
#[must_use = "requests have to be sent, and commands answered"]
pub struct BucketActions {
    /// What to send to the shared store, in this order.
    pub requests: Vec<(RequestId, Request)>,
    /// Answers to commands, in this order.
    pub outcomes: Vec<(CallId, Outcome)>,
    /// What became of changes of overrides, in this order.
    pub overrides: Vec<(CallId, OverridesOutcome)>,
    /// Sessions of this node that have lost their slots, with their users.
    pub ended: Vec<(UserId, EndedSession)>,
    /// Sessions of any node that had lapsed, and that this node has removed from the store, with their users.
    pub lapsed: Vec<(UserId, SessionId)>,
    /// Sessions of any node that lingered, and whose slots this node has given to others, with their users. Nobody has to be told.
    pub displaced: Vec<(UserId, EndedSession)>,
    /// Hints for sessions of this node.
    pub hints: Vec<SessionHint>,
    /// All sessions of the bucket end, now.
    pub fenced: Option<FenceReason>,
    /// If they do: those that may have a client to cut.
    pub cut: Vec<SessionId>,
}
