//! How it stands with a session: what it has, and what is under way.

use alloc::boxed::Box;

use crate::id::UserId;
use crate::ledger::SlotLimit;
use crate::protocol::AuthenticateOptions;
use crate::resume_token::ResumeToken;
use crate::time::{Timestamp, UnixSeconds};

#[derive(Debug)]
pub(super) enum State {
    /// No slot and nothing under way.
    Anonymous,
    /// The authenticator has the credential, and this is what was asked for beside a slot.
    Verifying(Option<Box<AuthenticateOptions>>),
    /// The store has the acquire. Whoever asked for more than a slot may take one up, or be told how to.
    Acquiring(UserId, Option<Box<ResumeTokens>>),
    /// The session has a slot. Nothing is under way.
    Live(UserId, Heartbeat),
    /// The session has a slot, and the store has a question of the client's.
    Querying(UserId, StoreQuery),
    /// The session has a slot, and the authenticator has another credential for it.
    Renewing {
        user: UserId,
        /// Whether it was shown in an object.
        is_detailed: bool,
    },
    /// The connection is over, and the answer to the command under way decides what is left to do.
    Leaving(PendingCall),
    /// Nothing is left to do.
    Finished,
}

impl State {
    /// Whether a command is under way.
    pub(super) const fn is_busy(&self) -> bool {
        match self {
            Self::Verifying(_)
            | Self::Acquiring(..)
            | Self::Querying(..)
            | Self::Renewing { .. }
            | Self::Leaving(_) => true,
            Self::Anonymous | Self::Live(..) | Self::Finished => false,
        }
    }

    /// Whether the connection is over.
    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::Leaving(_) | Self::Finished => true,
            Self::Anonymous
            | Self::Verifying(_)
            | Self::Acquiring(..)
            | Self::Live(..)
            | Self::Querying(..)
            | Self::Renewing { .. } => false,
        }
    }

    /// Whose slot the session has, if nothing else is under way.
    pub(super) const fn user(&self) -> Option<&UserId> {
        match self {
            Self::Live(user, _) => Some(user),
            Self::Anonymous
            | Self::Verifying(_)
            | Self::Acquiring(..)
            | Self::Querying(..)
            | Self::Renewing { .. }
            | Self::Leaving(_)
            | Self::Finished => None,
        }
    }
}

/// The tokens that go with a slot that was asked for at length.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResumeTokens {
    /// What was shown, to take up a slot.
    pub(super) shown: Option<ResumeToken>,
    /// What a slot that is given anew can be taken up with.
    pub(super) new: Option<ResumeToken>,
}

/// What the store is asked while the session has its slot.
#[derive(Debug, Clone, Copy)]
pub(super) enum StoreQuery {
    /// How many slots the user holds: the client wants to know.
    Connections,
    /// The same: the client has shown a fresh token, which claims this and runs out then, and the answer to it has the
    /// number.
    Renewal {
        claim: Option<SlotLimit>,
        expires: Option<UnixSeconds>,
        /// Whether it was shown in an object.
        is_detailed: bool,
    },
    /// Who holds them.
    Sessions,
    /// To end another session.
    End,
}

/// What is under way while a session leaves.
#[derive(Debug)]
pub(super) enum PendingCall {
    Verification,
    Acquire(UserId),
    /// The store's answer to a question, which is of no interest any more.
    Query(UserId, SlotExit),
    /// The same of the authenticator's.
    Renewal(UserId, SlotExit),
}

/// How a session gives up its slot.
#[derive(Debug, Clone, Copy)]
pub(super) enum SlotExit {
    /// At once.
    Release,
    /// For whoever takes it up: it was lost then.
    Linger(Timestamp),
}

/// What is known of the peer of a live session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Heartbeat {
    HeardAt(Timestamp),
    PingedAt(Timestamp),
}
