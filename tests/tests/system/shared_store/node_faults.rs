//! Servers that are killed, stopped, cut off, or end.

use std::thread;

use tests::fleet::FleetOptions;
use tests::raw_client::Received;
use tests::referee::Status;
use tests::tcp_proxy::TcpProxy;

use super::{Instant, SECOND, Scene, measured};

#[test]
fn slots_of_a_killed_server_come_back() {
    let Some(mut scene) = Scene::with_arguments(11, &[]) else { return };
    let held = scene.fill(0, "kim");
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    scene.kill(0);
    let start = Instant::now();
    scene.expect_out(&held, SECOND);
    // L + 2R, and what a busy machine takes.
    let within = scene.options.lease + scene.options.beat * 2 + SECOND * 2;
    scene.crowd.connect_until_in(1, "kim", within);
    scene.crowd.connect_until_in(2, "kim", within);
    measured("the slots of a killed server came back after", start.elapsed());
    scene.start_again(0);
    scene.visits(SECOND);
    scene.finish();
}

#[test]
fn restarted_server_frees_the_slots_it_had() {
    let Some(mut scene) = Scene::with_arguments(12, &[]) else { return };
    let held = scene.fill(0, "kim");
    scene.kill(0);
    scene.start_again(0);
    let start = Instant::now();
    scene.expect_out(&held, SECOND);
    // R, and what a busy machine takes. Without its former id it would be L.
    scene.crowd.connect_until_in(1, "kim", scene.options.beat + SECOND);
    measured("the slots of a restarted server came back after", start.elapsed());
    scene.visits(SECOND);
    scene.finish();
}

#[test]
fn stopped_server_closes_its_clients_first() {
    let Some(scene) = Scene::with_arguments(13, &[]) else { return };
    let held = scene.fill(0, "kim");
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    scene.pause(0);
    let start = Instant::now();
    // A server that does not see that it was stopped would answer these.
    scene.crowd.referee(|referee| held.iter().for_each(|id| referee.send(*id, r#"{"type":"PING"}"#)));
    let within = scene.options.lease + scene.options.beat * 2 + SECOND * 2;
    scene.crowd.connect_until_in(1, "kim", within);
    scene.crowd.connect_until_in(2, "kim", within);
    measured("the slots of a stopped server came back after", start.elapsed());
    thread::sleep((scene.options.lease + SECOND).saturating_sub(start.elapsed()));
    scene.resume(0);
    measured("a server that went on closed its clients after", scene.expect_cut(&held, SECOND * 2));
    scene.visits(SECOND * 2);
    scene.expect_all_admit("pat", scene.options.mended_within());
    scene.finish();
}

#[test]
fn server_that_ends_frees_its_slots_at_once() {
    let Some(mut scene) = Scene::with_arguments(14, &[]) else { return };
    let held = scene.fill(0, "kim");
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    scene.crowd.remark("server 0 is told to end");
    scene.fleet.stop_server(0);
    let start = Instant::now();
    scene.crowd.set_addresses(scene.fleet.addresses());
    scene.crowd.connect_until_in(1, "kim", SECOND);
    scene.crowd.connect_until_in(2, "kim", SECOND);
    measured("the slots of a server that ended came back after", start.elapsed());
    for id in held {
        let status = scene.crowd.referee(|referee| referee.client(id).unwrap().status.clone());
        assert!(matches!(status, Status::Out(Received::Close(1001, _))), "{status:?}");
    }
    scene.start_again(0);
    scene.visits(SECOND);
    scene.finish();
}

/// A server that does not reach the Redis for longer than the lease.
fn cut_off(seed: u64, cut: fn(&TcpProxy)) {
    let options = FleetOptions { proxies: true, ..FleetOptions::new(&[]) };
    let Some(scene) = Scene::start(seed, options) else { return };
    let held = scene.fill(0, "kim");
    scene.crowd.come_and_go();
    thread::sleep(SECOND);
    scene.crowd.remark("server 0 is cut off");
    cut(scene.fleet.proxy(0));
    let start = Instant::now();
    measured("a server that was cut off closed its clients after", {
        scene.expect_cut(&held, scene.options.fence + SECOND)
    });
    let within = scene.options.lease + scene.options.beat * 2 + SECOND * 2;
    scene.crowd.connect_until_in(1, "kim", within);
    scene.crowd.connect_until_in(2, "kim", within);
    measured("the slots of a server that was cut off came back after", start.elapsed());
    // It admits nobody, and what it sent before arrives late.
    let refused = scene.crowd.connect(0, "zoe").unwrap();
    let answer = scene.crowd.answer(refused, SECOND * 4);
    assert!(!matches!(answer, Status::In(_)), "{answer:?}");
    thread::sleep((scene.options.lease + SECOND).saturating_sub(start.elapsed()));
    scene.crowd.remark("server 0 is not cut off any more");
    scene.fleet.proxy(0).pass();
    scene.expect_all_admit("pat", scene.options.mended_within());
    scene.visits(SECOND * 2);
    scene.finish();
}

#[test]
fn server_whose_cable_is_pulled_closes_its_clients() {
    cut_off(15, TcpProxy::black_hole);
}

#[test]
fn server_whose_connections_are_cut_closes_its_clients() {
    cut_off(16, TcpProxy::cut);
}
