//! A world in which everything that can go wrong does: many clients, one server process at a time, and a store that
//! keeps its contract and is otherwise hostile. Time is virtual, nothing sleeps, and the same operations give the same
//! history.
//!
//! It runs the real [`Session`], the real [`ledger::apply`] and the real [`Debts`]. A [`rule_oracle`] judges every command that
//! the store applies, and after every step the world asks whether all that must hold does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use session_core::ledger::{self, Applied, Command as LedgerCommand, Which};
use session_core::{
    Actions, Ask, Cause, Command, Counting, Credential, Debts, Ended, Ending, Event, Evict, Frame, Held, Hold,
    Identity, Limit, Limits, Liveness, Name, NodeId, Outcome, Rejection, Reply, Request, ResumeToken, Session,
    SessionId, Terms, Time, TokenError, UserId, UserRecord, Violation, WallTime, WhenFull,
};

use crate::rule_oracle;

/// Terms and what happens under them, as a fuzzer makes them up.
#[derive(Debug)]
pub struct History {
    /// On which users are admitted.
    pub terms: Terms,
    /// What happens, at most [`History::MAX_OPS`] operations.
    pub ops: Vec<Op>,
}

impl History {
    /// What takes longer than this finds nothing that a shorter history would not.
    pub const MAX_OPS: usize = 400;
}

impl<'a> Arbitrary<'a> for History {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let limit = Limit::new(bytes.int_in_range(0..=4)?).expect("four is below the ceiling");
        let terms = terms(limit, bytes.arbitrary()?);
        Ok(Self { terms, ops: bytes.arbitrary_iter()?.take(Self::MAX_OPS).collect::<Result<_>>()? })
    }
}

/// The terms with this limit, of which each of these bits decides one thing.
#[must_use]
pub fn terms(limit: Limit, bits: u8) -> Terms {
    let has = |bit: u8| bits & bit != 0;
    Terms {
        when_full: if has(1) { WhenFull::EvictOldest } else { WhenFull::Deny },
        client_choice: has(2),
        lingering_first: has(4),
        counting: if has(8) { Counting::Devices } else { Counting::Sessions },
        per_device: NonZeroU16::new(2).expect("it is not zero"),
        linger: if has(16) { World::LINGER } else { Duration::ZERO },
        ..Terms::new(limit)
    }
}

/// Something that happens. Numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone, Arbitrary)]
pub enum Op {
    /// A client connects.
    Connect,
    /// A client sends a message, whether or not the last one was answered.
    Say {
        /// Which connection.
        who: u8,
        /// What it says.
        what: Message,
    },
    /// A client breaks the WebSocket protocol.
    Violate {
        /// Which connection.
        who: u8,
        /// How.
        how: u8,
    },
    /// A client answers a ping, or sends one.
    Alive {
        /// Which connection.
        who: u8,
    },
    /// A client leaves without BYE.
    Leave {
        /// Which connection.
        who: u8,
    },
    /// The store gets on with one of the commands it was given.
    Store {
        /// Which of those that are next for their session.
        which: u8,
        /// How it goes.
        fate: Fate,
    },
    /// Time passes, and every deadline in it is met on the dot.
    Pass {
        /// How much.
        millis: u16,
    },
    /// The server is asked to stop. It takes no more connections.
    Drain,
    /// The server is killed, and another one started on the same store.
    Restart,
    /// The server admits by another limit from now on.
    SetLimit {
        /// How many slots a user may hold, modulo six.
        slots: u8,
    },
    /// An operator ends who is beyond the limit.
    Enforce {
        /// Of which user.
        user: u8,
    },
    /// The wall clock is set, to so many seconds ahead of the time or behind it.
    SetWallClock {
        /// How many.
        seconds: i8,
    },
}

