//! What a command is applied with, beside its user's record.

use session_core::ledger::Liveness;
use session_core::{NodeId, Timestamp};

use crate::store::shared::SharedPolicy;

/// What decides beside the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApplyContext<'a> {
    pub(super) node: NodeId,
    /// When this node's process began, which is since when it knows that the others are dead: it has their directory.
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
