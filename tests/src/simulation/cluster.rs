//! A deterministic simulation of several servers over one store, in the manner of FoundationDB's and TigerBeetle's.
//!
//! It runs what the real server runs: [`Connection`], [`Custody`] with its retries, [`Registry`], the session machine and
//! the ledger's rule. Only the sockets, the store and the clocks are simulated. There are no threads, nothing sleeps, and
//! one seed decides everything, so the same seed gives the same trace, byte for byte.
//!
//! - `scenario`: what happens, from a seed or from a fuzzer, and how a failing history is made small.
//! - `faulty_store`: keeps its contract and is otherwise hostile.
//! - `socket`: a socket that is two queues.
//! - `authenticator`: knows users by name, or by tokens that anybody can make.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use session_core::{
    Ask, CloseReason, Complaint, Credential, Debts, DoorBounds, Evict, Limit, Limits, Name, NodeId, Reply, Request,
    ResumeToken, Session, SessionId, Terms, Time, UserId, Violation, WallTime, WhenFull,
};
use shell::clock::{Clock, Dial};
use shell::connection::{Connection, Services};
use shell::custody::Custody;
use shell::doorway::Doorway;
use shell::log::Refusals;
use shell::registry::Registry;

use super::authenticator::{self, Desk};
use super::faulty_store::{Fate, SharedStore};
use super::scenario::{self, History, Op};
use super::socket::{Heard, Line, Sent};
use crate::core_simulation::World;

/// The world of one history.
pub struct Simulation {
    store: Arc<SharedStore>,
    /// The terms that it began with.
    terms: Terms,
    /// Every token that a client was told.
    told: Vec<(UserId, ResumeToken)>,
    now: Time,
    servers: Vec<Server>,
    clients: BTreeMap<u32, Client>,
    arrivals: u32,
    nodes: u64,
    /// The faults are over: the store does at once what it is asked.
    healed: bool,
    trace: Trace,
}

/// A machine that runs a server, most of the time.
struct Server {
    node: NodeId,
    status: Status,
    dial: Arc<Dial>,
    /// How fast its clock runs, in thousandths.
    rate: u32,
    services: Arc<Services>,
    registry: Arc<Registry>,
    doorway: Arc<Doorway>,
    tasks: BTreeMap<u64, Task>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Up,
    /// It takes no more connections.
    Draining,
    /// It does nothing, and everybody takes it for alive.
    Paused,
    Dead,
}

/// Something that runs on a server: a connection, or (as number 0) the retries.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One connection, seen from its client.
struct Client {
    node: NodeId,
    session: SessionId,
    line: Line,
    /// It was told that it has a slot, and since then neither that this is over nor has it left.
    granted: bool,
    /// It answers pings.
    answers_pings: bool,
    greeted: bool,
    /// What was shown by the messages that it waits for an answer to.
    asked: VecDeque<Shown>,
    /// When the token runs out that let it in.
    expires: Option<WallTime>,
    user: Option<UserId>,
    closed: Option<CloseReason>,
    /// It was told that its slot is gone.
    evicted: bool,
}

/// Whom a message says its client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// It does not say.
    Nothing,
    /// A user, by name, which never runs out.
    Name,
    /// The user of a token that runs out then.
    Token(WallTime),
}

/// What happened, a line each, and how often what.
#[derive(Debug, Default)]
pub struct Trace {
    /// The lines, if they are kept.
    pub lines: Option<String>,
    /// How often each kind of operation came, and how often each reply and close was heard.
    pub counts: BTreeMap<&'static str, u64>,
    /// The longest that a slot took to come back in the end, by what it was waiting for.
    pub reclaimed: BTreeMap<&'static str, Duration>,
}

