//! Non-blocking logging. What is logged stands in [`events`](super::events).

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io, mem, thread};

use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::runtime::supervisor::{Part, PartGuard, Supervisor};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The log of the process. When dropped it waits until the buffered lines are written, as [`LogHandle::flush`] does.
pub struct Log {
    handle: LogHandle,
    /// Never dropped: the thread that writes the lines runs until the process ends.
    _worker: mem::ManuallyDrop<WorkerGuard>,
}

/// Changes the log of the process. A clone changes the same.
#[derive(Clone)]
pub struct LogHandle {
    writer: LineWriter,
    set_filter: Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>,
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
    pub fn start(filter: EnvFilter, format: LogFormat, supervisor: &Supervisor) -> Self {
        let (writer, worker) = LineWriter::start(io::stderr(), Self::BUFFERED_LINES, supervisor.watch(Part::LogWriter));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone()).with_target(false);
        // `try_init` fails if the process logs already.
        let set_filter: Arc<dyn Fn(EnvFilter) -> bool + Send + Sync> = match format {
            LogFormat::Text => {
                let log = log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).with_filter_reloading();
                let handle = log.reload_handle();
                let _already = log.try_init();
                Arc::new(move |filter| handle.reload(filter).is_ok())
            }
            LogFormat::Json => {
                let log = log.json().flatten_event(true).with_filter_reloading();
                let handle = log.reload_handle();
                let _already = log.try_init();
                Arc::new(move |filter| handle.reload(filter).is_ok())
            }
        };
        Self { handle: LogHandle { writer, set_filter }, _worker: mem::ManuallyDrop::new(worker) }
    }

    /// Changes this log, and flushes it where the process ends without dropping it.
    #[must_use]
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _is_written = self.handle.flush();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("lines", &self.handle.writer.lines).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// Changes the filter. False if this is not the log of the process.
    pub fn set_filter(&self, filter: EnvFilter) -> bool {
        (self.set_filter)(filter)
    }

    /// How many lines were dropped because standard error blocked.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.writer.dropped()
    }

    /// Waits until every line that was logged before this call is written, or counted as dropped. Call this before the
    /// process ends. Gives up, and returns false, when standard error takes no line for [`LogHandle::STALL_TIMEOUT`]: nobody
    /// reads it then, and the process must end all the same.
    pub fn flush(&self) -> bool {
        self.writer.flush(Self::STALL_TIMEOUT)
    }

    /// How long a flush waits for one line to be written.
    pub const STALL_TIMEOUT: Duration = Duration::from_secs(2);
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("lines", &self.writer.lines).finish_non_exhaustive()
    }
}

/// Hands lines to the thread that writes them, and counts both. The counts tell when every line is written. The guard of
/// `tracing-appender` cannot: it gives up after 0.1 s if the buffer is full, and after one more second.
#[derive(Clone)]
struct LineWriter {
    buffer: NonBlocking,
    lines: Arc<LineCounts>,
}

#[derive(Debug, Default)]
struct LineCounts {
    logged: AtomicU64,
    /// Also those that standard error did not take.
    written: AtomicU64,
}

impl LineWriter {
    fn start(to: impl io::Write + Send + 'static, buffered: usize, guard: PartGuard) -> (Self, WorkerGuard) {
        let lines = Arc::<LineCounts>::default();
        let counting = CountingWriter { to, lines: Arc::clone(&lines), guard };
        let thread = Part::LogWriter.name();
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(buffered).thread_name(thread);
        let (buffer, worker) = builder.finish(counting);
        (Self { buffer, lines }, worker)
    }

    fn dropped(&self) -> u64 {
        self.buffer.error_counter().dropped_lines() as u64
    }

    fn flush(&self, stall_timeout: Duration) -> bool {
        const POLL_INTERVAL: Duration = Duration::from_millis(1);

        // Lines are written in their order. If some are dropped between the two reads, this waits for later lines as well.
        let dropped = self.dropped();
        let buffered = self.lines.logged.load(Ordering::Acquire).saturating_sub(dropped);
        let written = || self.lines.written.load(Ordering::Acquire);
        let (mut before, mut since) = (written(), Instant::now());
        while before < buffered && since.elapsed() < stall_timeout {
            thread::sleep(POLL_INTERVAL);
            if written() != before {
                (before, since) = (written(), Instant::now());
            }
        }
        before >= buffered
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl io::Write for &LineWriter {
    /// Takes a whole line: the subscriber writes each with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.logged.fetch_add(1, Ordering::Release);
        self.buffer.clone().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the lines, on the thread that does.
struct CountingWriter<W> {
    to: W,
    lines: Arc<LineCounts>,
    guard: PartGuard,
}

impl<W: io::Write> io::Write for CountingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    /// Takes a whole line: the thread writes each with one call.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.guard.round();
        let written = self.to.write_all(line);
        self.lines.written.fetch_add(1, Ordering::Release);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// Standard error that a test lets take lines, one for each message.
    struct SlowOutput(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl io::Write for SlowOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn flush_writes_every_line_that_was_not_dropped() {
        let (take, output) = (mpsc::channel(), Arc::<Mutex<Vec<u8>>>::default());
        let slow = SlowOutput(take.1, Arc::clone(&output));
        let guard = Supervisor::default().watch(Part::LogWriter);
        let (writer, _worker) = LineWriter::start(slow, 10, guard);
        for number in 0..100 {
            (&writer).write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        assert!(!writer.flush(Duration::from_millis(1)));
        assert!(output.lock().unwrap().is_empty(), "nothing takes a line, and the flush gives up");
        let written = usize::try_from(100 - writer.dropped()).unwrap();
        assert!((10..=11).contains(&written), "ten wait, and one is being written");
        thread::scope(|scope| {
            scope.spawn(|| {
                // Longer in all than a flush waits for one line.
                for _ in 0..written {
                    thread::sleep(Duration::from_millis(20));
                    take.0.send(()).unwrap();
                }
            });
            assert!(writer.flush(Duration::from_secs(20)));
        });
        let output = output.lock().unwrap();
        assert_eq!(output.iter().filter(|&&byte| byte == b'\n').count(), written);
    }
}
