//! A Redis Cluster: what happens to one shard concerns its users alone.

use std::thread;
use std::time::{Duration, Instant};

use tests::fleet::FleetOptions;
use tests::redis_cluster::RedisCluster;
use tests::redis_process::RedisProcess;
use tests::referee::{ClientId, ServerId};

use super::{LIMIT, SECOND, Scene, Turn, measured};

/// A sign-in of a shard that is not concerned takes no longer, but for a few that have to wait, and if the machine is not so busy that it
/// takes half as long at any time.
const QUICK: Duration = Duration::from_millis(300);

/// A fence longer than a failover.
fn options() -> FleetOptions {
    FleetOptions { fence: SECOND * 6, lease: SECOND * 7, ..FleetOptions::new(&["--when-full", "evict-oldest"]) }
}

/// Users of each shard: one for those that come and go, one who stays, and one who signs in.
struct Shards {
    scene: Scene<RedisCluster>,
    held: Vec<Vec<ClientId>>,
    newcomers: Vec<String>,
    visitors: Vec<String>,
    stayers: Vec<String>,
    /// How long a sign-in may take.
    quick: Duration,
    _turn: Turn,
}

impl Shards {
    fn start(seed: u64, options: FleetOptions, has_replicas: bool) -> Option<Self> {
        let turn = Turn::take()?;
        let redis = RedisCluster::start(has_replicas);
        let users: Vec<_> = (0..3).map(|shard| RedisCluster::users_of(shard, 3)).collect();
        let visitors: Vec<_> = users.iter().map(|users| users[0].clone()).collect();
        let names: Vec<_> = visitors.iter().map(String::as_str).collect();
        let scene = Scene::start_on(seed, options, redis, &names);
        let held = users.iter().map(|users| {
            (0..LIMIT).map(|server| scene.crowd.connect_until_in(server, &users[1], SECOND * 4)).collect()
        });
        let held = held.collect();
        scene.crowd.come_and_go();
        thread::sleep(SECOND);
        let [stayers, newcomers] = [1, 2].map(|which| users.iter().map(|users| users[which].clone()).collect());
        let mut shards = Self { scene, held, newcomers, visitors, stayers, quick: QUICK, _turn: turn };
        let usual = shards.sign_ins(&[0, 1, 2], SECOND * 2);
        shards.quick = QUICK.max(usual[usual.len() - 1] * 2);
        Some(shards)
    }

    /// Signs in at all servers for this time, as users of these shards. How long it took until each was in, sorted. Who is told to
    /// try again, because the server takes another id in this moment, does so at once.
    fn sign_ins(&self, of: &[usize], time: Duration) -> Vec<Duration> {
        let (start, mut times) = (Instant::now(), Vec::new());
        for round in 0.. {
            if start.elapsed() > time {
                break;
            }
            let (server, user): (ServerId, _) = (round % 3, &self.newcomers[of[round % of.len()]]);
            let before = Instant::now();
            let id = self.scene.crowd.connect_until_in(server, user, SECOND * 4);
            times.push(before.elapsed());
            self.scene.crowd.referee(|referee| referee.say_bye(id));
            thread::sleep(Duration::from_millis(20));
        }
        times.sort_unstable();
        times
    }

    /// For this time, sign-ins of the other shards take no longer than usual.
    fn expect_others_served(&self, shard: usize, time: Duration) {
        let others: Vec<_> = (0..3).filter(|other| *other != shard).collect();
        let times = self.sign_ins(&others, time);
        let slow = times.iter().filter(|time| **time > self.quick).count();
        measured(&format!("{} sign-ins at other shards, the median", times.len()), times[times.len() / 2]);
        measured(&format!("{slow} took longer than {:?}, the longest", self.quick), times[times.len() - 1]);
        assert!(slow * 20 <= times.len(), "{times:?}");
    }

    fn held_of_others(&self, shard: usize) -> Vec<ClientId> {
        (0..3).filter(|other| *other != shard).flat_map(|other| self.held[other].clone()).collect()
    }

