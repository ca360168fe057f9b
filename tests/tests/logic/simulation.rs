//! Seeds of the simulation.
//!
//! ```text
//! cargo test --test logic many_seeds                                   a few hundred seeds
//! SIM_SEEDS=1000000 cargo test --release --test logic many_seeds -- --nocapture     as many as asked for
//! SIM_SEED=17 cargo test --test logic many_seeds -- --nocapture        one, with its trace
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "progress, and what was found")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use session_core::ledger::{AdmissionPolicy, SlotLimit, WhenFull};
use tests::simulation::{Op, Scenario, StoreFault};
use tests::values::fuzz_seeds;

/// A few seconds. What must happen has happened after 200. `.ci/run` searches on, optimised, with the fuzz target `simulation`.
const SEEDS: u64 = 500;

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// The counts and times over all seeds.
#[derive(Default)]
struct Totals {
    counts: BTreeMap<&'static str, u64>,
    reclaimed: BTreeMap<&'static str, Duration>,
}

#[test]
fn simulation_of_many_seeds() {
    if let Some(seed) = number_from_environment("SIM_SEED") {
        return replay(seed);
    }
    let (seeds, first) =
        (number_from_environment("SIM_SEEDS").unwrap_or(SEEDS), number_from_environment("SIM_FIRST").unwrap_or(0));
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let (totals, failure) = (Mutex::new(Totals::default()), Mutex::new(None));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    match quietly(|| Scenario::from_seed(seed).run(false)) {
                        Ok(trace) => {
                            let mut totals = totals.lock().unwrap();
                            for (what, count) in trace.counts {
                                *totals.counts.entry(what).or_default() += count;
                            }
                            for (what, took) in trace.reclaimed {
                                let longest = totals.reclaimed.entry(what).or_default();
                                *longest = took.max(*longest);
                            }
                        }
                        Err(why) => {
                            failed.store(true, Ordering::Relaxed);
                            failure.lock().unwrap().get_or_insert((seed, why));
                        }
                    }
                    let done = seed + 1 - first;
                    if done.is_multiple_of(10_000) {
                        println!("{done} of {seeds} seeds, {:.0} a second", rate(done, start));
                    }
                }
            });
        }
    });
    if let Some((seed, why)) = failure.into_inner().unwrap() {
        report(seed, &why);
    }
    let Totals { counts, reclaimed } = totals.into_inner().unwrap();
    println!("{seeds} seeds in {:.1?}, {:.0} a second", start.elapsed(), rate(seeds, start));
    println!("what happened: {counts:#?}");
    println!("the longest that it took to come back, of virtual time: {reclaimed:#?}");
    if seeds >= SEEDS {
        for what in MUST_HAPPEN {
            assert!(counts.contains_key(what), "in {seeds} seeds there was never: {what}");
        }
    }
}

/// Every run must reach these. Otherwise the simulation finds nothing.
const MUST_HAPPEN: [&str; 69] = [
    "token",
    "fresh token",
    "wall clock set",
    "renewed",
    "Token has expired",
    "kill",
    "start",
    "pause",
    "resume",
    "drain",
    "clock rate",
    "clock jump",
    "storm",
    "lost socket",
    "violation",
    "fall silent",
    "stop reading",
    "store full or not",
    "late answers",
    "applied, answered late",
    "applied, answered unknown",
    "rejected",
    "dropped, answered unknown",
    "dropped, answered late",
    "answered unknown, applied late",
    "dropped, told as if applied",
    "begun, applied later",
    "withdrawn before it was applied",
    "granted",
    "denied",
    "BYE_SUCCESS",
    "counted",
    "Server is shutting down",
    "Peer was silent for too long",
    "Not authenticated in time",
    // And at the limit.
    "limit set",
    "limit enforced",
    "granted in detail",
    "denied in detail",
    "listed",
    "ended another",
    "EVICTED",
    "a session ended",
    "ended while its release was under way",
    "ended while its grant was long in coming",
    "ended by a lower limit",
    "chosen by two",
    "resumed",
    "resumed from a live session",
    "resumed from a killed server",
    "resumed in its last second",
    "resumed after a crash",
    "a token of a slot that is gone",
    "granted beside a slot that lingers",
    "denied a slot that was just lost",
    "cut, not told",
    "pause while served",
    // And in line.
    "waits in line",
    "place or list changed",
    "granted after a wait",
    "wait over",
    "line full",
    "left the line",
    "denied after it waited",
    "hint lost",
    "hint passed on",
    "watch",
    "sessions changed",
    "nobody waits beside a free slot",
];

