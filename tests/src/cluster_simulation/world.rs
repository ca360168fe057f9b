//! Several machines, the stores that they share, and their clients, on one virtual clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use session_core::cluster::{AnswerBody, Bucket, BucketActions, BucketEvent, CallId, ClusterTiming, Request};
use session_core::ledger::{AcquireOptions, AdmissionPolicy, Evict, Hint, Outcome, SlotLimit, StoreCommand, WhenFull};
use session_core::{NodeId, ResumeKey, ResumeToken, SessionId, UserId};

use super::bucket_data::Published;
use super::coverage::{Coverage, Event};
use super::machine::{Client, ClientState, Connection, Machine, Process, Sent};
use super::shard::Shard;
use crate::random::Random;

/// How large a world is, and what its policy is.
#[derive(Debug, Clone)]
pub struct WorldSettings {
    /// The number of machines.
    pub machines: usize,
    /// The number of shards. Bucket `b` is on shard `b` modulo that.
    pub shards: usize,
    /// The number of buckets.
    pub buckets: usize,
    /// The number of users in each bucket.
    pub users: usize,
    /// The policy of all nodes.
    pub policy: AdmissionPolicy,
    /// Whether anything fails.
    pub faults: bool,
    /// Whether a store may split into two primaries that both take writes.
    pub splits: bool,
}

/// Several machines, the stores that they share, and their clients.
#[derive(Debug)]
pub struct World {
    settings: WorldSettings,
    timing: ClusterTiming,
    /// In milliseconds, by a clock that nobody has.
    pub now: u64,
    pub(super) shards: Vec<Shard>,
    pub(super) machines: Vec<Machine>,
    users: Vec<(u16, UserId)>,
    /// Requests of connections that are gone. They may still arrive, in the order in which each was sent.
    pub(super) late: Vec<VecDeque<(Sent, bool)>>,
    pub(super) published: Vec<Published>,
    keys: Vec<(u16, UserId, ResumeKey)>,
    nodes: u64,
    /// What has happened.
    pub coverage: Coverage,
    /// Whether to print everything that happens.
    pub prints: bool,
}

/// The time limit of a call to the store.
const CALL_MS: u64 = 200;
pub(super) const BEAT_MS: u64 = 100;
const FENCE_MS: u64 = 500;
pub(super) const LEASE_MS: u64 = 620;

impl WorldSettings {
    /// A small world, drawn at random.
    pub fn random(random: &mut Random) -> Self {
        let limit = SlotLimit::new(if random.one_in(3) { 2 } else { 1 }).expect("it is small");
        let when_full = if random.one_in(2) { WhenFull::EvictOldest } else { WhenFull::Deny };
        let linger = if random.one_in(2) { Duration::from_millis(300) } else { Duration::ZERO };
        let max_waiting = if random.one_in(3) { 4 } else { 0 };
        let buckets = 1 + random.index(3);
        Self {
            machines: 1 + random.index(3),
            shards: 1 + random.index(2).min(buckets - 1),
            buckets,
            users: 1 + random.index(2),
            policy: AdmissionPolicy {
                when_full,
                linger,
                max_waiting,
                client_choice: true,
                ..AdmissionPolicy::new(limit)
            },
            faults: !random.one_in(16),
            splits: random.one_in(4),
        }
    }
}

impl World {
    /// Machines that have just started, or have run for so long that the gates are open.
    #[must_use]
    pub fn new(settings: WorldSettings, random: &mut Random) -> Self {
        let millis = Duration::from_millis;
        let timing = ClusterTiming::new(millis(BEAT_MS), millis(FENCE_MS), millis(LEASE_MS), millis(CALL_MS))
            .expect("the times fit together");
        let bucket_numbers = 0..u16::try_from(settings.buckets).expect("there are few");
        let users = bucket_numbers.flat_map(|bucket| {
            let user = move |number| UserId::parse(&format!("user-{bucket}-{number}")).expect("it is valid");
            (0..settings.users).map(move |number| (bucket, user(number)))
        });
        let users = users.collect();
        let machine = |_| Machine {
            process: None,
            id_file: None,
            offset: random.below(100_000),
            rate: [990, 1000, 1010][random.index(3)],
            paused_until: 0,
            unreachable_until: vec![0; settings.shards],
            at_former: vec![false; settings.shards],
        };
        let machines = (0..settings.machines).map(machine).collect();
        let shards = vec![Shard::default(); settings.shards];
        let mut world = Self {
            settings,
            timing,
            now: 1000,
            shards,
            machines,
            users,
            late: Vec::new(),
            published: Vec::new(),
            keys: Vec::new(),
            nodes: 0,
            coverage: Coverage::default(),
            prints: false,
        };
        for machine in 0..world.machines.len() {
            world.start(machine);
        }
        if !random.one_in(4) {
            world.calm(LEASE_MS + 3 * BEAT_MS, random).expect("nobody has signed in");
            world.shards.iter_mut().for_each(Shard::replicate);
        }
        world
    }

