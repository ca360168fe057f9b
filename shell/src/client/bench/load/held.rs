//! Sessions that are only held.

use std::sync::Arc;
use std::time::Instant;

use smol::future::or;
use smol::{Executor, Task, channel};

use super::schedule::{Due, Schedule};
use super::sign_in::sign_in;
use super::{Counts, Pace, Tally, Users};
use crate::client::{Connection, Error, Event, Options, Trust, Url};

/// Sessions that are held: they answer pings, and that is all. Dropped, their sockets are dropped without a BYE.
#[derive(Debug)]
pub struct Held {
    url: Url,
    trust: Trust,
    executor: Arc<Executor<'static>>,
    tally: Arc<Tally>,
    sessions: Vec<Task<()>>,
    /// Never sends: closing it tells every session to leave.
    leave: channel::Sender<()>,
    left: channel::Receiver<()>,
}

impl Held {
    /// Opens so many sessions, `at_once` at a time, and signs in three of each user, the first users first.
    pub async fn open(url: &Url, sessions: u32, at_once: u16, executor: &Arc<Executor<'static>>) -> Self {
        let mut held = Self::none(url, &Trust::SYSTEM, executor, &Arc::default());
        held.add(sessions, Users(sessions.div_ceil(3)), Pace::Concurrency(at_once)).await;
        held
    }

    /// Sessions of this server, none so far, that are counted in this tally. It is trusted for `wss://` if these vouch
    /// for it.
    #[must_use]
    pub fn none(url: &Url, trust: &Trust, executor: &Arc<Executor<'static>>, tally: &Arc<Tally>) -> Self {
        let (leave, left) = channel::bounded(1);
        let (url, trust, executor, tally) = (url.clone(), trust.clone(), Arc::clone(executor), Arc::clone(tally));
        Self { url, trust, executor, tally, sessions: Vec::new(), leave, left }
    }

    /// Opens so many more, dealt evenly to so many users, the first users first, and returns when all have their
    /// answers. The server has 10 s for each of its answers; whoever is refused or fails is counted and not tried again,
    /// and whoever is lost later counts as a failure then. Dropped before its end, it opens no more.
    pub async fn add(&mut self, sessions: u32, users: Users, pace: Pace) {
        let schedule = match pace {
            Pace::Rate(rate) => Some(Schedule::new(Instant::now(), rate)),
            Pace::Concurrency(_) => None,
        };
        let at_once = match pace {
            Pace::Rate(_) => sessions as usize,
            Pace::Concurrency(at_once) => at_once.into(),
        }
        .max(1);
        let (place, places) = channel::bounded::<()>(at_once);
        for number in 0..sessions {
            let due = match &schedule {
                Some(schedule) => Some(schedule.wait_for(number.into()).await),
                None => None,
            };
            let _open = place.send(()).await;
            let session = Session {
                url: self.url.clone(),
                options: Options { trust: self.trust.clone(), ..Options::default() },
                tally: Arc::clone(&self.tally),
                left: self.left.clone(),
            };
            let (user, places) = (users.dealt(number, sessions), places.clone());
            self.tally.begin();
            self.sessions.push(self.executor.spawn(async move {
                let opened = session.open(&user, due).await;
                let _open = places.recv().await;
                if let Some(connection) = opened {
                    session.hold(connection).await;
                }
            }));
        }
        for _ in 0..at_once {
            let _open = place.send(()).await;
        }
    }

    /// How it went: a sign-in counts as a cycle here.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Says BYE on all of them, and returns when all have their answers, which takes 10 s at most for each of three.
    pub async fn leave(self) {
        self.leave.close();
        for session in self.sessions {
            session.await;
        }
    }

    /// Drops all sockets, without a BYE, and returns once they are closed.
    pub async fn vanish(self) {
        for session in self.sessions {
            session.cancel().await;
        }
    }
}

/// One of them.
struct Session {
    url: Url,
    options: Options,
    tally: Arc<Tally>,
    left: channel::Receiver<()>,
}

impl Session {
    async fn open(&self, user: &str, due: Option<Due>) -> Option<Connection> {
        match sign_in(&self.url, user, due, &self.options).await {
            Ok((connection, entry)) => {
                self.tally.succeed(&entry);
                (!entry.refused).then_some(connection)
            }
            Err(error) => {
                self.tally.fail(&error);
                None
            }
        }
    }

    async fn hold(&self, mut connection: Connection) {
        let leave = async {
            let _closed = self.left.recv().await;
            None
        };
        let ended = match or(leave, async { Some(lose(&mut connection).await) }).await {
            Some(error) => Err(error),
            None => connection.bye().await,
        };
        if let Err(error) = ended {
            self.tally.lose(&error);
        }
    }
}

/// Waits until it is lost.
async fn lose(connection: &mut Connection) -> Error {
    loop {
        match connection.next_event().await {
            Ok(Event::Closed { code, words }) => return Error::Closed { code, words },
            Ok(Event::Reply(_) | Event::Unknown(_)) => {}
            Err(error) => return error,
        }
    }
}
