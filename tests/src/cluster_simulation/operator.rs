//! What operators do, and which limits may be in force by that.

use std::collections::{BTreeMap, BTreeSet};

use session_core::cluster::{BucketEvent, CallId, OverridesOutcome};
use session_core::ledger::{
    AdmissionPolicy, EndReason, EndTarget, Outcome, SlotLimit, StoreCommand, UserOverrides, WhenFull,
};
use session_core::{SessionId, UserId};

use super::coverage::Event;
use super::machine::ClientState;
use super::world::World;
use crate::random::Random;

/// The limits of users that operators have set.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// Counts what operators do, and what they are told.
    moment: u64,
    calls: BTreeMap<(usize, u64, CallId), (UserId, u64)>,
    users: BTreeMap<UserId, Vec<Change>>,
    /// The commands that end sessions and are not answered, with who asked and the sessions that were in.
    ends: BTreeMap<(u64, CallId), (UserId, SessionId, Vec<SessionId>)>,
    /// Sessions that must have ended once all is quiet: somebody was told so.
    must_end: Vec<(UserId, SessionId)>,
    /// When the store of each user may have forgotten something last.
    forgotten: BTreeMap<UserId, u64>,
    /// Every limit that a user was to have at any time.
    tried: BTreeMap<UserId, BTreeSet<Option<u32>>>,
}

/// A limit that may be in force.
#[derive(Debug, Clone, Copy)]
struct Change {
    limit: Option<u32>,
    began: u64,
    /// When the operator was told that it is in force.
    done: Option<u64>,
    /// When the operator was told that nobody knows.
    unknown: Option<u64>,
}

impl Operator {
    /// The highest limit that may be in force for the user.
    pub(super) fn highest(&self, user: &UserId, of_server: u32) -> u32 {
        let limits = self.users.get(user).into_iter().flatten().map(|change| change.limit.unwrap_or(of_server));
        // Before the first change that is certain, that of the server may be in force.
        let is_certain = self.users.get(user).is_some_and(|changes| changes.iter().any(|change| change.done.is_some()));
        limits.chain((!is_certain).then_some(of_server)).max().unwrap_or(of_server)
    }

    /// The only limit that may be in force, if nothing is uncertain.
    pub(super) fn certain(&self, user: &UserId) -> Option<Option<u32>> {
        match self.users.get(user).map(Vec::as_slice) {
            Some([Change { limit, done: Some(_), .. }]) => Some(*limit),
            _ => None,
        }
    }

    fn begin(&mut self, call: (usize, u64, CallId), user: &UserId, limit: Option<u32>) {
        self.moment += 1;
        self.calls.insert(call, (user.clone(), self.moment));
        self.users.entry(user.clone()).or_default().push(Change {
            limit,
            began: self.moment,
            done: None,
            unknown: None,
        });
        self.tried.entry(user.clone()).or_default().insert(limit);
    }

    /// An operator is told what became of a change. What was changed before it began is not in force any more, unless `keeps`.
    fn told(&mut self, call: (usize, u64, CallId), outcome: OverridesOutcome, keeps: bool) {
        let Some((user, began)) = self.calls.remove(&call) else { return };
        self.moment += 1;
        let is_forgotten = self.forgotten.get(&user).is_some_and(|forgotten| *forgotten > began);
        let (moment, changes) = (self.moment, self.users.entry(user).or_default());
        let Some(at) = changes.iter().position(|change| change.began == began) else { return };
        match outcome {
            OverridesOutcome::Set { .. } if is_forgotten => {}
            OverridesOutcome::Set { .. } => {
                changes[at].done = Some(moment);
                // One that was not answered as this one began may be made after it: also if nobody knows what became of it.
                let is_over = |change: &Change| change.done.or(change.unknown).is_some_and(|answered| answered < began);
                changes.retain(|change| keeps || change.began == began || !is_over(change));
            }
            OverridesOutcome::Rejected(_) => {
                changes.remove(at);
            }
            OverridesOutcome::Unknown => changes[at].unknown = Some(moment),
        }
    }

    /// A store of these users may have forgotten changes: any of before may be in force. And which sessions were to end.
    fn forgets(&mut self, is_of_store: impl Fn(&UserId) -> bool) {
        self.moment += 1;
        self.ends.retain(|_, (user, ..)| !is_of_store(user));
        self.must_end.retain(|(user, _)| !is_of_store(user));
        for (user, tried) in self.tried.iter().filter(|(user, _)| is_of_store(user)) {
            let changes = self.users.entry(user.clone()).or_default();
            self.forgotten.insert(user.clone(), self.moment);
            changes.iter_mut().for_each(|change| change.done = None);
            let maybe = |&limit| Change { limit, began: self.moment, done: None, unknown: Some(self.moment) };
            changes.extend(tried.iter().map(maybe));
        }
    }
}

