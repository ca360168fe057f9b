//! What an operator is told of a user.

use serde::{Deserialize, Serialize};
use session_core::UserId;
use session_core::protocol::SessionInfo;

use super::request::FullAction;

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserReport {
    /// Of whom.
    pub user: UserId,
    /// How many slots the user may hold, 1024 at most.
    pub limit: u32,
    /// Where that comes from. A token may claim another, which goes before the server's.
    pub rule: LimitSourceName,
    /// What happens when they are all taken.
    pub when_full: FullAction,
    /// How many are held.
    pub connections: u32,
    /// Who holds them, the oldest first.
    pub sessions: Vec<SessionHolder>,
    /// What another session without a token's claim would get.
    pub next: NextOutcome,
    /// Who was ended, or would be.
    pub ended: Vec<String>,
    /// Whether nothing was done, but to look.
    pub dry_run: bool,
}

/// Where a limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitSourceName {
    /// The server's default.
    Server,
    /// What a token claims.
    Token,
    /// What is set for the user.
    User,
}

/// A session that holds a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionHolder {
    /// The session, as others of its user see it.
    #[serde(flatten)]
    pub session: SessionInfo,
    /// Where it comes from: an address, or a network of IPv6. Only of one that is connected to this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What another session would get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum NextOutcome {
    /// A slot.
    Granted {
        /// Whose sessions would be ended for it, or whose lingering slots given up.
        ended: Vec<String>,
    },
    /// None.
    Denied,
}
