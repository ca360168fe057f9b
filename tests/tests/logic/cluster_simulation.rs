//! Random histories of a cluster whose stores, nodes and connections fail.
//!
//! `CLUSTER_SEEDS=1000000 cargo test -p tests --release --test logic cluster` runs as many, and prints what they met.
//! `CLUSTER_SEED=7` runs one. A history that breaks a rule is made as short as it gets, and printed.

#![allow(clippy::print_stdout, reason = "it prints what many histories met")]

use std::env;
use std::thread;

use tests::cluster_simulation::{History, Summary, Violation};
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

/// The committed seeds of the fuzz target.
#[test]
fn fuzz_seeds_pass() {
    let mut all = Summary::default();
    for seed in fuzz_seeds("cluster") {
        let history = History::from_bytes(&seed);
        let coverage = history.run().unwrap_or_else(|violation| panic!("{}: {:?}", violation.what, violation.history));
        all.add(&coverage);
    }
    let missing: Vec<_> =
        all.missing().into_iter().filter(|what| !what.contains(" with ") && !RARE.contains(&what.as_str())).collect();
    assert_eq!(missing, [""; 0], "what the seeds do not meet");
}
