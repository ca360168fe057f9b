//! Why a request was not carried out.

use session_core::ledger::StoreError;
use thiserror::Error;

/// Why an order was not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdminError {
    /// It asks for what cannot be.
    #[error("{0}")]
    BadRequest(String),
    /// The user has no such session.
    #[error("this user has no such session")]
    NoSuchSession,
    /// The user holds slots.
    #[error("this user holds {0} slots: end them first")]
    HoldsSlots(u32),
    /// The store did not take it.
    #[error("{}", .0.message())]
    Store(StoreError),
    /// What is set for the user is set, but those who are beyond the limit were not ended.
    #[error("the limit is set, but whoever is beyond it was not ended: {0}; order it again")]
    NotEnforced(Box<Self>),
    /// The store failed while it changed something.
    #[error("the store failed, nobody knows whether it was done; look, and order it again")]
    InDoubt,
    /// It was done, and how it stands now the store cannot say.
    #[error("it is done, but the store cannot say how it stands now")]
    ReportUnavailable,
    /// The store did not answer.
    #[error("the store did not answer in time, nobody knows whether it was done; look, and order it again")]
    StoreTimedOut,
}

/// Why a request is no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminRequestError {
    /// There is no such place.
    NotFound,
    /// This cannot be done to it; what can.
    NotAllowed(&'static str),
    /// What it says makes no sense.
    Bad(String),
}
