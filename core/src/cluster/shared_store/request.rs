//! What a node asks of the shared store.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::names::{GenerationId, OverridesVersion, ScanPosition, Stamp, StoredRecord};
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{SessionHint, UserOverrides};
use crate::time::Timestamp;

/// A request to the shared store, about one bucket. The store applies each as a whole: nobody sees half of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The node is alive. If the bucket's nodes or its meta are missing, or the store's history is not that of the generation, or the
    /// node has seen a generation with a greater number, the proposed generation begins, with its gate closed.
    ///
    /// The store refuses a node that is dead or has left. It refuses one that it does not know, unless that joins, or was in an older
    /// generation: then the store has forgotten it.
    Beat {
        /// The ids of this node in the bucket, and whether each has joined.
        ids: Vec<OwnId>,
        /// One more than in the beat before.
        number: u64,
        /// The last generation that the node has seen.
        seen: Option<GenerationId>,
        /// The greatest number of a generation that the node has seen.
        seen_number: u64,
        /// The generation that begins if the store has forgotten something.
        proposed: GenerationId,
    },
    /// Declares a node dead, if the number of its last beat is still this one. Sets the node's floor to infinity, and deletes
    /// its inbox.
    Bury {
        /// The node.
        node: NodeId,
        /// The number that was seen. `None` for a former id of the asker itself, which certainly serves nobody.
        beat: Option<u64>,
        /// The time, for the slots of its sessions that linger from now on.
        at: Timestamp,
    },
    /// Opens the gate of this generation, if it is still in force.
    Open(GenerationId),
    /// Takes an id of the asker out of the bucket: it has no session there any more, and owes nothing. Sets its floor to infinity,
    /// and deletes its inbox.
    ///
    /// Not in another generation: that may have an entry of the id again. Nor if the store's history is not that of the generation.
    Leave {
        /// The id.
        node: NodeId,
        /// The generation in which it owes nothing.
        generation: GenerationId,
    },
    /// Removes what is noted of a node that is dead or has left, and its floor. Not in another generation, nor in another history.
    Forget {
        /// The node.
        node: NodeId,
        /// The generation in which no record names it any more.
        generation: GenerationId,
    },
    /// From now on the store refuses writes of these nodes that were sent on an older connection. Not in another generation, nor in
    /// another history. A node that does not beat has no floor.
    RaiseFloor {
        /// The ids of the asker.
        nodes: Vec<NodeId>,
        /// The generation in force.
        generation: GenerationId,
        /// The number of the connection.
        epoch: u64,
    },
    /// Reads the record of a user.
    Read(UserId),
    /// Changes the record of a user.
    Write(Box<WriteRequest>),
    /// Reads a page of all records, in any order. What has a record all the time from the first page to the last is in one of them.
    Scan {
        /// Where the page begins: at the beginning, or where the page before says.
        from: Option<ScanPosition>,
        /// Leave out the records whose [`connected_nodes`](crate::ledger::UserRecord::connected_nodes) are all among these.
        except: Vec<NodeId>,
        /// But not those in which a slot lingers.
        lingering: bool,
    },
    /// Reads all overrides of the bucket. They are few.
    ReadOverrides,
    /// Replaces the overrides of a user.
    WriteOverrides(Box<OverridesRequest>),
    /// Replaces all overrides of the bucket, if those of the store are older: it has forgotten some. Only while the gate of the
    /// generation is closed, and the store has its history.
    RestoreOverrides {
        /// The generation in force.
        generation: GenerationId,
        /// Their version.
        version: OverridesVersion,
        /// All of them.
        overrides: Vec<(UserId, UserOverrides)>,
    },
}

/// An id of a node in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnId {
    /// The id.
    pub node: NodeId,
    /// Whether the store has confirmed a beat of it in this bucket.
    pub has_joined: bool,
}

/// Changes the record of a user, if nobody else has since it was read: a compare-and-set.
///
/// The store writes if the bucket's meta has this generation, the floor of the node is not above the epoch, the overrides have the
/// version that is given, if one is, and the record has the stamp that is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteRequest {
    /// The user.
    pub user: UserId,
    /// The generation in which the change was decided.
    pub generation: GenerationId,
    /// The node that writes.
    pub node: NodeId,
    /// The number of its connection.
    pub epoch: u64,
    /// The stamp of the record that the change is based on. `None` if there was no record.
    pub expected: Option<Stamp>,
    /// The version of the overrides that the decision used. `None` if it used none: then the store does not compare it.
    pub overrides: Option<OverridesVersion>,
    /// The record with its new stamp. `None` to delete it.
    pub record: StoredRecord,
    /// Sessions that have lost their slots: the store notes each in the inbox of its node, and tells that node. Not if that node does
    /// not beat: it is dead, has left, or joins again and then reads what it has to know.
    pub ended: Vec<SessionId>,
    /// Sessions of this node whose end this write acknowledges: the store takes them out of the node's inbox.
    pub closed: Vec<SessionId>,
    /// Nodes to tell that the record has changed. It may be lost.
    pub tell: Vec<NodeId>,
    /// What the store tells the nodes of these sessions. It may be lost.
    pub hints: Vec<SessionHint>,
}

/// Replaces the overrides of a user, if nobody else has changed any of the bucket since they were read: a compare-and-set, with
/// the conditions of a [`WriteRequest`]. And only if the store has the history of the generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverridesRequest {
    /// The user.
    pub user: UserId,
    /// The user's overrides from now on. None of them if they are empty.
    pub overrides: UserOverrides,
    /// The generation in which the change was decided.
    pub generation: GenerationId,
    /// The node that writes.
    pub node: NodeId,
    /// The number of its connection.
    pub epoch: u64,
    /// The version that the change is based on.
    pub expected: OverridesVersion,
    /// The new version.
    pub version: OverridesVersion,
}