/// What a client says.
#[derive(Debug, Clone, Arbitrary)]
pub enum Message {
    /// AUTHENTICATE as one of a few users.
    Authenticate {
        /// Which user.
        user: u8,
    },
    /// AUTHENTICATE with a token.
    Show {
        /// Of which user.
        user: u8,
        /// The limit that it claims.
        limit: Option<u8>,
        /// How many seconds it lasts.
        seconds: u8,
    },
    /// AUTHENTICATE with an object.
    Ask {
        /// As which user.
        user: u8,
        /// On which device, if on any.
        device: Option<u8>,
        /// Whom to end: nobody, the oldest, or some of those who are there.
        evict: u8,
        /// Which of the tokens that any client was told is shown, if any is.
        resume: Option<u8>,
    },
    /// LIST_SESSIONS.
    List,
    /// END_SESSION.
    End {
        /// Which of those who are there, whosever they are.
        which: u8,
    },
    /// CHECK_CONNECTIONS.
    Check,
    /// BYE.
    Bye,
    /// Any text at all.
    Raw(String),
}

/// What a store does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Fate {
    /// Applies it and answers.
    Apply,
    /// Applies it, and the answer is lost.
    ApplyUnanswered,
    /// Applies it, and answers that nobody knows.
    ApplyUnknown,
    /// Does not apply it, and says so.
    Reject,
    /// Does not apply it, and answers that nobody knows.
    DropUnknown,
    /// Loses the command and the answer.
    DropUnanswered,
    /// Answers that nobody knows, and may apply it later.
    Postpone,
}

/// The world.
#[derive(Debug)]
pub struct World {
    terms: Terms,
    /// The terms that it began with.
    first_terms: Terms,
    /// Since when the nodes before this one are dead.
    deaths: BTreeMap<NodeId, Time>,
    /// Every token that a client was told, and whose slot it is of.
    told: Vec<(UserId, ResumeToken)>,
    tokens: u64,
    now: Time,
    /// How many seconds the wall clock is ahead.
    wall_ahead: i64,
    generation: u64,
    next_session: u64,
    draining: bool,
    connections: BTreeMap<SessionId, Connection>,
    debts: Debts,
    store: Store,
    /// How many invariants were looked at, so that a test can tell that some were.
    pub checks: u64,
}

/// A session with its socket, as a shell would hold it.
#[derive(Debug)]
struct Connection {
    session: Session,
    /// Messages sent by the client that the server has not read.
    unread: VecDeque<String>,
    /// The command under way, and when the wait for its answer ends.
    under_way: Option<(LedgerCommand, Time)>,
    /// Whether the socket can still carry something to the client.
    open: bool,
    /// Whether the client was told that it has a slot, and not since that it is over.
    told: bool,
    /// Whether the last AUTHENTICATE that was looked into was by somebody who had a slot.
    renews: bool,
    greeted: bool,
}

/// The hostile store.
#[derive(Debug, Default)]
struct Store {
    records: BTreeMap<UserId, UserRecord>,
    /// Submitted and not applied, in the order of submission.
    queue: VecDeque<Queued>,
}

#[derive(Debug, Clone)]
struct Queued {
    command: LedgerCommand,
    /// False once the answer was given, or lost.
    answered: bool,
}

impl World {
    /// How long a session waits for the store.
    pub const STORE_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long slots linger, where they do.
    pub const LINGER: Duration = Duration::from_secs(20);
    const USERS: u8 = 4;
    /// The highest limit that a token claims.
    const MAX_CLAIM: u32 = 5;
    const MAX_CONNECTIONS: usize = 32;
    const MAX_QUEUE: usize = 256;

