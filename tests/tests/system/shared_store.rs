//! Several server processes that share one Redis, against the promises of `core/docs/cluster.md`.
//!
//! A referee outside counts, from what the clients read, how many of each user are in. Each test ends with all mended and
//! all clients gone; then newcomers must be able to take all slots of each user.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

mod across_servers;
mod node_faults;
mod store_restarts;
mod store_faults;
mod random_faults;
mod nodes;
mod random_topology;
mod trouble;
mod sentinels;
mod cluster;
mod split_brain;
mod replicas;
mod rolling_restart;
mod wrong_place;
mod trace;

use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tests::crowd::Crowd;
use tests::fleet::{Fleet, FleetOptions, SharedStore};
use tests::redis_process::RedisProcess;
use tests::referee::{ClientId, ServerId, Status};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const SECOND: Duration = Duration::from_secs(1);

/// What each server allows.
const LIMIT: usize = 2;

/// The users of the clients that come and go. Tests that need a user of their own take others.
const USERS: [&str; 3] = ["ada", "bob", "eve"];

/// Servers that share a Redis, and their clients.
struct Scene<R = RedisProcess> {
    crowd: Crowd,
    fleet: Fleet<R>,
    options: FleetOptions,
}

impl Scene {
    /// Starts all, and waits until each server admits. `None` if no Redis is installed.
    fn start(seed: u64, mut options: FleetOptions) -> Option<Self> {
        if !RedisProcess::is_installed() {
            return None;
        }
        options.arguments.extend(["--limit", "2"]);
        let fleet = Fleet::start(SERVER, &options);
        Some(Self::of_fleet(seed, options, fleet, &USERS))
    }

    /// Three servers with these arguments.
    fn with_arguments(seed: u64, arguments: &[&'static str]) -> Option<Self> {
        Self::start(seed, FleetOptions::new(arguments))
    }
}

impl<R: SharedStore> Scene<R> {
    /// As [`Scene::start`], on this store, with these users.
    fn start_on(seed: u64, mut options: FleetOptions, redis: R, users: &[&str]) -> Self {
        options.arguments.extend(["--limit", "2"]);
        let fleet = Fleet::start_on(SERVER, &options, redis);
        Self::of_fleet(seed, options, fleet, users)
    }

    fn of_fleet(seed: u64, options: FleetOptions, fleet: Fleet<R>, users: &[&str]) -> Self {
        let crowd = Crowd::new(seed, LIMIT, users, fleet.addresses());
        let scene = Self { crowd, fleet, options };
        // One user's part may admit a beat before that of another.
        let start = Instant::now();
        while !scene.fleet.are_healthy() && start.elapsed() < scene.options.mended_within() {
            thread::sleep(Duration::from_millis(20));
        }
        scene.expect_all_admit("pat", scene.options.mended_within());
        scene
    }

    /// Each server admits a client of this user, who has a free slot, within this time.
    fn expect_all_admit(&self, user: &str, within: Duration) {
        let start = Instant::now();
        for server in self.running() {
            let id = self.crowd.connect_until_in(server, user, within.saturating_sub(start.elapsed()));
            self.crowd.referee(|referee| referee.say_bye(id));
        }
    }

    /// Clients come and go for this time. Then those that are in stay.
    fn visits(&self, time: Duration) -> Vec<ClientId> {
        self.crowd.come_and_go();
        thread::sleep(time);
        self.crowd.stay();
        self.crowd.expect_no_offence();
        self.crowd.who_is_in()
    }

    /// All slots of a user are taken at this server.
    fn fill(&self, server: ServerId, user: &str) -> Vec<ClientId> {
        (0..LIMIT).map(|_| self.crowd.connect_until_in(server, user, SECOND * 2)).collect()
    }

    /// Tries at each server in turn until a client of this user is in. How long it took.
    fn first_admission(&self, user: &str, within: Duration) -> Duration {
        let start = Instant::now();
        for server in self.running().into_iter().cycle() {
            if let Some(id) = self.crowd.connect(server, user) {
                let answer = self.crowd.answer(id, within);
                self.crowd.referee(|referee| referee.say_bye(id));
                if matches!(answer, Status::In(_)) {
                    break;
                }
            }
            assert!(start.elapsed() < within, "nobody is admitted within {within:?}");
            thread::sleep(Duration::from_millis(20));
        }
        start.elapsed()
    }

    /// All these clients lose their connections within this time.
    fn expect_out(&self, ids: &[ClientId], within: Duration) -> Duration {
        self.crowd.wait_until("the clients are closed", within, |referee| {
            ids.iter().all(|id| referee.client(*id).is_none_or(tests::referee::Watched::is_out))
        })
    }

    /// As [`Scene::expect_out`], of clients whose server has fenced: it ends them without another word.
    fn expect_cut(&self, ids: &[ClientId], within: Duration) -> Duration {
        let took = self.expect_out(ids, within);
        self.crowd.referee(|referee| {
            let told = |id: &ClientId| referee.client(*id)?.evicted.clone();
            assert_eq!(ids.iter().find_map(told), None, "{}", referee.story());
        });
        took
    }

    fn kill(&mut self, server: ServerId) {
        self.crowd.remark(&format!("server {server} is killed"));
        self.fleet.kill_server(server);
        self.crowd.set_addresses(self.fleet.addresses());
    }

    fn start_again(&mut self, server: ServerId) {
        self.fleet.start_server(server);
        self.crowd.set_addresses(self.fleet.addresses());
    }

    /// Stops a server with SIGSTOP. Nobody comes to it.
    fn pause(&self, server: ServerId) {
        self.fleet.pause_server(server);
        self.crowd.referee(|referee| referee.server_stops(server));
        let mut addresses = self.fleet.addresses();
        addresses[server] = None;
        self.crowd.set_addresses(addresses);
    }

    /// Lets it go on, after more than its fence.
    fn resume(&self, server: ServerId) {
        self.crowd.referee(|referee| referee.server_goes_on(server));
        self.fleet.resume_server(server);
        self.crowd.set_addresses(self.fleet.addresses());
    }

    /// Says what a fault of the store is, and does it.
    fn fault<T>(&mut self, what: &str, fault: impl FnOnce(&mut Fleet<R>) -> T) -> T {
        self.crowd.remark(what);
        let result = fault(&mut self.fleet);
        self.crowd.remark(&format!("over: {what}"));
        result
    }

    fn running(&self) -> Vec<ServerId> {
        let addresses = self.fleet.addresses();
        addresses.iter().enumerate().filter_map(|(server, address)| address.and(Some(server))).collect()
    }

    /// The end of each test, once all is mended.
    fn finish(self) {
        self.crowd.expect_all_slots_free(self.options.mended_within());
    }
}

/// How many tests with many processes run at a time. More of them would be too slow for their times.
const TURNS: usize = 3;

static TAKEN: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The turn of a test with many processes, until it ends.
struct Turn;

impl Turn {
    /// Waits for it. `None` if no Redis is installed.
    fn take() -> Option<Self> {
        if !RedisProcess::is_installed() {
            return None;
        }
        let taken = TAKEN.0.lock().unwrap();
        *TAKEN.1.wait_while(taken, |taken| *taken >= TURNS).unwrap() += 1;
        Some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.0.lock().unwrap() -= 1;
        TAKEN.1.notify_one();
    }
}

#[allow(clippy::print_stderr, reason = "it tells who runs the tests what was measured")]
fn measured(what: &str, time: Duration) {
    eprintln!("{what}: {time:?}");
}
