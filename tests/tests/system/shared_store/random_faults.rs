//! Many faults at random times, while clients come and go. `SHARED_STORE_SEED` is the first seed, and `SHARED_STORE_RUNS` the
//! number of runs; each takes half a minute.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use tests::fleet::FleetOptions;
use tests::random::Random;
use tests::redis_process::{NOTHING_KEPT, RestartWith};

use super::{SECOND, Scene};

pub(super) fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn faults_at_random_keep_the_limit() {
    let first = number("SHARED_STORE_SEED", 1);
    for seed in first..first + number("SHARED_STORE_RUNS", 1) {
        let mut random = Random::new(seed);
        let when_full = if random.one_in(2) { "deny" } else { "evict-oldest" };
        let options = FleetOptions {
            proxies: true,
            redis: [&NOTHING_KEPT[..], &["--enable-debug-command", "yes"]].concat(),
            ..FleetOptions::new(&["--when-full", when_full])
        };
        let Some(mut scene) = Scene::start(seed, options) else { return };
        scene.crowd.remark(&format!("SHARED_STORE_SEED={seed}, when full: {when_full}"));
        scene.crowd.come_and_go();
        let start = Instant::now();
        while start.elapsed() < SECOND * 8 {
            thread::sleep(Duration::from_millis(random.below(1500)));
            fault(&mut scene, &mut random);
            scene.crowd.expect_no_offence();
        }
        (0..3).for_each(|server| scene.fleet.proxy(server).pass());
        scene.visits(SECOND * 2);
        scene.finish();
    }
}

fn fault(scene: &mut Scene, random: &mut Random) {
    let server = random.index(3);
    let moment = Duration::from_millis(random.below(1500));
    match random.below(10) {
        0 => {
            scene.kill(server);
            thread::sleep(moment);
            scene.start_again(server);
        }
        1 => {
            scene.pause(server);
            // Longer than the fence: so it must close its clients first of all.
            thread::sleep(scene.options.fence + moment);
            scene.resume(server);
        }
        2 => {
            scene.crowd.remark(&format!("server {server} is told to end"));
            scene.fleet.stop_server(server);
            scene.crowd.set_addresses(scene.fleet.addresses());
            scene.start_again(server);
        }
        3 => drop(scene.fault("restart without data", |fleet| fleet.redis.restart(RestartWith::NoData))),
        4 => drop(scene.fault("FLUSHALL", |fleet| fleet.redis.command(&["FLUSHALL"]))),
        5 => scene.fault("the Redis is stopped", |fleet| {
            fleet.redis.pause();
            thread::sleep(moment * 2);
            fleet.redis.resume();
        }),
        6 => scene.fault(&format!("server {server} has no cable"), |fleet| {
            fleet.proxy(server).black_hole();
            thread::sleep(moment * 3);
            fleet.proxy(server).pass();
        }),
        7 => scene.fault(&format!("server {server} is cut off for a moment"), |fleet| {
            fleet.proxy(server).cut();
            fleet.proxy(server).pass();
        }),
        8 => drop(scene.fault("CLIENT KILL", |fleet| fleet.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]))),
        _ => drop(scene.fault("SCRIPT FLUSH", |fleet| fleet.redis.command(&["SCRIPT", "FLUSH"]))),
    }
}
