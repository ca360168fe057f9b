//! What decides about a command, beside its user's record.

use session_core::ledger::Liveness;
use session_core::{NodeId, Timestamp};

use crate::store::shared::SharedPolicy;

/// The node, the times and the policy that a batch is applied with.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApplyContext<'a> {
    pub(super) node: NodeId,
    /// When this process opened the directory. From then on it knows that all other nodes are dead: it has their lock.
    pub(super) started_at: Timestamp,
    /// When this batch is applied.
    pub(super) now: Timestamp,
    pub(super) policy: &'a SharedPolicy,
}

impl ApplyContext<'_> {
    pub(super) fn liveness(&self, node: NodeId) -> Liveness {
        if node == self.node { Liveness::Alive } else { Liveness::DeadSince(self.started_at) }
    }
}
