//! Why a store did not do what it was asked, beside session commands.

use session_core::ledger::StoreError;
use thiserror::Error;

/// Why a store did not answer a question or make a change. A session command answers with an
/// [`Outcome`](session_core::ledger::Outcome) instead, which makes the same distinction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StoreFailure {
    /// The store did not do it, and will not.
    #[error("{}", .0.message())]
    Rejected(StoreError),
    /// The store failed while doing it. A change may have been made or not.
    #[error("the store failed, and cannot say whether it was done")]
    InDoubt,
    /// The store did not answer in time. A change may be made, even later.
    #[error("the store did not answer in time")]
    TimedOut,
}
