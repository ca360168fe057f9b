//! The ledger: one rule that decides who is admitted, for every store.
//!
//! There is no counter. A user's count *is* the number of slots that the sessions in the user's record hold, each keyed by
//! its session, so it cannot be negative and cannot drift. A store keeps records and runs, atomically for one user,
//! *read record → [`apply`] → write record*: a lock in memory, a write transaction in LMDB, one compare-and-set
//! in a distributed store.
//!
//! # The contract of a store
//!
//! - Commands of one session are applied in the order they were submitted, or not at all.
//! - An acquire is applied at most once and never retried by the store.
//! - Every command is answered once. [`Outcome::Rejected`] means *certainly not applied*; a store that cannot say
//!   answers [`Outcome::Unknown`], and then it may be applied even later.
//! - [`Outcome::Granted`] is given only when the slot is in the store.
//! - Whoever lost its hold to a command is told so ([`Applied::ended`]) once it is applied, or may be; whatever becomes
//!   of the answer.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{Name, SessionId, UserId};
use crate::resume_token::ResumeKey;
use crate::time::Time;

mod admission;
mod slots;
mod policy;
mod limit;
mod record;

pub use self::admission::{apply, settle};
pub use self::limit::{Limit, LimitError};
pub use self::policy::{Counting, LimitRule, Own, Terms, WhenFull};
pub use self::record::{Guest, Held, Hold, RecordError, Resumable, UserRecord};

/// What a session asks of the store, about its own user. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Take a slot for the session, if the user has one left, or can be made to have one.
    Acquire {
        /// Whose slot.
        user: UserId,
        /// For which session.
        session: SessionId,
        /// The limit that the user's token claims.
        limit: Option<Limit>,
        /// When it was asked for.
        at: Time,
        /// What a client asks for that says more than who it is.
        wish: Option<Box<Wish>>,
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
        at: Time,
    },
    /// Count the user's slots.
    Lookup {
        /// Whose slots.
        user: UserId,
        /// Who asks.
        session: SessionId,
        /// When.
        at: Time,
    },
    /// Say who holds the user's slots.
    List {
        /// Whose slots.
        user: UserId,
        /// Who asks.
        session: SessionId,
        /// The limit that the token of whoever asks claims.
        limit: Option<Limit>,
        /// Whether to say all, and not only the [`Listing::MOST`] oldest.
        whole: bool,
        /// When.
        at: Time,
    },
    /// End sessions of the user.
    End {
        /// Whose sessions.
        user: UserId,
        /// Who asks. It is not ended.
        session: SessionId,
        /// Which.
        which: Which,
        /// What those are told who lose their slot.
        by: Ending,
        /// When.
        at: Time,
    },
}

/// Which sessions are to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
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
pub struct Wish {
    /// Which device it runs on.
    pub device: Option<Name>,
    /// What it calls itself.
    pub label: Option<Name>,
    /// The hold it wants to take up again.
    pub resume: Option<ResumeKey>,
    /// How a hold that it is given anew can be taken up.
    pub fresh: Option<ResumeKey>,
    /// Whom to end, if there is no other way.
    pub evict: Option<Evict>,
}

/// Whom a client chooses to end where its user's slots are all taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evict {
    /// Those who hold the oldest slots.
    Oldest,
    /// Those who hold the slots of these sessions, the first first.
    These(Box<[SessionId]>),
    /// Nobody, not even where the newest takes the place of the oldest; nor is a slot given up that only lingers.
    Nobody,
}

impl Evict {
    /// How many sessions a client may name.
    pub const MOST: usize = 100;
}

/// What became of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The session has a slot; the user now holds so many.
    Granted {
        /// Slots held, this one included. No more than the limit, unless the session held its slot before and the
        /// limit was lowered since.
        connections: u32,
        /// More about it, for a client that asked by a [`Wish`].
        grant: Option<Box<Grant>>,
    },
    /// The user holds as many as the limit allows: nothing was taken. Who holds them, for a client that asked by a
    /// [`Wish`].
    Denied(Option<Box<Listing>>),
    /// The session has no slot, or it lingers.
    Released,
    /// The user holds so many slots.
    Found {
        /// Slots held.
        connections: u32,
    },
    /// Who holds the user's slots.
    Listed(Box<Listing>),
    /// These sessions were ended, or would be.
    Ended {
        /// Who.
        sessions: Box<[SessionId]>,
        /// Slots held then.
        connections: u32,
    },
    /// The command was certainly not applied: nothing has changed and nothing is owed.
    Rejected(Cause),
    /// Nobody knows whether the command was, or will be, applied. An acquire that ends so owes a release.
    Unknown,
}

