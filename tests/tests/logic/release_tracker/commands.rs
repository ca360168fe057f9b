//! Commands and outcomes for the tests.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use session_core::ledger::{AcquireOptions, KnownToken, StoreCommand};
use session_core::ledger::{DenyReason, LimitSource, LinePlace, Outcome, SlotLimit, SlotUsage, StoreError};
use session_core::release_tracker::ReleaseTracker;
use session_core::{NodeId, ResumeKey, SessionId, Timestamp};
pub(super) use tests::values::{NANOSECOND, at_milli as at, user};

pub(super) const GRANTED: Outcome = Outcome::granted(1);
pub(super) const FOUND: Outcome = Outcome::Counted { slots: 1 };
pub(super) const FAILED: Outcome = Outcome::Rejected(StoreError::Failed);

/// The session was put into the line.
pub(super) fn in_line() -> Outcome {
    let usage = SlotUsage {
        limit: SlotLimit::default(),
        limit_source: LimitSource::Server,
        slots: 1,
        sessions: Box::default(),
        free_at: None,
        denied: Some(DenyReason::LimitReached),
        client_choice: false,
        waiting: 1,
        line: LinePlace::At(1),
    };
    Outcome::Waiting(Box::new(usage))
}

pub(super) fn session(number: u64) -> SessionId {
    NodeId::new(0xada).session(number)
}

pub(super) fn acquire(number: u64) -> StoreCommand {
    StoreCommand::Acquire { user: user(), session: session(number), limit: None, at: at(0), options: None }
}

pub(super) fn release(number: u64) -> StoreCommand {
    StoreCommand::Release { user: user(), session: session(number) }
}

pub(super) fn count_slots(number: u64) -> StoreCommand {
    StoreCommand::CountSlots { user: user(), session: session(number), at: at(0) }
}

/// An acquire that waits in line.
pub(super) fn wait(number: u64) -> StoreCommand {
    StoreCommand::Acquire {
        user: user(),
        session: session(number),
        limit: None,
        at: at(0),
        options: Some(Box::new(AcquireOptions { waits: true, ..AcquireOptions::default() })),
    }
}

/// The session was lost at 7 ms.
pub(super) fn linger(number: u64) -> StoreCommand {
    StoreCommand::Linger { user: user(), session: session(number), at: at(7), token: KnownToken::Granted }
}

/// An acquire of a slot that can be resumed.
pub(super) fn acquire_resumable(number: u64) -> StoreCommand {
    let options = AcquireOptions { new_resume_key: Some(ResumeKey::from_bytes([9; 32])), ..AcquireOptions::default() };
    StoreCommand::Acquire {
        user: user(),
        session: session(number),
        limit: None,
        at: at(0),
        options: Some(Box::new(options)),
    }
}

/// The public state: (tracked, pending, deadline).
pub(super) fn state_of(tracker: &ReleaseTracker) -> (usize, usize, Option<Timestamp>) {
    (tracker.tracked(), tracker.pending(), tracker.deadline())
}
