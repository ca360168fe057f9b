//! Why the client ended, as an exit code.

use std::process::ExitCode;

/// How it ended, the better first. Of many sessions the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitReason {
    /// With BYE, on request; or of load that was made, none failed. Exit code 0.
    Goodbye,
    /// The limit refused it. Exit code 3.
    LimitReached,
    /// No server, a lost connection, or a server that closed or refused for another reason than the limit; or load that
    /// failed in part. Exit code 4.
    Lost,
    /// The slot was taken away, or the session goes on on another connection. Exit code 5.
    Evicted,
}

impl From<ExitReason> for ExitCode {
    fn from(exit_reason: ExitReason) -> Self {
        Self::from(match exit_reason {
            ExitReason::Goodbye => 0,
            ExitReason::LimitReached => 3,
            ExitReason::Lost => 4,
            ExitReason::Evicted => 5,
        })
    }
}
