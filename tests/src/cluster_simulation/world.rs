//! Several machines, the stores that they share, and their clients, on one virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use session_core::cluster::{
    AnswerBody, Bucket, BucketActions, BucketEvent, CallId, ClusterTiming, Published, Request,
};
use session_core::ledger::{AdmissionPolicy, CountBy, Outcome, SlotLimit, StoreError, WhenFull};
use session_core::{DisplayName, NodeId, ResumeKey, UserId};

use super::applied::AppliedChecks;
use super::coverage::{Coverage, Event};
use super::machine::{ClientState, Connection, Machine, Process, Sent};
use super::operator::Operator;
use super::shard::{MAX_LAG, Shard};
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
    /// Whether a store may split into two primaries that both take writes, and what protects from that.
    pub splits: Option<SplitGuard>,
    /// Whether dead nodes are forgotten soon. Then no request arrives later than that.
    pub forgets: bool,
}

/// What protects from a former primary that still takes writes. Either is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitGuard {
    /// Without its replica it soon refuses writes (`min-replicas-to-write`).
    RefusesWrites,
    /// A beat counts only once a replica has it (`WAIT 1`).
    WaitsForReplica,
}

/// Several machines, the stores that they share, and their clients.
#[derive(Debug)]
pub struct World {
    pub(super) settings: WorldSettings,
    timing: ClusterTiming,
    /// In milliseconds, by a clock that nobody has.
    pub now: u64,
    pub(super) shards: Vec<Shard>,
    pub(super) machines: Vec<Machine>,
    pub(super) users: Vec<(u16, UserId)>,
    /// Requests of connections that are gone. They may still arrive, in the order in which each was sent.
    pub(super) late: Vec<VecDeque<(Sent, bool)>>,
    pub(super) published: Vec<Published>,
    /// The slots that clients can resume, with the devices that they had named.
    pub(super) keys: Vec<(u16, UserId, ResumeKey, Option<DisplayName>)>,
    pub(super) operator: Operator,
    nodes: u64,
    pub(super) tells: u64,
    /// What a bucket did that it must not do.
    pub(super) broken: Option<String>,
    /// What has happened.
    pub coverage: Coverage,
    /// Whether to print everything that happens.
    pub prints: bool,
}

/// The time limit of a call to the store.
pub(super) const CALL_MS: u64 = 200;
pub(super) const BEAT_MS: u64 = 100;
pub(super) const FENCE_MS: u64 = 500;
pub(super) const LEASE_MS: u64 = 620;

