//! Logging that never blocks, and never drowns anybody.

use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

use clap::ValueEnum;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
pub struct Log {
    dropped: ErrorCounter,
    set_filter: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
    _worker: WorkerGuard,
}

impl Log {
    /// How many lines wait for a reader of standard error that is slow. Further ones are dropped and counted.
    const BUFFERED_LINES: usize = 8192;

    /// Parses what to log: a level, or directives as of `tracing_subscriber::EnvFilter`.
    ///
    /// # Errors
    /// When it is neither, in words.
    pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
        // To the filter a misspelt level is the name of a target, and nothing would be logged at all.
        let is_level = |word: &str| LevelFilter::from_str(word).is_ok();
        match filter.split(',').find(|part| !part.contains('=') && !is_level(part.trim())) {
            Some(part) => {
                Err(format!("{part:?} is no level: it must be error, warn, info, debug, trace, off or TARGET=LEVEL"))
            }
            None => EnvFilter::builder().parse(filter).map_err(|error| error.to_string()),
        }
    }

    /// Starts to log to standard error, for the whole process. A second call changes nothing.
    #[must_use]
    pub fn start(filter: EnvFilter, format: LogFormat) -> Self {
        let (writer, worker) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(Self::BUFFERED_LINES).finish(io::stderr());
        let dropped = writer.error_counter();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
        // That it does not begin means that this process logs already.
        let set_filter: Box<dyn Fn(EnvFilter) -> bool + Send + Sync> = match format {
            LogFormat::Text => {
                let log = log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).with_filter_reloading();
                let handle = log.reload_handle();
                let _already = log.try_init();
                Box::new(move |filter| handle.reload(filter).is_ok())
            }
            LogFormat::Json => {
                let log = log.json().flatten_event(true).with_filter_reloading();
                let handle = log.reload_handle();
                let _already = log.try_init();
                Box::new(move |filter| handle.reload(filter).is_ok())
            }
        };
        Self { dropped, set_filter, _worker: worker }
    }

    /// Logs by another filter from now on. False if this process logs elsewhere.
    pub fn set_filter(&self, filter: EnvFilter) -> bool {
        (self.set_filter)(filter)
    }

    /// How many lines were dropped because standard error was not read fast enough.
    #[must_use]
    pub fn dropped_lines(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

/// Lets one line pass a second and counts what it suppresses, so that what befalls every command, or every client,
/// cannot flood the log.
#[derive(Debug, Default)]
pub(crate) struct LogRateLimiter(Mutex<SuppressedLines>);

#[derive(Debug, Default)]
struct SuppressedLines {
    since: Option<Instant>,
    lines: u64,
}

impl LogRateLimiter {
    const PAUSE: Duration = Duration::from_secs(1);

    /// A limiter that lets the first line pass.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(SuppressedLines { since: None, lines: 0 }))
    }

    /// Whether to log now; if so, how many lines were suppressed since the last one, if any were.
    pub(crate) fn check(&self) -> Option<Option<u64>> {
        let mut suppressed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if suppressed.since.is_some_and(|since| since.elapsed() < Self::PAUSE) {
            suppressed.lines += 1;
            return None;
        }
        suppressed.since = Some(Instant::now());
        Some(Some(mem::take(&mut suppressed.lines)).filter(|&lines| lines > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suppressed_is_counted() {
        let rate_limiter = LogRateLimiter::default();
        let later = || rate_limiter.0.lock().unwrap().since = None;
        assert_eq!(rate_limiter.check(), Some(None));
        assert_eq!((rate_limiter.check(), rate_limiter.check()), (None, None));
        later();
        assert_eq!(rate_limiter.check(), Some(Some(2)));
        later();
        assert_eq!(rate_limiter.check(), Some(None));
    }
}