#[test]
fn simulation_of_one_seed_is_the_same_every_time() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| Scenario::from_seed(seed).run(true).unwrap().lines.unwrap());
        assert!(first.len() > 1000, "a trace of {} bytes", first.len());
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Failed once: a token expired while the server verified a user id of its client.
#[test]
fn simulation_of_a_name_after_a_token() {
    let ops = vec![
        Op::ConnectWithToken { server: 0, user: 0, limit: 1, seconds: 3 },
        Op::Work { commands: 1 },
        Op::Authenticate { client: 0, user: 0 },
        Op::Pass { millis: 4000 },
    ];
    Scenario { policy: AdmissionPolicy::new(SlotLimit::default()), ops }.run(false).unwrap();
}

/// The commit of a resume fails. The old session is notified, although the resume had no effect.
#[test]
fn simulation_of_a_resume_in_doubt() {
    let connect = |resume| Op::ConnectWithObject { server: 0, user: 0, device: None, evict: 0, resume };
    let ops = vec![
        connect(None),
        Op::Work { commands: 1 },
        connect(Some(0)),
        Op::Store { which: 0, fault: StoreFault::Doubt },
        Op::Work { commands: 9 },
        connect(Some(0)),
        Op::Work { commands: 1 },
    ];
    let policy = AdmissionPolicy { linger: Duration::from_secs(20), ..AdmissionPolicy::new(SlotLimit::default()) };
    let output =
        |trace: &str| trace.lines().filter(|line| line.contains("hears Reply(AuthenticateSuccessDetailed")).count();
    let trace = Scenario { policy, ops }.run(true).unwrap().lines.unwrap();
    let before_the_end = trace.split("the faults end").next().unwrap();
    assert_eq!(output(before_the_end), 2, "{before_the_end}");
    assert!(before_the_end.contains("resume: Resumed"), "{before_the_end}");
}

/// Clients come back to a slow store. Each is refused, and none of them may evict the session that lives.
#[test]
fn simulation_of_newcomers_to_a_slow_store() {
    let connect = Op::Connect { server: 0, user: 0 };
    let mut ops = vec![connect.clone(), Op::Work { commands: 1 }];
    for server in 0..6 {
        ops.extend([Op::Connect { server, user: 0 }, Op::Pass { millis: 6000 }]);
    }
    ops.extend([Op::Work { commands: 20 }, Op::Check { client: 0 }, Op::Work { commands: 1 }]);
    let limit = SlotLimit::new(1).unwrap();
    let policy = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..AdmissionPolicy::new(limit) };
    let trace = Scenario { policy, ops }.run(true).unwrap().lines.unwrap();
    let before_the_end = trace.split("the faults end").next().unwrap();
    assert_eq!(before_the_end.matches("Withdrawn").count(), 6, "{before_the_end}");
    assert!(
        !before_the_end.contains("EVICTED") && before_the_end.contains("CheckConnectionsSuccess"),
        "{before_the_end}"
    );
}

/// The committed seeds of the fuzz target.
#[test]
fn simulation_of_the_fuzzers_seeds() {
    for seed in fuzz_seeds("simulation") {
        let scenario: Scenario = Unstructured::new(&seed).arbitrary().unwrap();
        scenario.run(false).unwrap();
    }
}

fn rate(seeds: u64, since: Instant) -> f64 {
    f64::from(u32::try_from(seeds).unwrap_or(u32::MAX)) / since.elapsed().as_secs_f64()
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Suppresses the panic output of failing checks, which are reported at the end. Panics of other threads are printed
/// as always.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                hook(info);
            }
        }));
    });
    let was_quiet = IS_QUIET.replace(true);
    let result = work();
    IS_QUIET.set(was_quiet);
    result
}

fn report(seed: u64, why: &str) {
    let small = quietly(|| Scenario::from_seed(seed).minimised());
    let still = quietly(|| small.run(false)).unwrap_err();
    println!("seed {seed} fails: {why}");
    println!("a scenario of {} operations does, too: {still}", small.ops.len());
    println!("{:?}, {:#?}", small.policy, small.ops);
    println!("to replay: SIM_SEED={seed} cargo test --test logic many_seeds -- --nocapture");
    panic!("seed {seed}: {why}");
}

fn replay(seed: u64) {
    match quietly(|| Scenario::from_seed(seed).run(false)) {
        Ok(_) => println!("{}", Scenario::from_seed(seed).run(true).unwrap().lines.unwrap()),
        Err(why) => report(seed, &why),
    }
}
