//! What clients do, and what the servers tell them.

use session_core::cluster::{BucketEvent, Published};
use session_core::ledger::{AcquireOptions, Evict, Hint, StoreCommand};
use session_core::{DisplayName, ResumeToken, SessionId, UserId};

use super::coverage::Event;
use super::machine::{Client, ClientState, Machine, Process};
use super::world::World;
use crate::random::Random;

impl World {
    pub(super) fn sign_in(&mut self, index: usize, random: &mut Random) {
        let machine = &self.machines[index];
        let clients = machine.process.as_ref().map_or(0, |process| process.clients.len());
        if !machine.runs(self.now) || clients > 12 {
            return;
        }
        let resume = if self.keys.is_empty() || !random.one_in(3) { None } else { Some(random.index(self.keys.len())) };
        let (bucket, user) = match resume {
            Some(known) => (self.keys[known].0, self.keys[known].1.clone()),
            None => self.users[random.index(self.users.len())].clone(),
        };
        let shown = resume.map(|known| self.keys[known].2);
        let mut token = [0; 32];
        token[..8].copy_from_slice(&random.bits().to_be_bytes());
        let new_key = ResumeToken::new(token).key();
        let evict = match random.below(4) {
            0 => Some(Evict::Oldest),
            1 => Some(Evict::Nobody),
            _ => None,
        };
        // Who resumes names the same device again.
        let device = match resume {
            Some(known) => self.keys[known].3.clone(),
            None if random.one_in(2) => DisplayName::parse(["phone", "desk"][random.index(2)]),
            None => None,
        };
        let options = AcquireOptions {
            resume: shown,
            new_resume_key: Some(new_key),
            evict,
            must_resume: resume.is_some() && random.one_in(2),
            waits: random.one_in(3),
            device,
            ..AcquireOptions::default()
        };
        let options = if resume.is_none() && random.one_in(3) { None } else { Some(options) };
        self.connect(index, bucket, user, options);
    }

    /// Clients of one user connect to all machines at once.
    pub(super) fn storm(&mut self, random: &mut Random) {
        let (bucket, user) = self.users[random.index(self.users.len())].clone();
        for number in 0..8 {
            let index = number % self.machines.len();
            if self.machines[index].runs(self.now) {
                self.connect(index, bucket, user.clone(), None);
            }
        }
    }

    /// A client connects to a machine and asks for a slot.
    pub(super) fn connect(
        &mut self,
        index: usize,
        bucket: u16,
        user: UserId,
        options: Option<AcquireOptions>,
    ) -> Option<SessionId> {
        let limit = self.highest_limit(&user);
        let machine = &mut self.machines[index];
        let at = machine.clock(self.now);
        let process = machine.process.as_mut()?;
        process.sessions += 1;
        let session = process.node.session(process.sessions);
        let key = options.as_ref().and_then(|options| options.resume.or(options.new_resume_key));
        let device = options.as_ref().and_then(|options| options.device.clone());
        let call = process.call();
        process.calls.insert(call, session);
        let state = ClientState::Asking(call);
        process.clients.insert(session, Client { user: user.clone(), bucket, state, key, device, limit, told: 0 });
        let options = options.map(Box::new);
        let acquire = StoreCommand::Acquire { user, session, limit: None, at, options };
        self.handle(index, bucket, BucketEvent::Submit(call, acquire));
        Some(session)
    }

    pub(super) fn pick(
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

    /// The clients that were told that they are in, and have not lost their slots.
    pub(super) fn told_clients(&self) -> impl Iterator<Item = (&SessionId, &Client)> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let clients = processes.flat_map(|process| &process.clients);
        clients.filter(|(_, client)| client.state == ClientState::Told)
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
            self.tells += 1;
            if let Some(client) = process.clients.get_mut(&session) {
                (client.state, client.told) = (ClientState::Told, self.tells);
            }
            if let Some(key) = client.key {
                self.keys.truncate(15);
                self.keys.insert(0, (client.bucket, client.user, key, client.device));
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
    pub(super) fn leave_one(&mut self, index: usize, random: &mut Random) {
        let Some((session, client)) = self.pick(index, random, |_| true) else { return };
        let lingers = client.state == ClientState::Told && client.key.is_some() && random.one_in(2);
        self.leave(index, session, lingers);
    }

    /// A client leaves. Its slot lingers if it was lost.
    pub(super) fn leave(&mut self, index: usize, session: SessionId, lingers: bool) {
        let machine = &mut self.machines[index];
        let at = machine.clock(self.now);
        let Some(process) = &mut machine.process else { return };
        let Some(client) = process.clients.remove(&session) else { return };
        if let ClientState::Asking(call) = client.state {
            process.calls.remove(&call);
            if process.buckets[usize::from(client.bucket)].withdraw(&client.user, call) {
                // It certainly took nothing.
                self.coverage.saw(Event::Withdrawn);
                if process.unanswered.remove(&call).is_none() {
                    self.broken = Some(format!("answered: {call:?}, which is withdrawn"));
                }
                return;
            }
        }
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
        let limit = self.highest_limit(&client.user);
        let machine = &mut self.machines[index];
        let at = machine.clock(self.now);
        let Some(process) = &mut machine.process else { return };
        let (new_resume_key, device) = (client.key, client.device.clone());
        let options = AcquireOptions { new_resume_key, device, waits: true, ..AcquireOptions::default() };
        let call = process.call();
        process.calls.insert(call, session);
        if let Some(client) = process.clients.get_mut(&session) {
            client.limit = client.limit.max(limit);
        }
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
}
