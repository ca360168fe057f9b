//! Histories with one kind of trouble, and what it must not do.

use std::collections::BTreeSet;

use session_core::SessionId;
use session_core::ledger::{AdmissionPolicy, SlotLimit};

use super::coverage::Event;
use super::machine::ClientState;
use super::world::{BEAT_MS, FENCE_MS, LEASE_MS, World, WorldSettings};
use crate::random::Random;

impl World {
    /// Three machines, two shards and four buckets, on which clients have signed in. Nothing has failed.
    fn quiet(random: &mut Random) -> Result<Self, String> {
        let settings = WorldSettings {
            machines: 3,
            shards: 2,
            buckets: 4,
            users: 2,
            policy: AdmissionPolicy::new(SlotLimit::new(2).expect("it is small")),
            faults: false,
            splits: false,
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

    /// The sessions that are told that they are in, with the shards of their users.
    fn told(&self) -> BTreeSet<(usize, SessionId)> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let clients = processes.flat_map(|process| &process.clients);
        let told = clients.filter(|(_, client)| client.state == ClientState::Told);
        told.map(|(session, client)| (usize::from(client.bucket) % self.shards.len(), *session)).collect()
    }
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