    /// One step of the world, which these bits decide.
    ///
    /// # Errors
    /// What does not hold any more.
    pub fn step(&mut self, bits: u64) -> Result<(), String> {
        let mut random = Random::new(bits);
        let machine = random.index(self.machines.len());
        match random.below(100) {
            0..12 => {
                let most = if random.one_in(8) { 150 } else { 30 };
                self.now += 1 + random.below(most);
            }
            12..20 => self.tick(machine),
            20..45 => self.apply_next(machine, random.index(self.shards.len())),
            45..68 => self.answer_next(machine, random.index(self.shards.len())),
            68..76 => self.sign_in(machine, &mut random),
            76..84 => self.tell_one(machine, &mut random),
            84..88 => self.close_one(machine, &mut random),
            88..92 => self.leave_one(machine, &mut random),
            92..94 => self.hint_one(&mut random),
            94 => self.ask_again(machine, &mut random),
            95 => self.release_owed(machine),
            96 => self.late_one(&mut random),
            97 => {
                let shard = random.index(self.shards.len());
                self.shards[shard].replicate();
            }
            _ if self.settings.faults => self.fault(machine, &mut random),
            _ => self.now += 5,
        }
        self.check()
    }

    fn buckets(&self) -> u16 {
        u16::try_from(self.settings.buckets).expect("there are few")
    }

    pub(super) const fn may_split(&self) -> bool {
        self.settings.splits
    }

    pub(super) fn new_node(&mut self) -> NodeId {
        self.nodes += 1;
        // Ids are random: the order of nodes must say nothing.
        NodeId::new(Random::new(self.nodes).bits())
    }

    pub(super) fn start(&mut self, index: usize) {
        let node = self.new_node();
        let (settings, timing, now) = (self.settings.clone(), self.timing, self.machines[index].clock(self.now));
        let machine = &mut self.machines[index];
        let former = machine.id_file;
        let bucket = |_| Bucket::new(node, former, settings.policy, timing, 64, now);
        let connections = (0..settings.shards).map(|_| Connection::default()).collect();
        machine.process = Some(Process {
            node,
            buckets: (0..settings.buckets).map(bucket).collect(),
            connections,
            clients: BTreeMap::new(),
            calls: BTreeMap::new(),
            owed: Vec::new(),
            sessions: 0,
            last_call: 0,
        });
        machine.id_file = Some(node);
        self.coverage.saw(if former.is_some() { Event::RestartWithId } else { Event::Start });
    }

    /// Hands an event to a bucket of a process, and does what it wants.
    pub(super) fn handle(&mut self, index: usize, bucket: u16, event: BucketEvent) {
        let machine = &mut self.machines[index];
        let now = machine.clock(self.now);
        let Some(process) = &mut machine.process else { return };
        if self.prints {
            println!("{} machine {index} bucket {bucket} <- {event:?}", self.now);
        }
        let BucketActions { requests, outcomes, ended, hints, fenced } =
            process.buckets[usize::from(bucket)].handle(event, now);
        if self.prints {
            println!("    -> {requests:?} {outcomes:?} {ended:?} {fenced:?}");
        }
        if let Some(reason) = fenced {
            self.coverage.saw(Event::Fenced(reason));
            process.clients.retain(|_, client| client.bucket != bucket);
            process.owed.retain(|(user, _)| !self.users.contains(&(bucket, user.clone())));
        }
        for ended in ended {
            if let Some(client) = process.clients.get_mut(&ended.session)
                && client.state == ClientState::Told
            {
                client.state = ClientState::Leaving;
                self.coverage.saw(Event::ToldSessionEnded);
            }
        }
        for (call, outcome) in outcomes {
            Self::answered(process, &mut self.coverage, call, &outcome);
        }
        self.published.extend(hints.into_iter().map(Published::Session));
        let shard = usize::from(bucket) % self.shards.len();
        for (id, request) in requests {
            self.coverage.asked(&request);
            process.connections[shard].sent.push_back(Sent { bucket, id, request, at: self.now });
        }
        if fenced.is_some() {
            let node = self.new_node();
            if let Some(process) = &mut self.machines[index].process {
                process.node = node;
            }
            self.machines[index].id_file = Some(node);
            for bucket in 0..self.buckets() {
                self.handle(index, bucket, BucketEvent::Joins(node));
            }
        }
    }

