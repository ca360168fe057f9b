//! Several servers, their clients and the store: one step of a history after another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use session_core::{Ask, Credential, Evict, Limit, Limits, Name, Request, ResumeToken, Terms, Time, UserId, Violation};
use shell::connection::Connection;

use super::authenticator;
use super::client::{Client, Shown};
use super::faulty_store::{Fate, SharedStore};
use super::scenario::{History, Op, USERS, credential, user_id};
use super::server::{Server, Status, Task};
use super::socket::{Line, Sent};
use super::trace::Trace;

/// The world of one history.
pub struct Simulation {
    pub(super) store: Arc<SharedStore>,
    /// The terms that it began with.
    pub(super) terms: Terms,
    /// Every token that a client was told.
    pub(super) told: Vec<(UserId, ResumeToken)>,
    pub(super) now: Time,
    pub(super) servers: Vec<Server>,
    pub(super) clients: BTreeMap<u32, Client>,
    arrivals: u32,
    pub(super) nodes: u64,
    /// The faults are over: the store does at once what it is asked.
    pub(super) healed: bool,
    pub(super) trace: Trace,
}

/// How the time of a slot to come back is bounded, for somebody who leaves a store that is well.
pub(super) const LIMITS: Limits = Limits {
    auth_timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(30),
    pong_timeout: Duration::from_secs(10),
    max_bad_messages: Some(16),
    max_message_rate: NonZeroU32::new(100),
};
const START: Time = Time::from_epoch(Duration::from_secs(1_000_000));
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const SERVERS: usize = 3;
const MAX_CLIENTS: usize = 300;
/// How many sessions of one server may hold, or wait for, a slot: few, so that there are often too many.
pub(super) const ROOM: usize = 60;

impl Simulation {
    /// Runs a history with every check, and then that everything comes back. `traced` keeps the trace's lines.
    ///
    /// # Panics
    /// When something does not hold. The text says what.
    #[must_use]
    pub fn run(history: &History, traced: bool) -> Trace {
        let mut simulation = Self::new(history, traced);
        for op in &history.ops {
            simulation.step(op);
            simulation.check();
        }
        simulation.end();
        simulation.trace
    }

    fn new(history: &History, traced: bool) -> Self {
        let trace = Trace { lines: traced.then(String::new), ..Trace::default() };
        let mut simulation = Self {
            store: Arc::new(SharedStore::new(history.terms, START)),
            terms: history.terms,
            told: Vec::new(),
            now: START,
            servers: Vec::new(),
            clients: BTreeMap::new(),
            arrivals: 0,
            nodes: 0,
            healed: false,
            trace,
        };
        for _ in 0..SERVERS {
            let server = simulation.boot();
            simulation.servers.push(server);
        }
        simulation
    }

