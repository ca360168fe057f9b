//! Load in several threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use shell::client::Error;
use tests::test_process::TestProcess;
use tests::waiting::TIMEOUT;

use super::random::*;

/// Runs the steps of all groups in parallel and kills the server at a random moment. Returns the number of steps until
/// then.
pub(super) fn load_and_kill<C: Send>(
    server: &mut TestProcess,
    groups: Vec<C>,
    random: &mut Random,
    step: impl Fn(&mut C) -> Result<(), Error> + Sync,
) -> usize {
    const MOST: usize = 100_000;
    let (target, pause) = (1 + random.below(300), Duration::from_micros(random.below(1000)));
    let (killed, steps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (reach, reached) = mpsc::channel();
    let work = |mut group: C| {
        for _ in 0..MOST {
            match step(&mut group) {
                Ok(()) if steps.fetch_add(1, Ordering::SeqCst) as u64 == target => reach.send(()).unwrap(),
                Ok(()) => {}
                Err(error) => {
                    assert!(killed.load(Ordering::SeqCst), "before the kill: {error}");
                    return;
                }
            }
        }
        panic!("still served after {MOST} steps");
    };
    thread::scope(|scope| {
        for group in groups {
            scope.spawn(|| work(group));
        }
        let reached = reached.recv_timeout(TIMEOUT);
        // Not at the end of a step, but during the next ones.
        let moment = Instant::now() + pause;
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        killed.store(true, Ordering::SeqCst);
        server.kill();
        reached.expect("so many steps are taken in time");
    });
    steps.into_inner()
}

pub(super) fn in_parallel<T: Send>(items: Vec<T>, work: impl Fn(&mut T) + Sync) -> Vec<T> {
    let work = &work;
    let each = |mut item: T| {
        work(&mut item);
        item
    };
    thread::scope(|scope| {
        let running: Vec<_> = items.into_iter().map(|item| scope.spawn(move || each(item))).collect();
        running.into_iter().map(|thread| thread.join().expect("no check fails")).collect()
    })
}
