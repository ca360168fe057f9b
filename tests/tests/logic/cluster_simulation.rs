//! Random histories of a cluster whose stores, nodes and connections fail.
//!
//! `CLUSTER_SEEDS=1000000 cargo test -p tests --release --test logic cluster` runs as many, and prints what they met.
//! `CLUSTER_SEED=7` runs one. A history that breaks a rule is made as short as it gets, and printed.

#![allow(clippy::print_stdout, reason = "it prints what many histories met")]

use std::env;
use std::thread;

use tests::cluster_simulation::{
    History, Summary, Violation, failover_without_loss_undoes_nothing, lost_client_resumes_elsewhere,
    override_is_in_force_at_once, override_outlasts_the_store, released_slot_calls_the_first_in_line,
    shard_is_unreachable, store_forgets, stores_are_unreachable_for_a_while,
};
use tests::values::fuzz_seeds;

/// What few histories meet: a node that is buried has nearly always fenced before.
const RARE: [&str; 2] = ["Fenced(Buried)", "NotConfirmed"];

/// The number of a variable of the environment.
fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn fail(seed: u64, violation: Violation) -> ! {
    let before = violation.history.steps.len();
    let Violation { what, history } = violation.minimised();
    history.print().expect_err("it breaks a rule each time");
    panic!("seed {seed}: {what}, after {} of {before} steps: {history:?}", history.steps.len());
}

#[test]
fn limit_holds_and_slots_come_back_whatever_fails() {
    let (first, count) = match (number("CLUSTER_SEED"), number("CLUSTER_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (0, count.unwrap_or(1000)),
    };
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let one = |thread: u64| {
        let mut summary = Summary::default();
        for seed in (first..first + count).filter(|seed| seed % threads == thread) {
            match History::of(seed).run() {
                Ok(coverage) => summary.add(&coverage),
                Err(violation) => fail(seed, violation),
            }
        }
        summary
    };
    let summaries: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("a history broke a rule")).collect()
    });
    let mut all = Summary::default();
    summaries.into_iter().for_each(|summary| all.merge(summary));
    if count > 1000 {
        println!("{}", all.table());
    }
    if count >= 1000 {
        let missing: Vec<_> = all.missing().into_iter().filter(|event| !RARE.contains(&event.as_str())).collect();
        assert_eq!(missing, [""; 0], "not met in {count} histories");
    }
}

/// Runs a scenario with many seeds. Each says how many sessions it was about.
fn run(scenario: fn(u64) -> Result<usize, String>) {
    let sessions: usize = (0..20).map(|seed| scenario(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"))).sum();
    assert!(sessions >= 20, "only {sessions} sessions were there");
}

#[test]
fn store_that_forgets_ends_no_session() {
    run(store_forgets);
}

#[test]
fn unreachable_shard_ends_its_own_sessions_alone() {
    run(shard_is_unreachable);
}

#[test]
fn outage_shorter_than_the_fence_ends_no_session() {
    run(stores_are_unreachable_for_a_while);
}

#[test]
fn lost_client_finds_its_slot_at_another_node() {
    run(lost_client_resumes_elsewhere);
}

#[test]
fn released_slot_goes_to_the_line_of_another_node() {
    run(released_slot_calls_the_first_in_line);
}

#[test]
fn override_holds_at_every_node_once_the_operator_is_told() {
    run(override_is_in_force_at_once);
}

#[test]
fn override_outlasts_a_store_that_loses_everything() {
    run(override_outlasts_the_store);
}

#[test]
fn failover_that_loses_nothing_undoes_nothing() {
    run(failover_without_loss_undoes_nothing);
}

/// The committed seeds of the fuzz target. They met all events but [`RARE`] when they were chosen. What a seed means changes with the
/// simulation, so some may be missing.
#[test]
fn fuzz_seeds_pass() {
    let mut all = Summary::default();
    for seed in fuzz_seeds("cluster") {
        let history = History::from_bytes(&seed);
        let coverage = history.run().unwrap_or_else(|violation| panic!("{}: {:?}", violation.what, violation.history));
        all.add(&coverage);
    }
    let missing: Vec<_> = all.missing().into_iter().filter(|what| !what.contains(" with ")).collect();
    assert!(missing.len() <= 10, "choose other seeds, these do not meet {missing:?}");
}
