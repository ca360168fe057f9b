//! What an operator asks for.

use serde::{Deserialize, Serialize};
use session_core::SessionId;

/// What is asked for, of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRequest {
    /// Who holds the slots, since when, from where, under which limit, and what the next attempt would get.
    Explain,
    /// To set what holds for this user alone.
    Limit(UserPatch),
    /// To end a session, or all.
    End(Option<SessionId>),
    /// To forget all that is known of the user, who must hold no slot.
    Forget,
}

/// What is to be set for a user. What is not said stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// How many slots the user may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Override<SlotCount>>,
    /// What happens when they are all taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_full: Option<Override<FullAction>>,
    /// Whether sessions beyond the limit are ended, the newest slots first.
    #[serde(default)]
    pub enforce: bool,
    /// Whether nothing is to be done, but to say who would be ended.
    #[serde(default)]
    pub dry_run: bool,
}

/// Something that is set for a user, or left to the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Override<T> {
    /// This.
    To(T),
    /// The default.
    Default(DefaultWord),
}

/// `"default"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultWord {
    /// That word.
    Default,
}

/// How many slots: a number, or `"unlimited"`, which is as many as a record can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SlotCount {
    /// So many.
    Number(u32),
    /// As many as there can be.
    Unlimited(UnlimitedWord),
}

/// `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnlimitedWord {
    /// That word.
    Unlimited,
}

/// What happens when all of a user's slots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FullAction {
    /// Another session is refused.
    Deny,
    /// It takes the place of the oldest.
    EvictOldest,
}