impl WorldSettings {
    /// A small world, drawn at random.
    pub fn random(random: &mut Random) -> Self {
        let limit = SlotLimit::new(if random.one_in(3) { 2 } else { 1 }).expect("it is small");
        let when_full = if random.one_in(2) { WhenFull::EvictOldest } else { WhenFull::Deny };
        let linger =
            if random.one_in(2) { Duration::from_millis([300, 3 * LEASE_MS][random.index(2)]) } else { Duration::ZERO };
        let max_waiting = if random.one_in(3) { 4 } else { 0 };
        let (buckets, most) = (1 + random.index(3), if random.one_in(6) { 6 } else { 3 });
        Self {
            machines: 1 + random.index(most),
            shards: 1 + random.index(2).min(buckets - 1),
            buckets,
            users: 1 + random.index(2),
            policy: AdmissionPolicy {
                when_full,
                linger,
                max_waiting,
                client_choice: true,
                lingering_first: random.one_in(2),
                count_by: if random.one_in(4) { CountBy::Devices } else { CountBy::Sessions },
                ..AdmissionPolicy::new(limit)
            },
            faults: !random.one_in(16),
            forgets: random.one_in(3),
            splits: [None, None, Some(SplitGuard::RefusesWrites), Some(SplitGuard::WaitsForReplica)][random.index(4)],
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
        let timing = if settings.forgets { timing.with_memory(millis(LEASE_MS)) } else { timing };
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
            rate: if random.one_in(2) { [990, 1010][random.index(2)] } else { 990 + random.below(21) },
            paused_until: 0,
            slow_until: 0,
            unreachable_until: vec![0; settings.shards],
            at_former: vec![false; settings.shards],
        };
        let machines = (0..settings.machines).map(machine).collect();
        let refuses = settings.splits == Some(SplitGuard::RefusesWrites);
        let max_lag = if refuses { MAX_LAG } else { u64::MAX };
        let checks = AppliedChecks::new(settings.policy.count_by, settings.policy.limit);
        let shards = vec![Shard::new(max_lag, checks); settings.shards];
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
            operator: Operator::default(),
            nodes: 0,
            tells: 0,
            broken: None,
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
            68 if random.one_in(4) => self.storm(&mut random),
            68..76 => self.sign_in(machine, &mut random),
            76..84 => self.tell_one(machine, &mut random),
            84..88 => self.close_one(machine, &mut random),
            88..92 => self.leave_one(machine, &mut random),
            92..94 => self.hint_one(&mut random),
            94 if random.one_in(2) => self.command_one(machine, &mut random),
            94 => self.ask_again(machine, &mut random),
            95 if random.one_in(2) => self.override_one(machine, &mut random),
            95 if random.one_in(4) => self.reload(machine, &mut random),
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
        self.settings.splits.is_some()
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
            number: self.nodes,
            buckets: (0..settings.buckets).map(bucket).collect(),
            connections,
            clients: BTreeMap::new(),
            calls: BTreeMap::new(),
            unanswered: BTreeMap::new(),
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
        let joins = matches!(event, BucketEvent::Joins(_));
        if let BucketEvent::Submit(call, _) | BucketEvent::SetOverrides(call, ..) = &event {
            process.unanswered.insert(*call, bucket);
        }
        let BucketActions { requests, outcomes, overrides, ended, lapsed: _, displaced: _, hints, fenced, cut } =
            process.buckets[usize::from(bucket)].handle(event, now);
        if self.prints {
            println!("    -> {requests:?} {outcomes:?} {ended:?} {fenced:?}");
        }
        if let Some(reason) = fenced {
            self.coverage.saw(Event::Fenced(reason));
            let mut served = process.clients.iter().filter(|(_, client)| client.bucket == bucket && client.is_in());
            if served.any(|(session, _)| !cut.contains(session)) {
                self.broken = Some(format!("left: the fence of bucket {bucket} does not cut all clients"));
            }
            process.clients.retain(|_, client| client.bucket != bucket);
            process.owed.retain(|(user, _)| !self.users.contains(&(bucket, user.clone())));
        }
        for (_, ended) in ended {
            if let Some(client) = process.clients.get_mut(&ended.session)
                && client.state == ClientState::Told
            {
                client.state = ClientState::Leaving;
                self.coverage.saw(Event::ToldSessionEnded);
            }
        }
        let number = process.number;
        let mut ends = Vec::new();
        for (call, outcome) in outcomes {
            if process.unanswered.remove(&call).is_none() {
                self.broken = Some(format!("answered: {call:?} of bucket {bucket}, which was answered before"));
            }
            Self::answered(process, &mut self.coverage, call, &outcome);
            ends.push((call, outcome));
        }
        for (call, outcome) in ends {
            self.end_answered(number, call, &outcome);
        }
        self.overrides_answered(index, bucket, overrides);
        let unanswered = self.machines[index].process.iter().flat_map(|process| process.unanswered.values());
        if fenced.is_some() && unanswered.into_iter().any(|of| *of == bucket) {
            self.broken = Some(format!("unanswered: a command of bucket {bucket}, which was fenced"));
        }
        self.published.extend(hints.into_iter().map(Published::Session));
        let shard = usize::from(bucket) % self.shards.len();
        let Some(process) = &mut self.machines[index].process else { return };
        for (id, request) in requests {
            self.coverage.asked(&request);
            process.connections[shard].sent.push_back(Sent { bucket, id, request, at: self.now });
        }
        if fenced.is_some() && !joins {
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
        let connection = &mut process.connections[shard];
        let is_slow = |(sent, _): &&(Sent, _)| self.now < machine.slow_until && self.now < sent.at + CALL_MS - 20;
        if connection.answers.front().filter(is_slow).is_some() {
            return;
        }
        let Some((sent, answer)) = connection.answers.pop_front() else { return };
        // Without its primary's replica a beat does not count (`WAIT 1`).
        let waits = self.settings.splits == Some(SplitGuard::WaitsForReplica);
        let is_unconfirmed = waits && machine.at_former[shard] && matches!(answer.body, AnswerBody::Beat(_));
        let body = if is_unconfirmed { AnswerBody::Failed(StoreError::Failed) } else { answer.body };
        let answer = session_core::cluster::Answer { body, ..answer };
        self.handle(index, sent.bucket, BucketEvent::Answered(sent.id, answer));
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
        let is_too_late = self.settings.forgets && self.now - sent.at > LEASE_MS - 20;
        if random.one_in(8) || is_too_late {
            self.late.swap_remove(index);
            return;
        }
        let shard = usize::from(sent.bucket) % self.shards.len();
        let answer = self.shards[shard].apply(sent.bucket, &sent.request, at_former, self.now, &mut self.published);
        if let (Request::Write(_), AnswerBody::Record(answer)) = (&sent.request, &answer.body) {
            self.coverage.saw(if answer.is_written { Event::LateWriteApplied } else { Event::LateWriteRefused });
        }
    }
}
