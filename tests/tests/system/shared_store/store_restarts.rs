//! A Redis that forgets, and one that restarts: nobody is admitted for a lease, and nobody loses a session.

use std::thread;
use std::time::{Duration, Instant};

use tests::fleet::{Fleet, FleetOptions};
use tests::raw_client::Received;
use tests::redis_process::{ALL_KEPT, RestartWith};
use tests::referee::Status;

use super::{SECOND, Scene, measured};
use crate::admin_commands::report;

/// Longer times than usual, so that a restart takes less than what sessions outlast.
fn options() -> FleetOptions {
    FleetOptions { fence: SECOND * 3, lease: SECOND * 4, ..FleetOptions::new(&[]) }
}

/// The fault returns how long the Redis did not answer.
fn forgets(seed: u64, options: FleetOptions, what: &str, fault: impl FnOnce(&mut Fleet) -> Duration) {
    let Some(mut scene) = Scene::start(seed, options) else { return };
    let lone = scene.crowd.connect_until_in(0, "kim", SECOND * 2);
    let held = [scene.visits(SECOND * 2), vec![lone]].concat();
    let down = scene.fault(what, fault);
    measured(&format!("{what}: the Redis was away for"), down);
    assert!(down < scene.options.tolerance(), "this machine is too slow for the times of this test");
    let lease = scene.options.lease;
    let took = scene.first_admission("zoe", lease + SECOND * 4);
    measured(&format!("{what}: the first client was admitted after"), took);
    // A server may have noticed the restart a moment before this test did.
    let earliest = lease.saturating_sub(SECOND / 5);
    assert!(took >= earliest, "a client was admitted {took:?} after the Redis had forgotten, before the gate may open");
    scene.crowd.expect_alive(&held);
    scene.expect_all_admit("pat", SECOND * 2);
    scene.visits(SECOND * 2);
    scene.finish();
}

#[test]
fn sessions_outlast_redis_restart_without_data() {
    forgets(21, options(), "restart without data", |fleet| fleet.redis.restart(RestartWith::NoData));
}

#[test]
fn sessions_outlast_redis_restart_with_data() {
    let options = FleetOptions { redis: ALL_KEPT.to_vec(), ..options() };
    forgets(22, options, "restart with data", |fleet| fleet.redis.restart(RestartWith::ItsData));
}

/// For longer than the Redis is away, it answers that it still reads its data.
#[test]
fn sessions_outlast_redis_that_reads_its_data() {
    let options = FleetOptions { fence: SECOND * 8, lease: SECOND * 9, ..options() };
    let Some(mut scene) = Scene::start(26, options) else { return };
    let held = [scene.visits(SECOND * 2), vec![scene.crowd.connect_until_in(0, "kim", SECOND * 2)]].concat();
    let start = Instant::now();
    scene.fault("a restart that takes long", |fleet| fleet.redis.restart_loading());
    while start.elapsed() < SECOND * 3 {
        for server in scene.running() {
            let newcomer = scene.crowd.connect(server, "zoe").unwrap();
            let answer = scene.crowd.answer(newcomer, SECOND * 4);
            assert!(matches!(answer, Status::Out(Received::Close(1013, _))), "{answer:?}");
        }
        thread::sleep(SECOND / 5);
    }
    assert!(scene.fleet.redis.is_loading());
    let problems = report(scene.fleet.data(0), &["status"])["store"]["problems"].to_string();
    assert!(problems.contains("still reading its data"), "{problems}");
    scene.fault("the rest is read at once", |fleet| fleet.redis.finish_loading());
    let tolerance = scene.options.tolerance();
    assert!(start.elapsed() < tolerance, "this machine is too slow for the times of this test");
    scene.first_admission("zoe", scene.options.lease + SECOND * 4);
    scene.crowd.expect_alive(&held);
    scene.expect_all_admit("pat", SECOND * 2);
    let log = scene.fleet.log(0);
    assert_eq!(log.matches("the shared store cannot be reached").count(), 1, "it has several connections: {log}");
    scene.visits(SECOND * 2);
    scene.finish();
}

#[test]
fn sessions_outlast_flushall() {
    forgets(23, options(), "FLUSHALL", |fleet| {
        fleet.redis.command(&["FLUSHALL"]);
        Duration::ZERO
    });
}

/// Other keys, and then the former ones again, as they were.
fn swapped(seed: u64, times: &str, pause: impl FnOnce(&FleetOptions) -> Duration) {
    let Some(mut scene) = Scene::start(seed, options()) else { return };
    let held = scene.fill(0, "kim");
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    let pause = pause(&scene.options);
    scene.fault(&format!("SWAPDB, and back {times}"), |fleet| {
        fleet.redis.command(&["SWAPDB", "0", "1"]);
        thread::sleep(pause);
        fleet.redis.command(&["SWAPDB", "0", "1"]);
    });
    thread::sleep(SECOND);
    scene.first_admission("zoe", scene.options.lease + SECOND * 4);
    scene.crowd.expect_alive(&held);
    scene.expect_all_admit("pat", SECOND * 2);
    scene.visits(SECOND * 2);
    scene.finish();
}

#[test]
fn sessions_outlast_other_keys_for_a_moment() {
    swapped(24, "after a beat", |options| options.beat * 2);
}

#[test]
fn sessions_outlast_other_keys_for_long() {
    swapped(25, "after the lease", |options| options.lease + SECOND * 2);
}
