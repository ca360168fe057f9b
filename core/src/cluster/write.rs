//! Turns a decision into a request to write.

use alloc::vec::Vec;

use super::shared_store::{GenerationId, Stamp, WriteRequest};
use super::user_state::Decision;
use crate::id::{NodeId, UserId};

/// A stamp that no other write has: 64 bits that are spread over all values for each node, and never come twice for one.
pub(super) fn stamp(node: NodeId, number: u64) -> Stamp {
    // A bijection of the number (SplitMix64, Steele, Lea and Flood 2014) that the node's random id shifts.
    let mut bits = node.bits().wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Stamp(bits ^ (bits >> 31))
}

/// The request that makes this change.
pub(super) fn write(
    user: &UserId,
    generation: GenerationId,
    (node, epoch): (NodeId, u64),
    stamp: Stamp,
    decision: &Decision,
    is_own: &dyn Fn(NodeId) -> bool,
) -> WriteRequest {
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
        record: (!record.is_empty()).then(|| (stamp, record.clone())),
        ended: leaving.iter().copied().filter(|session| !is_own(session.node())).collect(),
        closed: closed.clone(),
        tell,
        hints: hints.iter().copied().filter(|hint| !is_own(hint.session.node())).collect(),
    }
}
