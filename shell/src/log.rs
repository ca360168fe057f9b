//! Logging that never blocks, and never drowns anybody.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use session_core::Refusal;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object per line, for programs.
    Json,
}

/// The process's log. Dropped, it writes what is still buffered.
#[derive(Debug)]
pub struct Log {
    dropped: ErrorCounter,
    _worker: WorkerGuard,
}

impl Log {
    /// How many lines wait for a reader of standard error that is slow. Further ones are dropped and counted.
    const BUFFERED_LINES: usize = 8192;

    /// Parses what to log: a level, or directives as of `tracing_subscriber::EnvFilter`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse_filter(filter: &str) -> Result<EnvFilter, ParseError> {
        EnvFilter::builder().parse(filter)
    }

    /// Starts to log to standard error, for the whole process. A second call changes nothing.
    #[must_use]
    pub fn start(filter: EnvFilter, format: LogFormat) -> Self {
        let (writer, worker) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(Self::BUFFERED_LINES).finish(io::stderr());
        let dropped = writer.error_counter();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
        // An error means that this process logs already.
        let _already = match format {
            LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
            LogFormat::Json => log.json().flatten_event(true).try_init(),
        };
        Self { dropped, _worker: worker }
    }

    /// How many lines were dropped because standard error was not read fast enough.
    #[must_use]
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

/// Lets one event a second through and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<Option<(Instant, u64)>>);

impl Throttle {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// `Some` if this event may be told, with the number of those that were not since the last.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut *last {
            Some((at, suppressed)) if at.elapsed() < Self::INTERVAL => {
                *suppressed += 1;
                None
            }
            told => Some(told.replace((Instant::now(), 0)).map_or(0, |(_, suppressed)| suppressed)),
        }
    }
}

/// Logs refused sessions at a bounded rate, those of the limit apart from those that tell of trouble.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_limit: Throttle,
    by_store: Throttle,
}

impl Refusals {
    pub(crate) fn note(&self, refusal: &Refusal) {
        match refusal {
            Refusal::LimitReached | Refusal::Credential(_) | Refusal::Other(_) => {
                if let Some(others) = self.by_limit.pass() {
                    tracing::info!(why = %refusal, others, "refused a session");
                }
            }
            Refusal::Store(_) | Refusal::StoreSilent => {
                if let Some(others) = self.by_store.pass() {
                    tracing::warn!(why = %refusal, others, "the store admits nobody");
                }
            }
        }
    }
}
