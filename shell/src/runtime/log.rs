//! Non-blocking, rate-limited logging.

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
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The log of the process. When dropped it writes the buffered lines.
pub struct Log {
    dropped: ErrorCounter,
    set_filter: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
    _worker: WorkerGuard,
}

impl Log {
    /// How many lines are buffered while standard error blocks. Further lines are dropped and counted.
    const BUFFERED_LINES: usize = 8192;

    /// Parses a filter: a level, or directives of `tracing_subscriber::EnvFilter`.
    ///
    /// # Errors
    /// A message, when it is neither.
    pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
        // `EnvFilter` reads a misspelt level as the name of a target, and would then log nothing.
        let is_level = |word: &str| LevelFilter::from_str(word).is_ok();
        match filter.split(',').find(|part| !part.contains('=') && !is_level(part.trim())) {
            Some(part) => {
                Err(format!("{part:?} is no level: it must be error, warn, info, debug, trace, off or TARGET=LEVEL"))
            }
            None => EnvFilter::builder().parse(filter).map_err(|error| error.to_string()),
        }
    }

    /// Starts to log the whole process to standard error. A second call changes nothing.
    #[must_use]
    pub fn start(filter: EnvFilter, format: LogFormat) -> Self {
        let (writer, worker) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(Self::BUFFERED_LINES).finish(io::stderr());
        let dropped = writer.error_counter();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
        // `try_init` fails if the process logs already.
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

    /// Changes the filter. False if this is not the log of the process.
    pub fn set_filter(&self, filter: EnvFilter) -> bool {
        (self.set_filter)(filter)
    }

    /// How many lines were dropped because standard error blocked.
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

/// Lets one line per second pass and counts the others. So an event of every command or client cannot flood the log.
#[derive(Debug, Default)]
pub(crate) struct LogRateLimiter(Mutex<SuppressedLines>);

#[derive(Debug, Default)]
struct SuppressedLines {
    last_logged: Option<Instant>,
    lines: u64,
}

impl LogRateLimiter {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// A limiter that lets the first line pass.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(SuppressedLines { last_logged: None, lines: 0 }))
    }

    /// `None`: do not log now. Otherwise the number of lines suppressed since the last one, `None` if there are none.
    pub(crate) fn check(&self) -> Option<Option<u64>> {
        let mut suppressed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if suppressed.last_logged.is_some_and(|at| at.elapsed() < Self::INTERVAL) {
            suppressed.lines += 1;
            return None;
        }
        suppressed.last_logged = Some(Instant::now());
        Some(Some(mem::take(&mut suppressed.lines)).filter(|&lines| lines > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_counted() {
        let rate_limiter = LogRateLimiter::default();
        let later = || rate_limiter.0.lock().unwrap().last_logged = None;
        assert_eq!(rate_limiter.check(), Some(None));
        assert_eq!((rate_limiter.check(), rate_limiter.check()), (None, None));
        later();
        assert_eq!(rate_limiter.check(), Some(Some(2)));
        later();
        assert_eq!(rate_limiter.check(), Some(None));
    }
}
