//! What a node asks of the shared store, and what that answers. Each request concerns one bucket, and is applied whole.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{SessionHint, UserRecord};
use crate::time::Timestamp;

/// The history of a store: what it has forgotten, another history has. Redis calls it `master_replid`: it is drawn at random
/// when the store starts, and when a replica becomes the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryId(pub [u8; 20]);

/// A generation of a bucket: the time between two losses of data. It never comes again.
///
/// The node that proposed it, and the number of that node's beat. A node id is drawn at random and its beats are counted, so no
/// two proposals are the same, whatever the store has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId {
    /// The node that proposed it.
    pub node: NodeId,
    /// The number of its beat.
    pub beat: u64,
}

/// What the store says of the generation in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Its name.
    pub id: GenerationId,
    /// The history of the store in which it began.
    pub history: HistoryId,
    /// Whether the gate is open: whether sessions may be admitted.
    pub is_open: bool,
}

/// The version of a record. Each write gives it another one, so one that was read says whether the record has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// What the store has for a user: the record with its stamp. `None` if it has no record.
pub type StoredRecord = Option<(Stamp, UserRecord)>;

/// What the store knows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEntry {
    /// The number of its last beat.
    Beats(u64),
    /// It was buried, at this time by the clock of the node that did it. For ever.
    Dead(Timestamp),
}

/// A request to the shared store, about one bucket. The store applies each as a whole: nobody sees half of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The node is alive. If the bucket's nodes or its meta are missing, or the store's history is not that of the generation,
    /// the proposed generation begins, with its gate closed.
    ///
    /// The store refuses a node that is dead. It refuses one that it does not know, unless that joins, or was in an older
    /// generation: then the store has forgotten it.
    Beat {
        /// The ids of this node in the bucket, and whether each has joined.
        ids: Vec<OwnId>,
        /// One more than in the beat before.
        number: u64,
        /// The last generation that the node has seen.
        seen: Option<GenerationId>,
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
    Leave(NodeId),
    /// From now on the store refuses writes of these nodes that were sent on an older connection.
    RaiseFloor {
        /// The ids of the asker.
        nodes: Vec<NodeId>,
        /// The number of the connection.
        epoch: u64,
    },
    /// Reads the record of a user.
    Read(UserId),
    /// Changes the record of a user.
    Write(Box<WriteRequest>),
    /// Reads the records of the users after this one, in any order that is the same each time.
    Scan(Option<UserId>),
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
/// The store writes if the bucket's meta has this generation, the floor of the node is not above the epoch, and the record has
/// the stamp that is expected.
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
    /// The record with its new stamp. `None` to delete it.
    pub record: StoredRecord,
    /// Sessions that have lost their slots: the store notes each in the inbox of its node, and tells that node. Not if the floor
    /// of that node is infinite: it is dead, or has left.
    pub ended: Vec<SessionId>,
    /// Sessions of this node whose end this write acknowledges: the store takes them out of the node's inbox.
    pub closed: Vec<SessionId>,
    /// Nodes to tell that the record has changed. It may be lost.
    pub tell: Vec<NodeId>,
    /// What the store tells the nodes of these sessions. It may be lost.
    pub hints: Vec<SessionHint>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The store's history when it applied the request.
    pub history: HistoryId,
    /// What it says.
    pub body: AnswerBody,
}

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerBody {
    /// To [`Request::Beat`].
    Beat(Box<BeatAnswer>),
    /// To [`Request::Bury`], [`Request::Open`], [`Request::Leave`] and [`Request::RaiseFloor`]: whether it was done.
    Done(bool),
    /// To [`Request::Read`] and [`Request::Write`].
    Record(Box<RecordAnswer>),
    /// To [`Request::Scan`].
    Page(Box<PageAnswer>),
    /// To any request: it was certainly not applied, and never will be.
    Failed,
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeatAnswer {
    /// Whether the beat was noted. If not, the node is dead to the others.
    pub is_confirmed: bool,
    /// The generation in force.
    pub generation: Generation,
    /// All nodes of the bucket.
    pub nodes: Vec<(NodeId, NodeEntry)>,
    /// The sessions in the inbox of the node, with their users.
    pub inbox: Vec<(UserId, SessionId)>,
}

/// A record, as it is once the request was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAnswer {
    /// The generation that the bucket's meta has, if it has one.
    pub generation: Option<GenerationId>,
    /// Whether the record was written. `false` for a read.
    pub is_written: bool,
    /// The record.
    pub record: StoredRecord,
}

/// Some records of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAnswer {
    /// The generation that the bucket's meta has, if it has one.
    pub generation: Option<GenerationId>,
    /// Users, and what the store has for each.
    pub records: Vec<(UserId, Stamp, UserRecord)>,
    /// Where the next page begins. `None` after the last one.
    pub next: Option<UserId>,
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.node, self.beat)
    }
}

/// 40 lower-case hexadecimal digits, as Redis writes it.
impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
