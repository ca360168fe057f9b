//! What is asked of the ledger.

use alloc::boxed::Box;

use super::limit::SlotLimit;
use super::outcome::EndReason;
use crate::id::{DisplayName, SessionId, UserId};
use crate::resume_token::ResumeKey;
use crate::time::Timestamp;

/// What a session asks of the store, about its own user. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCommand {
    /// Take a slot for the session, if the user has one left, or can be made to have one.
    Acquire {
        /// Whose slot.
        user: UserId,
        /// For which session.
        session: SessionId,
        /// The limit that the user's token claims.
        limit: Option<SlotLimit>,
        /// When it was asked for.
        at: Timestamp,
        /// What a client asks for that says more than who it is.
        options: Option<Box<AcquireOptions>>,
    },
    /// Give the session's slot back, if it holds one.
    Release {
        /// Whose slot.
        user: UserId,
        /// Which session's.
        session: SessionId,
    },
    /// The session is lost: keep its slot for whoever takes it up again, if it can be, for as long as was said when it was
    /// granted. Else it is given back.
    Linger {
        /// Whose slot.
        user: UserId,
        /// Which session's.
        session: SessionId,
        /// When it was lost.
        at: Timestamp,
    },
    /// Count the user's slots.
    CountSlots {
        /// Whose slots.
        user: UserId,
        /// Who asks.
        session: SessionId,
        /// When.
        at: Timestamp,
    },
    /// Say who holds the user's slots.
    ListSessions {
        /// Whose slots.
        user: UserId,
        /// Who asks.
        session: SessionId,
        /// The limit that the token of whoever asks claims.
        limit: Option<SlotLimit>,
        /// Whether to say all, and not only the [`SlotListing::MAX`](super::Listing::MOST) oldest.
        is_unbounded: bool,
        /// When.
        at: Timestamp,
    },
    /// End sessions of the user.
    EndSessions {
        /// Whose sessions.
        user: UserId,
        /// Who asks. It is not ended.
        session: SessionId,
        /// Which.
        target: EndTarget,
        /// What those are told who lose their slot.
        reason: EndReason,
        /// When.
        at: Timestamp,
    },
}

impl StoreCommand {
    /// The user whose record the command is about.
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

    /// When it was asked, where that matters.
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

    /// Whether the session gives up its slot with it: handed over for good, and tried again until it is confirmed.
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

/// Which sessions are to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndTarget {
    /// This one.
    One(SessionId),
    /// All of the user's.
    All,
    /// Those that hold slots beyond the limit in force, the newest slots first.
    Excess {
        /// Whether only to say which.
        dry_run: bool,
    },
}

/// What a client asks for that says more of itself than who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcquireOptions {
    /// Which device it runs on.
    pub device: Option<DisplayName>,
    /// What it calls itself.
    pub label: Option<DisplayName>,
    /// The hold it wants to take up again.
    pub resume: Option<ResumeKey>,
    /// How a hold that it is given anew can be taken up.
    pub new_resume_key: Option<ResumeKey>,
    /// Whom to end, if there is no other way.
    pub evict: Option<Evict>,
}

/// Whom a client chooses to end where its user's slots are all taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evict {
    /// Those who hold the oldest slots.
    Oldest,
    /// Those who hold the slots of these sessions, the first first.
    Sessions(Box<[SessionId]>),
    /// Nobody, not even where the newest takes the place of the oldest; nor is a slot given up that only lingers.
    Nobody,
}

impl Evict {
    /// How many sessions a client may name.
    pub const MAX: usize = 100;
}
