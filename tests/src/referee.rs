//! A referee who sees only what the clients see, and counts how many of them are in.
//!
//! A client is in from the moment at which it reads that it is, until it reads that it is not: EVICTED, a close frame, or the
//! end of its connection. Or until it leaves: from the moment at which it sends BYE or hangs up.
//!
//! Clients are read one after the other, so one that was put out can look as if it were in for as long as it has not been
//! read. So before the referee finds an overrun, it reads all the clients concerned again. They were all told that they
//! are in before that, so whoever has no word of its end then is one too many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::light_client::LightClient;
use crate::raw_client::Received;

/// How long an end may be under way through this machine, if that is busy. A shorter overrun is counted as
/// [`Referee::brief`].
const DELIVERY: Duration = Duration::from_millis(5);

/// How many events a story has.
const STORY: usize = 60;

/// How many characters of a message a story has.
const SHOWN: usize = 120;

/// The number of a client. No two have the same.
pub type ClientId = u64;

/// The index of a server.
pub type ServerId = usize;

/// How far a client has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It has asked for nothing yet.
    Opening,
    /// It has authenticated and waits for the answer.
    Asked,
    /// It was told that it is in, with this message.
    In(String),
    /// It was denied a slot, with this message. Its connection is open.
    Denied(String),
    /// It has sent BYE.
    Leaving,
    /// It was told that it is not in any more, or lost its connection: the last that it read, but for the end of the
    /// stream after something else.
    Out(Received),
}

/// A client, as the referee sees it.
pub struct Watched {
    client: LightClient,
    /// Its user.
    pub user: String,
    /// Its server.
    pub server: ServerId,
    /// Its status.
    pub status: Status,
    /// When the status last changed.
    pub since: Instant,
    /// Why it lost its slot, if it was told with EVICTED.
    pub evicted: Option<String>,
    /// The number of messages that it received after it was told that it is in.
    pub messages: usize,
    authenticate: String,
    /// Its server was stopped for so long that the next thing it reads must be the end.
    must_end: bool,
}

impl Watched {
    /// Whether it is in.
    #[must_use]
    pub const fn is_in(&self) -> bool {
        matches!(self.status, Status::In(_))
    }

    /// Whether nothing more comes.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        matches!(self.status, Status::Out(_))
    }
}

/// All clients of a test.
pub struct Referee {
    limit: usize,
    start: Instant,
    clients: BTreeMap<ClientId, Watched>,
    next: ClientId,
    most: BTreeMap<String, usize>,
    /// Servers that are stopped: their clients hear nothing, so nobody serves them.
    stopped: BTreeSet<ServerId>,
    events: VecDeque<String>,
    offence: Option<String>,
    admitted: u64,
    brief: u64,
}

