//! As `random_faults`, of a cluster with replicas and of a primary that Sentinels watch: failovers of all kinds at random times, some
//! of which lose writes, and servers that are killed. `SHARED_STORE_SEED` and `SHARED_STORE_RUNS` as there.

use std::thread;
use std::time::{Duration, Instant};

use tests::fleet::{FleetOptions, SharedStore};
use tests::random::Random;
use tests::redis_cluster::RedisCluster;
use tests::redis_process::{RedisProcess, RestartWith};
use tests::redis_sentinels::{NAME, RedisSentinels};

use super::random_faults::number;
use super::{SECOND, Scene, Turn, USERS};

/// Faults of a store.
type Fault<R> = fn(&mut Scene<R>, &mut Random);

fn run<R: SharedStore>(start: fn() -> R, users: &[&str], fault: Fault<R>, mend: fn(&mut R)) {
    let Some(_turn) = Turn::take() else { return };
    let first = number("SHARED_STORE_SEED", 1);
    for seed in first..first + number("SHARED_STORE_RUNS", 1) {
        let mut random = Random::new(seed);
        let when_full = if random.one_in(2) { "deny" } else { "evict-oldest" };
        // Short enough that there are grants between the faults, and longer than the Sentinels may disagree: 2 s.
        let options =
            FleetOptions { fence: SECOND * 3, lease: SECOND * 4, ..FleetOptions::new(&["--when-full", when_full]) };
        let options = FleetOptions { call: SECOND / 2, ..options };
        let mut scene = Scene::start_on(seed, options, start(), users);
        scene.crowd.remark(&format!("SHARED_STORE_SEED={seed}, when full: {when_full}"));
        scene.crowd.come_and_go();
        let start = Instant::now();
        while start.elapsed() < SECOND * 14 {
            thread::sleep(Duration::from_millis(random.below(3000)));
            if random.one_in(4) {
                let server = random.index(3);
                scene.kill(server);
                thread::sleep(Duration::from_millis(random.below(2000)));
                scene.start_again(server);
            } else {
                fault(&mut scene, &mut random);
            }
            scene.crowd.expect_no_offence();
        }
        scene.fault("all is mended", |fleet| mend(&mut fleet.redis));
        scene.expect_all_admit("pat", SECOND * 20);
        scene.visits(SECOND);
        scene.finish();
    }
}

/// Stops a server for this time.
fn stop_for(server: &RedisProcess, time: Duration) {
    server.pause();
    thread::sleep(time);
    server.resume();
}

fn in_cluster(scene: &mut Scene<RedisCluster>, random: &mut Random) {
    let shard = random.index(3);
    let moment = Duration::from_millis(random.below(4000));
    match random.below(5) {
        0 => scene.fault(&format!("master {shard} is stopped"), |fleet| stop_for(&fleet.redis.masters[shard], moment)),
        1 => scene.fault(&format!("replica {shard} is stopped"), |fleet| {
            stop_for(&fleet.redis.replicas[shard], moment);
        }),
        2 => scene.fault(&format!("shard {shard} is handed over"), |fleet| {
            let redis = &fleet.redis;
            let pair = [&redis.masters[shard], &redis.replicas[shard]];
            let replica = pair.into_iter().find(|server| !server.is_primary());
            let how = if random.one_in(2) { "FORCE" } else { "TAKEOVER" };
            drop(replica.map(|replica| replica.try_command(&["CLUSTER", "FAILOVER", how])));
        }),
        3 => scene.fault(&format!("shard {shard} loses what it has not sent to its replica"), |fleet| {
            let redis = &mut fleet.redis;
            if redis.masters[shard].is_primary() && !redis.replicas[shard].is_primary() {
                redis.replicas[shard].pause();
                let _gone = redis.masters[shard].try_command(&["CLIENT", "KILL", "TYPE", "replica"]);
                thread::sleep(Duration::from_millis(400));
                redis.masters[shard].pause();
                redis.replicas[shard].resume();
                thread::sleep(moment);
                redis.masters[shard].resume();
            }
        }),
        _ => scene.fault(&format!("shard {shard} is killed, and starts again"), |fleet| {
            let master = &mut fleet.redis.masters[shard];
            master.kill();
            thread::sleep(moment);
            master.start_again(RestartWith::ItsData);
        }),
    }
}

#[test]
fn failovers_in_a_cluster_at_random_keep_the_limit() {
    let users: Vec<_> = (0..3).flat_map(|shard| RedisCluster::users_of(shard, 1)).collect();
    let users: Vec<_> = users.iter().map(String::as_str).collect();
    run(|| RedisCluster::start(true), &users, in_cluster, |redis| redis.wait_until_complete());
}

fn with_sentinels(scene: &mut Scene<RedisSentinels>, random: &mut Random) {
    let moment = Duration::from_millis(random.below(5000));
    let primary = scene.fleet.redis.servers.iter().position(RedisProcess::is_primary).unwrap_or(0);
    match random.below(4) {
        0 => scene.fault("SENTINEL FAILOVER", |fleet| {
            drop(fleet.redis.sentinels[random.index(3)].try_command(&["SENTINEL", "FAILOVER", NAME]));
        }),
        1 => scene.fault(&format!("primary {primary} is stopped"), |fleet| {
            stop_for(&fleet.redis.servers[primary], moment);
        }),
        2 => scene.fault(&format!("primary {primary} is killed, after its replicas were stopped"), |fleet| {
            let servers = &mut fleet.redis.servers;
            let others = || (0..3).filter(|index| *index != primary);
            others().for_each(|index| servers[index].pause());
            let _gone = servers[primary].try_command(&["CLIENT", "KILL", "TYPE", "replica"]);
            thread::sleep(Duration::from_millis(400));
            servers[primary].kill();
            others().for_each(|index| servers[index].resume());
            thread::sleep(moment);
            servers[primary].start_again(RestartWith::NoData);
        }),
        _ => scene.fault("a Sentinel is stopped", |fleet| stop_for(&fleet.redis.sentinels[random.index(3)], moment)),
    }
}

#[test]
fn failovers_of_sentinels_at_random_keep_the_limit() {
    run(|| RedisSentinels::start(2), &USERS, with_sentinels, |_| {});
}