    /// A fault after which another server has the shard: nobody loses a session.
    fn outlasts(mut self, shard: usize, what: &str, fault: impl FnOnce(&mut RedisCluster)) {
        let start = Instant::now();
        self.scene.fault(what, |fleet| fault(&mut fleet.redis));
        self.expect_others_served(shard, self.scene.options.lease);
        let left = SECOND * 8;
        self.scene.first_admission(&self.newcomers[shard], left);
        measured(&format!("{what}: the shard admitted again after"), start.elapsed());
        self.scene.crowd.expect_alive(&self.held.concat());
        self.scene.expect_all_admit(&self.newcomers[shard], SECOND * 2);
        self.expect_all_listen();
        self.scene.visits(SECOND);
        self.scene.finish();
    }

    /// At how many servers of the store the servers listen, by their index: masters first.
    fn listening(&self) -> Vec<usize> {
        let channels = |server: &RedisProcess| {
            let reply = server.try_command(&["PUBSUB", "CHANNELS", "test:node:*"]);
            reply.map_or(0, |reply| redis::from_redis_value::<Vec<String>>(reply).unwrap().len())
        };
        self.scene.fleet.redis.servers().map(channels).collect()
    }

    fn expect_all_listen(&self) {
        let start = Instant::now();
        while self.listening().iter().sum::<usize>() != 3 {
            assert!(start.elapsed() < SECOND * 5, "listening: {:?}", self.listening());
            thread::sleep(SECOND / 10);
        }
    }
}

/// The one at which all servers listen for what is published.
#[test]
fn replica_takes_over_and_other_shards_notice_nothing() {
    let Some(shards) = Shards::start(211, options(), true) else { return };
    shards.expect_all_listen();
    let shard = shards.listening().iter().position(|listening| *listening == 3).expect("all listen at the same one");
    shards.outlasts(shard, "kill -9 of a master", |redis| redis.masters[shard].kill());
}

#[test]
fn sessions_outlast_a_failover_of_a_shard_by_hand() {
    let Some(shards) = Shards::start(212, options(), true) else { return };
    shards.outlasts(1, "CLUSTER FAILOVER", |redis| drop(redis.replicas[1].command(&["CLUSTER", "FAILOVER"])));
}

/// It does not know that another one has its place, and is the first that is asked.
#[test]
fn master_that_is_cut_off_from_its_cluster_is_found_out() {
    let Some(shards) = Shards::start(215, options(), true) else { return };
    let masters = &shards.scene.fleet.redis.masters;
    let shard = (0..masters.len()).min_by_key(|shard| masters[*shard].address().to_string()).unwrap();
    shards.outlasts(shard, "a master is cut off from its cluster", |redis| redis.replace_unnoticed(shard));
}

/// Nobody takes its place.
#[test]
fn shard_that_is_away_ends_the_sessions_of_its_users_alone() {
    let Some(mut shards) = Shards::start(213, FleetOptions::new(&["--when-full", "evict-oldest"]), false) else {
        return;
    };
    let options = shards.scene.options.clone();
    shards.scene.fault("a shard is stopped", |fleet| fleet.redis.masters[1].pause());
    shards.expect_others_served(1, options.lease + SECOND * 2);
    measured("its sessions ended, at the latest, after that and", {
        shards.scene.expect_cut(&shards.held[1], SECOND / 2)
    });
    let others = shards.held_of_others(1);
    shards.scene.crowd.expect_alive(&others);
    shards.scene.fault("it goes on", |fleet| fleet.redis.masters[1].resume());
    shards.scene.first_admission(&shards.newcomers[1], options.mended_within() + SECOND * 2);
    shards.expect_others_served(1, SECOND);
    shards.scene.crowd.expect_alive(&others);
    shards.scene.visits(SECOND);
    shards.scene.finish();
}

/// Key by key, so that the servers are told MOVED, ASK and TRYAGAIN.
#[test]
fn slots_move_to_another_master_under_load() {
    let Some(shards) = Shards::start(214, options(), false) else { return };
    let users = [&shards.visitors[0], &shards.stayers[0], &shards.newcomers[0]];
    let slots = users.map(|user| RedisCluster::slot_of(user));
    shards.outlasts(0, "slots move", |redis| {
        let start = Instant::now();
        let keys: usize = slots.into_iter().map(|slot| redis.move_slot(slot, 0, 1, Duration::from_millis(150))).sum();
        measured(&format!("{keys} keys moved in"), start.elapsed());
    });
}
