//! Several servers, their clients and the store: one step of a scenario after another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use session_core::ledger::{AdmissionPolicy, Evict, SessionRecord, SlotLimit};
use session_core::protocol::{AuthenticateOptions, ClientMessage, Credential};
use session_core::session::{Event, SessionSettings, Violation};
use session_core::{DisplayName, ResumeToken, SessionId, Timestamp, UserId};
use shell::server::connection::Connection;

use super::authenticator;
use super::client::{Client, ShownCredential};
use super::faulty_store::{Progress, SharedStore, StoreFault, StoreStep};
use super::scenario::{Op, Scenario, USERS, credential, user_id};
use super::server::{Server, Status, Task};
use super::socket::{Attention, ClientInput, SimulatedSocket, ToldSockets};
use super::trace::Trace;

/// The state of one simulation.
pub struct Simulation {
    pub(super) store: Arc<SharedStore>,
    /// The admission policy at the start.
    pub(super) policy: AdmissionPolicy,
    /// Every resume token that a client received.
    pub(super) resume_tokens: Vec<(UserId, ResumeToken)>,
    pub(super) now: Timestamp,
    pub(super) servers: Vec<Server>,
    pub(super) clients: BTreeMap<u32, Client>,
    pub(super) told_sockets: Rc<ToldSockets>,
    /// The sessions that a server has closed.
    pub(super) closed_sessions: BTreeSet<SessionId>,
    arrivals: u32,
    pub(super) nodes: u64,
    /// The faults are over: the store applies each command at once.
    pub(super) healed: bool,
    pub(super) trace: Trace,
}

/// The timeouts. They bound how long a slot of a lost client stays taken.
pub(super) const SETTINGS: SessionSettings = SessionSettings {
    auth_timeout: Duration::from_secs(10),
    ping_interval: Duration::from_secs(30),
    pong_timeout: Duration::from_secs(10),
    max_bad_messages: Some(16),
    max_message_rate: NonZeroU32::new(100),
};
const START: Timestamp = Timestamp::from_epoch(Duration::from_secs(1_000_000));
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const SERVERS: usize = 3;
const MAX_CLIENTS: usize = 300;
/// How long a client waits in line, at most.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(20);
/// Maximum sessions of one server that hold a slot or wait for one. Low, so that scenarios often reach it.
pub(super) const TRACKER_CAPACITY: usize = 60;

/// The clients of a server have a few addresses.
fn address_of(session: SessionId) -> IpAddr {
    let last = u8::try_from(session.number() % 8).expect("it is below 8");
    IpAddr::from([192, 0, 2, last])
}

impl Simulation {
    /// Runs a scenario with every check, then checks recovery. `traced` keeps the lines of the trace.
    ///
    /// # Panics
    /// If a check fails. The text says which.
    #[must_use]
    pub fn run(scenario: &Scenario, traced: bool) -> Trace {
        let mut simulation = Self::new(scenario, traced);
        for op in &scenario.ops {
            simulation.step(op);
            simulation.check();
        }
        simulation.check_recovery();
        simulation.trace
    }

