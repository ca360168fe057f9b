//! Why there is no report.

use std::io;

use thiserror::Error;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The limit of open files is too low for the sessions.
    #[error(
        "{asked} sessions at once do not fit: the limit of open files leaves room for {room}; \
         ask for fewer, or raise the limit. {advice}"
    )]
    TooManySessions {
        /// How many sessions were asked for.
        asked: u64,
        /// How many fit.
        room: u64,
        /// How to raise the limit.
        advice: String,
    },
    /// The report cannot be written.
    #[error("cannot write the report")]
    Output(#[source] io::Error),
}
