//! The operations of the simulation, from proptest or from a fuzzer.

use arbitrary::{Arbitrary, Result, Unstructured};
use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, SlotLimit};
use session_core::protocol::Credential;

use crate::policies::policy;

/// An admission policy and the operations under it, from a fuzzer.
#[derive(Debug)]
pub struct Scenario {
    /// The admission policy at the start.
    pub policy: AdmissionPolicy,
    /// At most [`Scenario::MAX_OPS`] operations.
    pub ops: Vec<Op>,
}

impl Scenario {
    /// Longer scenarios find nothing that shorter ones do not.
    pub const MAX_OPS: usize = 400;
}

impl<'a> Arbitrary<'a> for Scenario {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let limit = SlotLimit::new(bytes.int_in_range(0..=4)?).expect("four is below the ceiling");
        let policy = policy(limit, bytes.arbitrary()?);
        Ok(Self { policy, ops: bytes.arbitrary_iter()?.take(Self::MAX_OPS).collect::<Result<_>>()? })
    }
}

/// One operation. Each number counts modulo the number of choices.
#[derive(Debug, Clone, Arbitrary)]
pub enum Op {
    /// A client connects.
    Connect,
    /// A client sends a message, whether or not the last one was answered.
    Send {
        /// Which connection.
        client: u8,
        /// The message.
        message: Message,
    },
    /// A client breaks the WebSocket protocol.
    Violate {
        /// Which connection.
        client: u8,
        /// Which violation.
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
    /// The store handles one of its commands.
    Store {
        /// Which of the commands that are first of their session.
        which: u8,
        /// What the store does with it.
        fault: StoreFault,
    },
    /// Time passes. Every deadline in it is met exactly.
    Pass {
        /// How many milliseconds.
        millis: u16,
    },
    /// The server drains: it accepts no more connections.
    Drain,
    /// The server is killed, and another one started on the same store.
    Restart,
    /// The limit changes.
    SetLimit {
        /// The new limit, modulo six.
        slots: u8,
    },
    /// An operator ends the sessions beyond the limit.
    Enforce {
        /// Which user.
        user: u8,
    },
    /// The wall clock is set.
    SetWallClock {
        /// Seconds ahead of the time, or behind it if negative.
        seconds: i8,
    },
    /// The socket of a client takes no more data, or takes data again.
    Stall {
        /// Which connection, also of those that close.
        client: u8,
    },
    /// One of the hints that the store gave reaches its session, or is lost. The others arrive when time passes.
    Hint {
        /// Which hint.
        which: u8,
        /// Whether it is lost.
        is_lost: bool,
    },
}

/// A message of a client.
#[derive(Debug, Clone, Arbitrary)]
pub enum Message {
    /// AUTHENTICATE as one of a few users.
    Authenticate {
        /// Which user.
        user: u8,
    },
    /// AUTHENTICATE with a token.
    AuthenticateWithToken {
        /// Which user.
        user: u8,
        /// The limit in the token.
        limit: Option<u8>,
        /// Seconds until the token expires.
        seconds: u8,
    },
    /// AUTHENTICATE with an object.
    AuthenticateWithObject {
        /// Which user.
        user: u8,
        /// Which device, if any.
        device: Option<u8>,
        /// Which sessions to evict: none, the oldest, or some of the existing ones. And how long to wait in line, if at all.
        evict: u8,
        /// Which of all resume tokens that clients received, if any.
        resume: Option<u8>,
    },
    /// LIST_SESSIONS.
    List,
    /// END_SESSION.
    End {
        /// Which of all existing sessions, of any user.
        which: u8,
    },
    /// CHECK_CONNECTIONS.
    Check,
    /// BYE.
    Bye,
    /// Any text.
    Raw(String),
    /// LIST_SESSIONS of a client that wants to be told of changes from now on, or not any more.
    Watch {
        /// Which of both.
        is_on: bool,
    },
}

/// What a store does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum StoreFault {
    /// Applies it and answers.
    Apply,
    /// Applies it, and the answer is lost.
    ApplyUnanswered,
    /// Applies it, and answers that the outcome is unknown.
    ApplyUnknown,
    /// Does not apply it, and answers so.
    Reject,
    /// Does not apply it, and answers that the outcome is unknown.
    DropUnknown,
    /// Loses the command and the answer.
    DropUnanswered,
    /// Answers that the outcome is unknown, and may apply it later.
    Postpone,
    /// Begins to apply it, and goes on at a later step.
    Begin,
}

pub(super) fn credential(user: u8) -> Credential {
    Credential::new(user_id(user).as_str())
}

pub(super) fn user_id(user: u8) -> UserId {
    UserId::parse(&format!("user {user}")).expect("a good id")
}
