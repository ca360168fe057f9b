//! What the rule goes by, beside the record.

use core::num::NonZeroU16;
use core::time::Duration;

use super::limit::SlotLimit;

/// The terms on which a user is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// How many slots a user may hold whose token claims no limit.
    pub limit: SlotLimit,
    /// What is set for this user alone.
    pub overrides: UserOverrides,
    /// What happens when all of the user's slots are taken and another session comes.
    pub when_full: WhenFull,
    /// Whether a client may choose whom to end then.
    pub client_choice: bool,
    /// Whether slots that only linger are given up for a newcomer, oldest first, before anybody is ended or refused.
    pub lingering_first: bool,
    /// What holds a slot.
    pub count_by: CountBy,
    /// How many sessions one device may have, where devices are counted.
    pub sessions_per_device: NonZeroU16,
    /// How long a slot that can be taken up again lingers once its session is lost, at most some 49 days.
    pub linger: Duration,
}

/// What is set for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserOverrides {
    /// How many slots the user may hold, whatever a token claims.
    pub limit: Option<SlotLimit>,
    /// What happens when they are all taken.
    pub when_full: Option<WhenFull>,
}

/// What happens when all of a user's slots are taken and another session comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Deny,
    /// It takes the place of the oldest.
    EvictOldest,
}

/// What holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CountBy {
    /// A session.
    #[default]
    Sessions,
    /// All the sessions of one device; and a session that names none.
    Devices,
}

/// Where a limit comes from, the more specific later: it wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitSource {
    /// The server's default.
    Server,
    /// What the user's token claims.
    Token,
    /// What is set for the user.
    User,
}

impl AdmissionPolicy {
    /// The default number of sessions that one device may have.
    pub const DEFAULT_SESSIONS_PER_DEVICE: NonZeroU16 = NonZeroU16::new(16).expect("it is not zero");

    /// The terms where a user may hold so many slots and nobody is ever ended: sessions count, and none lingers.
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
            linger: Duration::ZERO,
        }
    }

    /// The same for a user for whom this is set.
    #[must_use]
    pub const fn with_overrides(self, overrides: UserOverrides) -> Self {
        Self { overrides, ..self }
    }

    /// The limit in force for a user whose token claims this, and where it comes from.
    #[must_use]
    pub fn limit_for(&self, claim: Option<SlotLimit>) -> (SlotLimit, LimitSource) {
        let overrides = self.overrides.limit.map(|limit| (limit, LimitSource::User));
        let claim = claim.map(|limit| (limit, LimitSource::Token));
        overrides.or(claim).unwrap_or((self.limit, LimitSource::Server))
    }

    /// What happens when the user's slots are all taken.
    #[must_use]
    pub fn effective_when_full(&self) -> WhenFull {
        self.overrides.when_full.unwrap_or(self.when_full)
    }

    /// How long a slot lingers, in whole milliseconds, as a record can keep it.
    pub(super) fn linger(&self) -> Duration {
        Duration::from_millis(u32::try_from(self.linger.as_millis()).unwrap_or(u32::MAX).into())
    }
}

impl Default for AdmissionPolicy {
    fn default() -> Self {
        Self::new(SlotLimit::default())
    }
}

impl UserOverrides {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
