//! Full cycles, in an open or a closed loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::future::or;
use smol::{Executor, Timer, channel};

use super::schedule::{Due, Schedule};
use super::sign_in::sign_in;
use super::{Pace, Tally, Users};
use crate::client::{Error, Options, Trust, Url};

/// Full cycles: connect, HELLO, AUTHENTICATE, its answer, BYE, BYE_SUCCESS, close.
#[derive(Debug, Clone)]
pub struct Cycles {
    /// The server. Its name is looked up for every connection, unless [`Url::look_up`] has done so for all.
    pub url: Url,
    /// Who vouches for it, if it is at `wss://`.
    pub trust: Trust,
    /// Who signs in, each cycle one of them at random.
    pub users: Users,
    /// How fast.
    pub pace: Pace,
    /// How many an open loop has under way, at most: each has a file descriptor.
    pub most_at_once: usize,
    /// For how long cycles are begun.
    pub duration: Duration,
}

/// As many as an open loop should have under way: a server that leaves more waiting has stalled.
pub const MOST_AT_ONCE: usize = 10_000;

/// How long answers may take once no more cycles are begun, and a held session to begin or to end.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long somebody waits who could not connect, before the next try.
const PAUSE: Duration = Duration::from_millis(100);

impl Cycles {
    /// Runs the load on the executor. It ends 10 s after `duration` at the latest; whoever has no answer by then counts
    /// as failed. Dropped before, it leaves sessions behind that end by themselves.
    pub async fn run(&self, executor: &Arc<Executor<'static>>, tally: &Arc<Tally>) {
        self.run_until(std::future::pending(), executor, tally).await;
    }

    /// As [`Cycles::run`], but begins no more cycles once `stop` is ready, and then ends within 10 s.
    pub async fn run_until(
        &self,
        stop: impl Future<Output = ()>,
        executor: &Arc<Executor<'static>>,
        tally: &Arc<Tally>,
    ) {
        let begin = Instant::now();
        let end = begin + self.duration;
        let (alive, ended) = channel::bounded::<()>(1);
        let (open, is_open) = channel::bounded::<()>(1);
        let begun = async {
            match self.pace {
                Pace::Concurrency(at_once) => {
                    for _ in 0..at_once {
                        let (one, tally, alive) = (self.clone(), Arc::clone(tally), alive.clone());
                        let is_over = {
                            let is_open = is_open.clone();
                            move || is_open.is_closed() || Instant::now() >= end
                        };
                        executor.spawn(async move { one.one_after_another(is_over, &tally, alive).await }).detach();
                    }
                    Timer::at(end).await;
                }
                Pace::Rate(rate) => {
                    self.as_they_are_due(Schedule::new(begin, rate), end, executor, tally, &alive).await
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
        tally.give_up("no answer within 10 seconds of the end");
    }

    async fn one_after_another(&self, is_over: impl Fn() -> bool, tally: &Tally, _alive: channel::Sender<()>) {
        while !is_over() {
            tally.begin();
            if self.cycle(None, tally).await.is_err() {
                Timer::after(PAUSE).await;
            }
        }
    }

    async fn as_they_are_due(
        &self,
        schedule: Schedule,
        end: Instant,
        executor: &Arc<Executor<'static>>,
        tally: &Arc<Tally>,
        alive: &channel::Sender<()>,
    ) {
        for number in 0.. {
            if schedule.time(number) >= end {
                return;
            }
            let due = schedule.wait_for(number).await;
            if alive.sender_count() > self.most_at_once {
                tally.do_not_begin();
                continue;
            }
            tally.begin();
            let (one, tally, alive) = (self.clone(), Arc::clone(tally), alive.clone());
            let cycle = async move {
                let _alive = alive;
                let _counted = one.cycle(Some(due), &tally).await;
            };
            executor.spawn(cycle).detach();
        }
    }

    async fn cycle(&self, due: Option<Due>, tally: &Tally) -> Result<(), Error> {
        // The end of the load bounds the wait, and a timer per answer would cost more than the answer.
        let trust = self.trust.clone();
        let patient = Options { connect_timeout: Duration::MAX, reply_timeout: Duration::MAX, trust };
        let session = async {
            let (connection, entry) = sign_in(&self.url, &self.users.any(), due, &patient).await?;
            connection.bye().await?;
            Ok(entry)
        };
        match session.await {
            Ok(entry) => {
                tally.succeed(&entry);
                Ok(())
            }
            Err(error) => {
                tally.fail(&error);
                Err(error)
            }
        }
    }
}
