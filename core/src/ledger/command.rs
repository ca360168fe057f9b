//! The commands of the ledger.

use alloc::boxed::Box;

use super::limit::SlotLimit;
use super::outcome::EndReason;
use crate::id::{DisplayName, SessionId, UserId};
use crate::resume_token::ResumeKey;
use crate::time::Timestamp;

/// A command of a session to the store, about the session's own user. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCommand {
    /// Takes a slot for the session, if one is free or the policy lets the store evict a session.
    Acquire {
        /// The user.
        user: UserId,
        /// The session that asks.
        session: SessionId,
        /// The limit that the user's token claims.
        limit: Option<SlotLimit>,
        /// The time of the request.
        at: Timestamp,
        /// What the client asks for beyond a slot.
        options: Option<Box<AcquireOptions>>,
    },
    /// Gives the session's slot back, if it has one.
    Release {
        /// The user.
        user: UserId,
        /// The session that has the slot.
        session: SessionId,
    },
    /// Keeps the slot of a lost session for its grace period, so that its client can resume it. A slot that cannot be
    /// resumed is given back.
    Linger {
        /// The user.
        user: UserId,
        /// The session that has the slot.
        session: SessionId,
        /// When the session was lost.
        at: Timestamp,
    },
    /// Counts the user's slots.
    CountSlots {
        /// The user.
        user: UserId,
        /// The session that asks.
        session: SessionId,
        /// The time of the request.
        at: Timestamp,
    },
    /// Lists the sessions that hold the user's slots.
    ListSessions {
        /// The user.
        user: UserId,
        /// The session that asks.
        session: SessionId,
        /// The limit that the token of that session claims.
        limit: Option<SlotLimit>,
        /// Whether to list all sessions instead of the [`SlotListing::MAX_SHOWN`](super::SlotListing::MAX_SHOWN) oldest.
        is_unbounded: bool,
        /// The time of the request.
        at: Timestamp,
    },
    /// Ends sessions of the user.
    EndSessions {
        /// The user.
        user: UserId,
        /// The session that asks. It is not ended.
        session: SessionId,
        /// The sessions to end.
        target: EndTarget,
        /// What the ended sessions are told.
        reason: EndReason,
        /// The time of the request.
        at: Timestamp,
    },
}

impl StoreCommand {
    /// The user whose record the command changes or reads.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        match self {
            Self::Acquire { user, .. }
            | Self::Release { user, .. }
            | Self::Linger { user, .. }
            | Self::CountSlots { user, .. }
            | Self::ListSessions { user, .. }
            | Self::EndSessions { user, .. } => user,
        }
    }

    /// The session that asks.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        match self {
            Self::Acquire { session, .. }
            | Self::Release { session, .. }
            | Self::Linger { session, .. }
            | Self::CountSlots { session, .. }
            | Self::ListSessions { session, .. }
            | Self::EndSessions { session, .. } => *session,
        }
    }

    /// The time of the request. `None` for commands that do not depend on it.
    #[must_use]
    pub const fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Release { .. } | Self::Linger { .. } => None,
            Self::Acquire { at, .. }
            | Self::CountSlots { at, .. }
            | Self::ListSessions { at, .. }
            | Self::EndSessions { at, .. } => Some(*at),
        }
    }

    /// Whether the command asks to resume a session: an acquire that shows a resume token.
    #[must_use]
    pub fn is_resume(&self) -> bool {
        matches!(self, Self::Acquire { options: Some(options), .. } if options.resume.is_some())
    }

    /// Whether the command gives up the session's slot. Such a command has no answer for the session. It is retried until
    /// the store confirms it.
    #[must_use]
    pub const fn is_release(&self) -> bool {
        match self {
            Self::Release { .. } | Self::Linger { .. } => true,
            Self::Acquire { .. } | Self::CountSlots { .. } | Self::ListSessions { .. } | Self::EndSessions { .. } => {
                false
            }
        }
    }
}

/// The sessions that [`StoreCommand::EndSessions`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndTarget {
    /// This one.
    One(SessionId),
    /// All sessions of the user.
    All,
    /// The sessions over the limit in force, newest slots first.
    Excess {
        /// Whether to only list them.
        dry_run: bool,
    },
}

/// What a client asks for beyond a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcquireOptions {
    /// The device that the client runs on.
    pub device: Option<DisplayName>,
    /// What the client calls itself.
    pub label: Option<DisplayName>,
    /// The key of the session that the client wants to resume.
    pub resume: Option<ResumeKey>,
    /// The key with which a newly granted session can be resumed.
    pub new_resume_key: Option<ResumeKey>,
    /// The sessions to evict if no slot is free.
    pub evict: Option<Evict>,
}

/// The sessions that a client chooses to evict if its user has no free slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evict {
    /// The sessions of the oldest slots.
    Oldest,
    /// The sessions that share a slot with these, in this order.
    Sessions(Box<[SessionId]>),
    /// None. Not even if the policy evicts the oldest, and no lingering slot is freed either.
    Nobody,
}

impl Evict {
    /// The number of sessions that a client may name.
    pub const MAX: usize = 100;
}
