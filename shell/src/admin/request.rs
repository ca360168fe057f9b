//! What an operator asks for.

use serde::{Deserialize, Serialize};
use session_core::ledger::WhenFull;
use session_core::{NodeId, SessionId, UserId};

use super::user_list::UserListRequest;

/// A request about one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRequest {
    /// Report the user's sessions and limit, and what the next session would get.
    Explain,
    /// Change the user's overrides.
    Limit(UserPatch),
    /// End one session, or all.
    End(Option<SessionId>),
    /// Forget everything known of the user, who must hold no slot.
    Forget,
}

/// Everything that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminCall {
    /// Something about one user.
    OfUser(UserId, AdminRequest),
    /// One page of the users.
    ListUsers(UserListRequest),
    /// How the server and its store are doing.
    Status,
    /// The servers that share the store.
    ListNodes,
    /// Declare another server dead.
    Bury(NodeId),
}

/// A change of a user's overrides. A field that is absent stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// How many slots the user may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Override<SlotCount>>,
    /// What happens when all slots are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_full: Option<Override<WhenFull>>,
    /// Whether to end the sessions beyond the limit, the newest slots first.
    #[serde(default)]
    pub enforce: bool,
    /// Whether to change nothing, and only report which sessions would be ended.
    #[serde(default)]
    pub dry_run: bool,
}

/// An override, or the word that removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Override<T> {
    /// Overrides the default.
    To(T),
    /// Removes the override.
    Default(DefaultWord),
}

/// `"default"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultWord {
    /// That word.
    Default,
}

/// A number of slots, or `"unlimited"`: the most that a record can hold, 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SlotCount {
    /// This number.
    Number(u32),
    /// The most there can be.
    Unlimited(UnlimitedWord),
}

/// `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnlimitedWord {
    /// That word.
    Unlimited,
}
