//! Load on a server: full cycles, from the connection to the close that follows a BYE, counted and timed; and sessions
//! that are only held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use smol::future::or;
use smol::{Executor, Task, Timer, channel};

use super::{Connection, Error, Event, Options, Url};

/// Whom the load signs in: users drawn at random from so many, named `user-00000000` and on.
#[derive(Debug, Clone, Copy)]
pub struct Users(pub u32);

/// When the next cycle begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Open loop: so many cycles a second, whether or not those before have ended. A session authenticates at its
    /// time, and its latency counts from there: a server that stalls is seen to have kept everybody waiting who came
    /// meanwhile.
    Rate(f64),
    /// Closed loop: so many at once, each beginning when the one before it has ended.
    Concurrency(u16),
}

/// Full cycles: connect, HELLO, AUTHENTICATE, its answer, BYE, BYE_SUCCESS, close.
#[derive(Debug, Clone)]
pub struct Cycles {
    /// The server. A name is looked up for every connection, an address is not.
    pub url: Url,
    /// Who signs in.
    pub users: Users,
    /// How fast.
    pub pace: Pace,
    /// For how long cycles are begun.
    pub duration: Duration,
}

/// What came of it so far. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Cycles that ended well.
    pub cycles: u64,
    /// Those among them whose user was at the limit.
    pub refused: u64,
    /// What else became of cycles, in words, and how often.
    pub failures: BTreeMap<String, u64>,
    /// From AUTHENTICATE, or from when it was due, to its answer.
    pub sign_in: Histogram<u64>,
    /// From the first packet to the last.
    pub cycle: Histogram<u64>,
}

/// [`Counts`] that all threads add to.
#[derive(Debug)]
pub struct Tally(Mutex<Counts>);

/// Waits for no answer: the end of the load bounds the wait, and a timer per answer would cost more than the answer.
const PATIENT: Options = Options { connect_timeout: Duration::MAX, reply_timeout: Duration::MAX };

/// The longest time that is told from longer ones: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// How long answers may take once no more cycles are begun.
const GRACE: Duration = Duration::from_secs(10);

/// How long before its time to authenticate a session of an open loop connects.
const HEAD_START: Duration = Duration::from_millis(50);

/// How many sessions an open loop has under way, at most: each has a file descriptor.
const MOST_AT_ONCE: usize = 10_000;

/// How long somebody waits who could not connect, before the next try.
const PAUSE: Duration = Duration::from_millis(100);

impl Users {
    /// The name of one of them.
    #[must_use]
    pub fn name(number: u32) -> String {
        format!("user-{number:08}")
    }

    fn any(self) -> String {
        Self::name(fastrand::u32(0..self.0.max(1)))
    }
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3).expect("three digits are a precision that it has");
        Self(Mutex::new(Counts {
            cycles: 0,
            refused: 0,
            failures: BTreeMap::new(),
            sign_in: histogram(),
            cycle: histogram(),
        }))
    }
}

