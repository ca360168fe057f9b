//! Runs the load of `client bench`, shows progress, and prints the report.

use std::cell::Cell;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use smol::future::or;
use smol::{Executor, Timer, channel};

use super::load::{CONNECT_LEAD, CycleLoad, HeldSessions, LoadProfile, LoadStats, MAX_CONCURRENT};
use super::progress::{Phase, Progress};
use super::{BenchError, Report, RunEnd, Settings};
use crate::client::output::write_line;
use crate::client::{Connection, Error, ExitReason, Options, Url};
use crate::runtime::open_files::OpenFileLimit;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::threads::on_threads;

/// File descriptors for other purposes: outputs, the reactor, signals, and connections that are closing.
const OTHER_DESCRIPTORS: u64 = 64;

/// Runs the load, and prints progress to `err` and the report to `out`.
///
/// First it opens one connection and ends it with BYE. If that fails, it prints the error to `err` and no report. After
/// the first interrupt it starts no more cycles. After the second it waits for none. A closed pipe at `out` is no
/// error.
///
/// # Errors
/// [`BenchError::TooManySessions`] before the load, [`BenchError::Output`] at the end.
pub fn run(
    settings: &Settings,
    interrupts: impl Stream<Item = ()>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ExitReason, BenchError> {
    let limit = OpenFileLimit::raise();
    let room = limit.now.saturating_sub(OTHER_DESCRIPTORS);
    let asked = settings.hold.map_or_else(|| settings.concurrency.map_or(0, u64::from), u64::from);
    if asked > room {
        let advice = limit.advice(asked.saturating_add(OTHER_DESCRIPTORS));
        return Err(BenchError::TooManySessions { asked, room, advice });
    }
    let executor = Arc::new(Executor::new());
    let measured = {
        let progress = Progress::new(err, settings.json);
        let run = BenchRun::new(settings, room, &executor, &progress);
        // Cycles run on threads of their own.
        let threads = if settings.hold.is_some() { settings.threads() } else { 1 };
        on_threads(threads, &executor, &Supervisor::default(), run.measure(interrupts))
    };
    match measured {
        Ok(report) => {
            let output = if settings.json { report.json() + "\n" } else { report.text() };
            match out.write_all(output.as_bytes()).and_then(|()| out.flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(BenchError::Output(error)),
                Ok(()) | Err(_) => Ok(report.exit_reason()),
            }
        }
        Err(error) => {
            // If this fails, the exit code still reports the error.
            let _ignored: io::Result<()> = write_line(err, &format!("error: {error}"));
            Ok(ExitReason::Lost)
        }
    }
}

struct BenchRun<'a> {
    settings: &'a Settings,
    max_concurrent: usize,
    executor: &'a Arc<Executor<'static>>,
    stats: Arc<LoadStats>,
    progress: &'a Progress<'a>,
    /// Never sends. Closing it ends the run early.
    stop: channel::Sender<()>,
    stopped: channel::Receiver<()>,
    /// How long cycles ran, or sessions were opened.
    load_time: Stopwatch,
    hold_time: Stopwatch,
}

impl<'a> BenchRun<'a> {
    fn new(
        settings: &'a Settings,
        room: u64,
        executor: &'a Arc<Executor<'static>>,
        progress: &'a Progress<'a>,
    ) -> Self {
        let max_concurrent = usize::try_from(room).unwrap_or(usize::MAX).min(MAX_CONCURRENT);
        let (stop, stopped) = channel::bounded(1);
        let (load_time, hold_time) = (Stopwatch::default(), Stopwatch::default());
        Self {
            settings,
            max_concurrent,
            executor,
            stats: Arc::default(),
            progress,
            stop,
            stopped,
            load_time,
            hold_time,
        }
    }

