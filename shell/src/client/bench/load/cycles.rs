//! Full cycles, in an open or a closed loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::future::or;
use smol::{Executor, Timer, channel};

use super::schedule::{Arrival, ArrivalSchedule};
use super::sign_in::sign_in;
use super::{LoadProfile, LoadStats, Users};
use crate::client::{Error, Options, RootCertificates, Url};

/// Full cycles: connect, HELLO, AUTHENTICATE, its answer, BYE, BYE_SUCCESS, close.
#[derive(Debug, Clone)]
pub struct CycleLoad {
    /// The server. Each connection looks up its name, unless [`Url::look_up`] has done so.
    pub url: Url,
    /// The authorities trusted for `wss://`.
    pub root_certificates: RootCertificates,
    /// The users. Each cycle picks one at random.
    pub users: Users,
    /// When cycles start.
    pub profile: LoadProfile,
    /// The most cycles of an open loop at once. Each has a file descriptor.
    pub max_concurrent: usize,
    /// How long to start cycles.
    pub duration: Duration,
}

/// The usual bound of cycles at once in an open loop: a server that leaves more waiting has stalled.
pub const MAX_CONCURRENT: usize = 10_000;

/// How long to wait for answers after the load has ended, and for a held session to start or end.
pub const GRACE: Duration = Duration::from_secs(10);

/// The pause of a closed loop after a failed cycle.
const PAUSE: Duration = Duration::from_millis(100);

impl CycleLoad {
    /// Runs the load on the executor. It ends at most 10 s after `duration`; cycles without an answer by then count as
    /// failed. If dropped earlier, its sessions end by themselves.
    pub async fn run(&self, executor: &Arc<Executor<'static>>, stats: &Arc<LoadStats>) {
        self.run_until(std::future::pending(), executor, stats).await;
    }

    /// As [`CycleLoad::run`], but starts no more cycles once `stop` is ready, and then ends within 10 s.
    pub async fn run_until(
        &self,
        stop: impl Future<Output = ()>,
        executor: &Arc<Executor<'static>>,
        stats: &Arc<LoadStats>,
    ) {
        let begin = Instant::now();
        let end = begin + self.duration;
        let (alive, ended) = channel::bounded::<()>(1);
        let (open, is_open) = channel::bounded::<()>(1);
        let begun = async {
            match self.profile {
                LoadProfile::Concurrency(at_once) => {
                    for _ in 0..at_once {
                        let (one, stats, alive) = (self.clone(), Arc::clone(stats), alive.clone());
                        let is_over = {
                            let is_open = is_open.clone();
                            move || is_open.is_closed() || Instant::now() >= end
                        };
                        executor.spawn(async move { one.run_closed_loop(is_over, &stats, alive).await }).detach();
                    }
                    Timer::at(end).await;
                }
                LoadProfile::Rate(rate) => {
                    self.run_open_loop(ArrivalSchedule::new(begin, rate), end, executor, stats, &alive).await
                }
            }
        };
        or(stop, begun).await;
        drop(open);
        drop(alive);
        let all = async {
            let _closed = ended.recv().await;
        };
        let late = async {
            Timer::after(GRACE).await;
        };
        or(all, late).await;
        stats.stop_waiting("no answer within 10 seconds of the end");
    }

    async fn run_closed_loop(&self, is_over: impl Fn() -> bool, stats: &LoadStats, _alive: channel::Sender<()>) {
        while !is_over() {
            stats.record_start();
            if self.run_cycle(None, stats).await.is_err() {
                Timer::after(PAUSE).await;
            }
        }
    }

    async fn run_open_loop(
        &self,
        schedule: ArrivalSchedule,
        end: Instant,
        executor: &Arc<Executor<'static>>,
        stats: &Arc<LoadStats>,
        alive: &channel::Sender<()>,
    ) {
        for number in 0.. {
            if schedule.time(number) >= end {
                return;
            }
            let arrival = schedule.wait_for(number).await;
            if alive.sender_count() > self.max_concurrent {
                stats.skip();
                continue;
            }
            stats.record_start();
            let (one, stats, alive) = (self.clone(), Arc::clone(stats), alive.clone());
            let run_cycle = async move {
                let _alive = alive;
                let _counted = one.run_cycle(Some(arrival), &stats).await;
            };
            executor.spawn(run_cycle).detach();
        }
    }

    async fn run_cycle(&self, arrival: Option<Arrival>, stats: &LoadStats) -> Result<(), Error> {
        // The end of the load bounds the wait. A timer per answer would cost more than the answer.
        let root_certificates = self.root_certificates.clone();
        let patient = Options { connect_timeout: Duration::MAX, reply_timeout: Duration::MAX, root_certificates };
        let session = async {
            let (connection, timing) = sign_in(&self.url, &self.users.random_name(), arrival, &patient).await?;
            connection.bye().await?;
            Ok(timing)
        };
        match session.await {
            Ok(timing) => {
                stats.record_success(&timing);
                Ok(())
            }
            Err(error) => {
                stats.record_failure(&error);
                Err(error)
            }
        }
    }
}
