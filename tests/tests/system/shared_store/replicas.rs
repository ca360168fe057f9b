//! `redis_replicas`: what counts only once replicas have it.

use std::thread;

use tests::fleet::FleetOptions;
use tests::redis_process::{NOTHING_KEPT, RedisProcess};
use tests::referee::Status;

use super::{SECOND, Scene, Turn};

/// With one replica, and the only one goes away. Each server says why nobody is admitted.
#[test]
fn nobody_is_admitted_without_the_replicas() {
    let Some(_turn) = Turn::take() else { return };
    // A replica has half a beat, which a busy machine may need.
    let beat = SECOND * 2 / 5;
    let options =
        FleetOptions { beat, fence: SECOND * 3, lease: SECOND * 4, ..FleetOptions::new(&["--redis-replicas", "1"]) };
    let primary = RedisProcess::start(&NOTHING_KEPT);
    let mut replica = primary.start_replica(&NOTHING_KEPT);
    let mut scene = Scene::start_on(231, options, primary, &super::USERS);
    let kim = scene.fill(0, "kim");
    let held = [scene.visits(SECOND), kim].concat();

    // Beats are not confirmed: the sessions end, because others might have another primary.
    scene.fault("the replica is killed", |_| replica.kill());
    thread::sleep(scene.options.tolerance() / 2);
    scene.crowd.expect_alive(&held);
    scene.expect_cut(&held, scene.options.fence + SECOND);
    for server in 0..3 {
        let refused = scene.crowd.connect(server, "zoe").unwrap();
        let answer = scene.crowd.answer(refused, SECOND * 4);
        assert!(!matches!(answer, Status::In(_)), "{answer:?}");
        let log = scene.fleet.log(server);
        assert!(log.contains("shared_store_not_replicated"), "{log}");
    }
    let replica = scene.fault("there is another", |fleet| fleet.redis.start_replica(&NOTHING_KEPT));
    scene.expect_all_admit("pat", scene.options.mended_within() + SECOND * 2);
    scene.visits(SECOND);
    scene.finish();
    drop(replica);
}