    /// A world where users are admitted on these terms.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            first_terms: terms,
            deaths: BTreeMap::new(),
            told: Vec::new(),
            tokens: 0,
            now: Time::from_epoch(Duration::from_secs(1_000_000)),
            wall_ahead: 0,
            generation: 1,
            next_session: 1,
            draining: false,
            connections: BTreeMap::new(),
            debts: Debts::new(Self::MAX_CONNECTIONS * 2),
            store: Store::default(),
            checks: 0,
        }
    }

    /// Runs a whole history, checks after every step, and then that everything comes back.
    pub fn run(terms: Terms, ops: &[Op]) -> Self {
        let mut world = Self::new(terms);
        for op in ops {
            world.step(op);
            world.check();
        }
        world.settle();
        world
    }

    /// Does one thing.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Connect => self.connect(),
            Op::Say { who, what } => {
                if let Some(id) = self.pick(*who) {
                    let text = match what {
                        Message::Authenticate { user } => {
                            Request::Authenticate(credential(*user % Self::USERS)).encode()
                        }
                        Message::Show { user, limit, seconds } => {
                            let token = self.token(*user % Self::USERS, *limit, *seconds);
                            Request::AuthenticateWith(token, Box::default()).encode()
                        }
                        Message::Ask { user, device, evict, resume } => {
                            self.ask(*user % Self::USERS, *device, *evict, *resume).encode()
                        }
                        Message::List => Request::ListSessions.encode(),
                        Message::End { which } => self.end_session(*which).encode(),
                        Message::Check => Request::CheckConnections.encode(),
                        Message::Bye => Request::Bye.encode(),
                        Message::Raw(text) => text.clone(),
                    };
                    self.connections.get_mut(&id).expect("picked").unread.push_back(text);
                    self.read(id);
                }
            }
            Op::Violate { who, how } => {
                let violations =
                    [Violation::Protocol, Violation::InvalidUtf8, Violation::MessageTooBig, Violation::BinaryMessage];
                if let Some(id) = self.pick(*who) {
                    self.handle(id, Event::Violation(violations[usize::from(*how) % violations.len()]));
                }
            }
            Op::Alive { who } => {
                if let Some(id) = self.pick(*who) {
                    self.handle(id, Event::Alive);
                }
            }
            Op::Leave { who } => {
                if let Some(id) = self.pick(*who) {
                    self.lose(id);
                }
            }
            Op::Store { which, fate } => self.store_step(*which, *fate),
            Op::Pass { millis } => self.pass(Duration::from_millis(u64::from(*millis))),
            Op::Drain => {
                self.draining = true;
                for id in self.ids() {
                    self.handle(id, Event::Draining);
                }
            }
            Op::Restart => self.restart(),
            Op::SetLimit { slots } => {
                self.terms.limit = Limit::new(u32::from(*slots) % 6).expect("five is below the ceiling");
            }
            Op::Enforce { user } => {
                let (user, session) = (user_id(*user % Self::USERS), self.node().session(0));
                let (which, by) = (Which::Excess { dry_run: false }, Ending::ByOperator);
                let command = LedgerCommand::End { user, session, which, by, at: self.now };
                // Nobody here waits for the answer.
                self.store.queue.push_back(Queued { command, answered: true });
            }
            Op::SetWallClock { seconds } => {
                self.wall_ahead = i64::from(*seconds);
                self.expire();
            }
        }
    }

    /// Checks every invariant that must hold at any time.
    pub fn check(&mut self) {
        self.checks += 1;
        let mut seen = BTreeSet::new();
        for record in self.store.records.values() {
            for hold in record.holds() {
                assert!(seen.insert(hold.session), "session {} has two holds", hold.session);
                if hold.held == Held::Live && self.is_alive(hold.session.node()) {
                    let session = hold.session;
                    assert!(self.is_accounted_for(session), "nobody will give up the slot of {session}");
                }
            }
        }
        let is_lingering = |hold: &Hold| hold.held != Held::Live;
        let lingering: Vec<_> =
            self.store.records.values().flat_map(UserRecord::holds).filter(|hold| is_lingering(hold)).collect();
        for hold in lingering {
            seen.remove(&hold.session);
        }
        for (id, connection) in &self.connections {
            if connection.told {
                assert!(seen.contains(id), "session {id} was told that it has a slot, and has none");
            }
            let expires = connection.session.expires_at();
            assert!(expires.is_none_or(|wall| self.now < self.time_of(wall)), "session {id} has outlived its token");
            let busy = connection.session.is_busy();
            assert_eq!(
                busy,
                connection.under_way.is_some(),
                "session {id}: busy, and nothing under way, or the reverse"
            );
            assert!(!(busy && connection.session.deadline().is_some()), "session {id} counts silence while busy");
        }
        assert!(self.debts.owed() <= self.debts.held(), "more is owed than was reserved");
    }

    /// Ends all faults and lets everybody leave, then checks that everything has come back.
    pub fn settle(&mut self) {
        for id in self.ids() {
            self.lose(id);
        }
        // Long enough for every wait to end and every debt to be tried again, with a store that is well.
        for _ in 0..1000 {
            while !self.store.queue.is_empty() {
                self.store_step(0, Fate::Apply);
                self.check();
            }
            if self.connections.is_empty() && self.debts.held() == 0 {
                break;
            }
            self.pass(Duration::from_secs(1));
            self.check();
        }
        assert!(self.connections.is_empty(), "these sessions never drained: {:?}", self.connections);
        assert_eq!((self.debts.held(), self.debts.owed()), (0, 0), "a debt was never paid");
        self.draining = false;
        // What lingers has its time.
        self.pass(Self::LINGER);
        self.terms = self.first_terms;
        let (now, alive) = (self.now, self.node());
        let deaths = self.deaths.clone();
        for record in self.store.records.values_mut() {
            ledger::settle(record, now, |node| liveness(&deaths, alive, node));
            assert!(record.is_empty(), "a slot lingers for ever: {record:?}");
        }
        for user in 0..Self::USERS {
            self.connect();
            let (&id, _) = self.connections.last_key_value().expect("it has just connected");
            self.handle(id, Event::Text(&Request::Authenticate(credential(user)).encode()));
            while !self.store.queue.is_empty() {
                self.store_step(0, Fate::Apply);
            }
            assert_eq!(
                self.connections[&id].told,
                self.terms.limit.slots() > 0,
                "a newcomer was not admitted at the first try"
            );
            let slots = self.store.records.get(&user_id(user));
            assert_eq!(slots.map_or(0, |record| record.holds().len()), self.terms.limit.slots().min(1) as usize);
            self.lose(id);
            while !self.store.queue.is_empty() {
                self.store_step(0, Fate::Apply);
            }
            self.check();
        }
        assert_eq!(self.debts.held(), 0);
        let left: Vec<_> = self.store.records.values().flat_map(UserRecord::holds).collect();
        assert!(left.is_empty(), "these slots were never given back: {left:?}");
    }

    fn connect(&mut self) {
        if self.draining || self.connections.len() >= Self::MAX_CONNECTIONS {
            return;
        }
        let id = self.node().session(self.next_session);
        self.next_session += 1;
        let connection = Connection {
            session: Session::new(id, &Limits::default(), self.now),
            unread: VecDeque::new(),
            under_way: None,
            open: true,
            told: false,
            renews: false,
            greeted: false,
        };
        self.connections.insert(id, connection);
        self.handle(id, Event::Connected);
        assert!(self.connections[&id].greeted, "no HELLO on session {id}");
    }

    /// The client goes away: what it sent and nobody read is lost with it.
    fn lose(&mut self, id: SessionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unread.clear();
            connection.told = false;
            self.handle(id, Event::Disconnected);
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.open = false;
            }
            self.bury(id);
        }
    }

    fn restart(&mut self) {
        // What the store was given may still be applied: a dead process cannot take it back.
        self.store.queue.iter_mut().for_each(|queued| queued.answered = true);
        self.connections.clear();
        self.debts = Debts::new(Self::MAX_CONNECTIONS * 2);
        self.draining = false;
        self.deaths.insert(self.node(), self.now);
        self.generation += 1;
    }

    /// Lets time pass from deadline to deadline.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..100_000 {
            let sessions = self.connections.values().filter_map(|connection| connection.session.deadline());
            let answers = self.connections.values().filter_map(|connection| connection.under_way.as_ref());
            let tokens = self.connections.values().filter_map(|connection| connection.session.expires_at());
            let sessions = sessions.chain(tokens.map(|wall| self.time_of(wall)));
            let next = sessions.chain(answers.map(|&(_, until)| until)).chain(self.debts.deadline()).min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.expire();
            for id in self.ids() {
                self.handle(id, Event::Tick);
                let late = self.connections.get(&id).and_then(|connection| connection.under_way.as_ref());
                if late.is_some_and(|&(_, until)| until <= self.now) {
                    self.answer(id, Outcome::Unknown);
                }
            }
            while let Some(release) = self.debts.due(self.now) {
                self.submit(release);
            }
        }
        panic!("time stands still at {}: a deadline that has passed stays", self.now);
    }

    /// Tells every session whose token has run out by the wall clock.
    fn expire(&mut self) {
        for id in self.ids() {
            let expires = self.connections[&id].session.expires_at();
            if expires.is_some_and(|wall| self.time_of(wall) <= self.now) {
                self.handle(id, Event::Expired);
            }
        }
    }

    /// When the wall clock shows this.
    fn time_of(&self, wall: WallTime) -> Time {
        Time::from_epoch(Duration::from_secs(wall.unix_seconds().saturating_add_signed(-self.wall_ahead)))
    }

    /// A token of a user: `user|limit|expiry`.
    fn token(&self, user: u8, limit: Option<u8>, seconds: u8) -> Credential {
        let limit = limit.map_or(String::new(), |limit| (u32::from(limit) % (Self::MAX_CLAIM + 1)).to_string());
        let now = self.now.since_epoch().as_secs().saturating_add_signed(self.wall_ahead);
        Credential::Token(format!("{}|{limit}|{}", user_id(user), now + u64::from(seconds)).into())
    }

    /// AUTHENTICATE with an object, of what there is to choose from now.
    fn ask(&self, user: u8, device: Option<u8>, evict: u8, resume: Option<u8>) -> Request {
        let those = self.store.records.get(&user_id(user)).map_or(&[][..], UserRecord::holds);
        let evict = match evict % 4 {
            0 => None,
            1 => Some(Evict::Nobody).filter(|_| evict % 8 == 1),
            2 => Some(Evict::Oldest),
            _ => {
                let chosen = those.iter().skip(usize::from(evict) / 4 % those.len().max(1));
                Some(Evict::These(chosen.map(|hold| hold.session).collect()))
            }
        };
        let resume = resume.and_then(|which| self.told.get(usize::from(which) % self.told.len().max(1)));
        let ask = Ask {
            device: device.and_then(|device| Name::parse(&format!("device {}", device % 3))),
            label: None,
            resume: resume.map(|&(_, token)| token),
            // None is no list.
            evict: evict.filter(|evict| !matches!(evict, Evict::These(these) if these.is_empty())),
        };
        Request::AuthenticateWith(Credential::User(user_id(user).as_str().into()), Box::new(ask))
    }

    fn end_session(&self, which: u8) -> Request {
        let there: Vec<_> = self.store.records.values().flat_map(UserRecord::holds).map(|hold| hold.session).collect();
        let session = there.get(usize::from(which) % there.len().max(1));
        Request::EndSession(session.copied().unwrap_or_else(|| self.node().session(0)))
    }

    fn verify(&mut self, credential: &Credential) -> std::result::Result<Identity, Rejection> {
        let identity = self.identify(credential)?;
        if matches!(credential, Credential::Text(_)) {
            return Ok(identity);
        }
        self.tokens += 1;
        let mut random = [0; 32];
        random[..8].copy_from_slice(&self.tokens.to_be_bytes());
        Ok(Identity { fresh: Some(ResumeToken::new(random)), ..identity })
    }

    fn identify(&self, credential: &Credential) -> std::result::Result<Identity, Rejection> {
        let Credential::Token(token) = credential else {
            let text = credential.user().ok_or(Rejection::NotText)?;
            return UserId::parse(text).map(Identity::of).map_err(Rejection::UserId);
        };
        let malformed = Rejection::Token(TokenError::Malformed);
        let [user, limit, expires] = token.split('|').collect::<Vec<_>>()[..] else { return Err(malformed) };
        let user = UserId::parse(user).map_err(Rejection::UserId)?;
        let limit = limit.parse().ok().map(|slots: u32| Limit::new(slots % (Self::MAX_CLAIM + 1)).expect("few"));
        let expires = expires.parse().map(WallTime::from_unix_seconds).map_err(|_| malformed)?;
        if self.time_of(expires) <= self.now {
            return Err(Rejection::Token(TokenError::Expired));
        }
        Ok(Identity { limit, expires: Some(expires), ..Identity::of(user) })
    }

    /// The store takes a step with a command that no earlier one of its session waits before.
    fn store_step(&mut self, which: u8, fate: Fate) {
        let mut sessions = BTreeSet::new();
        let heads: Vec<_> =
            (0..self.store.queue.len()).filter(|&at| sessions.insert(self.store.queue[at].command.session())).collect();
        let Some(&at) = heads.get(usize::from(which) % heads.len().max(1)) else { return };
        let queued = self.store.queue[at].clone();
        let (applied, answer) = match fate {
            Fate::Apply => (true, Some(None)),
            Fate::ApplyUnanswered => (true, None),
            Fate::ApplyUnknown => (true, Some(Some(Outcome::Unknown))),
            Fate::Reject => (false, Some(Some(Outcome::Rejected(Cause::Failed)))),
            Fate::DropUnknown => (false, Some(Some(Outcome::Unknown))),
            Fate::DropUnanswered => (false, None),
            Fate::Postpone => {
                self.store.queue[at].answered = true;
                if !queued.answered {
                    self.outcome(&queued.command, Outcome::Unknown);
                }
                return;
            }
        };
        self.store.queue.remove(at);
        let outcome = if applied { Some(self.apply(&queued.command)) } else { None };
        match answer {
            Some(said) if !queued.answered => {
                let outcome = said.or(outcome).expect("what was applied has an outcome");
                self.outcome(&queued.command, outcome);
            }
            // A release has nobody who stops waiting for it: a store must answer it in the end.
            None if queued.command.gives_up() && !queued.answered => {
                self.outcome(&queued.command, Outcome::Unknown);
            }
            Some(_) | None => {}
        }
    }

    /// Applies a command, has the rule judged, and tells those who lost their slots.
    fn apply(&mut self, command: &LedgerCommand) -> Outcome {
        let (alive, deaths) = (self.node(), self.deaths.clone());
        let liveness = |node| liveness(&deaths, alive, node);
        let record = self.store.records.entry(command.user().clone()).or_default();
        let before = record.clone();
        let applied = ledger::apply(record, command, &self.terms, liveness);
        rule_oracle::judge(&before, command, &self.terms, liveness, &applied, record);
        let Applied { outcome, ended } = applied;
        for Ended { session, how } in ended {
            self.handle(session, Event::Ended(how));
        }
        outcome
    }

    /// The store has answered a command: to the session that waits, or to the debts.
    fn outcome(&mut self, command: &LedgerCommand, outcome: Outcome) {
        if command.session().node() != self.node() {
            return; // Who asked is dead.
        }
        let waits = self.connections.get(&command.session()).and_then(|connection| connection.under_way.as_ref());
        if waits.is_some_and(|(waited_for, _)| waited_for == command) {
            self.answer(command.session(), outcome);
        } else if command.gives_up() {
            self.debts.after(command, &outcome, self.now);
        }
    }

    /// Ends a session's wait.
    fn answer(&mut self, id: SessionId, outcome: Outcome) {
        let connection = self.connections.get_mut(&id).expect("a session that waits is there");
        let (command, _) = connection.under_way.take().expect("it waits");
        self.debts.after(&command, &outcome, self.now);
        self.handle(id, Event::Stored(outcome));
    }

    fn submit(&mut self, command: LedgerCommand) {
        self.store.queue.push_back(Queued { command, answered: false });
    }

    /// Gives a session its next messages, as long as it takes them.
    fn read(&mut self, id: SessionId) {
        while let Some(connection) = self.connections.get_mut(&id) {
            if connection.session.is_busy() || !connection.open {
                return;
            }
            let Some(text) = connection.unread.pop_front() else { return };
            self.handle(id, Event::Text(&text));
        }
    }

    /// Tells a session what happened and does what it says, as a shell does.
    fn handle(&mut self, id: SessionId, event: Event<'_>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let leaves = matches!(event, Event::Disconnected | Event::Draining);
            let Actions { command, send, close } = connection.session.handle(event, self.now);
            if leaves {
                connection.told = false;
            }
            if let Some(frame) = send {
                assert!(connection.open, "session {id} sends {frame:?} after its close");
                if let Some(told) = connection.hear(&frame) {
                    self.told.push(told);
                }
            }
            if close.is_some() {
                assert!(connection.open, "session {id} closes twice");
                (connection.open, connection.told) = (false, false);
                connection.unread.clear();
            }
            match command {
                None => {}
                Some(Command::Verify(credential)) => {
                    connection.renews = connection.told;
                    let verdict = self.verify(&credential);
                    next = Some(Event::Verified(verdict));
                }
                Some(Command::Store(command)) if command.gives_up() => {
                    connection.told = false;
                    self.submit(command);
                }
                Some(Command::Store(command)) => {
                    assert!(connection.under_way.is_none(), "session {id} has two commands under way");
                    connection.under_way = Some((command.clone(), self.now + Self::STORE_TIMEOUT));
                    // A store that is full says so at once.
                    let full = self.store.queue.len() >= Self::MAX_QUEUE;
                    match self.debts.before(&command) {
                        Ok(()) if !full => self.submit(command),
                        Ok(()) => {
                            self.debts.after(&command, &Outcome::Rejected(Cause::Full), self.now);
                            self.reject(id, Cause::Full, &mut next);
                        }
                        Err(cause) => self.reject(id, cause, &mut next),
                    }
                }
            }
        }
        // The token that it had may have run out while it was asked for another.
        let expires = self.connections.get(&id).and_then(|connection| connection.session.expires_at());
        if expires.is_some_and(|wall| self.time_of(wall) <= self.now) {
            self.handle(id, Event::Expired);
        }
        self.bury(id);
        self.read(id);
    }

    fn reject(&mut self, id: SessionId, cause: Cause, next: &mut Option<Event<'_>>) {
        self.connections.get_mut(&id).expect("it has just spoken").under_way = None;
        *next = Some(Event::Stored(Outcome::Rejected(cause)));
    }

    /// Forgets a connection that has ended.
    fn bury(&mut self, id: SessionId) {
        if self.connections.get(&id).is_some_and(|connection| connection.session.is_drained() && !connection.open) {
            self.connections.remove(&id);
        }
    }

    /// Whether somebody sees to it that this session's slot is given back.
    fn is_accounted_for(&self, session: SessionId) -> bool {
        let served = self.connections.get(&session).is_some_and(|connection| !connection.session.is_drained());
        let release = |queued: &Queued| queued.command.session() == session && queued.command.gives_up();
        served || self.debts.owes(session) || self.store.queue.iter().any(release)
    }

    fn node(&self) -> NodeId {
        NodeId::new(self.generation)
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node == self.node()
    }

    fn ids(&self) -> Vec<SessionId> {
        self.connections.keys().copied().collect()
    }

    fn pick(&self, who: u8) -> Option<SessionId> {
        let open: Vec<_> =
            self.connections.iter().filter(|(_, connection)| connection.open).map(|(&id, _)| id).collect();
        open.get(usize::from(who) % open.len().max(1)).copied()
    }
}