    async fn measure(&self, interrupts: impl Stream<Item = ()>) -> Result<Report, Error> {
        let load = async {
            let reached = self.unless_stopped(self.check_server()).await.transpose()?;
            match (reached, self.settings.hold) {
                (Some(url), None) => self.run_cycles(url).await,
                (Some(url), Some(sessions)) => self.hold_sessions(&url, sessions).await,
                (None, _) => {}
            }
            Ok(if self.stopped.is_closed() { RunEnd::Early } else { RunEnd::Complete })
        };
        let end = or(or(load, self.watch_signals(interrupts)), self.progress.watch(&self.stats)).await;
        self.progress.finish();
        let end = end?;
        if self.settings.hold.is_none() {
            self.stats.stop_waiting("still under way at the second Ctrl-C");
        }
        Ok(Report {
            settings: self.settings.clone(),
            counts: self.stats.counts(),
            elapsed: self.load_time.elapsed(),
            held_for: self.hold_time.elapsed(),
            end,
            max_concurrent: self.max_concurrent,
        })
    }

    async fn watch_signals(&self, interrupts: impl Stream<Item = ()>) -> Result<RunEnd, Error> {
        let mut interrupts = pin!(interrupts.chain(futures_util::stream::pending()));
        interrupts.next().await;
        self.stop.close();
        self.progress.set_phase(Phase::Ending);
        interrupts.next().await;
        Ok(RunEnd::Immediately)
    }

    async fn wait_for_stop(&self) {
        let _closed = self.stopped.recv().await;
    }

    /// The result of `work`. `None` if the run is stopped before.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            self.wait_for_stop().await;
            None
        };
        or(stopped, async { Some(work.await) }).await
    }

    /// Looks up the server and checks that it answers.
    async fn check_server(&self) -> Result<Url, Error> {
        let url = &self.settings.url;
        let unreachable = |reason| Error::Unreachable { url: Box::new(url.clone()), reason };
        let url = url.look_up().await.map_err(unreachable)?;
        let options = Options { root_certificates: self.settings.root_certificates(), ..Options::default() };
        Connection::open_with(&url, &options).await?.bye().await?;
        Ok(url)
    }

    async fn run_cycles(&self, url: Url) {
        let Settings { duration, .. } = *self.settings;
        let (users, profile, max_concurrent) = (self.settings.users(), self.settings.profile(), self.max_concurrent);
        let cycles = CycleLoad {
            url,
            root_certificates: self.settings.root_certificates(),
            // A load stands for many devices, and each would do a full handshake.
            resumes_tls: false,
            users,
            profile,
            max_concurrent,
            duration,
            threads: self.settings.threads(),
        };
        self.begin(Phase::Cycling(Instant::now(), duration));
        cycles.run_until(self.wait_for_stop(), &self.stats).await;
        self.load_time.end();
    }

    async fn hold_sessions(&self, url: &Url, sessions: u32) {
        let Settings { duration, .. } = *self.settings;
        let mut held = HeldSessions::new(url, &self.settings.root_certificates(), self.executor, &self.stats);
        self.begin(Phase::Opening(sessions));
        let opened = self.unless_stopped(held.add(sessions, self.settings.users(), self.settings.profile())).await;
        self.load_time.end();
        if opened.is_some() {
            self.hold_time.begin(Instant::now());
            self.progress.set_phase(Phase::Holding(Instant::now(), duration));
            let _over = self.unless_stopped(Timer::after(duration)).await;
        }
        self.hold_time.end();
        self.progress.set_phase(Phase::Ending);
        held.end_all().await;
    }

    /// The first sign-in of an open loop is due some time after the load starts.
    fn begin(&self, phase: Phase) {
        let head_start = match self.settings.profile() {
            LoadProfile::Rate(_) => CONNECT_LEAD,
            LoadProfile::Concurrency(_) => Duration::ZERO,
        };
        self.load_time.begin(Instant::now() + head_start);
        self.progress.set_phase(phase);
    }
}

/// A time span that may not have started or ended yet.
#[derive(Debug, Default)]
struct Stopwatch {
    begun: Cell<Option<Instant>>,
    ended: Cell<Option<Instant>>,
}

impl Stopwatch {
    fn begin(&self, at: Instant) {
        self.begun.set(Some(at));
    }

    fn end(&self) {
        self.ended.set(Some(Instant::now()));
    }

    /// The time from start to stop, or until now.
    fn elapsed(&self) -> Duration {
        let ended = self.ended.get().unwrap_or_else(Instant::now);
        self.begun.get().map_or(Duration::ZERO, |begun| ended.saturating_duration_since(begun))
    }
}
