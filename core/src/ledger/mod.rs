//! Apply the ledger: one rule decides who is admitted, for every store.
//!
//! There is no counter. A user's count is the number of slots that the sessions in the user's [record](UserRecord) hold.
//! Each slot belongs to a session id. So the count cannot be negative and cannot drift.
//!
//! Two ways to use it:
//!
//! - An application that keeps the records itself calls [`acquire`], [`renew`], [`release`], [`linger`], [`count`], [`list`]
//!   and [`end_sessions`]. Each has an answer of its own type, such as `Result<Grant, Denied>`. [An example](#the-ledger-alone)
//!   is at the end.
//! - A store takes [`StoreCommand`]s from sessions and answers with [`Outcome`]s. It runs *read record → [`apply`](apply()) → write
//!   record*, atomically for one user: a lock in memory, a write transaction in LMDB, one compare-and-set in a
//!   distributed store.
//!
//! # The store contract
//!
//! - A store applies the commands of one session in the order they were submitted, or not at all.
//! - A store applies an acquire at most once and never retries it.
//! - A store answers every command once. [`Outcome::Rejected`] means *certainly not applied*. A store that cannot tell
//!   answers [`Outcome::Unknown`]. Then the command may still be applied later.
//! - A caller may withdraw a command until the store begins to apply it. A withdrawn command is certainly not applied: it
//!   takes no slot and ends no session. A caller that stops waiting for an acquire withdraws it.
//! - A store answers [`Outcome::Granted`] only when it holds the slot.
//! - If a command takes the slot of another session, the store notifies that session ([`ApplyResult::ended`]) once the
//!   command is applied, or may be. The answer to the command does not matter for this. The store notifies in the order in
//!   which it applied the commands of a user, and before it answers that command or a later one of that user. So the caller
//!   knows who is leaving before it is told of a grant ([`LeavingTracker`](crate::leaving_tracker::LeavingTracker)).
//! - A store passes on hints ([`ApplyResult::hints`]) once the command is applied, or may be. It may lose some.
//!
//! # The line
//!
//! A session that was denied may wait in line, in the record of its user. When a slot is free for it, the store says so
//! ([`Hint::Turn`]), and the session asks again. Its acquire is answered as any other: so there is one way to be admitted, and
//! a hint that is lost costs time and no slot. Until it asks, nobody behind it is admitted to that slot, nor anybody who is not
//! in line. What [`apply`](apply()) checks is this: **nobody is admitted to a slot that a session before it in line could take.**
//! A session that ends another one for its slot takes that place, not one of the line's. If it would end the one before it in
//! line as soon as that is admitted, it is admitted in its stead, and the other waits on.
//!
//! # The ledger alone
//!
//! `core/examples/ledger_alone.rs`:
//!
//! ```
#![doc = include_str!("../../examples/ledger_alone.rs")]
//! ```

mod command;
mod outcome;
mod apply;
mod admission;
mod line;
mod room;
mod end;
mod renewal;
mod listing;
mod lapsed;
mod slots;
mod policy;
mod limit;
mod record;
mod end_reason;

pub use admission::{Acquire, Denied, Grant, acquire};
pub use apply::apply;
pub use command::{AcquireOptions, EndTarget, Evict, KnownToken, StoreCommand};
pub use end::{EndResult, end_sessions, linger, release};
pub use end_reason::{EndReason, SessionNames};
pub use lapsed::remove_lapsed;
pub use limit::{SlotLimit, SlotLimitError};
pub use line::called;
pub use listing::{count, list};
pub use outcome::{
    ApplyResult, DenyReason, EndedSession, EvictedSession, GrantDetails, Hint, LinePlace, Liveness, NotResumed,
    Outcome, RenewalDenied, Resumption, SessionHint, SlotUsage, StoreError,
};
pub use policy::{AdmissionPolicy, CountBy, LimitSource, UserOverrides, WhenFull};
pub use record::{
    ClientInfo, FormerEnd, FormerSlot, LeavingSession, RecordError, Resumable, SessionRecord, SessionStatus,
    UserRecord, WaitingSession,
};
pub use renewal::{Renewal, renew};