impl Connection {
    /// The client hears a frame. If that tells it a token, that and whose.
    fn hear(&mut self, frame: &Frame) -> Option<(UserId, ResumeToken)> {
        let Frame::Reply(reply) = frame else { return None };
        let text = reply.encode();
        let heard = Reply::parse(&text).expect("a client can read what the server says");
        assert_eq!(&heard, reply, "a client reads something else than was said");
        match reply {
            Reply::Hello => {
                assert!(!self.greeted, "HELLO twice");
                self.greeted = true;
            }
            Reply::AuthenticateSuccess(_) => {
                assert_eq!(self.told, self.renews, "granted twice");
                self.told = true;
            }
            Reply::Admitted(admission) => {
                assert!(!self.told, "granted twice");
                self.told = true;
                return admission.resume.map(|token| (admission.user.id.clone(), token));
            }
            Reply::ByeSuccess
            | Reply::AuthenticateFailure(_)
            | Reply::Denied(_)
            | Reply::CheckConnectionsSuccess(_)
            | Reply::ListSessionsSuccess(_)
            | Reply::EndSessionSuccess(_)
            | Reply::Evicted(_)
            | Reply::Error(_) => {}
        }
        None
    }
}

/// Of those that are not alive it is known since when.
fn liveness(deaths: &BTreeMap<NodeId, Time>, alive: NodeId, node: NodeId) -> Liveness {
    if node == alive { Liveness::Alive } else { Liveness::DeadSince(deaths[&node]) }
}

fn credential(user: u8) -> Credential {
    Credential::new(user_id(user).as_str())
}

fn user_id(user: u8) -> UserId {
    UserId::parse(&format!("user {user}")).expect("a good id")
}
