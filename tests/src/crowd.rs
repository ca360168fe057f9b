//! Clients that come and go at random, with a referee who reads them all the time.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::random::Random;
use crate::raw_client::Received;
use crate::referee::{ClientId, Referee, ServerId, Status, Watched};

/// The longest pause between two looks at all clients, and the shortest one between two visitors.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a client waits for an answer before it hangs up.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the clients do by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// They come, and those that are in leave after some time.
    ComeAndGo,
    /// Nobody comes or goes.
    Stay,
}

/// Clients of some users at some servers.
pub struct Crowd {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
    limit: usize,
    users: Vec<String>,
}

struct State {
    referee: Referee,
    random: Random,
    behaviour: Behaviour,
    /// Those of the servers that run.
    addresses: Vec<Option<SocketAddr>>,
    users: Vec<String>,
    /// Who comes by itself. The test does not touch these.
    visitors: Vec<ClientId>,
    /// How many visitors there are at most.
    most: usize,
    /// When visitors last came or went.
    acted: Instant,
    has_ended: bool,
}

impl Crowd {
    /// A crowd of these users, at servers that all allow this many sessions of each. Nobody comes yet.
    #[must_use]
    pub fn new(seed: u64, limit: usize, users: &[&str], addresses: Vec<Option<SocketAddr>>) -> Self {
        let users: Vec<_> = users.iter().map(|user| (*user).to_owned()).collect();
        let state = Arc::new(Mutex::new(State {
            referee: Referee::new(limit),
            random: Random::new(seed),
            behaviour: Behaviour::Stay,
            addresses,
            most: users.len() * limit * 2,
            users: users.clone(),
            visitors: vec![],
            acted: Instant::now(),
            has_ended: false,
        }));
        let looking = Arc::clone(&state);
        let thread = thread::spawn(move || {
            loop {
                let sockets = {
                    let mut state = lock(&looking);
                    if state.has_ended {
                        break;
                    }
                    state.step();
                    state.referee.sockets()
                };
                wait_for_any(&sockets);
            }
        });
        Self { state, thread: Some(thread), limit, users }
    }

    /// Clients come and go from now on.
    pub fn come_and_go(&self) {
        self.lock().behaviour = Behaviour::ComeAndGo;
    }

    /// Nobody comes or goes by itself from now on. Waits until those who came before have their answers. Who is denied hangs
    /// up.
    pub fn stay(&self) {
        self.lock().behaviour = Behaviour::Stay;
        let is_under_way =
            |client: &Watched| matches!(client.status, Status::Opening | Status::Asked | Status::Leaving);
        self.wait_until("all who came have their answers", PATIENCE + Duration::from_secs(1), |referee| {
            !referee.clients().any(|(_, client)| is_under_way(client))
        });
    }

    /// Where the servers listen from now on. Nobody comes to one that does not.
    pub fn set_addresses(&self, addresses: Vec<Option<SocketAddr>>) {
        self.lock().addresses = addresses;
    }

    /// Asks or tells the referee, after a look at all clients.
    pub fn referee<T>(&self, ask: impl FnOnce(&mut Referee) -> T) -> T {
        let mut state = self.lock();
        state.referee.look();
        ask(&mut state.referee)
    }

    /// Notes something for the story.
    pub fn remark(&self, text: &str) {
        self.lock().referee.remark(text);
    }

    /// A client that authenticates with this payload, which is JSON. It does only what the test says.
    #[must_use]
    pub fn connect_with(&self, server: ServerId, user: &str, payload: String) -> Option<ClientId> {
        let mut state = self.lock();
        let address = state.addresses[server]?;
        state.referee.connect(server, address, user, payload)
    }