    fn new(scenario: &Scenario, traced: bool) -> Self {
        let trace = Trace { lines: traced.then(String::new), ..Trace::default() };
        let store = Arc::new(SharedStore::new(scenario.policy, START));
        let mut simulation = Self {
            told_sockets: Rc::new(ToldSockets::new(Arc::clone(&store))),
            store,
            policy: scenario.policy,
            resume_tokens: Vec::new(),
            now: START,
            servers: Vec::new(),
            clients: BTreeMap::new(),
            closed_sessions: BTreeSet::new(),
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
        self.trace(|| format!("{op:?}"));
        self.count(op.kind());
        match op {
            Op::Connect { server, user } => self.connect(*server, &[ClientMessage::Authenticate(credential(*user))]),
            Op::ConnectAndLeave { server, user } => {
                // All in one segment, without waiting for answers.
                let whole = [
                    ClientMessage::Authenticate(credential(*user)),
                    ClientMessage::CheckConnections,
                    ClientMessage::Bye,
                ];
                self.connect(*server, &whole);
            }
            Op::Storm { server, user, clients } => {
                for client in 0..*clients % 32 {
                    self.connect(*server, &[ClientMessage::Authenticate(credential(user.wrapping_add(client % 4)))]);
                }
            }
            Op::Idle { server } => self.connect(*server, &[]),
            Op::Authenticate { client, user } => {
                self.send(*client, &ClientMessage::Authenticate(credential(*user)).encode())
            }
            Op::ConnectWithToken { server, user, limit, seconds } => {
                let expires = self.servers[usize::from(*server) % SERVERS].wall_time_in(*seconds);
                let token = authenticator::token(&user_id(*user), Some(*limit), expires);
                self.connect(*server, &[ClientMessage::AuthenticateWith(token, Box::default())]);
            }
            Op::RenewToken { client, user, seconds } => self.renew(*client, *user, *seconds),
            Op::WallClock { server, seconds } => {
                let server = &self.servers[usize::from(*server) % SERVERS];
                server.manual_clock.set_wall_ahead(i64::from(*seconds) * 1000);
                server.wake_all();
            }
            Op::ConnectWithObject { server, user, device, evict, resume } => {
                // Of the latest tokens, since most of their slots still exist.
                let latest = &self.resume_tokens[self.resume_tokens.len().saturating_sub(16)..];
                let resume = resume.and_then(|which| latest.get(usize::from(which) % latest.len().max(1)));
                let options = AuthenticateOptions {
                    device: device.and_then(|device| DisplayName::parse(&format!("device {}", device % 3))),
                    label: None,
                    // Mostly of this user.
                    resume: resume.map(|&(_, token)| token),
                    evict: self.choice(&user_id(*user), *evict),
                    must_resume: *evict % 16 == 13,
                    ..AuthenticateOptions::default()
                };
                let user = resume.map_or_else(|| user_id(*user), |(owner, _)| owner.clone());
                let credential = Credential::User(user.as_str().into());
                self.connect(*server, &[ClientMessage::AuthenticateWith(credential, Box::new(options))]);
            }
            Op::AuthenticateAndEvict { client, evict } => {
                let user = self.user_of(*client);
                let options =
                    AuthenticateOptions { evict: self.choice(&user, *evict), ..AuthenticateOptions::default() };
                let credential = Credential::User(user.as_str().into());
                self.send(*client, &ClientMessage::AuthenticateWith(credential, Box::new(options)).encode());
            }
            Op::List { client } => {
                self.send(self.client_with_slot(*client, |_| true), &ClientMessage::ListSessions(None).encode());
            }
            Op::End { client, which } => {
                let client = self.client_with_sibling(*client);
                let mut entries = self.store.holds_of(&self.user_of(client));
                if *which >= 64 {
                    // Otherwise perhaps its own session, which END_SESSION refuses.
                    self.with(client, |client| entries.retain(|entry| entry.session != client.session));
                }
                if let Some(entry) = entries.get(usize::from(*which) % entries.len().max(1)) {
                    let name = if which.is_multiple_of(2) { entry.session } else { entry.slot.first_session() };
                    self.send(client, &ClientMessage::EndSession(name).encode());
                }
            }
            Op::SetLimit { slots } => {
                self.store.set_limit(SlotLimit::new(u32::from(*slots) % 6).expect("five is below the ceiling"));
            }
            Op::Enforce { user } => {
                let first = (0..USERS).map(user_id).find(|user| self.store.is_beyond_limit(user));
                self.store.enforce(first.unwrap_or_else(|| user_id(*user)));
            }
            Op::Check { client } if *client % 4 == 3 => self.send(*client, &ClientMessage::Ping.encode()),
            Op::Check { client } => self.send(*client, &ClientMessage::CheckConnections.encode()),
            Op::Bye { client } => self.send(*client, &ClientMessage::Bye.encode()),
            Op::Raw { client, text } => self.send(*client, text),
            Op::Violate { client, how } => {
                let violations =
                    [Violation::Protocol, Violation::InvalidUtf8, Violation::MessageTooBig, Violation::BinaryMessage];
                self.with(*client, |client| {
                    client.socket.send(ClientInput::Violation(violations[usize::from(*how) % violations.len()]));
                });
            }
            Op::Pong { client } => self.with(*client, |client| client.socket.send(ClientInput::Alive)),
            Op::Leave { client } => self.with(*client, Client::leave),
            Op::FallSilent { client } => self.with(*client, |client| client.answers_pings = false),
            Op::StopReading { client } => {
                let attention = if client.is_multiple_of(2) { Attention::Stalled } else { Attention::Silent };
                self.with(*client, |client| client.socket.set_attention(attention));
            }
            Op::Store { which, fault } => self.store_step(*which, *fault),
            Op::StoreFull { full } => self.store.set_full(*full),
            Op::Work { commands } => {
                for _ in 0..*commands {
                    self.store_step(0, StoreFault::Apply);
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
                server.manual_clock.set(server.time() + Duration::from_millis(u64::from(*millis)));
                server.wake_all();
            }
            Op::ConnectAndWait { server, user, seconds, how } => self.connect_and_wait(*server, *user, *seconds, *how),
            Op::Watch { client, is_on } => {
                let client = self.client_with_slot(*client, |_| true);
                self.send(client, &ClientMessage::ListSessions(Some(*is_on)).encode());
            }
            Op::LoseHints { is_on } => self.store.set_loses_hints(*is_on),
        }
        self.run_tasks();
    }

    /// Which sessions of the user to evict: mostly none.
    fn choice(&self, user: &UserId, evict: u8) -> Option<Evict> {
        match evict % 4 {
            0 => None,
            1 => Some(Evict::Nobody).filter(|_| evict % 8 == 1),
            2 => Some(Evict::Oldest),
            _ => {
                let entries = self.store.holds_of(user);
                let chosen = entries.iter().skip(usize::from(evict) / 4 % entries.len().max(1));
                // By its id, or by its slot.
                let name = |entry: &SessionRecord| if evict < 128 { entry.session } else { entry.slot.first_session() };
                let chosen: Box<[_]> = chosen.map(name).collect();
                Some(Evict::Sessions(chosen)).filter(|_| !entries.is_empty())
            }
        }
    }

    /// The user of this client, or else any user.
    fn user_of(&self, number: u8) -> UserId {
        let connected: Vec<_> = self.clients.values().filter(|client| client.socket.is_open()).collect();
        let client = connected.get(usize::from(number) % connected.len().max(1));
        client.and_then(|client| client.user.clone()).unwrap_or_else(|| user_id(number))
    }

    /// A connected client whose user has several slots, if there is one.
    fn client_with_sibling(&self, number: u8) -> u8 {
        self.client_with_slot(number, |user| self.store.holds_of(user).len() > 1)
    }

    /// A connected client with a slot whose user satisfies the predicate, if there is one.
    fn client_with_slot(&self, number: u8, of: impl Fn(&UserId) -> bool) -> u8 {
        let connected = self.clients.values().filter(|client| client.socket.is_open());
        let able: Vec<_> = (0..=u8::MAX)
            .zip(connected)
            .filter(|(_, client)| client.granted && client.user.as_ref().is_some_and(&of))
            .map(|(number, _)| number)
            .collect();
        able.get(usize::from(number) % able.len().max(1)).copied().unwrap_or(number)
    }

    pub(super) fn connect(&mut self, server: u8, requests: &[ClientMessage]) {
        let index = usize::from(server) % SERVERS;
        let server = &mut self.servers[index];
        if server.status != Status::Up || self.clients.len() >= MAX_CLIENTS {
            return;
        }
        let clock = server.store_client().clock().clone();
        let entry = server.registry.register();
        let session = entry.id();
        let socket = SimulatedSocket::new(clock.clone(), session, &self.told_sockets);
        for request in requests {
            socket.send(ClientInput::Text(request.encode()));
        }
        let context = Arc::clone(&server.context);
        let permit = server.connection_limiter.acquire(Some(address_of(session))).expect("no bounds");
        let mut connection = Connection::new(&entry, socket.clone(), &SETTINGS, clock.now(), context, permit);
        let task = async move {
            connection
                .run(if session.number().is_multiple_of(2) { Event::Connected } else { Event::ConnectedV1 })
                .await;
            drop(entry);
        };
        server.tasks.insert(session.number(), Task::new(task));
        let client = Client {
            node: server.node,
            session,
            socket,
            granted: false,
            answers_pings: true,
            greeted: false,
            unanswered: requests.iter().map(ShownCredential::from_request).collect(),
            waits: None,
            is_ambiguous: false,
            expires: None,
            user: None,
            closed: None,
            evicted: false,
        };
        self.arrivals += 1;
        self.clients.insert(self.arrivals, client);
    }

    /// A client connects that waits for up to [`MAX_WAIT`]. Some have a device, take nobody's place or show a token with a limit.
    fn connect_and_wait(&mut self, server: u8, user: u8, seconds: u8, how: u8) {
        let options = AuthenticateOptions {
            device: DisplayName::parse(&format!("device {}", how % 3)).filter(|_| how % 4 == 1),
            evict: Some(Evict::Nobody).filter(|_| how % 8 == 3),
            wait: Some(Duration::from_secs(u64::from(seconds) % (MAX_WAIT.as_secs() + 1))),
            ..AuthenticateOptions::default()
        };
        let credential = if how % 8 == 2 {
            let expires = self.servers[usize::from(server) % SERVERS].wall_time_in(how);
            authenticator::token(&user_id(user), Some(how / 8), expires)
        } else {
            Credential::User(user_id(user).as_str().into())
        };
        let request = ClientMessage::AuthenticateWith(credential, Box::new(options));
        for server in server..=server.saturating_add(if how % 16 > 12 { 5 } else { 0 }) {
            self.connect(server, slice::from_ref(&request));
        }
    }

    fn renew(&mut self, number: u8, user: u8, seconds: u8) {
        let number = self.client_with_slot(number, |_| true);
        let walls: BTreeMap<_, _> =
            self.servers.iter().map(|server| (server.node, server.wall_time_in(seconds))).collect();
        self.with(number, |client| {
            let expires = walls[&client.node];
            // Mostly the user of the session, if it has one.
            let user = client.user.clone().filter(|_| !user.is_multiple_of(8)).unwrap_or_else(|| user_id(user));
            let token = authenticator::token(&user, None, expires);
            client.send(&ClientMessage::AuthenticateWith(token, Box::default()).encode());
        });
    }

    fn send(&mut self, number: u8, text: &str) {
        self.with(number, |client| client.send(text));
    }

    /// Applies a function to one of the connected clients.
    fn with(&mut self, number: u8, act: impl FnOnce(&mut Client)) {
        let connected = self.clients.values().filter(|client| client.socket.is_open()).count();
        let mut connected = self
            .clients
            .values_mut()
            .filter(|client| client.socket.is_open())
            .skip(usize::from(number) % connected.max(1));
        if let Some(client) = connected.next() {
            act(client);
        }
    }

    fn store_step(&mut self, which: u8, fault: StoreFault) {
        if let Some(StoreStep { command, outcome, progress }) = self.store.step(which, fault) {
            self.trace(|| format!("    {command:?} => {outcome:?}, {progress:?}"));
            match progress {
                Progress::Withdrawn => return self.count("withdrawn before it was applied"),
                Progress::Begun => self.check_is_wanted(&command),
                Progress::Other => {}
            }
            self.count(fault.name());
        }
    }

    pub(super) fn trace(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(lines) = &mut self.trace.lines {
            let _infallible = writeln!(lines, "{now} {}", line());
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.trace.counts.entry(what).or_insert(0) += 1;
    }
}
