//! Histories with one kind of trouble, and what it must not do.

use std::collections::BTreeSet;
use std::time::Duration;

use session_core::cluster::Published;
use session_core::ledger::{AcquireOptions, AdmissionPolicy, Hint, SessionHint, SlotLimit};
use session_core::{ResumeToken, SessionId, UserId};

use super::coverage::Event;
use super::world::{BEAT_MS, FENCE_MS, LEASE_MS, World, WorldSettings};
use crate::random::Random;

impl World {
    /// Two machines with this policy, and no client.
    fn small(policy: AdmissionPolicy, random: &mut Random) -> Result<Self, String> {
        let settings = WorldSettings {
            machines: 2,
            shards: 1,
            buckets: 2,
            users: 2,
            policy,
            faults: false,
            splits: None,
            forgets: false,
        };
        let mut world = Self::new(settings, random);
        world.calm(LEASE_MS + 3 * BEAT_MS, random)?;
        // A grace period ends at a time by the wall clock, so here these agree.
        let latest = world.machines.iter().map(|machine| machine.offset).max().unwrap_or_default();
        world.machines.iter_mut().for_each(|machine| machine.offset = latest);
        world.calm(3 * BEAT_MS, random)?;
        Ok(world)
    }

    /// Three machines, two shards and four buckets, on which clients have signed in. Nothing has failed.
    fn quiet(random: &mut Random) -> Result<Self, String> {
        let settings = WorldSettings {
            machines: 3,
            shards: 2,
            buckets: 4,
            users: 2,
            policy: AdmissionPolicy::new(SlotLimit::new(2).expect("it is small")),
            faults: false,
            splits: None,
            forgets: false,
        };
        let mut world = Self::new(settings, random);
        world.calm(LEASE_MS + 3 * BEAT_MS, random)?;
        for _ in 0..200 {
            world.step(random.bits())?;
        }
        world.settle()?;
        world.coverage = super::Coverage::default();
        Ok(world)
    }

    /// All requests arrive, and all answers. Who may be told is told.
    fn deliver(&mut self, random: &mut Random) {
        for _ in 0..10 {
            for index in 0..self.machines.len() {
                for shard in 0..self.shards.len() {
                    for _ in 0..10 {
                        self.apply_next(index, shard);
                        self.answer_next(index, shard);
                    }
                }
                self.tell_one(index, random);
                self.close_one(index, random);
            }
        }
    }

    fn is_told(&self, wanted: SessionId) -> bool {
        self.told().iter().any(|(_, session)| *session == wanted)
    }

    /// The sessions that are told that they are in, with the shards of their users.
    fn told(&self) -> BTreeSet<(usize, SessionId)> {
        self.told_clients()
            .map(|(session, client)| (usize::from(client.bucket) % self.shards.len(), *session))
            .collect()
    }
}

fn limit_of_one() -> AdmissionPolicy {
    AdmissionPolicy::new(SlotLimit::new(1).expect("it is small"))
}

/// A store forgets, once or several times. That ends no session, and the records equal the sockets again.
///
/// # Errors
/// What does not hold.
pub fn store_forgets(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::quiet(&mut random)?;
    let told = world.told();
    world.shards.iter_mut().for_each(|shard| {
        if random.one_in(2) {
            shard.replicate()
        }
    });
    for _ in 0..3 {
        let shard = random.index(world.shards.len());
        match random.below(4) {
            0 => world.shards[shard].fail_over(),
            1 => world.shards[shard].restart_empty(),
            2 => world.shards[shard].restart_saved(),
            _ => world.shards[shard].flush(),
        }
        world.break_connections(shard);
        world.calm(random.below(LEASE_MS), &mut random)?;
    }
    world.settle()?;
    let fenced = world.coverage.has_seen(|event| matches!(event, Event::Fenced(_)));
    if fenced || world.told() != told {
        return Err(format!("ended: {:?} were in, now {:?} are", told, world.told()));
    }
    Ok(told.len())
}