/// How the time of a slot to come back is bounded, for somebody who leaves a store that is well.
const LIMITS: Limits = Limits {
    auth_timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(30),
    pong_timeout: Duration::from_secs(10),
    max_bad_messages: Some(16),
    max_message_rate: NonZeroU32::new(100),
};
const START: Time = Time::from_epoch(Duration::from_secs(1_000_000));
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const USERS: u8 = 24;
const SERVERS: usize = 3;
const MAX_CLIENTS: usize = 300;
/// How many sessions of one server may hold, or wait for, a slot: few, so that there are often too many.
const ROOM: usize = 60;

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

    fn step(&mut self, op: &Op) {
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

    /// What must hold after every step.
    fn check(&mut self) {
        self.store.check();
        for (what, count) in self.store.take_counts() {
            *self.trace.counts.entry(what).or_insert(0) += count;
        }
        let slots: BTreeSet<_> = self.store.live_slots().into_iter().map(|(_, session)| session).collect();
        for client in self.clients.values().filter(|client| client.granted) {
            // A server that is paused tells nobody anything.
            let is_paused = |server: &Server| server.node == client.node && server.status == Status::Paused;
            let is_yet_to_hear = self.store.has_ended(client.session) && self.servers.iter().any(is_paused);
            assert!(
                slots.contains(&client.session) || is_yet_to_hear,
                "session {} was told that it has a slot, and has none",
                client.session
            );
        }
        for server in self.servers.iter().filter(|server| server.is_running()) {
            for client in self.clients.values().filter(|client| client.node == server.node && client.granted) {
                client.check_token(server);
            }
        }
        for server in self.servers.iter().filter(|server| server.status != Status::Dead) {
            let slots = slots.iter().filter(|session| session.node() == server.node).count();
            let (held, owed) = (server.custody().held(), server.custody().owed());
            assert!(slots <= held, "node {} has {slots} slots and answers for {held}", server.node);
            assert!(owed <= held && held <= ROOM, "node {} owes {owed} and answers for {held}", server.node);
        }
    }

    /// Ends all faults, lets everybody leave, and checks that everything comes back in time.
    fn end(&mut self) {
        self.tell(|| "the faults end".into());
        self.healed = true;
        self.store.set_full(false);
        self.store.set_limit(self.terms.limit);
        for client in self.clients.values() {
            client.line.set_attentive(true);
        }
        for server in 0..SERVERS {
            self.servers[server].rate = 1000;
            match self.servers[server].status {
                Status::Paused => self.resume(server),
                Status::Dead => self.start(server),
                Status::Up | Status::Draining => {}
            }
        }
        self.store.answer_all_late();
        self.run_tasks();
        self.recover();

        // What was owed is paid within the longest pause between two tries.
        let healed = self.now;
        self.pass_until(Debts::LONGEST_BACKOFF, |simulation| {
            simulation.servers.iter().all(|server| server.custody().owed() == 0)
        });
        for server in &self.servers {
            assert_eq!(server.custody().owed(), 0, "a debt of node {} was not paid in time", server.node);
        }
        self.reclaimed("a debt", healed);
        for client in self.clients.values() {
            assert!(client.asked.is_empty(), "session {} waits for an answer for ever", client.session);
        }

        // Whoever says BYE, or is gone, gives the slot back at once; whoever is silent when that is found out.
        let left = self.now;
        let mut silent = 0;
        for (number, client) in &mut self.clients {
            match number % 3 {
                0 => client.line.send(Sent::Text(Request::Bye.encode())),
                1 => client.leave(),
                _ => {
                    client.answers_pings = false;
                    silent += u32::from(client.granted);
                }
            }
        }
        self.run_tasks();
        self.recover();
        assert_eq!(
            self.store.live_slots().len(),
            silent as usize,
            "who has left holds a slot, or who has not does not"
        );
        self.reclaimed("BYE, or a lost socket", left);
        self.pass_until(LIMITS.ping_interval + LIMITS.pong_timeout, |simulation| {
            simulation.store.live_slots().is_empty()
        });
        assert!(self.store.live_slots().is_empty(), "these slots were never given back: {:?}", self.store.live_slots());
        self.reclaimed("silence", left);
        // The last sockets have their time to answer the close, or to choose.
        self.pass_until(LIMITS.auth_timeout + Session::CHOICE_TIME, |simulation| {
            simulation.servers.iter().all(|server| server.registry.is_empty())
        });

        for server in 0..SERVERS {
            assert_eq!(self.servers[server].registry.len(), 0, "a connection never ended");
            assert_eq!(self.servers[server].doorway.counts(), (0, 0), "the door counts somebody who has left");
            assert_eq!(self.servers[server].custody().held(), 0, "a reservation was never given back");
            if self.servers[server].status == Status::Draining {
                self.kill(server);
                self.start(server);
            }
        }
        // What lingers has its time.
        self.pass(World::LINGER + Duration::from_secs(1));
        self.store.sweep();
        for user in 0..USERS {
            let left = self.store.holds_of(&user_id(user));
            assert!(left.is_empty(), "a slot lingers for ever: {left:?}");
        }
        self.clients.clear();
        for user in 0..USERS {
            assert!(self.is_admitted(user, user), "a newcomer was not admitted at the first try");
        }
        self.check();
        self.end_with_a_crash();
        self.come_home();
    }

    /// What a server held that is killed is free at once, and not a slot more: a full user is as full on the others.
    fn end_with_a_crash(&mut self) {
        const USER: u8 = 0;

        // Where the newest takes the place of the oldest nobody is ever refused.
        if self.terms.when_full() == WhenFull::EvictOldest {
            return;
        }
        for server in 0..3 {
            while self.is_admitted(server, USER) {}
            let full = self.slots_of(USER);
            let crashed = self.now;
            self.kill(usize::from(server));
            assert!(self.slots_of(USER) < full, "a killed server holds slots");
            while self.is_admitted(server + 1, USER) {}
            assert_eq!(self.slots_of(USER), full, "the slots of a killed server are not all free at once");
            self.reclaimed("a crash", crashed);
            self.start(usize::from(server));
        }
        self.check();
    }

    /// Whoever a killed server held comes home with a token, also to a user who is full, once and again; and nobody is
    /// admitted by it.
    fn come_home(&mut self) {
        const USER: u8 = 1;

        if self.terms.linger.is_zero() {
            return;
        }
        let user = user_id(USER);
        for server in 0..3 {
            for client in self.clients.values_mut() {
                client.leave();
            }
            self.run_tasks();
            self.recover();
            self.pass(World::LINGER);
            let known = self.told.len();
            for _ in 0..self.terms.limit.slots() {
                let _admitted = self.is_let_in(server, &guest(USER, None));
            }
            let tokens = self.told.split_off(known);
            self.kill(usize::from(server));
            if server == 2 {
                // In the nick of time.
                self.pass(World::LINGER.saturating_sub(Duration::from_millis(1)));
            }
            let lost = self.store.holds_of(&user);
            let mut came = 0;
            for (_, token) in tokens {
                // Those whose place the next one took have none.
                if !lost.iter().any(|hold| hold.resumable().is_some_and(|resumable| resumable.key == token.key())) {
                    continue;
                }
                for _ in 0..2 {
                    assert!(self.is_let_in(server + 1, &guest(USER, Some(token))), "a token opened nothing");
                    let there = self.store.holds_of(&user);
                    assert_eq!(there.len(), lost.len(), "a token admitted somebody, or cost somebody a slot");
                }
                came += 1;
            }
            assert!(came > 0, "nobody could come home");
            self.count("came home after a crash");
            let full = self.slots_of(USER);
            if self.terms.when_full() == WhenFull::Deny {
                assert!(!self.is_admitted(server + 1, USER), "beside {full} who came home there was room");
            }
            self.start(usize::from(server));
        }
        self.check();
    }

    fn slots_of(&self, user: u8) -> usize {
        let user = user_id(user);
        self.store.live_slots().into_iter().filter(|(holder, _)| *holder == user).count()
    }

    /// Whether the user is admitted at the first try, while the store is well.
    fn is_admitted(&mut self, server: u8, user: u8) -> bool {
        self.is_let_in(server, &Request::Authenticate(credential(user)))
    }

    fn is_let_in(&mut self, server: u8, request: &Request) -> bool {
        self.connect(server, slice::from_ref(request));
        self.run_tasks();
        self.recover();
        self.clients.last_key_value().is_some_and(|(_, client)| client.granted)
    }

    /// The store does all it was asked, and is well.
    fn recover(&mut self) {
        while !self.store.is_idle() {
            let _outcome = self.store.step(0, Fate::Apply);
            self.run_tasks();
        }
        self.check();
    }

    fn boot(&mut self) -> Server {
        self.nodes += 1;
        let node = NodeId::new(self.nodes);
        let registry = Registry::new(node);
        self.store.start(node, Arc::clone(&registry));
        let dial = Arc::<Dial>::default();
        // No two clocks show the same.
        dial.turn_to(self.now + Duration::from_secs(self.nodes * 1000));
        let clock = Clock::by_dial(dial.clone());
        let custody = Custody::new(self.store.clone(), clock.clone(), STORE_TIMEOUT, ROOM);
        let retries = Task::new(Arc::clone(&custody).retry());
        let tasks = BTreeMap::from([(0, retries)]);
        let doorway = Doorway::new(DoorBounds::default(), clock.clone());
        let authenticator = Box::new(Desk { clock });
        let drawn = AtomicU64::new(0);
        let draw = move || {
            let mut random = [0; 32];
            random[..8].copy_from_slice(&node.session(0).to_bytes()[..8]);
            random[8..16].copy_from_slice(&drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            Some(ResumeToken::new(random))
        };
        let services =
            Arc::new(Services { custody, authenticator, draw: Box::new(draw), refusals: Refusals::default() });
        Server { node, status: Status::Up, dial, rate: 1000, services, registry, doorway, tasks }
    }

    fn connect(&mut self, server: u8, requests: &[Request]) {
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
            self.count(scenario::name_of(fate));
        }
    }

    fn kill(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Dead {
            return;
        }
        server.status = Status::Dead;
        self.store.kill(server.node);
        server.tasks.clear();
        let node = server.node;
        for client in self.clients.values_mut().filter(|client| client.node == node) {
            client.granted = false;
            client.line.lose();
        }
        // The slots are void from this moment, and every check from here on sees to it.
        self.clients.retain(|_, client| client.node != node);
    }

    fn start(&mut self, index: usize) {
        let server = &self.servers[index];
        match server.status {
            Status::Dead => {}
            // A server that was stopped gracefully has ended when its last connection has.
            Status::Draining if server.registry.is_empty() => self.kill(index),
            Status::Draining | Status::Up | Status::Paused => return,
        }
        self.servers[index] = self.boot();
    }

    fn pause(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Up {
            server.status = Status::Paused;
            self.store.pause(server.node);
        }
    }

    fn resume(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Paused {
            server.status = Status::Up;
            server.wake_all();
            let node = server.node;
            self.store.resume(node);
            self.run_tasks();
        }
    }

    fn drain(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.status == Status::Up {
            server.status = Status::Draining;
            server.registry.drain();
            let node = server.node;
            // From here on an acquire under way is never told as granted.
            for client in self.clients.values_mut().filter(|client| client.node == node) {
                client.granted = false;
            }
        }
    }

    /// Lets time pass, from alarm to alarm.
    fn pass(&mut self, duration: Duration) {
        self.pass_until(duration, |_| false);
    }

    /// Lets time pass until its end, or until something is so.
    fn pass_until(&mut self, duration: Duration, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + duration;
        for _ in 0..100_000 {
            if is_so(self) {
                return;
            }
            let alarms = self.servers.iter().filter_map(Server::next_alarm).min();
            let step = alarms.filter(|&step| self.now + step <= end).unwrap_or_else(|| end.since(self.now));
            self.now = self.now + step;
            self.store.set_now(self.now);
            for server in &self.servers {
                server.advance(step);
            }
            self.run_tasks();
            if self.healed {
                self.recover();
            }
            if self.now == end && !self.servers.iter().any(Server::is_due) {
                return;
            }
        }
        panic!("time stands still at {}: an alarm that has gone off is set again at once", self.now);
    }

    /// Runs every task that was woken until none is, and has the clients listen.
    fn run_tasks(&mut self) {
        for _ in 0..10_000 {
            let mut is_quiet = true;
            for server in self.servers.iter_mut().filter(|server| server.is_running()) {
                server.tasks.retain(|_, task| {
                    if !task.woken.0.swap(false, Ordering::Relaxed) {
                        return true;
                    }
                    is_quiet = false;
                    task.poll()
                });
            }
            is_quiet &= !self.listen();
            if is_quiet {
                self.clients.retain(|_, client| client.closed.is_none() && client.line.is_open());
                return;
            }
        }
        panic!("the tasks never come to rest");
    }

    /// Has every client hear what the server says. Whether anybody said anything in turn.
    fn listen(&mut self) -> bool {
        let Self { clients, trace, told, .. } = self;
        let mut spoke = false;
        for client in clients.values_mut() {
            for heard in client.line.hear() {
                if let Some(lines) = &mut trace.lines {
                    let _infallible = writeln!(lines, "    {} hears {heard:?}", client.session);
                }
                if let Heard::Reply(Reply::Admitted(admission)) = &heard
                    && let Some(token) = admission.resume
                {
                    told.push((admission.user.id.clone(), token));
                }
                spoke |= client.hear(&heard, trace);
            }
        }
        spoke
    }

    fn reclaimed(&mut self, cause: &'static str, since: Time) {
        let took = self.now.since(since);
        self.trace.reclaimed.insert(cause, took);
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(lines) = &mut self.trace.lines {
            let _infallible = writeln!(lines, "{now} {}", line());
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.trace.counts.entry(what).or_insert(0) += 1;
    }
}

impl Server {
    fn is_running(&self) -> bool {
        matches!(self.status, Status::Up | Status::Draining)
    }

    fn time(&self) -> Time {
        self.custody().clock().now()
    }

    fn custody(&self) -> &Arc<Custody> {
        &self.services.custody
    }

    /// What its wall clock shows so many seconds from now.
    fn wall_in(&self, seconds: u8) -> WallTime {
        WallTime::from_unix_seconds(self.custody().clock().wall().unix_seconds() + u64::from(seconds))
    }

    fn is_due(&self) -> bool {
        self.is_running() && self.dial.next_alarm().is_some_and(|alarm| alarm <= self.time())
    }

    /// How long, by the world's time, until something on this server is due.
    fn next_alarm(&self) -> Option<Duration> {
        let alarm = self.dial.next_alarm().filter(|_| self.is_running())?;
        let nanos = alarm.since(self.time()).as_nanos() * 1000;
        let nanos = nanos.div_ceil(u128::from(self.rate));
        Some(Duration::from_nanos(u64::try_from(nanos).expect("alarms are set to within centuries")))
    }

    /// Its clock goes on, whether it runs or not.
    fn advance(&self, step: Duration) {
        let nanos = step.as_nanos() * u128::from(self.rate) / 1000;
        let step = Duration::from_nanos(u64::try_from(nanos).expect("a step is within centuries"));
        self.dial.turn_to(self.time() + step);
        if self.is_due() {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        for task in self.tasks.values() {
            task.woken.0.store(true, Ordering::Relaxed);
        }
    }
}

impl Task {
    fn new(future: impl Future<Output = ()> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    /// Whether it goes on.
    fn poll(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
    }
}

impl Shown {
    fn by(request: &Request) -> Self {
        let (Request::Authenticate(credential) | Request::AuthenticateWith(credential, _)) = request else {
            return Self::Nothing;
        };
        match credential {
            Credential::None => Self::Nothing,
            Credential::Text(_) | Credential::User(_) => Self::Name,
            Credential::Token(token) => authenticator::expiry(token).map_or(Self::Nothing, Self::Token),
        }
    }
}

impl Client {
    fn leave(&mut self) {
        self.granted = false;
        self.line.lose();
    }

    fn say(&mut self, text: &str) {
        self.asked.push_back(Request::parse(text).as_ref().map_or(Shown::Nothing, Shown::by));
        self.line.send(Sent::Text(text.to_owned()));
    }

    /// Nobody is let in by a token that has run out, unless something else that it showed is being looked at.
    fn check_token(&self, server: &Server) {
        let has_come = |wall: &WallTime| server.custody().clock().has_come(*wall);
        let renewed = self.asked.iter().any(|shown| match shown {
            Shown::Nothing => false,
            Shown::Name => true,
            Shown::Token(expires) => !has_come(expires),
        });
        assert!(
            renewed || !self.expires.as_ref().is_some_and(has_come),
            "session {} goes on though its token has run out",
            self.session
        );
    }

    /// Whether it says something in turn.
    fn hear(&mut self, heard: &Heard, trace: &mut Trace) -> bool {
        assert!(self.closed.is_none(), "session {} is told {heard:?} after its close", self.session);
        let name = match heard {
            Heard::Ping if self.answers_pings && self.line.is_attentive() => {
                self.line.send(Sent::Alive);
                return true;
            }
            Heard::Ping => "ping unanswered",
            Heard::Close(reason) => {
                self.granted = false;
                self.closed = Some(*reason);
                scenario::name_of_close(*reason)
            }
            Heard::Reply(reply) => {
                let read = Reply::parse(&reply.encode()).expect("a client can read what the server says");
                assert_eq!(&read, reply, "a client reads something else than was said");
                assert_eq!(matches!(reply, Reply::Hello), !self.greeted, "HELLO comes first, and once");
                self.greeted = true;
                let shown = match reply {
                    Reply::Hello | Reply::Evicted(_) => None,
                    _ => self.asked.pop_front(),
                };
                let expires = if let Some(Shown::Token(expires)) = shown { Some(expires) } else { None };
                match reply {
                    Reply::Hello => "HELLO",
                    Reply::Admitted(admission) => {
                        assert!(!self.granted, "granted twice");
                        assert!(!self.evicted, "granted after it was ended");
                        assert_eq!(admission.session, self.session);
                        self.granted = self.line.is_open();
                        self.user = Some(admission.user.id.clone());
                        self.expires = expires;
                        "granted at length"
                    }
                    Reply::Denied(_) => "refused at length",
                    Reply::ListSessionsSuccess(_) => "listed",
                    Reply::EndSessionSuccess(_) => "ended another",
                    Reply::Evicted(_) => {
                        self.granted = false;
                        self.evicted = true;
                        // Whatever it still asked is never answered.
                        self.asked.clear();
                        "EVICTED"
                    }
                    Reply::AuthenticateSuccess(user) => {
                        assert!(!self.evicted, "granted after it was ended");
                        let is_renewed = self.granted;
                        assert!(!is_renewed || self.expires.is_some(), "granted twice");
                        assert!(user.connections > 0, "a grant of nothing");
                        assert!(!is_renewed || self.user.as_ref() == Some(&user.id), "a session changed its user");
                        self.granted = self.line.is_open();
                        self.user = Some(user.id.clone());
                        self.expires = expires;
                        if is_renewed { "renewed" } else { "granted" }
                    }
                    Reply::AuthenticateFailure(_) => "refused",
                    Reply::ByeSuccess => {
                        self.granted = false;
                        "BYE_SUCCESS"
                    }
                    Reply::CheckConnectionsSuccess(_) => "counted",
                    Reply::Error(complaint) => {
                        assert_ne!(
                            *complaint,
                            Complaint::Impatient,
                            "a message was not kept until the session was free"
                        );
                        "ERROR"
                    }
                }
            }
        };
        *trace.counts.entry(name).or_insert(0) += 1;
        false
    }
}

fn credential(user: u8) -> Credential {
    Credential::new(user_id(user).as_str())
}

/// What somebody says who asks at length, perhaps to take up a session again.
fn guest(user: u8, resume: Option<ResumeToken>) -> Request {
    let credential = Credential::User(user_id(user).as_str().into());
    Request::AuthenticateWith(credential, Box::new(Ask { resume, ..Ask::default() }))
}

fn user_id(user: u8) -> UserId {
    UserId::parse(&format!("user {}", user % USERS)).expect("a good id")
}