    pub(super) fn step(&mut self, op: &Op) {
        self.tell(|| format!("{op:?}"));
        self.count(op.kind());
        match op {
            Op::Connect { server, user } => self.connect(*server, &[Request::Authenticate(credential(*user))]),
            Op::Visit { server, user } => {
                // All in one segment: nobody waits for an answer.
                let whole = [Request::Authenticate(credential(*user)), Request::CheckConnections, Request::Bye];
                self.connect(*server, &whole);
            }
            Op::Storm { server, user, clients } => {
                for client in 0..*clients % 32 {
                    self.connect(*server, &[Request::Authenticate(credential(user.wrapping_add(client % 4)))]);
                }
            }
            Op::Idle { server } => self.connect(*server, &[]),
            Op::Authenticate { who, user } => self.say(*who, &Request::Authenticate(credential(*user)).encode()),
            Op::SignIn { server, user, limit, seconds } => {
                let expires = self.servers[usize::from(*server) % SERVERS].wall_in(*seconds);
                let token = authenticator::token(&user_id(*user), Some(*limit), expires);
                self.connect(*server, &[Request::AuthenticateWith(token, Box::default())]);
            }
            Op::Renew { who, user, seconds } => self.renew(*who, *user, *seconds),
            Op::WallClock { server, seconds } => {
                let server = &self.servers[usize::from(*server) % SERVERS];
                server.dial.set_wall_ahead(i64::from(*seconds) * 1000);
                server.wake_all();
            }
            Op::Guest { server, user, device, evict, resume } => {
                // Of the latest, most of whose slots are there.
                let latest = &self.told[self.told.len().saturating_sub(16)..];
                let resume = resume.and_then(|which| latest.get(usize::from(which) % latest.len().max(1)));
                let ask = Ask {
                    device: device.and_then(|device| Name::parse(&format!("device {}", device % 3))),
                    label: None,
                    // Mostly of this very user.
                    resume: resume.map(|&(_, token)| token),
                    evict: self.choice(&user_id(*user), *evict),
                };
                let user = resume.map_or_else(|| user_id(*user), |(owner, _)| owner.clone());
                let credential = Credential::User(user.as_str().into());
                self.connect(*server, &[Request::AuthenticateWith(credential, Box::new(ask))]);
            }
            Op::Choose { who, evict } => {
                let user = self.user_of(*who);
                let ask = Ask { evict: self.choice(&user, *evict), ..Ask::default() };
                let credential = Credential::User(user.as_str().into());
                self.say(*who, &Request::AuthenticateWith(credential, Box::new(ask)).encode());
            }
            Op::List { who } => {
                self.say(self.somebody_with_slot(*who, |_| true), &Request::ListSessions.encode());
            }
            Op::End { who, which } => {
                let who = self.somebody_with_others(*who);
                let mut holds = self.store.holds_of(&self.user_of(who));
                if *which >= 64 {
                    // Else perhaps its own, which it may not end so.
                    self.with(who, |client| holds.retain(|hold| hold.session != client.session));
                }
                if let Some(hold) = holds.get(usize::from(*which) % holds.len().max(1)) {
                    self.say(who, &Request::EndSession(hold.session).encode());
                }
            }
            Op::SetLimit { slots } => {
                self.store.set_limit(Limit::new(u32::from(*slots) % 6).expect("five is below the ceiling"));
            }
            Op::Enforce { user } => {
                let first = (0..USERS).map(user_id).find(|user| self.store.is_beyond_limit(user));
                self.store.enforce(first.unwrap_or_else(|| user_id(*user)));
            }
            Op::Check { who } => self.say(*who, &Request::CheckConnections.encode()),
            Op::Bye { who } => self.say(*who, &Request::Bye.encode()),
            Op::Raw { who, text } => self.say(*who, text),
            Op::Violate { who, how } => {
                let violations =
                    [Violation::Protocol, Violation::InvalidUtf8, Violation::MessageTooBig, Violation::BinaryMessage];
                self.with(*who, |client| {
                    client.line.send(Sent::Violation(violations[usize::from(*how) % violations.len()]));
                });
            }
            Op::Pong { who } => self.with(*who, |client| client.line.send(Sent::Alive)),
            Op::Leave { who } => self.with(*who, Client::leave),
            Op::FallSilent { who } => self.with(*who, |client| client.answers_pings = false),
            Op::StopReading { who } => self.with(*who, |client| client.line.set_attentive(false)),
            Op::Store { which, fate } => self.store_step(*which, *fate),
            Op::StoreFull { full } => self.store.set_full(*full),
            Op::Work { commands } => {
                for _ in 0..*commands {
                    self.store_step(0, Fate::Apply);
                    self.run_tasks();
                }
            }
            Op::LateAnswers => self.store.answer_all_late(),
            Op::Pass { millis } => self.pass(Duration::from_millis(u64::from(*millis))),
            Op::Kill { server } => self.kill(usize::from(*server) % SERVERS),
            Op::Start { server } => self.start(usize::from(*server) % SERVERS),
            Op::Pause { server } => self.pause(usize::from(*server) % SERVERS),
            Op::Resume { server } => self.resume(usize::from(*server) % SERVERS),
            Op::Drain { server } => self.drain(usize::from(*server) % SERVERS),
            Op::ClockRate { server, per_mille } => {
                self.servers[usize::from(*server) % SERVERS].rate = 200 + u32::from(*per_mille) % 2000;
            }
            Op::ClockJump { server, millis } => {
                let server = &self.servers[usize::from(*server) % SERVERS];
                server.dial.turn_to(server.time() + Duration::from_millis(u64::from(*millis)));
                server.wake_all();
            }
        }
        self.run_tasks();
    }