/// Nobody reaches one shard, for longer than the fence. That ends the sessions of its users, and no other.
///
/// # Errors
/// What does not hold.
pub fn shard_is_unreachable(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::quiet(&mut random)?;
    let told = world.told();
    let shard = random.index(world.shards.len());
    let until = world.now + 2 * FENCE_MS;
    world.machines.iter_mut().for_each(|machine| machine.unreachable_until[shard] = until);
    world.calm(2 * FENCE_MS, &mut random)?;
    let others: BTreeSet<_> = told.iter().copied().filter(|(of, _)| *of != shard).collect();
    if world.told() != others {
        return Err(format!("ended: {:?} were in, now {:?} are; shard {shard} is unreachable", told, world.told()));
    }
    world.settle()?;
    if world.told() != others {
        return Err("ended: sessions of another shard, later".to_owned());
    }
    Ok(told.len() - others.len())
}

/// Nobody reaches any store, but for less than the fence. That ends no session.
///
/// # Errors
/// What does not hold.
pub fn stores_are_unreachable_for_a_while(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::quiet(&mut random)?;
    let told = world.told();
    // The last beat before it may be as old as the pause between two, and the first after it waits for the time limit of a call.
    let until = world.now + FENCE_MS - 2 * BEAT_MS - super::world::CALL_MS;
    for machine in &mut world.machines {
        machine.unreachable_until.fill(until);
    }
    world.settle()?;
    if world.told() != told {
        return Err(format!("ended: {:?} were in, now {:?} are", told, world.told()));
    }
    Ok(told.len())
}

/// A client is lost, with its server or without, and finds its slot at another node.
///
/// # Errors
/// What does not hold.
pub fn lost_client_resumes_elsewhere(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let linger = Duration::from_millis(10 * LEASE_MS);
    let mut world = World::small(AdmissionPolicy { linger, lingering_first: false, ..limit_of_one() }, &mut random)?;
    let (bucket, user) = world.users[random.index(world.users.len())].clone();
    let key = ResumeToken::new([7; 32]).key();
    let options = AcquireOptions { new_resume_key: Some(key), ..AcquireOptions::default() };
    let lost = world.connect(0, bucket, user.clone(), Some(options)).ok_or("no process")?;
    world.deliver(&mut random);
    if !world.is_told(lost) {
        return Err("stuck: the first client is not in".to_owned());
    }
    if random.one_in(2) {
        world.leave(0, lost, true);
    } else {
        world.machines[0].process = None;
        world.calm(2 * LEASE_MS, &mut random)?;
    }
    world.deliver(&mut random);
    let other = world.connect(1, bucket, user.clone(), None).ok_or("no process")?;
    world.deliver(&mut random);
    if world.is_told(other) {
        return Err("lost: the slot does not linger".to_owned());
    }
    let options = AcquireOptions { resume: Some(key), must_resume: true, ..AcquireOptions::default() };
    let back = world.connect(1, bucket, user, Some(options)).ok_or("no process")?;
    world.deliver(&mut random);
    if world.is_told(back) { Ok(1) } else { Err("lost: the slot is not resumed".to_owned()) }
}

/// A slot is given back, and the node of the first in line is told so at once.
///
/// # Errors
/// What does not hold.
pub fn released_slot_calls_the_first_in_line(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::small(AdmissionPolicy { max_waiting: 4, ..limit_of_one() }, &mut random)?;
    let (bucket, user) = world.users[random.index(world.users.len())].clone();
    let holder = world.connect(0, bucket, user.clone(), None).ok_or("no process")?;
    world.deliver(&mut random);
    let options = AcquireOptions { waits: true, ..AcquireOptions::default() };
    let waiting = world.connect(random.index(2), bucket, user, Some(options)).ok_or("no process")?;
    world.deliver(&mut random);
    world.published.clear();
    world.leave(0, holder, false);
    world.deliver(&mut random);
    let hint = SessionHint { session: waiting, hint: Hint::Turn };
    let is_called = world.published.contains(&Published::Session(hint));
    if is_called { Ok(1) } else { Err(format!("lost: {waiting} is not called, only {:?}", world.published)) }
}

