//! A former primary that is cut off, still takes writes, and is still reached by one server, while the others have another one.

use std::thread;
use std::time::{Duration, Instant};

use tests::fleet::{Fleet, FleetOptions, SharedStore};
use tests::redis_process::{NOTHING_KEPT, RedisProcess};
use tests::referee::{ClientId, Status};

use super::{LIMIT, SECOND, SERVER, Scene, Turn, USERS, measured};

/// A primary with two replicas.
struct Replicated(Vec<RedisProcess>);

impl SharedStore for Replicated {
    fn arguments(&self, server: usize) -> Vec<String> {
        self.0[0].arguments(server)
    }
}

impl Replicated {
    fn start(options: &FleetOptions) -> Self {
        let primary = RedisProcess::start(&options.redis);
        let replicas = [(); 2].map(|()| primary.start_replica(&NOTHING_KEPT));
        Self([primary].into_iter().chain(replicas).collect())
    }
}

/// Servers that reach the primary through proxies.
fn behind_proxies(seed: u64, mut options: FleetOptions) -> Scene<Replicated> {
    options.arguments.extend(["--limit", "2"]);
    let redis = Replicated::start(&options);
    let target = redis.0[0].address();
    let fleet = Fleet::start_behind_proxies(SERVER, &options, redis, target);
    Scene::of_fleet(seed, options, fleet, &USERS)
}

/// Server 0 stays with the former primary; the others have a replica in its place, with the other replica behind it. Returns the clients
/// that were in at server 0, and when that was.
fn split(seed: u64, options: FleetOptions) -> (Scene<Replicated>, Vec<ClientId>, Instant) {
    let mut scene = behind_proxies(seed, options);
    let held = scene.fill(0, "kim");
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    let start = Instant::now();
    scene.fault("a replica takes over, and server 0 does not know", |fleet| {
        let [_, next, other] = &fleet.redis.0[..] else { panic!("three of them") };
        next.command(&["REPLICAOF", "NO", "ONE"]);
        other.command(&["REPLICAOF", "127.0.0.1", &next.port().to_string()]);
        (1..3).for_each(|server| fleet.proxy(server).lead_to(next.address()));
        other.wait_until_follows(next);
    });
    (scene, held, start)
}

/// The former primary becomes a replica, and server 0 knows.
fn mend(mut scene: Scene<Replicated>) {
    scene.fault("the former primary becomes a replica", |fleet| {
        let [former, next, _] = &fleet.redis.0[..] else { panic!("three of them") };
        former.follow(next);
        fleet.proxy(0).lead_to(next.address());
    });
    scene.expect_all_admit("pat", scene.options.mended_within() + SECOND * 2);
    scene.visits(SECOND);
    scene.finish();
}

/// The server at the former primary fences before anybody else may take its slots.
fn holds(seed: u64, options: FleetOptions) {
    let Some(_turn) = Turn::take() else { return };
    let (scene, held, start) = split(seed, options);
    let options = scene.options.clone();
    scene.expect_cut(&held, options.fence + SECOND);
    measured("the server at the former primary closed its sessions after", start.elapsed());
    scene.crowd.connect_until_in(1, "kim", options.mended_within());
    scene.crowd.connect_until_in(2, "kim", options.mended_within());
    measured("its slots were free after", start.elapsed());
    // It admits nobody.
    let refused = scene.crowd.connect(0, "zoe").unwrap();
    let answer = scene.crowd.answer(refused, SECOND * 4);
    assert!(!matches!(answer, Status::In(_)), "{answer:?}");
    thread::sleep(SECOND);
    scene.crowd.expect_no_offence();
    mend(scene);
}

#[test]
fn beats_that_a_replica_confirms_keep_the_limit() {
    let options = FleetOptions::new(&["--redis-replicas", "1"]);
    // A replica has half a beat, which a busy machine may need.
    holds(221, FleetOptions { beat: SECOND * 2 / 5, fence: SECOND * 3, lease: SECOND * 4, ..options });
}

/// What the warning `shared_store_splits` advises: the lag and the fence are not longer than the lease.
#[test]
fn primary_that_refuses_alone_keeps_the_limit() {
    let redis = [&NOTHING_KEPT[..], &["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1"]].concat();
    let options = FleetOptions { fence: SECOND * 3, lease: SECOND * 5, redis, ..FleetOptions::new(&[]) };
    holds(222, options);
}

/// What the warning is about: without both, the others free slots that server 0 still has.
#[test]
fn split_store_without_replicas_to_confirm_breaks_the_limit() {
    let Some(_turn) = Turn::take() else { return };
    let (scene, held, start) = split(223, FleetOptions::new(&[]));
    assert_eq!(scene.fleet.log(0).matches("shared_store_splits").count(), 1, "{}", scene.fleet.log(0));
    let mut is_broken = false;
    while !is_broken && start.elapsed() < scene.options.mended_within() + SECOND * 5 {
        let _newcomer = scene.crowd.connect(1, "kim");
        thread::sleep(Duration::from_millis(200));
        is_broken = scene.crowd.referee(|referee| referee.count("kim") > LIMIT);
    }
    scene.crowd.referee(|referee| {
        assert!(held.iter().all(|id| referee.client(*id).unwrap().is_in()), "{}", referee.story());
    });
    measured("both sides admitted clients after", start.elapsed());
    assert!(is_broken, "as there is no way to tell, both sides admit");
}

/// As with an address that moves: the primary hands over, and the servers are led to the next one, one after the other.
#[test]
fn sessions_outlast_a_primary_that_hands_over() {
    let options = FleetOptions { fence: SECOND * 3, lease: SECOND * 4, ..FleetOptions::new(&[]) };
    let Some(_turn) = Turn::take() else { return };
    let mut scene = behind_proxies(224, options);
    let held = scene.fill(0, "kim");
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    scene.fault("FAILOVER", |fleet| {
        let [former, next, _] = &fleet.redis.0[..] else { panic!("three of them") };
        former.command(&["FAILOVER", "TO", "127.0.0.1", &next.port().to_string()]);
        former.wait_until_follows(next);
        for server in 0..3 {
            fleet.proxy(server).lead_to(next.address());
            thread::sleep(Duration::from_millis(200));
        }
    });
    measured("after FAILOVER, a client was admitted after", scene.first_admission("zoe", SECOND * 8));
    scene.crowd.expect_alive(&held);
    scene.expect_all_admit("pat", SECOND * 2);
    scene.visits(SECOND);
    scene.finish();
}