impl Tally {
    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// So many cycles have ended well so far.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.lock().cycles
    }

    fn fail(&self, why: &str) {
        *self.lock().failures.entry(why.to_owned()).or_insert(0) += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cycles {
    /// Runs the load on the executor. It ends 10 s after `duration` at the latest; whoever has no answer by then counts
    /// as failed. Dropped before, it leaves sessions behind that end by themselves.
    pub async fn run(&self, executor: &Arc<Executor<'static>>, tally: &Arc<Tally>) {
        let end = Instant::now() + self.duration;
        let (alive, ended) = channel::bounded::<()>(1);
        match self.pace {
            Pace::Concurrency(at_once) => {
                for _ in 0..at_once {
                    let (one, tally, alive) = (self.clone(), Arc::clone(tally), alive.clone());
                    executor.spawn(async move { one.one_after_another(end, &tally, alive).await }).detach();
                }
            }
            Pace::Rate(rate) => self.as_they_are_due(rate, end, executor, tally, &alive).await,
        }
        let still_running = alive.downgrade();
        drop(alive);
        let all = async {
            let _closed = ended.recv().await;
        };
        let late = async {
            Timer::at(end + GRACE).await;
        };
        or(all, late).await;
        for _ in 0..still_running.upgrade().map_or(0, |alive| alive.sender_count() - 1) {
            tally.fail("no answer within 10 seconds of the end");
        }
    }

    async fn one_after_another(&self, end: Instant, tally: &Tally, _alive: channel::Sender<()>) {
        while Instant::now() < end {
            if self.cycle(None, tally).await.is_err() {
                Timer::after(PAUSE).await;
            }
        }
    }

    async fn as_they_are_due(
        &self,
        rate: f64,
        end: Instant,
        executor: &Arc<Executor<'static>>,
        tally: &Arc<Tally>,
        alive: &channel::Sender<()>,
    ) {
        let begin = Instant::now();
        for number in 0_u32.. {
            let due = begin + Duration::from_secs_f64(f64::from(number) / rate.max(0.001));
            if due >= end {
                return;
            }
            if due > Instant::now() {
                Timer::at(due).await;
            }
            if alive.sender_count() > MOST_AT_ONCE {
                tally.fail("not begun, 10000 were under way");
                continue;
            }
            let (one, tally, alive) = (self.clone(), Arc::clone(tally), alive.clone());
            let cycle = async move {
                let _alive = alive;
                let _counted = one.cycle(Some(due + HEAD_START), &tally).await;
            };
            executor.spawn(cycle).detach();
        }
    }

    async fn cycle(&self, due: Option<Instant>, tally: &Tally) -> Result<(), Error> {
        let ended = self.session(due).await;
        match &ended {
            Ok(session) => {
                let mut counts = tally.lock();
                counts.cycles += 1;
                counts.refused += u64::from(session.refused);
                counts.sign_in.saturating_record(nanos(session.sign_in));
                counts.cycle.saturating_record(nanos(session.cycle));
            }
            Err(error) => tally.fail(&kind(error)),
        }
        ended.map(drop)
    }

    async fn session(&self, due: Option<Instant>) -> Result<Session, Error> {
        let began = Instant::now();
        let mut connection = Connection::open_with(&self.url, PATIENT).await?;
        if let Some(due) = due.filter(|&due| due > Instant::now()) {
            Timer::at(due).await;
        }
        let asked = due.unwrap_or_else(Instant::now);
        let refused = sign_in(&mut connection, &self.users.any()).await?;
        let sign_in = asked.elapsed();
        connection.bye().await?;
        Ok(Session { refused, sign_in, cycle: began.elapsed() })
    }
}

/// A cycle that ended well.
struct Session {
    refused: bool,
    sign_in: Duration,
    cycle: Duration,
}

/// Whether the user was refused at the limit.
async fn sign_in(connection: &mut Connection, user: &str) -> Result<bool, Error> {
    match connection.authenticate(user).await {
        Ok(_) => Ok(false),
        Err(Error::LimitReached { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Sessions that are held: they answer pings, and that is all. Dropped, their sockets are dropped without a BYE.
#[derive(Debug)]
pub struct Held {
    sessions: Vec<Task<()>>,
    tally: Arc<Tally>,
}

impl Held {
    /// Opens so many sessions, `at_once` at a time, and signs in three of each user, the first users first. Whoever is
    /// refused or fails is counted and not tried again; whoever is lost later counts as a failure then.
    pub async fn open(url: &Url, sessions: u32, at_once: usize, executor: &Arc<Executor<'static>>) -> Self {
        const PER_USER: u32 = 3;

        let tally = Arc::<Tally>::default();
        let (place, places) = channel::bounded::<()>(at_once.max(1));
        let mut tasks = Vec::new();
        for number in 0..sessions {
            let _open = place.send(()).await;
            let (url, tally, places) = (url.clone(), Arc::clone(&tally), places.clone());
            tasks.push(executor.spawn(async move {
                let opened = hold(&url, &Users::name(number / PER_USER), &tally).await;
                let _left = places.recv().await;
                let lost = match opened {
                    Ok(Some(connection)) => stay(connection).await,
                    Ok(None) => return,
                    Err(error) => error,
                };
                tally.fail(&kind(&lost));
            }));
        }
        for _ in 0..at_once.max(1) {
            let _open = place.send(()).await;
        }
        Self { sessions: tasks, tally }
    }

    /// How it went: a sign-in counts as a cycle here.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Drops all sockets, without a BYE, and returns once they are closed.
    pub async fn vanish(self) {
        for session in self.sessions {
            session.cancel().await;
        }
    }
}

async fn hold(url: &Url, user: &str, tally: &Tally) -> Result<Option<Connection>, Error> {
    let began = Instant::now();
    let mut connection = Connection::open_with(url, PATIENT).await?;
    let asked = Instant::now();
    let refused = sign_in(&mut connection, user).await?;
    let mut counts = tally.lock();
    counts.cycles += 1;
    counts.refused += u64::from(refused);
    counts.sign_in.saturating_record(nanos(asked.elapsed()));
    counts.cycle.saturating_record(nanos(began.elapsed()));
    Ok((!refused).then_some(connection))
}

async fn stay(mut connection: Connection) -> Error {
    loop {
        match connection.next_event().await {
            Ok(Event::Closed { code, words }) => return Error::Closed { code, words },
            Ok(Event::Reply(_) | Event::Unknown(_)) => {}
            Err(error) => return error,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// The error without the name of the user it befell, so that the like are counted together.
fn kind(error: &Error) -> String {
    match error {
        Error::Refused { refusal, .. } => format!("refused: {refusal}"),
        Error::BadUrl { .. }
        | Error::Unreachable { .. }
        | Error::Handshake { .. }
        | Error::LimitReached { .. }
        | Error::Complaint(_)
        | Error::Unexpected { .. }
        | Error::Closed { .. }
        | Error::Lost(_)
        | Error::TimedOut { .. }
        | Error::NotConnected { .. } => error.to_string(),
    }
}
