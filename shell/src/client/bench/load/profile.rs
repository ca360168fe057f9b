//! Which users sign in, and how fast.

/// The number of users, named `user-00000000` and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Users(pub u32);

/// When the next sign-in starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoadProfile {
    /// Open loop: starts this many per second, even if earlier ones have not ended. Latency counts from the scheduled
    /// time, so a stalled server shows in the latency of every user who would have waited.
    Rate(f64),
    /// Closed loop: this many at once. Each starts when the one before it has ended.
    Concurrency(u16),
}

impl Users {
    /// The name of a user.
    #[must_use]
    pub fn name(number: u32) -> String {
        format!("user-{}", Self::digits(number))
    }

    /// What the name of a user has after `user-`.
    pub(crate) fn digits(number: u32) -> String {
        format!("{number:08}")
    }

    /// The number of a random user.
    pub(crate) fn random(self) -> u32 {
        fastrand::u32(0..self.0.max(1))
    }

    /// The user of a session, if the sessions are spread evenly and the first users come first.
    pub(crate) fn name_for_session(self, number: u32, sessions: u32) -> String {
        let user = u64::from(number) * u64::from(self.0.clamp(1, sessions.max(1))) / u64::from(sessions.max(1));
        Self::name(u32::try_from(user).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_spread_evenly_over_users() {
        let name_for_session = |users, sessions| -> Vec<String> {
            (0..sessions).map(|number| Users(users).name_for_session(number, sessions).split_off(12)).collect()
        };
        assert_eq!(name_for_session(2, 6), ["0", "0", "0", "1", "1", "1"]);
        assert_eq!(name_for_session(4, 10), ["0", "0", "0", "1", "1", "2", "2", "2", "3", "3"]);
        assert_eq!(name_for_session(1, 3), ["0", "0", "0"]);
        assert_eq!(name_for_session(9, 3), ["0", "1", "2"]);
        assert_eq!(name_for_session(0, 1), ["0"]);
    }
}
