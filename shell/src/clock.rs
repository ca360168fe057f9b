//! The one clock of a process.

use std::time::{Duration, Instant, SystemTime};

use session_core::Time;

/// Tells the time as the core wants it: the wall clock is read once, then only what has passed since is added, so it
/// never decreases and corrections of the wall clock are not seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Time,
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { origin: Time::from_epoch(since_epoch), started: Instant::now() }
    }

    /// The present time.
    #[must_use]
    pub(crate) fn now(&self) -> Time {
        self.origin + self.started.elapsed()
    }

    /// When `time` is for a timer.
    #[must_use]
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let passed = time.since(self.origin);
        // A time that no Instant can hold lies centuries ahead: a year is late enough to look again.
        self.started.checked_add(passed).unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 24 * 60 * 60))
    }
}
