//! Turns a decision into a request to write.

use alloc::vec::Vec;

use super::user_state::Decision;
use crate::cluster::shared_store::{GenerationId, OverridesVersion, Stamp, WriteRequest};
use crate::cluster::spread::spread;
use crate::id::{NodeId, UserId};

/// A stamp that no other write has: 64 bits that are spread over all values for each node, and never come twice for one.
pub(super) const fn stamp(node: NodeId, number: u64) -> Stamp {
    // A bijection of the number that the node's random id shifts.
    Stamp(spread(node.bits().wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
}

/// What a request to write has beside the change.
#[derive(Clone, Copy)]
pub(super) struct WriteContext<'a> {
    pub user: &'a UserId,
    pub generation: GenerationId,
    pub node: NodeId,
    pub epoch: u64,
    pub stamp: Stamp,
    /// The version of the overrides when the change was decided.
    pub overrides: Option<OverridesVersion>,
}

/// The request that makes this change.
pub(super) fn write(context: WriteContext<'_>, decision: &Decision, is_own: &dyn Fn(NodeId) -> bool) -> WriteRequest {
    let WriteContext { user, generation, node, epoch, stamp, overrides } = context;
    let Decision { expected, record, leaving, closed, has_left, hints, .. } = decision;
    let others = |node: &NodeId| !is_own(*node);
    let mut tell: Vec<_> = if *has_left {
        // Sessions that wait for those who have left.
        record.sessions().iter().map(|entry| entry.session.node()).filter(others).collect()
    } else {
        Vec::new()
    };
    tell.sort_unstable();
    tell.dedup();
    WriteRequest {
        user: user.clone(),
        generation,
        node,
        epoch,
        expected: *expected,
        overrides: overrides.filter(|_| decision.depends_on_policy()),
        record: (!record.is_empty()).then(|| (stamp, record.clone())),
        ended: leaving.iter().copied().filter(|session| !is_own(session.node())).collect(),
        closed: closed.clone(),
        tell,
        hints: hints.iter().copied().filter(|hint| !is_own(hint.session.node())).collect(),
    }
}
