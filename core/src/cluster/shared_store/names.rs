//! What both requests and answers name: generations, nodes and versions.

use core::fmt;

use crate::id::NodeId;
use crate::ledger::UserRecord;
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
    /// Greater than that of any generation before it that the store or the node that proposed it knows.
    pub number: u64,
    /// Whether the gate is open: whether sessions may be admitted.
    pub is_open: bool,
}

/// The version of a record. Each write gives it another one, so one that was read says whether the record has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

/// The version of the overrides of a bucket. Each change gives them a greater one. The default one is that of a bucket that has
/// never had any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OverridesVersion {
    /// The number of the [`Generation`] in which the change was made. So it is greater than that of a change that the store had
    /// forgotten by then.
    pub generation: u64,
    /// How many changes there were.
    pub number: u64,
    /// No other version has it.
    pub stamp: Stamp,
}

/// Where a page of a scan begins. It means something to the store alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScanPosition(pub u64);

/// What the store has for a user: the record with its stamp. `None` if it has no record.
pub type StoredRecord = Option<(Stamp, UserRecord)>;

/// What the store knows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEntry {
    /// The number of its last beat.
    Beats(u64),
    /// It was buried, at this time by the clock of the node that did it. It never beats again.
    Dead(Timestamp),
    /// It has left, and had no session any more. It never beats again.
    Left,
}

impl NodeEntry {
    /// Whether the node is alive, as far as the store knows.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Beats(_))
    }
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