    /// As [`Crowd::connect_with`], with an object that has nobody evicted.
    #[must_use]
    pub fn connect(&self, server: ServerId, user: &str) -> Option<ClientId> {
        self.connect_with(server, user, format!(r#"{{"user":"{user}","evict":"nobody"}}"#))
    }

    /// Waits until this is so, for so long at most. How long it took.
    pub fn wait_until(&self, what: &str, limit: Duration, mut is_so: impl FnMut(&Referee) -> bool) -> Duration {
        let start = Instant::now();
        while !self.referee(|referee| is_so(referee)) {
            self.expect_no_offence();
            assert!(start.elapsed() < limit, "not within {limit:?}: {what}{}", self.referee(|referee| referee.story()));
            thread::sleep(PAUSE);
        }
        start.elapsed()
    }

    /// Waits for the answer to a client, and returns what has become of it.
    #[must_use]
    pub fn answer(&self, id: ClientId, limit: Duration) -> Status {
        let is_answered = |referee: &Referee| {
            status(referee, id).is_none_or(|status| !matches!(status, Status::Opening | Status::Asked))
        };
        self.wait_until(&format!("client {id} has an answer"), limit, is_answered);
        self.referee(|referee| status(referee, id).cloned()).expect("only the test hangs up")
    }

    /// Connects again and again until a client is in.
    pub fn connect_until_in(&self, server: ServerId, user: &str, limit: Duration) -> ClientId {
        let start = Instant::now();
        loop {
            if let Some(id) = self.connect(server, user) {
                let left = limit.saturating_sub(start.elapsed());
                if let Status::In(_) = self.answer(id, left) {
                    return id;
                }
                self.referee(|referee| referee.hang_up(id));
            }
            assert!(
                start.elapsed() < limit,
                "not within {limit:?}: a client of {user} is in at server {server}{}",
                self.referee(|referee| referee.story())
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The clients that are in.
    #[must_use]
    pub fn who_is_in(&self) -> Vec<ClientId> {
        self.referee(|referee| referee.clients().filter(|(_, client)| client.is_in()).map(|(id, _)| id).collect())
    }

    /// Expects that these clients are in still, and that their servers answer them.
    pub fn expect_alive(&self, ids: &[ClientId]) {
        let messages = |referee: &Referee, id: ClientId| referee.client(id).map(|client| client.messages);
        let before: Vec<_> = self.referee(|referee| {
            let ping = |id: &ClientId| {
                let before = messages(referee, *id);
                referee.send(*id, r#"{"type":"PING"}"#);
                before
            };
            ids.iter().map(ping).collect()
        });
        for (id, before) in ids.iter().zip(before) {
            self.wait_until(&format!("client {id} has an answer to its PING"), Duration::from_secs(2), |referee| {
                let is_in = referee.client(*id).is_some_and(Watched::is_in);
                assert!(is_in, "client {id} is not in any more{}", referee.story());
                messages(referee, *id) > before
            });
        }
    }

    /// All clients leave, most with BYE, and nobody comes.
    pub fn leave(&self) {
        self.lock().behaviour = Behaviour::Stay;
        let ids: Vec<_> = self.referee(|referee| referee.clients().map(|(id, _)| id).collect());
        for (index, id) in ids.into_iter().enumerate() {
            self.referee(|referee| if index % 3 == 0 { referee.hang_up(id) } else { referee.say_bye(id) });
        }
        // A server that cannot reach the store may be slow to answer, but the client is gone.
        thread::sleep(Duration::from_millis(50));
        self.referee(|referee| {
            let left: Vec<_> = referee.clients().map(|(id, _)| id).collect();
            left.into_iter().for_each(|id| referee.hang_up(id));
        });
    }

    /// The end of a test in which all is mended: all leave, and within this time newcomers can take all slots of each user
    /// that there was, at all servers. One more is denied. The referee saw nothing wrong.
    pub fn expect_all_slots_free(&self, within: Duration) {
        self.leave();
        let start = Instant::now();
        let servers: Vec<_> =
            self.lock().addresses.iter().enumerate().filter_map(|(id, at)| at.and(Some(id))).collect();
        let mut users: BTreeSet<_> = self.referee(|referee| referee.most().keys().cloned().collect());
        users.extend(self.users.iter().cloned());
        for (first, user) in users.iter().enumerate() {
            for slot in 0..self.limit {
                let left = within.saturating_sub(start.elapsed());
                let _in = self.connect_until_in(servers[(first + slot) % servers.len()], user, left);
            }
            let answer = loop {
                let more = self.connect(servers[first % servers.len()], user).expect("the server listens");
                let answer = self.answer(more, PATIENCE);
                // A machine that is too busy may refuse for a moment.
                let is_refused = matches!(&answer, Status::Out(Received::Close(1013, _)));
                if !is_refused || start.elapsed() > within {
                    break answer;
                }
            };
            assert!(matches!(answer, Status::Denied(_)), "one more of {user} is not denied: {answer:?}");
        }
        let took = start.elapsed();
        self.leave();
        self.expect_no_offence();
        self.print(&format!("all slots were free within {took:?}"));
    }

    /// Fails the test if the referee saw something wrong.
    pub fn expect_no_offence(&self) {
        let offence = self.referee(|referee| referee.offence().map(ToOwned::to_owned));
        assert!(offence.is_none(), "{}", offence.unwrap_or_default());
    }

    #[allow(clippy::print_stderr, reason = "it tells who runs the tests what was measured")]
    fn print(&self, text: &str) {
        self.referee(|referee| {
            let (admitted, most, brief) = (referee.admitted(), referee.most(), referee.brief());
            eprintln!("{text}; {admitted} admitted, most at once {most:?}, {brief} ends under way");
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.lock().has_ended = true;
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            drop(thread.join());
        }
    }
}

/// A test that fails in the middle of a question still lets the others end.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something has come on one of these, but not for long.
fn wait_for_any(sockets: &[Arc<TcpStream>]) {
    let mut polled: Vec<_> = sockets.iter().map(|socket| PollFd::new(&**socket, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(PAUSE).expect("a short time");
    // After an error the next look is at once.
    let _ready = poll(&mut polled, Some(&timeout));
}

fn status(referee: &Referee, id: ClientId) -> Option<&Status> {
    referee.client(id).map(|client| &client.status)
}

impl State {
    fn step(&mut self) {
        self.referee.look();
        if self.acted.elapsed() < PAUSE {
            return;
        }
        self.acted = Instant::now();
        let visitors = std::mem::take(&mut self.visitors);
        self.visitors = visitors.into_iter().filter(|id| self.go_on(*id)).collect();
        if self.behaviour == Behaviour::ComeAndGo && self.visitors.len() < self.most && self.random.one_in(4) {
            self.arrive();
        }
    }

    fn arrive(&mut self) {
        let server = self.random.index(self.addresses.len());
        let user = self.users[self.random.index(self.users.len())].clone();
        let payload = match self.random.below(3) {
            0 => format!(r#""{user}""#),
            1 => format!(r#"{{"user":"{user}","label":"a visitor"}}"#),
            _ => format!(r#"{{"user":"{user}","evict":"oldest"}}"#),
        };
        let Some(address) = self.addresses[server] else { return };
        self.visitors.extend(self.referee.connect(server, address, &user, payload));
    }

    /// Lets a visitor do something, or not. False if it is gone.
    fn go_on(&mut self, id: ClientId) -> bool {
        let Some(client) = self.referee.client(id) else { return false };
        let waited = client.since.elapsed();
        // What a stopped server says first is to be seen.
        if self.referee.is_stopped(client.server) {
            return true;
        }
        let leaves = match client.status {
            Status::In(_) if self.behaviour == Behaviour::ComeAndGo && self.random.one_in(100) => {
                if self.random.one_in(2) {
                    self.referee.say_bye(id);
                    return true;
                }
                true
            }
            Status::In(_) => false,
            Status::Opening | Status::Asked | Status::Leaving => waited > PATIENCE,
            Status::Denied(_) | Status::Out(_) => true,
        };
        if leaves {
            self.referee.hang_up(id);
        }
        !leaves
    }
}
