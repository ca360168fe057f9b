//! Everything that the keys of a bucket hold, to compare two stores.

use alloc::collections::{BTreeMap, BTreeSet};

use super::names::{Generation, GenerationId, NodeEntry, OverridesVersion, Stamp};
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{UserOverrides, UserRecord};

/// Everything that the keys of one bucket hold. No key is the same as an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BucketContents {
    /// The generation that the nodes' key names.
    pub generation: Option<Generation>,
    /// What is known of each node.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// The generation that the meta names.
    pub meta: Option<GenerationId>,
    /// The version of the overrides.
    pub version: OverridesVersion,
    /// The floors of the nodes that have one.
    pub floors: BTreeMap<NodeId, Floor>,
    /// The record of each user that has one.
    pub records: BTreeMap<UserId, (Stamp, UserRecord)>,
    /// The inboxes.
    pub inboxes: BTreeSet<(NodeId, UserId, SessionId)>,
    /// The overrides.
    pub overrides: BTreeMap<UserId, UserOverrides>,
}

/// From which connection on the store takes writes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Floor {
    /// From this number of its connection on.
    Epoch(u64),
    /// Never again.
    Closed,
}
