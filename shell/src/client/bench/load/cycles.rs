//! Full cycles, in an open or a closed loop.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_rustls::rustls::client::Resumption;
use smol::channel;
use smol::future::or;

use super::engine::{Engine, Pace, Task};
use super::schedule::ArrivalSchedule;
use super::script::Script;
use super::socket::Tls;
use super::{LoadProfile, LoadStats, Users};
use crate::client::{Error, RootCertificates, Url};

/// Full cycles: connect, HELLO, AUTHENTICATE, its answer, BYE, BYE_SUCCESS, close, end of the stream.
///
/// They run on threads of their own, and cost the machine little beside what they cost the server.
#[derive(Debug, Clone)]
pub struct CycleLoad {
    /// The server. Its name is looked up when the load starts, unless [`Url::look_up`] has done so.
    pub url: Url,
    /// The authorities trusted for `wss://`.
    pub root_certificates: RootCertificates,
    /// Whether handshakes of TLS resume the session of an earlier one. Otherwise each is a full one, as that of a new
    /// device.
    pub resumes_tls: bool,
    /// The users. Each cycle picks one at random.
    pub users: Users,
    /// When cycles start.
    pub profile: LoadProfile,
    /// The most cycles of an open loop at once. Each has a file descriptor.
    pub max_concurrent: usize,
    /// How long to start cycles.
    pub duration: Duration,
    /// How many threads run the cycles. One is enough for most servers.
    pub threads: u16,
}

/// The usual bound of cycles at once in an open loop: a server that leaves more waiting has stalled.
pub const MAX_CONCURRENT: usize = 10_000;

/// How long to wait for answers after the load has ended, and for a held session to start or end.
pub const GRACE: Duration = Duration::from_secs(10);

/// How many sessions of TLS are kept to be resumed, on each thread.
const KEPT_TLS_SESSIONS: usize = 1024;

impl CycleLoad {
    /// Runs the load. It ends at most 10 s after `duration`; cycles without an answer by then count as failed. If dropped
    /// earlier, it ends at once.
    pub async fn run(&self, stats: &Arc<LoadStats>) {
        self.run_until(std::future::pending(), stats).await;
    }

    /// As [`CycleLoad::run`], but starts no more cycles once `stop` is ready, and then ends within 10 s.
    pub async fn run_until(&self, stop: impl Future<Output = ()>, stats: &Arc<LoadStats>) {
        self.run_with_grace(stop, GRACE, stats).await;
    }

    async fn run_with_grace(&self, stop: impl Future<Output = ()>, grace: Duration, stats: &Arc<LoadStats>) {
        let tasks = match self.tasks(grace, stats).await {
            Ok(tasks) => tasks,
            Err(error) => return record_error(stats, &error),
        };
        let (running, ended) = channel::bounded::<()>(1);
        let mut controls = Vec::new();
        for (task, control) in tasks {
            let (shared, running, url) = (Arc::clone(stats), running.clone(), self.url.clone());
            let work = move || {
                if let Err(reason) = Engine::new(task).and_then(|mut engine| engine.run()) {
                    record_error(&shared, &Error::Unreachable { url: Box::new(url), reason });
                }
                drop(running);
            };
            controls.push(control);
            if let Err(reason) = thread::Builder::new().name("load".into()).spawn(work) {
                record_error(stats, &Error::Unreachable { url: Box::new(self.url.clone()), reason });
            }
        }
        drop(running);
        let is_over = async {
            let _closed = ended.recv().await;
        };
        or(stop, is_over).await;
        for control in &mut controls {
            // Fails if the thread has ended already.
            let _ignored: io::Result<()> = control.write_all(b"s");
        }
        let _closed = ended.recv().await;
        stats.stop_waiting("no answer within 10 seconds of the end");
    }

    /// What each thread is to do, and the stream that stops it.
    async fn tasks(&self, grace: Duration, stats: &Arc<LoadStats>) -> Result<Vec<(Task, UnixStream)>, Error> {
        let unreachable = |reason| Error::Unreachable { url: Box::new(self.url.clone()), reason };
        let addresses: Arc<[_]> = self.url.resolve().await.map_err(unreachable)?.into();
        let script = Arc::new(Script::new(self.url.clone()));
        let begin = Instant::now();
        let end = begin + self.duration;
        let mut tasks = Vec::new();
        for pace in self.paces(begin) {
            let (control, controlled) = UnixStream::pair().map_err(unreachable)?;
            let task = Task {
                script: Arc::clone(&script),
                tls: self.tls().await,
                addresses: Arc::clone(&addresses),
                users: self.users,
                pace,
                end,
                grace,
                stats: Arc::clone(stats),
                control: controlled,
            };
            tasks.push((task, control));
        }
        Ok(tasks)
    }

    async fn tls(&self) -> Option<Tls> {
        let server_name = self.url.server_name()?;
        let mut config = self.root_certificates.client_config().await;
        if self.resumes_tls {
            let resuming = Arc::make_mut(&mut config);
            resuming.resumption = Resumption::in_memory_sessions(KEPT_TLS_SESSIONS);
        }
        Some(Tls { config, server_name })
    }

    /// When the cycles of each thread start. A thread without any is left out.
    fn paces(&self, begin: Instant) -> Vec<Pace> {
        let threads = self.threads.max(1);
        match self.profile {
            LoadProfile::Concurrency(at_once) => (0..threads.min(at_once))
                .map(|thread| at_once / threads + u16::from(thread < at_once % threads))
                .map(|at_once| Pace::Closed { at_once: at_once.into() })
                .collect(),
            LoadProfile::Rate(rate) => (0..threads)
                .map(|thread| Pace::Open {
                    schedule: ArrivalSchedule::new(begin, rate),
                    next: thread.into(),
                    step: threads.into(),
                    max_concurrent: self.max_concurrent.div_ceil(threads.into()),
                })
                .collect(),
        }
    }
}

/// Counts a load that could not begin, or go on, as a cycle that failed.
fn record_error(stats: &LoadStats, error: &Error) {
    stats.record_start();
    stats.record_failure(error);
}

#[cfg(test)]
mod tests;