impl Referee {
    /// A referee for users who all have this limit.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            start: Instant::now(),
            clients: BTreeMap::new(),
            next: 0,
            most: BTreeMap::new(),
            stopped: BTreeSet::new(),
            events: VecDeque::new(),
            offence: None,
            admitted: 0,
            brief: 0,
        }
    }

    /// Lets a client connect. It will authenticate with this payload, which is JSON. `None` if the server does not accept.
    pub fn connect(
        &mut self,
        server: ServerId,
        address: SocketAddr,
        user: &str,
        authenticate: String,
    ) -> Option<ClientId> {
        let client = LightClient::connect(address).ok()?;
        let id = self.next;
        self.next += 1;
        let watched = Watched {
            client,
            user: user.into(),
            server,
            status: Status::Opening,
            since: Instant::now(),
            evicted: None,
            messages: 0,
            authenticate,
            must_end: false,
        };
        self.clients.insert(id, watched);
        Some(id)
    }

    /// Lets a client send BYE. It is not in any more.
    pub fn say_bye(&mut self, id: ClientId) {
        self.note(id, "says BYE");
        if let Some(watched) = self.clients.get_mut(&id).filter(|watched| !watched.is_out()) {
            // Before it is sent: from then on the slot may be free.
            (watched.status, watched.since) = (Status::Leaving, Instant::now());
            watched.client.text(r#"{"type":"BYE"}"#);
        }
    }

    /// Lets a client send this message.
    pub fn send(&mut self, id: ClientId, message: &str) {
        if let Some(watched) = self.clients.get_mut(&id) {
            watched.client.text(message);
        }
    }

    /// Lets a client close its socket, and forgets it.
    pub fn hang_up(&mut self, id: ClientId) {
        if self.clients.contains_key(&id) {
            self.note(id, "hangs up");
            self.clients.remove(&id);
        }
    }

    /// A client that has not hung up.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&Watched> {
        self.clients.get(&id)
    }

    /// All clients that have not hung up.
    pub fn clients(&self) -> impl Iterator<Item = (ClientId, &Watched)> {
        self.clients.iter().map(|(id, watched)| (*id, watched))
    }

    /// The sockets on which something may come.
    #[must_use]
    pub fn sockets(&self) -> Vec<Arc<TcpStream>> {
        self.clients.values().filter_map(|watched| watched.client.socket()).collect()
    }

    /// How many clients of this user are in.
    #[must_use]
    pub fn count(&self, user: &str) -> usize {
        self.served(user).count()
    }

    /// The most clients of each user that were in at the same time.
    #[must_use]
    pub const fn most(&self) -> &BTreeMap<String, usize> {
        &self.most
    }

    /// How often a client was admitted.
    #[must_use]
    pub const fn admitted(&self) -> u64 {
        self.admitted
    }

    /// How often there were too many for less than 5 ms. That should not be, but an end may have been under way.
    #[must_use]
    pub const fn brief(&self) -> u64 {
        self.brief
    }

    /// What was wrong first, with what happened before it.
    #[must_use]
    pub fn offence(&self) -> Option<&str> {
        self.offence.as_deref()
    }

    /// What happened last, a line each.
    #[must_use]
    pub fn story(&self) -> String {
        self.events.iter().map(|event| format!("\n{event}")).collect()
    }

    /// Notes something for the story.
    pub fn remark(&mut self, text: &str) {
        if self.events.len() == STORY {
            self.events.pop_front();
        }
        self.events.push_back(format!("{:8.3} s  {text}", self.start.elapsed().as_secs_f32()));
    }

    /// This server has stopped. What it said before counts. From now on nobody serves its clients.
    pub fn server_stops(&mut self, server: ServerId) {
        self.look();
        self.remark(&format!("server {server} is stopped"));
        self.stopped.insert(server);
    }

    /// This server is about to go on, after a stop longer than its fence. Clients that were in must be closed before anything
    /// else is said to them.
    pub fn server_goes_on(&mut self, server: ServerId) {
        self.look();
        self.remark(&format!("server {server} goes on"));
        self.stopped.remove(&server);
        for watched in self.clients.values_mut().filter(|watched| watched.server == server && watched.is_in()) {
            watched.must_end = true;
        }
    }

    /// Whether this server has stopped.
    #[must_use]
    pub fn is_stopped(&self, server: ServerId) -> bool {
        self.stopped.contains(&server)
    }

    /// Reads what all clients have received, and counts.
    pub fn look(&mut self) {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        ids.iter().for_each(|id| self.read(*id));
        let users: BTreeSet<_> = self.clients.values().map(|watched| watched.user.clone()).collect();
        for user in users {
            self.check(&user);
        }
    }

    /// Clients that are in. Those whom a server will close as soon as it goes on are not served any more.
    fn served(&self, user: &str) -> impl Iterator<Item = ClientId> {
        let is_served =
            |watched: &Watched| watched.is_in() && !watched.must_end && !self.stopped.contains(&watched.server);
        self.clients.iter().filter(move |(_, watched)| watched.user == user && is_served(watched)).map(|(id, _)| *id)
    }

    fn check(&mut self, user: &str) {
        let mut suspects: Vec<_> = self.served(user).collect();
        let start = Instant::now();
        let mut was_too_many = false;
        while suspects.len() > self.limit {
            let is_delivered = start.elapsed() > DELIVERY;
            suspects.iter().for_each(|id| self.read(*id));
            suspects.retain(|id| self.clients.get(id).is_some_and(Watched::is_in));
            if suspects.len() > self.limit {
                was_too_many = true;
                if is_delivered {
                    self.offend(&format!(
                        "{} clients of {user} are in, with a limit of {}: {suspects:?}",
                        suspects.len(),
                        self.limit
                    ));
                    break;
                }
                thread::sleep(Duration::from_micros(200));
            }
        }
        self.brief += u64::from(was_too_many && suspects.len() <= self.limit);
        let most = self.most.entry(user.into()).or_default();
        *most = suspects.len().max(*most);
    }

    fn offend(&mut self, what: &str) {
        self.remark(what);
        if self.offence.is_none() {
            self.offence = Some(format!("{what}{}", self.story()));
        }
    }

    fn note(&mut self, id: ClientId, what: &str) {
        if let Some(watched) = self.clients.get(&id) {
            let text = format!("client {id} of {} at server {} {what}", watched.user, watched.server);
            self.remark(&text);
        }
    }

    fn read(&mut self, id: ClientId) {
        let Some(watched) = self.clients.get_mut(&id) else { return };
        for received in watched.client.receive() {
            self.take(id, received);
        }
    }

    fn take(&mut self, id: ClientId, received: Received) {
        let Some(watched) = self.clients.get_mut(&id) else { return };
        let is_end = matches!(received, Received::Close(..) | Received::End | Received::Reset);
        let is_offence = watched.must_end && !is_end;
        watched.must_end = false;
        watched.messages += usize::from(watched.is_in() && !is_end);
        let shown: String = format!("{received:?}").chars().filter(|char| *char != '\\').take(SHOWN).collect();
        let status = match received {
            Received::Text(text) => watched.hear(text),
            Received::Ping => {
                watched.client.frame(0x8a, b"");
                None
            }
            Received::Pong(_) => None,
            Received::Close(code, reason) => {
                watched.client.frame(0x88, &code.to_be_bytes());
                Some(Status::Out(Received::Close(code, reason)))
            }
            end @ (Received::End | Received::Reset) => (!watched.is_out()).then_some(Status::Out(end)),
        };
        if is_offence {
            self.offend(&format!("client {id} is told {shown} by a server that had to close it"));
        }
        if let Some(status) = status {
            let Some(watched) = self.clients.get_mut(&id) else { return };
            self.admitted += u64::from(matches!(status, Status::In(_)));
            (watched.status, watched.since) = (status, Instant::now());
            self.note(id, &format!("reads {shown}"));
        }
    }
}

impl Watched {
    /// The new status after this message, if it changes that.
    fn hear(&mut self, text: String) -> Option<Status> {
        let is = |kind: &str| text.starts_with(&format!(r#"{{"type":"{kind}""#));
        if is("HELLO") {
            self.client.text(&format!(r#"{{"type":"AUTHENTICATE","payload":{}}}"#, self.authenticate));
            return Some(Status::Asked);
        }
        if is("EVICTED") {
            self.evicted = Some(text.clone());
            return Some(Status::Out(Received::Text(text)));
        }
        // It said BYE before it heard the answer.
        if self.status != Status::Asked {
            return None;
        }
        if is("AUTHENTICATE_SUCCESS") {
            return Some(Status::In(text));
        }
        is("AUTHENTICATE_FAILURE").then_some(Status::Denied(text))
    }
}