    fn answered(process: &mut Process, coverage: &mut Coverage, call: CallId, outcome: &Outcome) {
        coverage.answered(outcome);
        let Some(session) = process.calls.remove(&call) else { return };
        let Some(client) = process.clients.get_mut(&session) else { return };
        if !matches!(client.state, ClientState::Asking(asked) if asked == call) && client.state != ClientState::InLine {
            return;
        }
        match outcome {
            Outcome::Granted { .. } => client.state = ClientState::Granted,
            Outcome::Waiting(_) => client.state = ClientState::InLine,
            Outcome::Denied(Some(usage)) if usage.is_in_line() => client.state = ClientState::InLine,
            Outcome::Rejected(_) if client.state == ClientState::InLine => {}
            Outcome::Unknown => {
                let owed = (client.user.clone(), session);
                process.clients.remove(&session);
                process.owed.push(owed);
            }
            _ => {
                process.clients.remove(&session);
            }
        }
    }

    /// What is due by the clock of a machine.
    pub(super) fn tick(&mut self, index: usize) {
        let machine = &self.machines[index];
        let (now, clock) = (self.now, machine.clock(self.now));
        let Some(process) = machine.process.as_ref().filter(|_| machine.runs(now)) else { return };
        let is_due = |bucket: &Bucket| bucket.deadline().is_some_and(|deadline| deadline <= clock);
        let due: Vec<_> =
            (0..).zip(&process.buckets).filter(|(_, bucket)| is_due(bucket)).map(|(number, _)| number).collect();
        let is_late = |connection: &Connection| {
            let oldest = connection.answers.front().map(|(sent, _)| sent).or_else(|| connection.sent.front());
            oldest.is_some_and(|sent| now - sent.at >= CALL_MS)
        };
        let late: Vec<_> =
            (0..).zip(&process.connections).filter(|(_, of)| is_late(of)).map(|(shard, _)| shard).collect();
        for bucket in due {
            self.handle(index, bucket, BucketEvent::Tick);
        }
        for shard in late {
            self.coverage.saw(Event::CallTimedOut);
            self.reconnect(index, shard);
        }
    }

    /// The process gives up a connection and opens another one. What it had sent may still arrive.
    pub(super) fn reconnect(&mut self, index: usize, shard: usize) {
        let shards = self.shards.len();
        let machine = &mut self.machines[index];
        let at_former = machine.at_former[shard];
        let Some(process) = &mut machine.process else { return };
        let connection = &mut process.connections[shard];
        connection.epoch += 1;
        let epoch = connection.epoch;
        connection.answers.clear();
        let sent = std::mem::take(&mut connection.sent);
        if !sent.is_empty() {
            self.late.push(sent.into_iter().map(|sent| (sent, at_former)).collect());
        }
        for bucket in (0..self.buckets()).filter(|bucket| usize::from(*bucket) % shards == shard) {
            self.handle(index, bucket, BucketEvent::Reconnected(epoch));
        }
    }

