//! What an operator is told of a user.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, LimitSource, SlotLimit, UserOverrides, WhenFull};
use session_core::protocol::SessionSummary;

use crate::store::{SeenState, UserSeen};

/// What a request about a user did, and the state of the user after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserReport {
    /// Which user.
    pub user: UserId,
    /// What is in force for the user. In a dry run, what would be.
    #[serde(flatten)]
    pub state: StateReport,
    /// How many slots are held.
    pub connections: u32,
    /// How many sessions wait in line for a slot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u16,
    /// The sessions that hold them, the oldest first.
    pub sessions: Vec<SessionReport>,
    /// The sessions beyond the limit that is set for the user. They go on. Without such a limit none counts as beyond it: its
    /// token may have claimed another.
    pub beyond_limit: Vec<String>,
    /// What another session would get, if its token claims the same limit as that of the newest session.
    pub next: NextOutcome,
    /// If the server admits no session now: what it tells each client that signs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The sessions that were ended, or would be in a dry run.
    pub ended: Vec<String>,
    /// Whether this was a dry run: nothing was changed.
    pub dry_run: bool,
    /// Whether anything was changed.
    pub change: Change,
    /// What was in force before, if the request was to change it. Nothing else changed it in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<StateReport>,
    /// How many slots were held before, if the request was to end sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_before: Option<u32>,
    /// Other users with ids that look like this one. Only in the answer to [`AdminRequest::Explain`](super::AdminRequest).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub look_alikes: Vec<UserId>,
    /// What stands for the user in the log, if the log names users by a hash. Only in the same answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged_as: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// Whether a request changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// No: it asked for no change, or there was nothing to do.
    None,
    /// Yes.
    Made,
    /// No, because this was a dry run. Otherwise yes.
    WouldBeMade,
}

/// What is in force for a user, and whether the server has seen the user. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// How many slots the user may hold, 1024 at most.
    pub limit: u32,
    /// Where the limit comes from. The claim of a token is that of the newest session: the next token may claim another.
    #[serde(rename = "rule")]
    pub limit_source: LimitSource,
    /// What happens when all slots are taken.
    pub when_full: WhenFull,
    /// What of that is set for this user.
    pub overrides: OverridesReport,
    /// Whether the server has ever granted the user a slot, and has not forgotten the user since. `None` if the store cannot
    /// say it now.
    pub known: Option<bool>,
    /// When it did so first. Absent also if that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<u64>,
    /// When it did so last. Up to an hour behind for a user without sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
}

/// What is set for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OverridesReport {
    /// How many slots the user may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// What happens when all slots are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_full: Option<WhenFull>,
}

impl From<UserOverrides> for OverridesReport {
    fn from(UserOverrides { limit, when_full }: UserOverrides) -> Self {
        Self { limit: limit.map(SlotLimit::slots), when_full }
    }
}

impl StateReport {
    /// The state of a user for whom this policy holds. `claim` is the limit that the user's newest token claims. `seen` is
    /// `None` if the store cannot say it.
    pub(super) fn new(policy: &AdmissionPolicy, claim: Option<SlotLimit>, seen: Option<SeenState>) -> Self {
        let (limit, limit_source) = policy.limit_for(claim);
        let [first_seen, last_seen] = seen.map_or([None; 2], seen_millis);
        Self {
            limit: limit.slots(),
            limit_source,
            when_full: policy.effective_when_full(),
            overrides: policy.overrides.into(),
            known: seen.map(SeenState::is_known),
            first_seen,
            last_seen,
        }
    }
}

/// When a user was seen, first and last, in milliseconds since 1970.
pub(super) fn seen_millis(seen: SeenState) -> [Option<u64>; 2] {
    match seen {
        SeenState::Never | SeenState::Unreadable => [None; 2],
        SeenState::At(UserSeen { first, last }) => [Some(first.millis()), Some(last.millis())],
    }
}

/// A session that holds a slot, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The session, as others of its user see it.
    #[serde(flatten)]
    pub session: SessionSummary,
    /// The limit that its token claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_limit: Option<u32>,
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
