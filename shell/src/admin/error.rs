//! Why a request was not carried out.

use session_core::NodeId;
use session_core::ledger::StoreError;
use thiserror::Error;

/// Why a request was not carried out, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdminError {
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The user has no such session.
    #[error("this user has no such session")]
    NoSuchSession,
    /// The user holds slots.
    #[error("this user holds {0} slots: end them first")]
    HoldsSlots(u32),
    /// The store is this server's alone.
    #[error("this server shares its store with nobody")]
    NotShared,
    /// The server was to declare itself dead.
    #[error(
        "this server has that id itself, and does not declare itself dead: stop it, or give the command to another server"
    )]
    OwnNode,
    /// No server has this id.
    #[error("no server has the id {0}; there are {1}")]
    NoSuchNode(NodeId, String),
    /// The store rejected it: nothing was changed.
    #[error("{}", store_message(*.0))]
    Store(StoreError),
    /// The limit is set, but the sessions beyond it were not ended.
    #[error("the limit is set, but the sessions beyond it were not ended: {0}; try again")]
    NotEnforced(Box<Self>),
    /// The store failed during a change, which may have been made.
    #[error("the store failed, and may or may not have done it; look, then try again")]
    InDoubt,
    /// The change was made, but the report of the state after it failed.
    #[error("it is done, but the store cannot say how it stands now")]
    ReportUnavailable,
    /// The store did not answer a question in time.
    #[error("the store did not answer in time; `server status` says how it is")]
    Unanswered,
    /// The store did not answer in time. A change may be made, even later.
    #[error("the store did not answer in time, and may or may not have done it; look, then try again")]
    StoreTimedOut,
}

/// What the operator is told, who can read the log.
fn store_message(error: StoreError) -> &'static str {
    match error {
        StoreError::Overloaded | StoreError::Full => error.message(),
        StoreError::Failed => {
            "the store failed, is closed or admits nobody yet, or this user's record cannot be read, and nothing was done; \
             `server status` or the server's log says which"
        }
    }
}

/// Why an HTTP request is not an [`AdminRequest`](super::AdminRequest).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminRequestError {
    /// No such path.
    NotFound,
    /// The path does not take this method. It takes these.
    NotAllowed(&'static str),
    /// The path or the body makes no sense.
    Bad(String),
}
