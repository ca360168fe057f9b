//! The real time that one beat costs a bucket, its answer included, beside sessions that do nothing.

use divan::Bencher;
use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, SlotLimit};

use crate::world::{SECOND, World};

/// How many users have one session each in the bucket, on one node.
#[divan::bench(args = [0, 100, 1_000, 10_000], sample_count = 20, sample_size = 1)]
fn idle_sessions(bencher: Bencher<'_, '_>, users: u32) {
    let policy = AdmissionPolicy::new(SlotLimit::new(3).expect("it is below the ceiling"));
    let mut world = World::new(1, 1, 1, policy);
    world.run_until_open();
    for number in 0..users {
        world.sign_in(0, &UserId::parse(&format!("user-{number:08}")).expect("it is valid"), 0);
        world.run_for(1);
    }
    world.run_for(10 * SECOND);
    // One beat every two seconds.
    bencher.bench_local(move || world.run_for(2 * SECOND));
}

/// How many nodes the bucket has.
#[divan::bench(args = [1, 10, 100, 1_000], sample_count = 20, sample_size = 1)]
fn all_of_nodes(bencher: Bencher<'_, '_>, nodes: usize) {
    let policy = AdmissionPolicy::new(SlotLimit::new(3).expect("it is below the ceiling"));
    let mut world = World::new(nodes, 1, 1, policy);
    world.run_until_open();
    world.run_for(10 * SECOND);
    bencher.bench_local(move || world.run_for(2 * SECOND));
}