impl World {
    /// The sessions that have entries.
    fn held(&self) -> BTreeSet<SessionId> {
        let buckets = self.shards.iter().flat_map(|shard| shard.primary.values());
        let records = buckets.flat_map(|keys| keys.users().map(|user| keys.record(user)));
        records.flat_map(|record| record.sessions().iter().map(|entry| entry.session).collect::<Vec<_>>()).collect()
    }

    /// Whether a client of this user that connects to the machine now is in soon after.
    fn admits(&mut self, index: usize, (bucket, user): (u16, UserId), random: &mut Random) -> Result<bool, String> {
        let session = self.connect(index, bucket, user, None).ok_or("no process")?;
        self.deliver(random);
        Ok(self.is_told(session))
    }

    /// Whether operators were told this of a change.
    fn has_told(&self, outcome: Event) -> bool {
        self.coverage.has_seen(|event| event == outcome)
    }
}

/// A limit that an operator was told is in force holds at every node at once.
///
/// # Errors
/// What does not hold.
pub fn override_is_in_force_at_once(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::small(limit_of_one(), &mut random)?;
    let user = world.users[random.index(world.users.len())].clone();
    for limit in [0, 2] {
        world.set_limit(0, user.0, &user.1, Some(limit));
        world.coverage = super::Coverage::default();
        // No beat gets in between.
        for _ in 0..4 {
            (0..2).for_each(|_| world.apply_next(0, 0));
            (0..2).for_each(|_| world.answer_next(0, 0));
        }
        if !world.has_told(Event::OverridesSet) {
            return Err("stuck: the operator is told nothing".to_owned());
        }
        for number in 0..3 {
            if world.admits(1, user.clone(), &mut random)? != (number < limit) {
                return Err(format!("override: client {number} of {limit}"));
            }
        }
    }
    Ok(1)
}

/// A store loses everything, and perhaps the operator's node is killed. The limits that were set are in force again.
///
/// # Errors
/// What does not hold.
pub fn override_outlasts_the_store(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::small(limit_of_one(), &mut random)?;
    let user = world.users[random.index(world.users.len())].clone();
    world.set_limit(0, user.0, &user.1, Some(0));
    world.calm(2 * BEAT_MS, &mut random)?;
    if !world.has_told(Event::OverridesSet) {
        return Err("stuck: the operator is told nothing".to_owned());
    }
    if random.one_in(2) {
        world.machines[0].process = None;
    }
    if random.one_in(2) {
        world.shards[0].restart_empty();
        world.break_connections(0);
    } else {
        world.shards[0].flush();
    }
    world.calm(4 * LEASE_MS, &mut random)?;
    if world.admits(1, user, &mut random)? { Err("override: it is forgotten".to_owned()) } else { Ok(1) }
}

/// A replica that has everything takes over. What was acknowledged is as it was.
///
/// # Errors
/// What does not hold.
pub fn failover_without_loss_undoes_nothing(seed: u64) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::quiet(&mut random)?;
    let users = world.users.clone();
    for (bucket, user) in &users {
        world.set_limit(random.index(3), *bucket, user, Some(u32::try_from(random.below(3)).unwrap_or_default()));
    }
    for index in 0..3 {
        world.leave_one(index, &mut random);
    }
    world.settle()?;
    let limits = |world: &World| {
        let limit = |(bucket, user): &(u16, UserId)| {
            world.shards[usize::from(*bucket) % 2].primary.get(bucket).map(|keys| keys.overrides(user))
        };
        world.users.iter().map(limit).collect::<Vec<_>>()
    };
    let before = (world.held(), world.told(), limits(&world));
    for shard in 0..2 {
        world.shards[shard].replicate();
        world.shards[shard].fail_over();
        world.break_connections(shard);
    }
    world.settle()?;
    let after = (world.held(), world.told(), limits(&world));
    if before == after { Ok(before.0.len()) } else { Err(format!("undone: {before:?} became {after:?}")) }
}
