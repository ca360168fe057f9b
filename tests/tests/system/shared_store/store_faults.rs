//! A Redis that does not answer for a time, or refuses.

use std::thread;
use std::time::Duration;

use tests::fleet::FleetOptions;
use tests::redis_process::{NOTHING_KEPT, RedisProcess};

use super::{SECOND, Scene, measured};

#[test]
fn sessions_outlast_a_short_stop_of_redis() {
    let Some(mut scene) = Scene::with_arguments(31, &[]) else { return };
    let held = scene.visits(SECOND * 2);
    scene.fault("the Redis is stopped for 300 ms", |fleet| {
        fleet.redis.pause();
        thread::sleep(Duration::from_millis(300));
        fleet.redis.resume();
    });
    thread::sleep(scene.options.fence);
    scene.crowd.expect_alive(&held);
    scene.expect_all_admit("pat", SECOND * 2);
    scene.visits(SECOND * 2);
    scene.finish();
}

#[test]
fn sessions_end_if_redis_stops_for_long() {
    let Some(mut scene) = Scene::with_arguments(32, &[]) else { return };
    let kim = scene.fill(0, "kim");
    let held = [scene.visits(SECOND * 2), kim].concat();
    let fence = scene.options.fence;
    scene.fault("the Redis is stopped", |fleet| fleet.redis.pause());
    // A session outlasts what is promised.
    thread::sleep(scene.options.tolerance() / 2);
    scene.crowd.expect_alive(&held);
    measured("all sessions were closed after half of the tolerance and", scene.expect_cut(&held, fence + SECOND));
    thread::sleep(scene.options.lease.saturating_sub(fence));
    scene.fault("the Redis goes on", |fleet| fleet.redis.resume());
    scene.expect_all_admit("pat", scene.options.mended_within());
    scene.visits(SECOND * 2);
    scene.finish();
}

/// Something that Redis does, or that is done to it, which lasts for less than the sessions outlast.
type Fault = (&'static str, fn(&RedisProcess));

fn run(redis: &RedisProcess, words: &str) {
    let words: Vec<_> = words.split(' ').collect();
    redis.command(&words);
}

const FAULTS: [Fault; 6] = [
    ("CLIENT KILL TYPE normal", |redis| run(redis, "CLIENT KILL TYPE normal")),
    ("CLIENT KILL TYPE pubsub", |redis| run(redis, "CLIENT KILL TYPE pubsub")),
    ("SCRIPT FLUSH", |redis| run(redis, "SCRIPT FLUSH")),
    ("DEBUG SLEEP 0.5", |redis| run(redis, "DEBUG SLEEP 0.5")),
    ("CLIENT PAUSE 500 ALL", |redis| {
        run(redis, "CLIENT PAUSE 500 ALL");
        thread::sleep(Duration::from_millis(500));
    }),
    ("no memory", |redis| {
        run(redis, "CONFIG SET maxmemory 1");
        thread::sleep(Duration::from_millis(300));
        run(redis, "CONFIG SET maxmemory 0");
    }),
];

fn outlasts(seed: u64, faults: &[Fault]) {
    let options = FleetOptions {
        // Half a second is less than what sessions outlast.
        fence: SECOND * 3,
        lease: SECOND * 4,
        redis: [&NOTHING_KEPT[..], &["--enable-debug-command", "yes"]].concat(),
        ..FleetOptions::new(&[])
    };
    let Some(mut scene) = Scene::start(seed, options) else { return };
    for (what, fault) in faults {
        let held = scene.visits(SECOND);
        scene.fault(what, |fleet| fault(&fleet.redis));
        scene.crowd.expect_alive(&held);
        scene.expect_all_admit("pat", SECOND * 3);
        scene.crowd.expect_alive(&held);
        // And while clients come and go.
        scene.crowd.come_and_go();
        scene.fault(what, |fleet| fault(&fleet.redis));
    }
    let held = scene.visits(SECOND / 2);
    thread::sleep(scene.options.fence);
    scene.crowd.expect_alive(&held);
    scene.finish();
}

#[test]
fn sessions_outlast_lost_connections_and_scripts() {
    outlasts(33, &FAULTS[..3]);
}

#[test]
fn sessions_outlast_a_slow_or_full_redis() {
    outlasts(34, &FAULTS[3..]);
}
