//! The walk over all records of a bucket, which finds entries that nobody stands behind.

use alloc::collections::BTreeSet;
use core::mem;

use super::shared_store::Request;
use crate::id::{NodeId, UserId};

/// The walk over all records of a bucket, page by page. Each node takes one when the gate of a generation opens. One of them
/// takes another one when a node is dead.
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
    /// The page after this user comes next.
    Next(Option<UserId>),
    /// The page after this user was asked for. With whether to begin again after it.
    UnderWay(Option<UserId>, bool),
}

impl Walk {
    /// Begins, or begins again. These nodes are dead.
    pub(super) fn begin(&mut self, dead: impl Iterator<Item = NodeId>) {
        self.sweeping = dead.collect();
        self.position = match mem::take(&mut self.position) {
            Position::UnderWay(after, _) => Position::UnderWay(after, true),
            Position::Over | Position::Next(_) => Position::Next(None),
        };
    }

    /// Begins if one of these dead nodes is not swept, unless a walk is under way.
    pub(super) fn begin_if_dead(&mut self, dead: impl Iterator<Item = NodeId> + Clone) {
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

    /// What to ask for next, if anything.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        let Position::Next(after) = &mut self.position else { return None };
        let after = after.take();
        self.position = Position::UnderWay(after.clone(), false);
        Some(Request::Scan(after))
    }

    /// The page that was asked for does not come, or does not count.
    pub(super) fn page_lost(&mut self) {
        if let Position::UnderWay(after, again) = mem::take(&mut self.position) {
            self.position = Position::Next(after.filter(|_| !again));
        }
    }

    /// The page came. The next one begins after `next`; `None` after the last one.
    pub(super) fn page_came(&mut self, next: Option<UserId>) {
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
