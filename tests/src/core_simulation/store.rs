//! The faulty store: its records, and the commands that it has not applied yet.

use std::collections::{BTreeMap, VecDeque};

use session_core::ledger::StoreCommand;
use session_core::ledger::{Liveness, UserRecord};
use session_core::{NodeId, Timestamp, UserId};

/// The faulty store.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) records: BTreeMap<UserId, UserRecord>,
    /// Submitted and not applied, in the order of submission.
    pub(super) queue: VecDeque<Queued>,
}

#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) command: StoreCommand,
    /// The answer was given, or lost.
    pub(super) answered: bool,
    /// The store has begun to apply it. Until then its session can withdraw it.
    pub(super) has_begun: bool,
}

/// One node is alive. The others are dead since a known time.
pub(super) fn liveness(deaths: &BTreeMap<NodeId, Timestamp>, alive: NodeId, node: NodeId) -> Liveness {
    if node == alive { Liveness::Alive } else { Liveness::DeadSince(deaths[&node]) }
}
