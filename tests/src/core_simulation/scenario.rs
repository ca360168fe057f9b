//! What happens in the simulation: from proptest, or from a fuzzer.

use arbitrary::{Arbitrary, Result, Unstructured};
use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, SlotLimit};
use session_core::protocol::Credential;

use crate::policies::policy;

/// Terms and what happens under them, as a fuzzer makes them up.
#[derive(Debug)]
pub struct Scenario {
    /// On which users are admitted.
    pub policy: AdmissionPolicy,
    /// What happens, at most [`Scenario::MAX_OPS`] operations.
    pub ops: Vec<Op>,
}

impl Scenario {
    /// What takes longer than this finds nothing that a shorter scenario would not.
    pub const MAX_OPS: usize = 400;
}

impl<'a> Arbitrary<'a> for Scenario {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let limit = SlotLimit::new(bytes.int_in_range(0..=4)?).expect("four is below the ceiling");
        let policy = policy(limit, bytes.arbitrary()?);
        Ok(Self { policy, ops: bytes.arbitrary_iter()?.take(Self::MAX_OPS).collect::<Result<_>>()? })
    }
}

/// Something that happens. Numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone, Arbitrary)]
pub enum Op {
    /// A client connects.
    Connect,
    /// A client sends a message, whether or not the last one was answered.
    Send {
        /// Which connection.
        client: u8,
        /// What it says.
        message: Message,
    },
    /// A client breaks the WebSocket protocol.
    Violate {
        /// Which connection.
        client: u8,
        /// How.
        how: u8,
    },
    /// A client answers a ping, or sends one.
    Alive {
        /// Which connection.
        client: u8,
    },
    /// A client leaves without BYE.
    Leave {
        /// Which connection.
        client: u8,
    },
    /// The store gets on with one of the commands it was given.
    Store {
        /// Which of those that are next for their session.
        which: u8,
        /// How it goes.
        fault: StoreFault,
    },
    /// Time passes, and every deadline in it is met on the dot.
    Pass {
        /// How much.
        millis: u16,
    },
    /// The server is asked to stop. It takes no more connections.
    Drain,
    /// The server is killed, and another one started on the same store.
    Restart,
    /// The server admits by another limit from now on.
    SetLimit {
        /// How many slots a user may hold, modulo six.
        slots: u8,
    },
    /// An operator ends who is beyond the limit.
    Enforce {
        /// Of which user.
        user: u8,
    },
    /// The wall clock is set, to so many seconds ahead of the time or behind it.
    SetWallClock {
        /// How many.
        seconds: i8,
    },
}

/// What a client says.
#[derive(Debug, Clone, Arbitrary)]
pub enum Message {
    /// AUTHENTICATE as one of a few users.
    Authenticate {
        /// Which user.
        user: u8,
    },
    /// AUTHENTICATE with a token.
    AuthenticateWithToken {
        /// Of which user.
        user: u8,
        /// The limit that it claims.
        limit: Option<u8>,
        /// How many seconds it lasts.
        seconds: u8,
    },
    /// AUTHENTICATE with an object.
    AuthenticateWithObject {
        /// As which user.
        user: u8,
        /// On which device, if on any.
        device: Option<u8>,
        /// Whom to end: nobody, the oldest, or some of those who are there.
        evict: u8,
        /// Which of the tokens that any client was told is shown, if any is.
        resume: Option<u8>,
    },
    /// LIST_SESSIONS.
    List,
    /// END_SESSION.
    End {
        /// Which of those who are there, whosever they are.
        which: u8,
    },
    /// CHECK_CONNECTIONS.
    Check,
    /// BYE.
    Bye,
    /// Any text at all.
    Raw(String),
}

/// What a store does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum StoreFault {
    /// Applies it and answers.
    Apply,
    /// Applies it, and the answer is lost.
    ApplyUnanswered,
    /// Applies it, and answers that nobody knows.
    ApplyUnknown,
    /// Does not apply it, and says so.
    Reject,
    /// Does not apply it, and answers that nobody knows.
    DropUnknown,
    /// Loses the command and the answer.
    DropUnanswered,
    /// Answers that nobody knows, and may apply it later.
    Postpone,
}

pub(super) fn credential(user: u8) -> Credential {
    Credential::new(user_id(user).as_str())
}

pub(super) fn user_id(user: u8) -> UserId {
    UserId::parse(&format!("user {user}")).expect("a good id")
}
