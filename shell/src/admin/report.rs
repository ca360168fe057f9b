//! What an operator is told of a user.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use session_core::UserId;
use session_core::ledger::{LimitSource, WhenFull};
use session_core::protocol::SessionSummary;

/// The state of a user after a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserReport {
    /// Which user.
    pub user: UserId,
    /// How many slots the user may hold, 1024 at most.
    pub limit: u32,
    /// Where the limit comes from. A token may claim another, which overrides the server's.
    #[serde(rename = "rule")]
    pub limit_source: LimitSource,
    /// What happens when all slots are taken.
    pub when_full: WhenFull,
    /// How many slots are held.
    pub connections: u32,
    /// The sessions that hold them, the oldest first.
    pub sessions: Vec<SessionReport>,
    /// What another session would get if its token claims no limit.
    pub next: NextOutcome,
    /// The sessions that were ended, or would be in a dry run.
    pub ended: Vec<String>,
    /// Whether this was a dry run: nothing was changed.
    pub dry_run: bool,
}

/// A session that holds a slot, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The session, as others of its user see it.
    #[serde(flatten)]
    pub session: SessionSummary,
    /// The address that its client connects from. Only for a session that is connected to this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// What counts for the bounds of one address: this address, or for IPv6 its /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_prefix: Option<String>,
}

/// What another session of the user would get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum NextOutcome {
    /// A slot.
    Granted {
        /// The sessions that would be ended for it, or lose their lingering slots.
        ended: Vec<String>,
    },
    /// None.
    Denied,
}
