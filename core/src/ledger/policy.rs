//! How many slots a user may hold, and what happens if none is free.

use core::num::NonZeroU16;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::limit::SlotLimit;
use crate::time::Timestamp;

/// How many slots a user may hold, and what happens if none is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// The number of slots that a user may hold. A token or an override can replace it.
    pub limit: SlotLimit,
    /// The overrides for this user.
    pub overrides: UserOverrides,
    /// What happens if a session asks for a slot and the user has none left. An override can replace it:
    /// [`AdmissionPolicy::effective_when_full`].
    pub when_full: WhenFull,
    /// Whether a client may choose sessions to evict.
    pub client_choice: bool,
    /// Whether lingering slots are freed for a new session, before a live session is evicted or the new one is denied. The
    /// slot whose grace period ends first goes first.
    pub lingering_first: bool,
    /// What counts as one slot.
    pub count_by: CountBy,
    /// The number of sessions of one device, if devices are counted.
    pub sessions_per_device: NonZeroU16,
    /// How many sessions of a user may wait in line for a slot, at most [`UserRecord::MAX_WAITING`](super::UserRecord). Zero:
    /// none.
    pub max_waiting: u16,
    /// The grace period in which a lost session keeps its slot for its client to resume, at most about 49 days.
    pub linger: Duration,
    /// How long a slot that was just lost is kept for its client, although [`lingering_first`](Self::lingering_first) would
    /// free it. It is never kept longer than it lingers. Zero: not at all.
    ///
    /// Only a client that names the slot ([`Evict::Sessions`](super::Evict)) takes it before. Where the oldest slot is
    /// evicted, slots that were just lost go last.
    pub linger_grace: Duration,
    /// Whether a slot can be used again while its user holds more than the limit, because that was lowered: resumed, or shared by
    /// another session of its device. Servers that share a store do not allow it: there the record may also name sessions that
    /// are gone, after the store has forgotten something.
    pub reuses_above_limit: bool,
    /// Since when clients can reach a server of this store. A slot that was lost before counts as lost at this time for
    /// [`linger_grace`](Self::linger_grace): its client could not come back earlier. The default is the beginning of time.
    ///
    /// With one server, its start. With several on one store, the start of the first of those that run now: when one of them
    /// restarts, clients can come back to the others. Each server decides with its own value, so a wrong one keeps no slot
    /// for longer than the grace after that server's start.
    pub serving_since: Timestamp,
}

/// The overrides for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserOverrides {
    /// The number of slots that the user may hold. It also replaces a token's claim.
    pub limit: Option<SlotLimit>,
    /// What happens if the user has no slot left.
    pub when_full: Option<WhenFull>,
}

/// What happens if a session asks for a slot and the user has none left. In JSON as its [`name`](WhenFull::name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The session is denied.
    #[default]
    Deny,
    /// The oldest slot is evicted for it.
    EvictOldest,
}

/// What counts as one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CountBy {
    /// Each session.
    #[default]
    Sessions,
    /// All sessions of one device together. A session without a device counts by itself.
    Devices,
}

/// Where a limit comes from. A later variant takes precedence over an earlier one. In JSON a word in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitSource {
    /// The server's default.
    Server,
    /// The claim of the user's token.
    Token,
    /// The override for the user.
    User,
}

impl WhenFull {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Deny, Self::EvictOldest];

    /// Its name for operators: in the configuration, on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::EvictOldest => "evict-oldest",
        }
    }
}

impl CountBy {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Sessions, Self::Devices];

    /// Its name for operators, in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Devices => "devices",
        }
    }
}

impl AdmissionPolicy {
    /// The default of [`AdmissionPolicy::sessions_per_device`].
    pub const DEFAULT_SESSIONS_PER_DEVICE: NonZeroU16 = NonZeroU16::new(16).expect("it is not zero");

    /// The default of [`AdmissionPolicy::max_waiting`].
    pub const DEFAULT_MAX_WAITING: u16 = 16;

    /// The default of [`AdmissionPolicy::linger_grace`].
    pub const DEFAULT_LINGER_GRACE: Duration = Duration::from_secs(5);

    /// A policy with this limit, under which no session is evicted and none lingers. Each session counts as one slot.
    #[must_use]
    pub const fn new(limit: SlotLimit) -> Self {
        Self {
            limit,
            overrides: UserOverrides { limit: None, when_full: None },
            when_full: WhenFull::Deny,
            client_choice: false,
            lingering_first: true,
            count_by: CountBy::Sessions,
            sessions_per_device: Self::DEFAULT_SESSIONS_PER_DEVICE,
            max_waiting: Self::DEFAULT_MAX_WAITING,
            linger: Duration::ZERO,
            linger_grace: Self::DEFAULT_LINGER_GRACE,
            reuses_above_limit: true,
            serving_since: Timestamp::from_epoch(Duration::ZERO),
        }
    }

    /// The same policy with these overrides.
    #[must_use]
    pub const fn with_overrides(self, overrides: UserOverrides) -> Self {
        Self { overrides, ..self }
    }

    /// The limit in force, and where it comes from. `claim` is the limit that the user's token claims.
    #[must_use]
    pub fn limit_for(&self, claim: Option<SlotLimit>) -> (SlotLimit, LimitSource) {
        let overrides = self.overrides.limit.map(|limit| (limit, LimitSource::User));
        let claim = claim.map(|limit| (limit, LimitSource::Token));
        overrides.or(claim).unwrap_or((self.limit, LimitSource::Server))
    }

    /// What happens if the user has no slot left: the override, or else the server's setting.
    #[must_use]
    pub fn effective_when_full(&self) -> WhenFull {
        self.overrides.when_full.unwrap_or(self.when_full)
    }

    /// The grace period in whole milliseconds, as a record stores it.
    pub(super) fn linger(&self) -> Duration {
        Duration::from_millis(u32::try_from(self.linger.as_millis()).unwrap_or(u32::MAX).into())
    }

    /// Until when a slot that was lost at this time is kept for its client.
    pub(super) fn kept_until(&self, lost_at: Timestamp) -> Timestamp {
        if self.linger_grace.is_zero() {
            // Also if the clock of another server was ahead.
            return Timestamp::default();
        }
        lost_at.max(self.serving_since) + self.linger_grace
    }
}

impl Default for AdmissionPolicy {
    fn default() -> Self {
        Self::new(SlotLimit::default())
    }
}

impl UserOverrides {
    /// Whether there is no override.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_json_word() {
        for when_full in WhenFull::ALL {
            let json = serde_json::to_value(when_full).unwrap();
            assert_eq!(json, when_full.name());
            assert_eq!(serde_json::from_value::<WhenFull>(json).unwrap(), when_full);
        }
    }
}