/// What else there is to say of a slot that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The limit in force.
    pub limit: Limit,
    /// How long the slot lingers once its session is lost.
    pub linger: Duration,
    /// Whether the slot is one that was taken up again, with the token that was shown.
    pub is_resumed: bool,
}

/// Who holds a user's slots, and under which limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The limit in force.
    pub limit: Limit,
    /// Where it comes from.
    pub rule: LimitRule,
    /// How many slots are held.
    pub connections: u32,
    /// Who holds them, oldest first, at most [`Listing::MOST`] unless all were asked for.
    pub holds: Box<[Hold]>,
    /// When a slot comes back by itself to somebody who comes then, if that is known.
    pub free_at: Option<Time>,
    /// Whether no limit is in the way, but that the device has as many sessions as one may.
    pub is_device_full: bool,
    /// Whether a client may choose whom to end.
    pub may_choose: bool,
}

impl Listing {
    /// How many holds are listed to a client: many who ask at once must not take much memory.
    pub const MOST: usize = 100;
}

/// What was done to a record, and to others than who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the outcome is owed to whoever asked, and those who were ended are to be told"]
pub struct Applied {
    /// The answer for whoever asked.
    pub outcome: Outcome,
    /// Sessions that had a slot, as far as they know, and have none any more.
    pub ended: Vec<Ended>,
}

/// A session that lost its slot to somebody else's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub session: SessionId,
    /// What it is told.
    pub how: Ending,
}

/// How a session lost its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// To another session of its user, which calls itself so, or its device.
    TakenOver(Option<Name>),
    /// Another session of its user has ended it, which calls itself so, or its device. [`apply`] finds that out.
    ByUser(Option<Name>),
    /// The operator has.
    ByOperator,
    /// Its client has taken it up on another connection.
    Resumed,
}

/// Why a store did not apply a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// More is asked than can be served: a queue or a table is full.
    Overloaded,
    /// The store has no room for another slot.
    Full,
    /// The store failed, or is closed.
    Failed,
}

/// Whether a node still serves its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It does, or may.
    Alive,
    /// It has not since then, as far as is known, and never will again: its slots are void, but for those that linger, and
    /// those that can be taken up linger from then on.
    DeadSince(Time),
}

impl Command {
    /// The user whose record the command is about.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        match self {
            Self::Acquire { user, .. }
            | Self::Release { user, .. }
            | Self::Linger { user, .. }
            | Self::Lookup { user, .. }
            | Self::List { user, .. }
            | Self::End { user, .. } => user,
        }
    }

    /// The session that asks.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        match self {
            Self::Acquire { session, .. }
            | Self::Release { session, .. }
            | Self::Linger { session, .. }
            | Self::Lookup { session, .. }
            | Self::List { session, .. }
            | Self::End { session, .. } => *session,
        }
    }

    /// When it was asked, where that matters.
    #[must_use]
    pub const fn at(&self) -> Option<Time> {
        match self {
            Self::Release { .. } | Self::Linger { .. } => None,
            Self::Acquire { at, .. } | Self::Lookup { at, .. } | Self::List { at, .. } | Self::End { at, .. } => {
                Some(*at)
            }
        }
    }

    /// Whether the session gives up its slot with it: handed over for good, and tried again until it is confirmed.
    #[must_use]
    pub const fn gives_up(&self) -> bool {
        match self {
            Self::Release { .. } | Self::Linger { .. } => true,
            Self::Acquire { .. } | Self::Lookup { .. } | Self::List { .. } | Self::End { .. } => false,
        }
    }
}

impl Outcome {
    /// A grant to a client that asked for nothing but a slot.
    #[must_use]
    pub const fn granted(connections: u32) -> Self {
        Self::Granted { connections, grant: None }
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::Overloaded, Self::Full, Self::Failed];

    /// What a client is told.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Overloaded => "The server is overloaded, try again later",
            Self::Full => "The session store is full, try again later",
            Self::Failed => "The session store is not available, try again later",
        }
    }
}
