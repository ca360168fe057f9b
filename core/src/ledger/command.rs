//! The commands of the ledger.

use alloc::boxed::Box;

use super::end_reason::EndReason;
use super::limit::SlotLimit;
use crate::id::{DisplayName, ResumeKey, SessionId, UserId};
use crate::time::Timestamp;

/// A command of a session to the store, about the session's own user. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCommand {
    /// Takes a slot for the session, if one is free or the policy lets the store evict a session. Otherwise the session may
    /// wait in line ([`AcquireOptions::waits`]).
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
    /// Gives the session's slot back, if it has one, and takes it out of the line.
    Release {
        /// The user.
        user: UserId,
        /// The session that has the slot.
        session: SessionId,
    },
    /// Keeps the slot of a lost session for its grace period, if its client can resume it. Otherwise gives the slot back.
    /// [`linger`](super::linger) decides which of the two.
    Linger {
        /// The user.
        user: UserId,
        /// The session that has the slot.
        session: SessionId,
        /// When the session was lost.
        at: Timestamp,
        /// The resume token that its client has.
        token: KnownToken,
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
        /// Whether to list all sessions instead of the [`SlotUsage::MAX_SHOWN`](super::SlotUsage::MAX_SHOWN) oldest.
        is_unbounded: bool,
        /// Whether the session is told from now on when the user's sessions change ([`Hint::Changed`](super::Hint)), or is
        /// not any more. `None`: as before.
        watch: Option<bool>,
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
    /// Asks whether the session may go on with another credential of its user. Changes only the claim that its slot shows.
    Renew {
        /// The user.
        user: UserId,
        /// The session that asks.
        session: SessionId,
        /// The limit that the other credential claims.
        limit: Option<SlotLimit>,
        /// The device that the other credential names.
        device: Option<DisplayName>,
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
            | Self::EndSessions { user, .. }
            | Self::Renew { user, .. } => user,
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
            | Self::EndSessions { session, .. }
            | Self::Renew { session, .. } => *session,
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
            | Self::EndSessions { at, .. }
            | Self::Renew { at, .. } => Some(*at),
        }
    }

    /// The key of the resume token that an acquire shows.
    #[must_use]
    pub fn shown_key(&self) -> Option<ResumeKey> {
        if let Self::Acquire { options: Some(options), .. } = self { options.resume } else { None }
    }

    /// Whether the command gives up the session's slot. Such a command has no answer for the session. It is retried until
    /// the store confirms it.
    #[must_use]
    pub const fn is_release(&self) -> bool {
        match self {
            Self::Release { .. } | Self::Linger { .. } => true,
            Self::Acquire { .. }
            | Self::CountSlots { .. }
            | Self::ListSessions { .. }
            | Self::EndSessions { .. }
            | Self::Renew { .. } => false,
        }
    }
}

/// The resume token that the client of a lost session certainly has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownToken {
    /// That of the slot: the session was granted it, and its client was told the token or had shown it.
    Granted,
    /// The token with this key, which the client showed. The answer to its acquire is not known. So the session may have a
    /// slot with another token, one that no client has.
    Shown(Box<ResumeKey>),
}

/// The sessions that [`StoreCommand::EndSessions`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndTarget {
    /// This one, named by its id or by its slot, and with it the other sessions of its slot: those of the same device, if
    /// devices are counted. Of a slot that the asker shares, this one alone.
    One(SessionId),
    /// All sessions of the user.
    All,
    /// The sessions over a limit, newest slots first.
    Excess {
        /// The limit. The command carries it, because the limit in force may have changed when it is applied.
        limit: SlotLimit,
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
    /// Whether to deny the session a slot if it cannot resume the one that it wants to.
    pub must_resume: bool,
    /// Whether to wait in line if no slot is free. A session that waits and asks again keeps its place; without this it leaves
    /// the line, unless it is admitted.
    pub waits: bool,
}

/// The sessions that a client chooses to evict if its user has no free slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evict {
    /// The sessions of the oldest slots.
    Oldest,
    /// The sessions that share a slot with these, in this order. A session is named by its id, or by its slot
    /// ([`SessionRecord::is_named`](super::SessionRecord::is_named)). If the policy does not let clients choose, no live session
    /// is evicted: neither these nor, instead of them, the oldest.
    Sessions(Box<[SessionId]>),
    /// None. Not even if the policy evicts the oldest, and no lingering slot is freed either.
    Nobody,
}

impl Evict {
    /// The number of sessions that a client may name.
    pub const MAX: usize = 100;
}
