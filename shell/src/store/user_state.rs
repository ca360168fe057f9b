//! What a store keeps of a user beside slots.

use session_core::Timestamp;
use session_core::ledger::{SessionStatus, UserOverrides, UserRecord};

/// What a store keeps of a user beside slots. It keeps nothing of a user who was never seen and has no overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserState {
    /// The user's overrides, empty if there are none.
    pub overrides: UserOverrides,
    /// Whether the user was granted a slot.
    pub seen: SeenState,
}

/// Whether a user was granted a slot, and is not forgotten since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SeenState {
    /// Never.
    #[default]
    Never,
    /// At least once.
    At(UserSeen),
    /// At least once. When is not known: a later version of this software may have written it.
    Unreadable,
}

/// When a user was granted slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserSeen {
    /// The first time.
    pub first: Timestamp,
    /// The last time. A store may keep it only coarsely.
    pub last: Timestamp,
}

/// The sessions that hold a user's slots now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// Those that are live.
    pub live: u32,
    /// Those that linger.
    pub lingering: u32,
}

impl UserState {
    /// Whether there is nothing to forget.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl SeenState {
    /// Whether the user was seen.
    #[must_use]
    pub const fn is_known(self) -> bool {
        match self {
            Self::Never => false,
            Self::At(_) | Self::Unreadable => true,
        }
    }

    /// The same, once the user has been granted slots at these times, too. A store may note grants later, or only coarsely.
    #[must_use]
    pub fn with_grants(self, grants: impl IntoIterator<Item = Timestamp>) -> Self {
        grants.into_iter().fold(self, |seen, at| match seen {
            Self::Never => Self::At(UserSeen { first: at, last: at }),
            Self::At(UserSeen { first, last }) => Self::At(UserSeen { first: first.min(at), last: last.max(at) }),
            Self::Unreadable => Self::Unreadable,
        })
    }
}

impl SessionCounts {
    /// The sessions of a record that has no lapsed ones.
    pub(super) fn of_record(record: &UserRecord) -> Self {
        record.sessions().iter().fold(Self::default(), |counts, session| match session.status {
            SessionStatus::Live => Self { live: counts.live + 1, ..counts },
            SessionStatus::Lingering { .. } => Self { lingering: counts.lingering + 1, ..counts },
        })
    }

    /// Whether there is any.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.live > 0 || self.lingering > 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn grants_make_a_user_known() {
        let at = |second| Timestamp::from_epoch(Duration::from_secs(second));
        let seen = |first, last| SeenState::At(UserSeen { first: at(first), last: at(last) });
        assert_eq!(SeenState::Never.with_grants([]), SeenState::Never);
        assert_eq!(SeenState::Never.with_grants([at(7), at(5)]), seen(5, 7));
        assert_eq!(seen(4, 6).with_grants([at(5), at(9)]), seen(4, 9));
        assert_eq!(SeenState::Unreadable.with_grants([at(7)]), SeenState::Unreadable);
        let is_known = [SeenState::Never, seen(1, 1), SeenState::Unreadable].map(SeenState::is_known);
        assert_eq!(is_known, [false, true, true]);
    }
}
