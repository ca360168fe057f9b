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
//! - Whoever lost its hold to a command is told so ([`ApplyResult::ended`]) once it is applied, or may be; whatever becomes
//!   of the answer.

mod command;
mod outcome;
mod admission;
mod slots;
mod policy;
mod limit;
mod record;

pub use admission::{apply, expire_sessions};
pub use command::{AcquireOptions, EndTarget, Evict, StoreCommand};
pub use limit::{SlotLimit, SlotLimitError};
pub use outcome::{ApplyResult, EndReason, EndedSession, Grant, Liveness, Outcome, SlotListing, StoreError};
pub use policy::{AdmissionPolicy, CountBy, LimitSource, UserOverrides, WhenFull};
pub use record::{ClientInfo, RecordError, Resumable, SessionRecord, SessionStatus, UserRecord};
