//! Sessions that authenticate all at the same time.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::dialogue::{Answer, Dialogue, Heard};
use super::readiness::{Readiness, Watched};
use super::script::Script;
use super::socket::{ReadBuffer, Socket};
use crate::client::{ConnectError, Error, Url};

/// Sessions that authenticate all at the same time: for a contended user, or for as many that do not contend.
#[derive(Debug, Clone)]
pub struct AtOnce {
    /// The server, without TLS.
    pub url: Url,
    /// How many sessions.
    pub sessions: u32,
    /// How many users they belong to, in turns: `user-00000000` and on.
    pub users: u32,
}

/// What became of sessions that authenticated all at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AtOnceCounts {
    /// How many were told that they have a slot.
    pub granted: u32,
    /// How many were refused at the limit.
    pub refused: u32,
    /// How many were only told that another session has taken their slot: before they were told of it.
    pub superseded: u32,
    /// How many of the granted were evicted meanwhile.
    pub evicted: u32,
    /// The most sessions of one user that had been told of their slot, and not of their end. What the server sent to the
    /// user's sessions before it told of a slot is read before that counts.
    pub most_held: u32,
    /// From the first AUTHENTICATE to the last answer.
    pub took: Duration,
}

/// How long the server may send nothing at all.
const TIMEOUT: Duration = Duration::from_secs(10);

impl AtOnceCounts {
    fn answered(&self) -> u32 {
        self.granted + self.refused + self.superseded
    }
}

impl AtOnce {
    /// Opens the sessions, authenticates all of them, waits for all answers, and ends those that have a slot with BYE. Blocks
    /// the thread.
    ///
    /// # Errors
    /// If a connection fails, or the server sends nothing for 10 s.
    pub fn run(&self) -> Result<AtOnceCounts, Error> {
        let mut run = Run::open(self)?;
        run.wait_until(|run| run.greeted == self.sessions)?;
        let began = Instant::now();
        for index in 0..run.sessions.len() {
            run.authenticate(index)?;
        }
        run.wait_until(|run| run.counts.answered() == self.sessions)?;
        run.counts.took = run.answered_at - began;
        for index in 0..run.sessions.len() {
            run.say_bye(index)?;
        }
        run.wait_until(|run| run.ended == self.sessions)?;
        Ok(run.counts)
    }
}

struct Run {
    script: Script,
    sessions: Vec<Session>,
    /// The indices of those that were told of their slot, and not of their end.
    held: Vec<usize>,
    readiness: Readiness,
    buffer: ReadBuffer,
    out: Vec<u8>,
    greeted: u32,
    answered_at: Instant,
    ended: u32,
    counts: AtOnceCounts,
}

struct Session {
    user: u32,
    socket: Socket,
    dialogue: Dialogue,
    sends: bool,
    is_evicted: bool,
    is_over: bool,
}

impl Run {
    fn open(load: &AtOnce) -> Result<Self, Error> {
        let url = smol::block_on(load.url.look_up()).map_err(|reason| unreachable(&load.url, reason))?;
        let addresses = smol::block_on(url.resolve()).map_err(|reason| unreachable(&url, reason))?;
        let address = *addresses.first().ok_or_else(|| Error::handshake(&url, ConnectError::HungUp))?;
        let counts = AtOnceCounts::default();
        let mut run = Self {
            readiness: Readiness::new().map_err(|reason| unreachable(&url, reason))?,
            script: Script::new(url),
            sessions: Vec::new(),
            held: Vec::new(),
            buffer: ReadBuffer::default(),
            out: Vec::new(),
            greeted: 0,
            answered_at: Instant::now(),
            ended: 0,
            counts,
        };
        for number in 0..load.sessions {
            let user = number % load.users.max(1);
            let connected = Socket::connect(address, None).and_then(|mut socket| {
                socket.send(&run.script.request)?;
                let sends = socket.has_unsent();
                let dialogue = Dialogue::staying();
                let session = Session { user, socket, dialogue, sends, is_evicted: false, is_over: false };
                run.readiness.add(session.watched(number.into()))?;
                Ok(session)
            });
            run.sessions.push(connected.map_err(|reason| unreachable(&run.script.url, reason))?);
        }
        Ok(run)
    }

    fn wait_until(&mut self, is_done: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let mut ready = Vec::new();
        while !is_done(self) {
            let watched = self.sessions.iter().enumerate().filter(|(_, session)| !session.is_over);
            let watched = watched.map(|(index, session)| session.watched(index as u64));
            let waited = self.readiness.wait(watched, Some(TIMEOUT), &mut ready);
            waited.map_err(|reason| unreachable(&self.script.url, reason))?;
            if ready.is_empty() {
                return Err(Error::TimedOut { awaited: "message", after: TIMEOUT });
            }
            for ready in &ready {
                let index = usize::try_from(ready.key).expect("it is an index");
                if let Some(answer) = self.read(index)? {
                    self.count(index, answer)?;
                }
            }
        }
        Ok(())
    }

