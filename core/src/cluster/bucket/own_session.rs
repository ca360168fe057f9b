//! A session of this node, from its first command to its end.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::id::SessionId;
use crate::ledger::{Outcome, SessionRecord};

/// Names a command until it is answered. The caller chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A session of this node, as long as it may hold a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OwnSession {
    /// It asks for a slot, or waits in line for one.
    Asking {
        /// Whether it waits in line.
        is_in_line: bool,
    },
    /// It was granted one, but must not be told yet.
    Granted(Box<Grant>),
    /// It may be told.
    Ready(Box<SessionRecord>),
    /// It was told.
    Told {
        /// Its entry, as it was last read.
        entry: Box<SessionRecord>,
        /// Whether it is in the store in the generation in force.
        is_asserted: bool,
    },
    /// It has lost its slot, or nobody knows whether it has one, and it has not been reported closed or released.
    Ended,
}

/// A grant that waits for those who are leaving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// The sessions that were leaving when it was granted, and may still be open.
    pub waits_for: Vec<SessionId>,
    /// The commands to answer, mostly one: a session in line may have asked again.
    pub answers: Vec<(CallId, Outcome)>,
}

impl OwnSession {
    /// Whether it was told, and is not known to be in the store.
    pub(super) const fn must_be_restored(&self) -> bool {
        matches!(self, Self::Told { is_asserted: false, .. })
    }
}