impl World {
    /// Somebody asks about the sessions of a user, or ends them. A session asks, as the shell submits it for operators, too.
    pub(super) fn command_one(&mut self, index: usize, random: &mut Random) {
        let Some((session, client)) = self.pick(index, random, |client| client.state == ClientState::Told) else {
            return;
        };
        let told = self.told_of(&client.user);
        let machine = &mut self.machines[index];
        let at = machine.clock(self.now);
        let Some(process) = &mut machine.process else { return };
        let (call, number, user) = (process.call(), process.number, client.user);
        let command = match random.below(5) {
            0 => StoreCommand::CountSlots { user, session, at },
            1 => {
                let watch = random.one_in(2).then_some(true);
                StoreCommand::ListSessions { user, session, limit: None, is_unbounded: false, watch, at }
            }
            2 => StoreCommand::Renew { user, session, limit: None, device: None, at },
            3 => {
                let target = told.get(random.index(told.len())).copied().unwrap_or(session);
                let (target, reason) = (EndTarget::One(target), EndReason::ByUser(None));
                StoreCommand::EndSessions { user, session, target, reason, at }
            }
            _ => {
                let others = told.into_iter().filter(|other| *other != session).collect();
                self.operator.ends.insert((number, call), (user.clone(), session, others));
                let (target, reason) = (EndTarget::All, EndReason::ByUser(None));
                StoreCommand::EndSessions { user, session, target, reason, at }
            }
        };
        self.handle(index, client.bucket, BucketEvent::Submit(call, command));
    }

    /// Whoever has asked to end sessions is told that they end.
    pub(super) fn end_answered(&mut self, number: u64, call: CallId, outcome: &Outcome) {
        let Some((user, session, sessions)) = self.operator.ends.remove(&(number, call)) else { return };
        // Who has lost its own slot meanwhile ends nobody.
        let asks = self.told_of(&user).contains(&session);
        if asks && matches!(outcome, Outcome::Ended { .. }) {
            self.coverage.saw(Event::SessionsEnded);
            self.operator.must_end.extend(sessions.into_iter().map(|session| (user.clone(), session)));
        }
    }

    /// Checks that who was to end has ended.
    pub(super) fn check_ended(&self) -> Result<(), String> {
        let goes_on = |(user, session): &&(UserId, SessionId)| self.told_of(user).contains(session);
        match self.operator.must_end.iter().find(goes_on) {
            Some((user, session)) => Err(format!("goes on: {session} of {user}, which was ended")),
            None => Ok(()),
        }
    }

    /// The sessions of a user whose clients are in.
    fn told_of(&self, user: &UserId) -> Vec<SessionId> {
        self.told_clients().filter(|(_, client)| client.user == *user).map(|(session, _)| *session).collect()
    }

    /// A server reads its configuration again, which has changed.
    pub(super) fn reload(&mut self, index: usize, random: &mut Random) {
        let when_full = if random.one_in(2) { WhenFull::EvictOldest } else { WhenFull::Deny };
        let policy = AdmissionPolicy { when_full, ..self.settings.policy };
        let process = self.machines[index].process.iter_mut();
        process.flat_map(|process| &mut process.buckets).for_each(|bucket| bucket.set_policy(policy));
    }

    pub(super) fn override_one(&mut self, index: usize, random: &mut Random) {
        let (bucket, user) = self.users[random.index(self.users.len())].clone();
        let limit = (!random.one_in(3)).then(|| u32::try_from(random.below(4)).unwrap_or_default());
        if self.machines[index].runs(self.now) {
            self.set_limit(index, bucket, &user, limit);
        }
    }

    /// An operator sets the limit of a user at a machine.
    pub(super) fn set_limit(&mut self, index: usize, bucket: u16, user: &UserId, limit: Option<u32>) {
        let Some(process) = &mut self.machines[index].process else { return };
        let call = process.call();
        let number = process.number;
        self.operator.begin((index, number, call), user, limit);
        self.note_limits(user);
        let limit = limit.and_then(|limit| SlotLimit::new(limit).ok());
        let overrides = UserOverrides { limit, when_full: None };
        self.handle(index, bucket, BucketEvent::SetOverrides(call, user.clone(), overrides));
    }

    /// Operators are told what became of their changes.
    pub(super) fn overrides_answered(&mut self, index: usize, bucket: u16, outcomes: Vec<(CallId, OverridesOutcome)>) {
        let Some(process) = &mut self.machines[index].process else { return };
        let number = process.number;
        for (call, _) in &outcomes {
            if process.unanswered.remove(call).is_none() {
                self.broken = Some(format!("answered: {call:?} of an operator, which was answered before"));
            }
        }
        // What a former primary has taken is lost.
        let keeps = self.shards[usize::from(bucket) % self.shards.len()].former.is_some();
        for (call, outcome) in outcomes {
            self.coverage.saw(match outcome {
                OverridesOutcome::Set { .. } => Event::OverridesSet,
                OverridesOutcome::Rejected(_) => Event::OverridesRejected,
                OverridesOutcome::Unknown => Event::OverridesUnknown,
            });
            self.operator.told((index, number, call), outcome, keeps);
        }
    }

    /// A store may have forgotten something.
    pub(super) fn forgets(&mut self, shard: usize) {
        let (shards, users) = (self.shards.len(), &self.users);
        let is_here =
            |user: &UserId| users.iter().any(|(bucket, other)| other == user && usize::from(*bucket) % shards == shard);
        self.operator.forgets(is_here);
        for (_, user) in self.users.clone() {
            self.note_limits(&user);
        }
    }

    /// A client may be admitted by the highest limit that may be in force from when it asks until it is told.
    fn note_limits(&mut self, user: &UserId) {
        let highest = self.highest_limit(user);
        let processes = self.machines.iter_mut().filter_map(|machine| machine.process.as_mut());
        for client in processes.flat_map(|process| process.clients.values_mut()) {
            if client.user == *user && !client.is_in() {
                client.limit = client.limit.max(highest);
            }
        }
    }

    /// The highest limit that may be in force for the user.
    pub(super) fn highest_limit(&self, user: &UserId) -> u32 {
        self.operator.highest(user, self.settings.policy.limit.slots())
    }
}