    /// Reads all that there is of a session. The answer, if it is among that.
    fn read(&mut self, index: usize) -> Result<Option<Answer>, Error> {
        let session = &mut self.sessions[index];
        let mut answer = None;
        while !session.is_over {
            let received = match session.socket.receive(&mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    session.dialogue.fail(&self.script, error)?;
                    session.is_over = true;
                    self.ended += 1;
                    break;
                }
            };
            let is_end = received.is_end;
            let heard = session.dialogue.receive(&self.script, received.bytes, &mut self.out)?;
            let Heard { greeted, answered, refused: _, evicted } = heard;
            self.greeted += u32::from(greeted);
            answer = answer.or(answered);
            if evicted {
                session.is_evicted = true;
                self.counts.evicted += 1;
                self.held.retain(|&held| held != index);
            }
            if !self.out.is_empty() {
                // If the server has hung up, the end is read next.
                let _ignored: io::Result<()> = session.socket.send(&self.out);
                self.out.clear();
            }
            if is_end {
                session.dialogue.end(&self.script)?;
                session.is_over = true;
                self.ended += 1;
            }
        }
        if session.sends {
            // As above.
            let _ignored: io::Result<()> = session.socket.flush();
        }
        Ok(answer)
    }

    fn count(&mut self, index: usize, answer: Answer) -> Result<(), Error> {
        self.answered_at = Instant::now();
        match answer {
            Answer::Refused => self.counts.refused += 1,
            Answer::Superseded => self.counts.superseded += 1,
            Answer::Granted => {
                self.counts.granted += 1;
                // Those who had to leave for this one were told before.
                for held in self.held_beside(index) {
                    let _answered_before = self.read(held)?;
                }
                // What came after its answer is read already.
                if !self.sessions[index].is_evicted {
                    self.held.push(index);
                }
                let held = u32::try_from(self.held_beside(index).len()).expect("it has 32 bits");
                self.counts.most_held = self.counts.most_held.max(held);
            }
        }
        Ok(())
    }

    /// Those of the same user that are held. Nobody else has to leave for it.
    fn held_beside(&self, index: usize) -> Vec<usize> {
        let user = self.sessions[index].user;
        self.held.iter().copied().filter(|&held| self.sessions[held].user == user).collect()
    }

    fn authenticate(&mut self, index: usize) -> Result<(), Error> {
        let session = &mut self.sessions[index];
        session.dialogue.authenticate(&self.script, session.user, &mut self.out);
        self.send(index)
    }

    fn say_bye(&mut self, index: usize) -> Result<(), Error> {
        self.sessions[index].dialogue.leave(&self.script, &mut self.out);
        self.held.retain(|&held| held != index);
        self.send(index)
    }

    fn send(&mut self, index: usize) -> Result<(), Error> {
        let sent = if self.out.is_empty() { Ok(()) } else { self.sessions[index].socket.send(&self.out) };
        self.out.clear();
        sent.map_err(|error| Error::Lost(error.to_string()))
    }
}

impl Session {
    fn watched(&self, key: u64) -> Watched<'_> {
        Watched { socket: self.socket.as_fd(), key, sends: self.sends }
    }
}

fn unreachable(url: &Url, reason: io::Error) -> Error {
    Error::Unreachable { url: Box::new(url.clone()), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    use smol::future::or;

    use crate::client::testing::fake_server::{FakeServer, with_server};

    #[test]
    fn sessions_at_once_are_counted_and_leave() {
        with_server(async |listener: FakeServer| {
            for (users, granted, most_held) in [(1, 3, 3), (1, 20, 20), (5, 20, 4), (20, 20, 1)] {
                let load = AtOnce { url: listener.url(), sessions: 20, users };
                let run = smol::unblock(move || load.run());
                let counts = or(run, listener.serve(granted)).await.expect("all are answered");
                let expected = AtOnceCounts {
                    granted,
                    refused: 20 - granted,
                    most_held,
                    took: counts.took,
                    ..AtOnceCounts::default()
                };
                assert_eq!(counts, expected);
            }
        });
    }

    #[test]
    fn lost_connection_is_an_error() {
        with_server(async |listener: FakeServer| {
            let load = AtOnce { url: listener.url(), sessions: 2, users: 1 };
            let server = async {
                loop {
                    drop(listener.accept().await);
                }
            };
            let error = or(smol::unblock(move || load.run()), server).await.expect_err("no greeting").to_string();
            assert!(error.contains("the server went away without a word"), "{error}");
        });
    }
}
