//! What `client bench` does: puts load on a server for a while, tells how it is going, and reports what came of it.

use std::cell::Cell;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use smol::future::or;
use smol::{Executor, Timer, channel};

use super::load::{Cycles, HEAD_START, Held, MOST_AT_ONCE, Pace, Tally};
use super::progress::{Phase, Progress};
use super::{End, Error, Report, Settings};
use crate::client::output::write_line;
use crate::client::{Connection, Options, Url, Verdict};
use crate::descriptors;
use crate::threads::on_threads;

/// What this process has open besides sessions: outputs, the reactor's, signals, and connections that are being closed.
const OTHER_DESCRIPTORS: u64 = 64;

/// Runs the load, and prints how it is going to `err` and the report to `out`.
///
/// Before the load one connection is opened and ended with BYE; if that fails, it says so to `err` and there is no
/// report. At the first interrupt no more cycles are begun; the second waits for none of those under way. Nobody has to
/// read the report.
///
/// # Errors
/// [`Error::Room`] before anything is done, [`Error::Output`] at the end.
pub fn run(
    settings: &Settings,
    interrupts: impl Stream<Item = ()>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Verdict, Error> {
    let room = descriptors::raise_limit().saturating_sub(OTHER_DESCRIPTORS);
    let asked = settings.hold.map_or_else(|| settings.concurrency.map_or(0, u64::from), u64::from);
    if asked > room {
        return Err(Error::Room { asked, room });
    }
    let executor = Arc::new(Executor::new());
    let measured = {
        let progress = Progress::new(err, settings.json);
        let run = Run::new(settings, room, &executor, &progress);
        on_threads(settings.threads, &executor, run.measure(interrupts))
    };
    match measured {
        Ok(report) => {
            let text = if settings.json { report.json() + "\n" } else { report.words() };
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
                Ok(()) | Err(_) => Ok(report.verdict()),
            }
        }
        Err(error) => {
            // An error that cannot be told is still in the exit code.
            let _told: io::Result<()> = write_line(err, &format!("error: {error}"));
            Ok(Verdict::Lost)
        }
    }
}

struct Run<'a> {
    settings: &'a Settings,
    most_at_once: usize,
    executor: &'a Arc<Executor<'static>>,
    tally: Arc<Tally>,
    progress: &'a Progress<'a>,
    /// Never sends: closing it ends the run early.
    stop: channel::Sender<()>,
    stopped: channel::Receiver<()>,
    /// The cycles, or the opening of sessions.
    main: Span,
    holding: Span,
}

impl<'a> Run<'a> {
    fn new(
        settings: &'a Settings,
        room: u64,
        executor: &'a Arc<Executor<'static>>,
        progress: &'a Progress<'a>,
    ) -> Self {
        let most_at_once = usize::try_from(room).unwrap_or(usize::MAX).min(MOST_AT_ONCE);
        let (stop, stopped) = channel::bounded(1);
        let (main, holding) = (Span::default(), Span::default());
        Self { settings, most_at_once, executor, tally: Arc::default(), progress, stop, stopped, main, holding }
    }

    async fn measure(&self, interrupts: impl Stream<Item = ()>) -> Result<Report, crate::client::Error> {
        let load = async {
            let reached = self.unless_stopped(self.reach()).await.transpose()?;
            match (reached, self.settings.hold) {
                (Some(url), None) => self.cycle(url).await,
                (Some(url), Some(sessions)) => self.hold(&url, sessions).await,
                (None, _) => {}
            }
            Ok(if self.stopped.is_closed() { End::Early } else { End::Whole })
        };
        let end = or(or(load, self.heed(interrupts)), self.progress.watch(&self.tally)).await;
        self.progress.finish();
        let end = end?;
        if self.settings.hold.is_none() {
            self.tally.give_up("still under way at the second Ctrl-C");
        }
        Ok(Report {
            settings: self.settings.clone(),
            counts: self.tally.counts(),
            took: self.main.length(),
            held: self.holding.length(),
            end,
            most_at_once: self.most_at_once,
        })
    }

    async fn heed(&self, interrupts: impl Stream<Item = ()>) -> Result<End, crate::client::Error> {
        let mut interrupts = pin!(interrupts.chain(futures_util::stream::pending()));
        interrupts.next().await;
        self.stop.close();
        self.progress.enter(Phase::Ending);
        interrupts.next().await;
        Ok(End::AtOnce)
    }

    async fn stopped(&self) {
        let _closed = self.stopped.recv().await;
    }

    /// What comes of it, or none if the run is ended early before.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            self.stopped().await;
            None
        };
        or(stopped, async { Some(work.await) }).await
    }

    /// Where the server is, if it is there.
    async fn reach(&self) -> Result<Url, crate::client::Error> {
        let url = &self.settings.url;
        let unreachable = |why| crate::client::Error::Unreachable { url: Box::new(url.clone()), why };
        let url = url.look_up().await.map_err(unreachable)?;
        let options = Options { trust: self.settings.trust(), ..Options::default() };
        Connection::open_with(&url, &options).await?.bye().await?;
        Ok(url)
    }

    async fn cycle(&self, url: Url) {
        let Settings { duration, .. } = *self.settings;
        let (users, pace, most_at_once) = (self.settings.users(), self.settings.pace(), self.most_at_once);
        let cycles = Cycles { url, trust: self.settings.trust(), users, pace, most_at_once, duration };
        self.begin(Phase::Cycling(Instant::now(), duration));
        cycles.run_until(self.stopped(), self.executor, &self.tally).await;
        self.main.end();
    }

    async fn hold(&self, url: &Url, sessions: u32) {
        let Settings { duration, .. } = *self.settings;
        let mut held = Held::none(url, &self.settings.trust(), self.executor, &self.tally);
        self.begin(Phase::Opening(sessions));
        let opened = self.unless_stopped(held.add(sessions, self.settings.users(), self.settings.pace())).await;
        self.main.end();
        if opened.is_some() {
            self.holding.begin(Instant::now());
            self.progress.enter(Phase::Holding(Instant::now(), duration));
            let _over = self.unless_stopped(Timer::after(duration)).await;
        }
        self.holding.end();
        self.progress.enter(Phase::Ending);
        held.leave().await;
    }

    /// An open loop's first sign-in is due a while after it has begun.
    fn begin(&self, phase: Phase) {
        let head_start = match self.settings.pace() {
            Pace::Rate(_) => HEAD_START,
            Pace::Concurrency(_) => Duration::ZERO,
        };
        self.main.begin(Instant::now() + head_start);
        self.progress.enter(phase);
    }
}

/// A stretch of time that may have begun, and may have ended.
#[derive(Debug, Default)]
struct Span {
    begun: Cell<Option<Instant>>,
    ended: Cell<Option<Instant>>,
}

impl Span {
    fn begin(&self, at: Instant) {
        self.begun.set(Some(at));
    }

    fn end(&self) {
        self.ended.set(Some(Instant::now()));
    }

    /// How long it was, or has been so far.
    fn length(&self) -> Duration {
        let ended = self.ended.get().unwrap_or_else(Instant::now);
        self.begun.get().map_or(Duration::ZERO, |begun| ended.saturating_duration_since(begun))
    }
}
