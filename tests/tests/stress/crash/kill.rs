//! The server is killed under load.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds, times and skipped tests are to be seen")]

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use shell::client::{Connection, Error, Url};
use smol::block_on;

use super::account::*;
use super::load::*;
use super::random::*;
use super::server;

#[test]
fn killed_server_restarts_and_frees_every_slot() {
    let mut random = Random::from_environment();
    let rounds = from_environment("CRASH_ROUNDS").unwrap_or(20);
    let mut directory = tempfile::tempdir().unwrap();
    let (mut from_start, mut from_listening) = (Vec::new(), Vec::new());
    let (mut population, mut operations) = (0, 0);
    for round in 0..rounds {
        let is_new = round == 0 || random.below(5) == 0;
        if is_new {
            directory = tempfile::tempdir().unwrap();
        }
        if random.below(4) == 0 {
            kill_while_starting(directory.path(), &mut random);
        }
        let start = Instant::now();
        let mut server = server::start(directory.path(), &live_writes(&mut random));
        let (listening, url) = (Instant::now(), server::url(&server));
        let first = sign_in(&url, "first").unwrap_or_else(|error| panic!("round {round}: {error}"));
        let admitted = Instant::now();
        if !is_new {
            from_start.push(admitted - start);
            from_listening.push(admitted - listening);
        }
        assert_eq!(first.1, 1, "round {round}: the slots of the killed server count");
        let mut first = Account { held: vec![first.0], ..Account::new("first".into()) };
        first.fill(&url);

        let groups = UserGroup::all(&mut random);
        let groups = in_parallel(groups, |group| group.fill(&url));
        population = 1 + groups.iter().map(UserGroup::user_count).sum::<usize>();
        operations += load_and_kill(&mut server, groups, &mut random, |group| group.step(&url));
    }
    let [start, listening] = [from_start, from_listening].map(Times::of);
    println!("{rounds} rounds of {population} users with 3 sessions each, {operations} operations until the kills");
    println!("until the first admission after a kill: from the start {start}, from listening {listening}");
}

/// Has the server write its slots in one of both ways: each reads what the other left.
fn live_writes(random: &mut Random) -> [&'static str; 2] {
    ["--live-writes", if random.below(2) == 0 { "map" } else { "file" }]
}

/// Kills a server at any moment of its start: before it opens its directory, or when it already serves.
fn kill_while_starting(data: &Path, random: &mut Random) {
    let server = server::spawn(data, &live_writes(random));
    // This is the random moment, not a wait for something.
    thread::sleep(Duration::from_micros(random.below(30_000)));
    server.kill();
}

/// The users of one thread.
struct UserGroup {
    random: Random,
    /// They keep all slots of their limit.
    steady: Vec<Account>,
    /// They connect and disconnect.
    restless: Vec<Account>,
    /// It disconnects during authentication, so that its slots are unknown.
    leaving: Account,
}

impl UserGroup {
    fn all(random: &mut Random) -> Vec<Self> {
        // Long names fill pages, which then split and merge.
        let account = |kind, group, number| Account::new(format!("{kind} {group} {number} {}", "x".repeat(200)));
        let group = |group| Self {
            random: random.fork(),
            steady: (0..12).map(|number| account("content", group, number)).collect(),
            restless: (0..10).map(|number| account("restless", group, number)).collect(),
            leaving: account("hasty", group, 0),
        };
        (0..4).map(group).collect()
    }

    fn user_count(&self) -> usize {
        self.steady.len() + self.restless.len() + 1
    }

    /// Every user takes all slots of its limit. All must be free.
    fn fill(&mut self, url: &Url) {
        for account in self.steady.iter_mut().chain(&mut self.restless) {
            account.fill(url);
        }
        self.leaving.fill(url);
        self.leaving.held.clear();
    }

    fn step(&mut self, url: &Url) -> Result<(), Error> {
        let (steady, restless) = (self.random.index(&self.steady), self.random.index(&self.restless));
        let account = &mut self.restless[restless];
        match self.random.below(8) {
            0 => match sign_in(url, &self.steady[steady].user) {
                Err(Error::Denied { .. }) => Ok(()),
                Err(error) => Err(error),
                Ok((_, connections)) => panic!("a fourth session was admitted as number {connections}"),
            },
            1 => block_on(async {
                let text = format!(r#"{{"type":"AUTHENTICATE","payload":"{}"}}"#, self.leaving.user);
                Connection::open(url).await?.send_text(text).await
            }),
            2 => {
                account.unnoticed += u32::from(account.held.pop().is_some());
                Ok(())
            }
            3 | 4 => match account.held.pop() {
                Some(connection) => block_on(connection.bye()),
                None => Ok(()),
            },
            _ => account.try_acquire(url),
        }
    }
}

/// Durations over many rounds.
struct Times {
    median: Duration,
    worst: Duration,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let worst = all.last().copied().unwrap_or_default();
        Self { median: all.get(all.len() / 2).copied().unwrap_or_default(), worst }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {:.1?}, worst {:.1?}", self.median, self.worst)
    }
}
