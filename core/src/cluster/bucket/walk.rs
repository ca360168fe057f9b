//! The walk over all records of a bucket, which finds entries that nobody stands behind.

use alloc::collections::BTreeSet;
use core::mem;

use crate::cluster::shared_store::ScanPosition;
use crate::id::NodeId;

/// The walk over all records of a bucket, page by page. Each node takes one when the gate of a generation opens. One of them
/// takes another one when a node is dead, and at times for slots that have lapsed.
#[derive(Debug, Default)]
pub(super) struct Walk {
    position: Position,
    /// The dead nodes that were known when the walk began.
    sweeping: BTreeSet<NodeId>,
    /// The dead nodes whose entries are removed from all records.
    swept: BTreeSet<NodeId>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Over,
    /// The page that begins there comes next.
    Next(Option<ScanPosition>),
    /// It was asked for. With whether to begin again after it.
    UnderWay(Option<ScanPosition>, bool),
}

impl Walk {
    /// Begins, or begins again. These nodes are dead.
    pub(super) fn begin(&mut self, dead: impl Iterator<Item = NodeId>) {
        self.sweeping = dead.collect();
        self.position = match mem::take(&mut self.position) {
            Position::UnderWay(from, _) => Position::UnderWay(from, true),
            Position::Over | Position::Next(_) => Position::Next(None),
        };
    }

    /// These nodes are dead. Begins if one of them is not swept, unless a walk is under way.
    pub(super) fn begin_if_dead(&mut self, dead: impl Iterator<Item = NodeId> + Clone) {
        self.swept.retain(|node| dead.clone().any(|dead| dead == *node));
        let is_new = |node: NodeId| !self.swept.contains(&node);
        if self.position == Position::Over && dead.clone().any(is_new) {
            self.begin(dead);
        }
    }

    /// Whether no walk is under way or about to begin.
    pub(super) fn is_over(&self) -> bool {
        self.position == Position::Over
    }

    /// Another generation is in force: the store may have entries again that were swept.
    pub(super) fn forget(&mut self) {
        self.sweeping.clear();
        self.swept.clear();
    }

    /// Whether the entries of this node are removed, or were none: all records were looked at since it was dead or had left.
    pub(super) fn has_swept(&self, node: NodeId) -> bool {
        self.swept.contains(&node)
    }

    /// Where the page begins that is to be asked for next, if any.
    pub(super) fn next_page(&mut self) -> Option<Option<ScanPosition>> {
        let Position::Next(from) = self.position else { return None };
        self.position = Position::UnderWay(from, false);
        Some(from)
    }

    /// The page that was asked for does not come, or does not count.
    pub(super) fn page_lost(&mut self) {
        if let Position::UnderWay(from, again) = mem::take(&mut self.position) {
            self.position = Position::Next(from.filter(|_| !again));
        }
    }

    /// The page came. The next one begins at `next`; `None` after the last one.
    pub(super) fn page_came(&mut self, next: Option<ScanPosition>) {
        let Position::UnderWay(_, again) = mem::take(&mut self.position) else { return };
        self.position = match next {
            _ if again => Position::Next(None),
            Some(next) => Position::Next(Some(next)),
            None => {
                self.swept.append(&mut self.sweeping);
                Position::Over
            }
        };
    }
}