    /// The store applies the next request of a connection.
    pub(super) fn apply_next(&mut self, index: usize, shard: usize) {
        let machine = &mut self.machines[index];
        if self.now < machine.unreachable_until[shard] {
            return;
        }
        let at_former = machine.at_former[shard];
        let Some(process) = &mut machine.process else { return };
        let connection = &mut process.connections[shard];
        let Some(sent) = connection.sent.pop_front() else { return };
        let answer = self.shards[shard].apply(sent.bucket, &sent.request, at_former, self.now, &mut self.published);
        if self.prints {
            println!("{} of machine {index}: {sent:?} applied: {answer:?}", self.now);
        }
        self.coverage.applied(&sent.request, &answer.body);
        connection.answers.push_back((sent, answer));
    }

    /// The next answer on a connection arrives.
    pub(super) fn answer_next(&mut self, index: usize, shard: usize) {
        let machine = &mut self.machines[index];
        let is_reachable = self.now >= machine.unreachable_until[shard] && machine.runs(self.now);
        let Some(process) = machine.process.as_mut().filter(|_| is_reachable) else { return };
        let Some((sent, answer)) = process.connections[shard].answers.pop_front() else { return };
        // Without its primary's replica a beat does not count (`WAIT 1`).
        let is_unconfirmed = machine.at_former[shard] && matches!(answer.body, AnswerBody::Beat(_));
        let body = if is_unconfirmed { AnswerBody::Failed } else { answer.body };
        let answer = session_core::cluster::Answer { body, ..answer };
        self.handle(index, sent.bucket, BucketEvent::Answered(sent.id, answer));
    }

    fn sign_in(&mut self, index: usize, random: &mut Random) {
        let now = self.now;
        let machine = &mut self.machines[index];
        let (at, is_running) = (machine.clock(now), machine.runs(now));
        let Some(process) = machine.process.as_mut().filter(|_| is_running) else { return };
        if process.clients.len() > 12 {
            return;
        }
        process.sessions += 1;
        let session = process.node.session(process.sessions);
        let resume = if self.keys.is_empty() || !random.one_in(3) { None } else { Some(random.index(self.keys.len())) };
        let (bucket, user) = match resume {
            Some(known) => (self.keys[known].0, self.keys[known].1.clone()),
            None => self.users[random.index(self.users.len())].clone(),
        };
        let shown = resume.map(|known| self.keys[known].2);
        let new_key = ResumeToken::new([u8::try_from(random.below(256)).unwrap_or_default(); 32]).key();
        let evict = match random.below(4) {
            0 => Some(Evict::Oldest),
            1 => Some(Evict::Nobody),
            _ => None,
        };
        let options = AcquireOptions {
            resume: shown,
            new_resume_key: Some(new_key),
            evict,
            must_resume: resume.is_some() && random.one_in(2),
            waits: random.one_in(3),
            ..AcquireOptions::default()
        };
        let options = if resume.is_none() && random.one_in(3) { None } else { Some(Box::new(options)) };
        let key = options.is_some().then(|| shown.unwrap_or(new_key));
        let call = process.call();
        process.calls.insert(call, session);
        process.clients.insert(session, Client { user: user.clone(), bucket, state: ClientState::Asking(call), key });
        self.handle(
            index,
            bucket,
            BucketEvent::Submit(call, StoreCommand::Acquire { user, session, limit: None, at, options }),
        );
    }

    fn pick(
        &self,
        index: usize,
        random: &mut Random,
        is_wanted: impl Fn(&Client) -> bool,
    ) -> Option<(SessionId, Client)> {
        let machine = &self.machines[index];
        let process = machine.process.as_ref().filter(|_| machine.runs(self.now))?;
        let wanted: Vec<_> = process.clients.iter().filter(|(_, client)| is_wanted(client)).collect();
        let (session, client) = wanted.get(random.index(wanted.len().max(1)))?;
        Some((**session, (*client).clone()))
    }

    /// A server tells a client that it is in, or finds that it must not.
    pub(super) fn tell_one(&mut self, index: usize, random: &mut Random) {
        let Some((session, client)) = self.pick(index, random, |client| client.state == ClientState::Granted) else {
            return;
        };
        let machine = &mut self.machines[index];
        let at = machine.clock(self.now);
        let Some(process) = &mut machine.process else { return };
        if process.buckets[usize::from(client.bucket)].tell(&client.user, session, at) {
            self.coverage.saw(Event::Told);
            if let Some(client) = process.clients.get_mut(&session) {
                client.state = ClientState::Told;
            }
            if let Some(key) = client.key {
                self.keys.truncate(15);
                self.keys.insert(0, (client.bucket, client.user, key));
            }
            return;
        }
        self.coverage.saw(Event::NotTold);
        process.clients.remove(&session);
        let event = process.release(session, &client, false, at);
        self.handle(index, client.bucket, event);
    }

