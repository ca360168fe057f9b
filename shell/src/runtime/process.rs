//! What a process has once, and hands down to everything in it.

use crate::runtime::clock::Clock;
use crate::runtime::supervisor::Supervisor;

/// The clock and the supervisor of a process. A clone shares both.
///
/// A process starts one clock. Each clock reads the wall clock at its start, so two that start one after the other differ
/// by what the wall clock was corrected in between, and a session would linger by one of them and lapse by the other.
#[derive(Debug, Clone)]
pub struct Process {
    /// The clock.
    pub clock: Clock,
    /// The supervisor.
    pub supervisor: Supervisor,
}

impl Process {
    /// A real clock that starts now, and a supervisor that only logs.
    #[must_use]
    pub fn start() -> Self {
        Self::with_clock(Clock::start())
    }

    /// This clock, and a supervisor that only logs.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self { clock, supervisor: Supervisor::default() }
    }
}
