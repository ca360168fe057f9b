//! Why the client ended, as an exit code.

use std::process::ExitCode;

/// Why a run ended, from best to worst. With several sessions the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitReason {
    /// Every session ended with BYE on request; or no part of a load failed. Exit code 0.
    Goodbye,
    /// A session was denied a slot. Exit code 3.
    Denied,
    /// The server could not be reached, the connection was lost, or the server closed it or refused it for another
    /// reason than the limit; or part of a load failed. Exit code 4.
    Lost,
    /// The session was evicted, or continues on another connection. Exit code 5.
    Evicted,
}

impl From<ExitReason> for ExitCode {
    fn from(exit_reason: ExitReason) -> Self {
        Self::from(match exit_reason {
            ExitReason::Goodbye => 0,
            ExitReason::Denied => 3,
            ExitReason::Lost => 4,
            ExitReason::Evicted => 5,
        })
    }
}