    /// A server closes the connection of a client that has lost its slot.
    pub(super) fn close_one(&mut self, index: usize, random: &mut Random) {
        let Some((session, client)) = self.pick(index, random, |client| client.state == ClientState::Leaving) else {
            return;
        };
        if let Some(process) = &mut self.machines[index].process {
            process.clients.remove(&session);
        }
        self.handle(index, client.bucket, BucketEvent::Closed(client.user, session));
    }

    /// A client leaves: it says BYE, is lost, or does not wait for the answer.
    fn leave_one(&mut self, index: usize, random: &mut Random) {
        let Some((session, client)) = self.pick(index, random, |_| true) else { return };
        let machine = &mut self.machines[index];
        let at = machine.clock(self.now);
        let Some(process) = &mut machine.process else { return };
        process.clients.remove(&session);
        if let ClientState::Asking(call) = client.state {
            process.calls.remove(&call);
            if process.buckets[usize::from(client.bucket)].withdraw(&client.user, call) {
                self.coverage.saw(Event::Withdrawn);
            }
        }
        let lingers = client.state == ClientState::Told && client.key.is_some() && random.one_in(2);
        self.coverage.saw(if lingers { Event::Lost } else { Event::Left });
        let event = process.release(session, &client, lingers, at);
        self.handle(index, client.bucket, event);
    }

    /// A client in line asks again.
    pub(super) fn ask_again(&mut self, index: usize, random: &mut Random) {
        let Some((session, client)) = self.pick(index, random, |client| client.state == ClientState::InLine) else {
            return;
        };
        self.ask(index, session, client);
    }

    fn ask(&mut self, index: usize, session: SessionId, client: Client) {
        let machine = &mut self.machines[index];
        let at = machine.clock(self.now);
        let Some(process) = &mut machine.process else { return };
        let options = AcquireOptions { new_resume_key: client.key, waits: true, ..AcquireOptions::default() };
        let call = process.call();
        process.calls.insert(call, session);
        let command =
            StoreCommand::Acquire { user: client.user, session, limit: None, at, options: Some(Box::new(options)) };
        self.handle(index, client.bucket, BucketEvent::Submit(call, command));
    }

    /// A hint arrives, or is lost.
    pub(super) fn hint_one(&mut self, random: &mut Random) {
        if self.published.is_empty() {
            return;
        }
        let hint = self.published.swap_remove(random.index(self.published.len()));
        if random.one_in(4) {
            self.coverage.saw(Event::HintLost);
            return;
        }
        let node = match &hint {
            Published::Changed(node, _) => *node,
            Published::Session(hint) => hint.session.node(),
        };
        let now = self.now;
        let has_node = |machine: &Machine| {
            let bucket = |process: &Process| process.buckets.iter().any(|bucket| bucket.membership().is_own(node));
            machine.runs(now) && machine.process.as_ref().is_some_and(bucket)
        };
        let Some(index) = self.machines.iter().position(has_node) else { return };
        match hint {
            Published::Changed(_, user) => {
                let Some(&(bucket, _)) = self.users.iter().find(|(_, other)| *other == user) else { return };
                self.handle(index, bucket, BucketEvent::Hinted(user));
            }
            Published::Session(hint) if hint.hint == Hint::Turn => {
                let process = self.machines[index].process.as_ref();
                let client = process.and_then(|process| process.clients.get(&hint.session)).cloned();
                if let Some(client) = client.filter(|client| client.state == ClientState::InLine) {
                    self.ask(index, hint.session, client);
                }
            }
            Published::Session(_) => {}
        }
    }

    pub(super) fn release_owed(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let is_running = machine.runs(self.now);
        let Some(process) = machine.process.as_mut().filter(|_| is_running) else { return };
        let Some((user, session)) = process.owed.pop() else { return };
        let bucket = self.users.iter().find(|(_, other)| *other == user).map_or(0, |(bucket, _)| *bucket);
        let call = process.call();
        self.handle(index, bucket, BucketEvent::Submit(call, StoreCommand::Release { user, session }));
    }

