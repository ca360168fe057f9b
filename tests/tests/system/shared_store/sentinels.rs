//! A primary with two replicas, and Sentinels: another one takes over, nobody loses a session, and nobody too many is admitted.

use std::thread;
use std::time::Duration;

use tests::fleet::{Fleet, FleetOptions};
use tests::redis_process::{RedisProcess, RestartWith};
use tests::redis_sentinels::RedisSentinels;

use super::{SECOND, Scene, Turn, USERS, measured};

/// A fence longer than the failover.
fn options() -> FleetOptions {
    FleetOptions { fence: SECOND * 6, lease: SECOND * 7, ..FleetOptions::new(&["--when-full", "evict-oldest"]) }
}

/// How many bytes of its history a server has.
fn offset(server: &RedisProcess) -> u64 {
    server.info("replication", "master_repl_offset").parse().unwrap()
}

/// The fault makes another server the primary.
fn outlasts(seed: u64, options: FleetOptions, what: &str, fault: impl FnOnce(&mut Fleet<RedisSentinels>)) {
    let Some(_turn) = Turn::take() else { return };
    let mut scene = Scene::start_on(seed, options, RedisSentinels::start(2), &USERS);
    let held = [0, 1].map(|server| scene.crowd.connect_until_in(server, "kim", SECOND * 2));
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    let start = super::Instant::now();
    scene.fault(what, fault);
    let primary = scene.fleet.redis.wait_for_primary_other_than(0);
    measured(&format!("{what}: the Sentinels named another primary after"), start.elapsed());
    // As long as a server may not have asked.
    thread::sleep(scene.options.beat * 3);
    let took = scene.first_admission("zoe", scene.options.lease + SECOND * 8);
    measured(&format!("{what}: the first client was admitted after another"), took);
    assert!(took > scene.options.lease / 2, "not all servers of this fleet have gone to the other one: {took:?}");
    scene.crowd.expect_alive(&held);
    scene.expect_all_admit("pat", SECOND * 2);
    assert!(scene.fleet.redis.servers[primary].is_primary());
    scene.visits(SECOND * 2);
    scene.finish();
}

/// Kills the primary. What was written in the last 600 ms before is on no replica.
fn kill_primary(fleet: &mut Fleet<RedisSentinels>) {
    let (primary, replicas) = fleet.redis.servers.split_first_mut().unwrap();
    replicas.iter().for_each(RedisProcess::pause);
    // What is under way to them would arrive.
    primary.command(&["CLIENT", "KILL", "TYPE", "replica"]);
    thread::sleep(Duration::from_millis(600));
    let written = offset(primary);
    primary.kill();
    replicas.iter().for_each(RedisProcess::resume);
    for replica in replicas {
        let has = offset(replica);
        assert!(has < written, "the replica has {has} bytes of {written}");
    }
}

#[test]
fn sessions_outlast_a_failover_that_loses_writes() {
    outlasts(201, options(), "kill -9 of a primary whose replicas lag", kill_primary);
}

/// Nothing that a client was told is lost. The other replica has to follow the new primary before anybody is admitted.
#[test]
fn sessions_outlast_a_failover_that_may_lose_nothing() {
    let mut options = FleetOptions { fence: SECOND * 8, lease: SECOND * 9, ..options() };
    options.arguments.extend(["--redis-replicas", "1", "--redis-wait"]);
    outlasts(205, options, "kill -9 of a primary that had to wait for a replica", kill_primary);
}

/// The former primary takes writes until the Sentinels make it a replica, some 10 s later.
#[test]
fn sessions_outlast_a_failover_by_hand() {
    outlasts(202, options(), "SENTINEL FAILOVER", |fleet| {
        fleet.redis.sentinels[0].command(&["SENTINEL", "FAILOVER", tests::redis_sentinels::NAME]);
    });
}

/// A Sentinel that is down does not matter.
#[test]
fn one_sentinel_is_enough() {
    let Some(_turn) = Turn::take() else { return };
    let mut redis = RedisSentinels::start(0);
    redis.sentinels[0].kill();
    redis.sentinels[1].pause();
    let mut scene = Scene::start_on(204, FleetOptions::new(&[]), redis, &USERS);
    scene.fleet.redis.sentinels[0].start_again(RestartWith::NoData);
    scene.visits(SECOND);
    scene.finish();
}
