//! How long a cluster waits for what.

use core::time::Duration;

use thiserror::Error;

/// How long a node of a cluster waits for what. Valid by construction: [`ClusterTiming::new`] checks what the limit depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterTiming {
    beat: Duration,
    fence: Duration,
    lease: Duration,
    memory: Duration,
}

/// Why times do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClusterTimingError {
    /// A node would close its sessions because of one lost beat.
    #[error("the fence must be at least twice the beat plus the time limit of a call")]
    FenceTooShort,
    /// Another node might free the slots of a node that still serves their sessions.
    #[error(
        "the lease must be longer than the fence, by the error of the clocks and the time to close all connections"
    )]
    LeaseTooShort,
}

impl ClusterTiming {
    /// How fast the clock of a node may go wrong, in parts of a thousand. Clocks of real machines do by less than one.
    pub const MAX_DRIFT_PER_MILLE: u32 = 10;

    /// How long the dead are remembered, unless that is chosen: longer than a system goes on to send what a connection has not
    /// delivered, which is a quarter of an hour on Linux (`tcp_retries2`).
    pub const MEMORY: Duration = Duration::from_secs(3600);

    /// The time that a node may take to close all its connections, once it knows that it has to.
    pub const CLOSE_TIME: Duration = Duration::from_millis(100);

    /// Times that fit together.
    ///
    /// - `beat`: the pause between two beats of a node.
    /// - `fence`: a node whose last confirmed beat was sent so long ago closes its sessions.
    /// - `lease`: a node whose beats an observer has not seen for so long is dead.
    /// - `call`: the time limit of a call to the shared store.
    ///
    /// With ρ for [`ClusterTiming::MAX_DRIFT_PER_MILLE`] and D for [`ClusterTiming::CLOSE_TIME`], `fence` / (1 − ρ) + D must be
    /// at most `lease` / (1 + ρ): then a node has closed its sessions before any other one frees their slots, although its clock
    /// is slow and that of the other one is fast.
    ///
    /// # Errors
    /// [`ClusterTimingError`] says which of the two rules is broken.
    pub fn new(beat: Duration, fence: Duration, lease: Duration, call: Duration) -> Result<Self, ClusterTimingError> {
        if fence < Self::min_fence(beat, call) {
            return Err(ClusterTimingError::FenceTooShort);
        }
        if lease < Self::min_lease(fence) {
            return Err(ClusterTimingError::LeaseTooShort);
        }
        Ok(Self { beat, fence, lease, memory: Self::MEMORY })
    }

    /// The shortest fence that [`ClusterTiming::new`] accepts with these times.
    #[must_use]
    pub fn min_fence(beat: Duration, call: Duration) -> Duration {
        beat * 2 + call
    }

    /// The shortest lease that [`ClusterTiming::new`] accepts with this fence.
    #[must_use]
    pub fn min_lease(fence: Duration) -> Duration {
        let (whole, drift) = (1000, Self::MAX_DRIFT_PER_MILLE);
        // Multiplied by (1 − ρ)(1 + ρ), so that it is rounded once, and up.
        let scaled = fence * whole * (whole + drift) + Self::CLOSE_TIME * (whole - drift) * (whole + drift);
        let divisor = whole * (whole - drift);
        let floor = scaled / divisor;
        if floor * divisor < scaled { floor + Duration::from_nanos(1) } else { floor }
    }

    /// The same times, with another one after which dead nodes are forgotten: a write of one that arrives later than that may take
    /// effect. It cannot break the limit, but take a slot until its user's record is read again, or end a session.
    #[must_use]
    pub const fn with_memory(self, memory: Duration) -> Self {
        Self { memory, ..self }
    }

    /// The pause between two beats of a node.
    #[must_use]
    pub const fn beat(self) -> Duration {
        self.beat
    }

    /// A node whose last confirmed beat was sent so long ago closes its sessions.
    #[must_use]
    pub const fn fence(self) -> Duration {
        self.fence
    }

    /// A node whose beats an observer has not seen for so long is dead.
    #[must_use]
    pub const fn lease(self) -> Duration {
        self.lease
    }

    /// After which time nodes that are dead or have left are forgotten, and slots that have lapsed are removed at the latest.
    #[must_use]
    pub const fn memory(self) -> Duration {
        self.memory
    }
}

/// A beat every 2 s, a fence of 20 s and a lease of 25 s. A failover of the store, which takes 5 to 15 s, ends no session.
impl Default for ClusterTiming {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { beat: seconds(2), fence: seconds(20), lease: seconds(25), memory: Self::MEMORY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn default_times_fit_together() {
        let timing = ClusterTiming::new(seconds(2), seconds(20), seconds(25), seconds(5)).unwrap();
        assert_eq!(timing, ClusterTiming::default());
    }

    #[test]
    fn lease_outlasts_the_fence_on_wrong_clocks() {
        let lease = |millis| ClusterTiming::new(seconds(2), seconds(20), Duration::from_millis(millis), seconds(5));
        // 20 s / 0.99 = 20.202 s by a right clock, and 100 ms to close: 20.302 s, which a fast clock calls 20.505 s.
        assert_eq!(lease(20_505), Err(ClusterTimingError::LeaseTooShort));
        assert!(lease(20_506).is_ok());
        let min = ClusterTiming::min_lease(seconds(20));
        let lease = |lease| ClusterTiming::new(seconds(2), seconds(20), lease, seconds(5));
        assert!(lease(min).is_ok() && lease(min - Duration::from_nanos(1)).is_err(), "{min:?}");
    }

    #[test]
    fn fence_outlasts_two_beats_and_a_call() {
        let fence = |millis| ClusterTiming::new(seconds(2), Duration::from_millis(millis), seconds(60), seconds(5));
        assert_eq!(fence(8_999), Err(ClusterTimingError::FenceTooShort));
        assert!(fence(9_000).is_ok());
    }
}