    /// Whom to end, of those who are there: mostly nobody.
    fn choice(&self, user: &UserId, evict: u8) -> Option<Evict> {
        match evict % 4 {
            0 => None,
            1 => Some(Evict::Nobody).filter(|_| evict % 8 == 1),
            2 => Some(Evict::Oldest),
            _ => {
                let holds = self.store.holds_of(user);
                let chosen = holds.iter().skip(usize::from(evict) / 4 % holds.len().max(1));
                let chosen: Box<[_]> = chosen.map(|hold| hold.session).collect();
                Some(Evict::These(chosen)).filter(|_| !holds.is_empty())
            }
        }
    }

    /// As whom this client was let in, or else somebody.
    fn user_of(&self, who: u8) -> UserId {
        let there: Vec<_> = self.clients.values().filter(|client| client.line.is_open()).collect();
        let client = there.get(usize::from(who) % there.len().max(1));
        client.and_then(|client| client.user.clone()).unwrap_or_else(|| user_id(who))
    }

    /// Which of the clients that are still there has a slot and is not the only one of its user, if any of them is that.
    fn somebody_with_others(&self, who: u8) -> u8 {
        self.somebody_with_slot(who, |user| self.store.holds_of(user).len() > 1)
    }

    /// Which of the clients that are still there has a slot of such a user, if any of them has.
    fn somebody_with_slot(&self, who: u8, of: impl Fn(&UserId) -> bool) -> u8 {
        let there = self.clients.values().filter(|client| client.line.is_open());
        let able: Vec<_> = (0..=u8::MAX)
            .zip(there)
            .filter(|(_, client)| client.granted && client.user.as_ref().is_some_and(&of))
            .map(|(number, _)| number)
            .collect();
        able.get(usize::from(who) % able.len().max(1)).copied().unwrap_or(who)
    }

    pub(super) fn connect(&mut self, server: u8, requests: &[Request]) {
        let index = usize::from(server) % SERVERS;
        let server = &mut self.servers[index];
        if server.status != Status::Up || self.clients.len() >= MAX_CLIENTS {
            return;
        }
        let clock = server.custody().clock().clone();
        let line = Line::new(clock.clone());
        for request in requests {
            line.send(Sent::Text(request.encode()));
        }
        let entry = server.registry.enter();
        let session = entry.id();
        let services = Arc::clone(&server.services);
        let visitor = server.doorway.enter(None).expect("no bounds");
        let mut connection = Connection::new(&entry, line.clone(), &LIMITS, clock.now(), services, visitor);
        let task = async move {
            connection.run().await;
            drop(entry);
        };
        server.tasks.insert(session.number(), Task::new(task));
        let client = Client {
            node: server.node,
            session,
            line,
            granted: false,
            answers_pings: true,
            greeted: false,
            asked: requests.iter().map(Shown::by).collect(),
            expires: None,
            user: None,
            closed: None,
            evicted: false,
        };
        self.arrivals += 1;
        self.clients.insert(self.arrivals, client);
    }

    fn renew(&mut self, who: u8, user: u8, seconds: u8) {
        let who = self.somebody_with_slot(who, |_| true);
        let walls: BTreeMap<_, _> = self.servers.iter().map(|server| (server.node, server.wall_in(seconds))).collect();
        self.with(who, |client| {
            let expires = walls[&client.node];
            // Mostly the user whose session it is, if anybody's.
            let user = client.user.clone().filter(|_| !user.is_multiple_of(8)).unwrap_or_else(|| user_id(user));
            let token = authenticator::token(&user, None, expires);
            client.say(&Request::AuthenticateWith(token, Box::default()).encode());
        });
    }

    fn say(&mut self, who: u8, text: &str) {
        self.with(who, |client| client.say(text));
    }

    /// Does something with one of the clients that are still there.
    fn with(&mut self, who: u8, act: impl FnOnce(&mut Client)) {
        let there = self.clients.values().filter(|client| client.line.is_open()).count();
        let mut there =
            self.clients.values_mut().filter(|client| client.line.is_open()).skip(usize::from(who) % there.max(1));
        if let Some(client) = there.next() {
            act(client);
        }
    }

    fn store_step(&mut self, which: u8, fate: Fate) {
        if let Some((command, outcome)) = self.store.step(which, fate) {
            self.tell(|| format!("    {command:?} => {outcome:?}"));
            self.count(fate.name());
        }
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(lines) = &mut self.trace.lines {
            let _infallible = writeln!(lines, "{now} {}", line());
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.trace.counts.entry(what).or_insert(0) += 1;
    }
}