    /// A request of a connection that is gone arrives, or is lost with all after it.
    pub(super) fn late_one(&mut self, random: &mut Random) {
        if self.late.is_empty() {
            return;
        }
        let index = random.index(self.late.len());
        let Some((sent, at_former)) = self.late[index].pop_front() else {
            self.late.swap_remove(index);
            return;
        };
        if random.one_in(8) {
            self.late.swap_remove(index);
            return;
        }
        let shard = usize::from(sent.bucket) % self.shards.len();
        let answer = self.shards[shard].apply(sent.bucket, &sent.request, at_former, self.now, &mut self.published);
        if let (Request::Write(_), AnswerBody::Record(answer)) = (&sent.request, &answer.body) {
            self.coverage.saw(if answer.is_written { Event::LateWriteApplied } else { Event::LateWriteRefused });
        }
    }

    /// Checks what must hold at every moment.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut served: BTreeMap<&UserId, u32> = BTreeMap::new();
        for machine in &self.machines {
            let clock = machine.clock(self.now);
            let Some(process) = &machine.process else { continue };
            for (number, bucket) in (0..).zip(&process.buckets) {
                if !bucket.may_serve(clock) {
                    continue;
                }
                let clients = process.clients.values().filter(|client| client.bucket == number && client.is_in());
                let mut is_serving = false;
                for client in clients {
                    *served.entry(&client.user).or_default() += 1;
                    is_serving = true;
                }
                let data = self.shards[usize::from(number) % self.shards.len()].primary.get(&number);
                let nodes = data.and_then(|data| data.nodes.as_ref()).map(|(_, nodes)| nodes);
                let is_dead = |node: &NodeId| {
                    nodes
                        .is_some_and(|nodes| matches!(nodes.get(node), Some(session_core::cluster::NodeEntry::Dead(_))))
                };
                if is_serving && bucket.membership().ids().any(|node| is_dead(&node)) {
                    return Err(format!("buried: a node that serves clients of bucket {number}"));
                }
            }
        }
        let limit = self.settings.policy.limit.slots();
        match served.into_iter().find(|(_, served)| *served > limit) {
            Some((user, served)) => Err(format!("overrun: {served} of {user}'s clients are in, of {limit}")),
            None => Ok(()),
        }
    }

    /// Checks what must hold once all is quiet: the records equal the sockets.
    pub(super) fn check_settled(&self) -> Result<(), String> {
        let mut told: BTreeSet<SessionId> = BTreeSet::new();
        for machine in &self.machines {
            let Some(process) = &machine.process else { continue };
            for (session, client) in &process.clients {
                match client.state {
                    ClientState::Told => {
                        told.insert(*session);
                    }
                    ClientState::InLine => {}
                    other => return Err(format!("stuck: session {session} is {other:?}")),
                }
            }
            for bucket in &process.buckets {
                if !bucket.may_serve(machine.clock(self.now)) {
                    return Err("stuck: a node has not joined".to_owned());
                }
            }
        }
        let mut held = BTreeSet::new();
        for (number, data) in self.shards.iter().flat_map(|shard| &shard.primary) {
            if !data.is_open() {
                return Err(format!("stuck: the gate of bucket {number} is closed"));
            }
            if data.in_inboxes() > 0 {
                return Err(format!("leak: an inbox of bucket {number}"));
            }
            for user in data.users() {
                let record = data.record(user);
                if !record.leaving().is_empty() {
                    return Err(format!("leak: {:?} are leaving for ever", record.leaving()));
                }
                held.extend(
                    record
                        .sessions()
                        .iter()
                        .filter(|entry| entry.status.lingers_until().is_none())
                        .map(|entry| entry.session),
                );
            }
        }
        match (held.difference(&told).next(), told.difference(&held).next()) {
            (Some(session), _) => Err(format!("leak: session {session} has a slot and no socket")),
            (_, Some(session)) => Err(format!("missing: session {session} has a socket and no slot")),
            (None, None) => Ok(()),
        }
    }
}
