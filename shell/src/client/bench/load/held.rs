//! Sessions that are opened and held, without further traffic.

use std::sync::Arc;
use std::time::Instant;

use smol::future::or;
use smol::{Executor, Task, channel};

use super::schedule::{Arrival, ArrivalSchedule};
use super::sign_in::sign_in;
use super::{Counts, LoadProfile, LoadStats, Users};
use crate::client::{Connection, Error, Event, Options, RootCertificates, Url};

/// Sessions that only answer pings. Dropping this closes their sockets without a BYE.
#[derive(Debug)]
pub struct HeldSessions {
    url: Url,
    root_certificates: RootCertificates,
    executor: Arc<Executor<'static>>,
    stats: Arc<LoadStats>,
    sessions: Vec<Task<()>>,
    /// Never sends. Closing it stops every session.
    stop: channel::Sender<()>,
    stopped: channel::Receiver<()>,
}

impl HeldSessions {
    /// Opens `sessions`, `at_once` at a time, three for each user, the first users first.
    pub async fn open(url: &Url, sessions: u32, at_once: u16, executor: &Arc<Executor<'static>>) -> Self {
        let mut held = Self::new(url, &RootCertificates::SYSTEM, executor, &Arc::default());
        held.add(sessions, Users(sessions.div_ceil(3)), LoadProfile::Concurrency(at_once)).await;
        held
    }

    /// No sessions yet. They will be counted in `stats`.
    #[must_use]
    pub fn new(
        url: &Url,
        root_certificates: &RootCertificates,
        executor: &Arc<Executor<'static>>,
        stats: &Arc<LoadStats>,
    ) -> Self {
        let (stop, stopped) = channel::bounded(1);
        let (url, root_certificates, executor, stats) =
            (url.clone(), root_certificates.clone(), Arc::clone(executor), Arc::clone(stats));
        Self { url, root_certificates, executor, stats, sessions: Vec::new(), stop, stopped }
    }

    /// Opens more sessions, spread evenly over the users, the first users first. Returns when all have their answers.
    /// The server has 10 s for each answer. A refused or failed session is counted and not retried; one that is lost
    /// later counts as failed then. If dropped before the end, it opens no more.
    pub async fn add(&mut self, sessions: u32, users: Users, profile: LoadProfile) {
        let schedule = match profile {
            LoadProfile::Rate(rate) => Some(ArrivalSchedule::new(Instant::now(), rate)),
            LoadProfile::Concurrency(_) => None,
        };
        let at_once = match profile {
            LoadProfile::Rate(_) => sessions as usize,
            LoadProfile::Concurrency(at_once) => at_once.into(),
        }
        .max(1);
        let (place, places) = channel::bounded::<()>(at_once);
        for number in 0..sessions {
            let arrival = match &schedule {
                Some(schedule) => Some(schedule.wait_for(number.into()).await),
                None => None,
            };
            let _open = place.send(()).await;
            let session = Session {
                url: self.url.clone(),
                options: Options { root_certificates: self.root_certificates.clone(), ..Options::default() },
                stats: Arc::clone(&self.stats),
                stopped: self.stopped.clone(),
            };
            let (user, places) = (users.name_for_session(number, sessions), places.clone());
            self.stats.record_start();
            self.sessions.push(self.executor.spawn(async move {
                let opened = session.open(&user, arrival).await;
                let _open = places.recv().await;
                if let Some(connection) = opened {
                    session.wait_until_ended(connection).await;
                }
            }));
        }
        for _ in 0..at_once {
            let _open = place.send(()).await;
        }
    }

    /// The counts. Each sign-in counts as a cycle.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.stats.counts()
    }

    /// Sends BYE on all sessions and waits for their answers: at most three times 10 s.
    pub async fn end_all(self) {
        self.stop.close();
        for session in self.sessions {
            session.await;
        }
    }

    /// Closes all sockets without a BYE, and returns once they are closed.
    pub async fn drop_all(self) {
        for session in self.sessions {
            session.cancel().await;
        }
    }
}

struct Session {
    url: Url,
    options: Options,
    stats: Arc<LoadStats>,
    stopped: channel::Receiver<()>,
}

impl Session {
    async fn open(&self, user: &str, arrival: Option<Arrival>) -> Option<Connection> {
        match sign_in(&self.url, user, arrival, &self.options).await {
            Ok((connection, timing)) => {
                self.stats.record_success(&timing);
                (!timing.is_refused).then_some(connection)
            }
            Err(error) => {
                self.stats.record_failure(&error);
                None
            }
        }
    }

    async fn wait_until_ended(&self, mut connection: Connection) {
        let stop = async {
            let _closed = self.stopped.recv().await;
            None
        };
        let ended = match or(stop, async { Some(wait_until_lost(&mut connection).await) }).await {
            Some(error) => Err(error),
            None => connection.bye().await,
        };
        if let Err(error) = ended {
            self.stats.record_loss(&error);
        }
    }
}

async fn wait_until_lost(connection: &mut Connection) -> Error {
    loop {
        match connection.next_event().await {
            Ok(Event::Closed { code, reason }) => return Error::Closed { code, reason },
            Ok(Event::Reply(_) | Event::Unknown(_)) => {}
            Err(error) => return error,
        }
    }
}
