//! What happens when something on the way to the store, or in it, does what it should not.

#![allow(clippy::print_stderr, reason = "it tells who runs the tests what was measured")]

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::fleet::FleetOptions;
use tests::processor_time;
use tests::raw_client::Received;
use tests::redis_process::NOTHING_KEPT;
use tests::referee::Status;
use tests::test_process::send_signal;

use super::{SECOND, Scene};

/// A user of the Redis with all commands and keys, but (as Redis has it by default for new users) no channel.
#[test]
fn newcomer_without_channels_is_in_or_nobody_is_evicted() {
    let Some(mut scene) = Scene::with_arguments(101, &["--when-full", "evict-oldest"]) else { return };
    let held = scene.fill(0, "kim");
    scene.fault("no channels", |fleet| fleet.redis.command(&["ACL", "SETUSER", "default", "resetchannels"]));
    let bare = || scene.crowd.connect_with(1, "kim", "\"kim\"".into()).unwrap();
    let newcomer = bare();
    let answer = scene.crowd.answer(newcomer, SECOND * 4);
    thread::sleep(SECOND);
    // Another try each time evicts one more.
    for _ in 0..3 {
        let id = bare();
        let _status = scene.crowd.answer(id, SECOND * 4);
        thread::sleep(SECOND / 2);
    }
    let out_after =
        scene.crowd.referee(|referee| held.iter().filter(|id| referee.client(**id).unwrap().is_out()).count());
    assert!(matches!(answer, Status::In(_)) || out_after == 0, "{answer:?}, and yet {out_after} were evicted");
}

/// A server that is told to end, and cannot yet, takes little processor time until it has.
fn expect_end_that_sleeps(id: u32) {
    let before = processor_time::of_process(id).unwrap();
    send_signal(id, Signal::TERM);
    let start = Instant::now();
    let mut used = Duration::ZERO;
    while start.elapsed() < SECOND * 3 {
        thread::sleep(Duration::from_millis(50));
        let Some(now) = processor_time::of_process(id) else { break };
        used = used.max(now.saturating_sub(before));
    }
    assert!(used < Duration::from_millis(300), "{used:?}");
}

#[test]
fn server_that_ends_without_a_store_sleeps() {
    let Some(mut scene) = Scene::with_arguments(102, &[]) else { return };
    scene.fault("no Redis", |fleet| fleet.redis.kill());
    thread::sleep(SECOND / 2);
    expect_end_that_sleeps(scene.fleet.id(0));
}

/// As after each restart of the store: the gate is closed for L.
#[test]
fn server_that_ends_behind_a_closed_gate_sleeps() {
    let Some(mut scene) = Scene::with_arguments(112, &[]) else { return };
    scene.fault("FLUSHALL", |fleet| fleet.redis.command(&["FLUSHALL"]));
    thread::sleep(SECOND / 2);
    expect_end_that_sleeps(scene.fleet.id(0));
}

/// The other end loses its power; then all is well again.
#[test]
fn node_listens_again_after_a_half_open_connection() {
    let options = FleetOptions { proxies: true, ..FleetOptions::new(&[]) };
    let Some(scene) = Scene::start(103, options) else { return };
    let listening = || {
        let channels: Vec<String> =
            redis::from_redis_value(scene.fleet.redis.command(&["PUBSUB", "CHANNELS", "test:node:*"])).unwrap();
        channels.len()
    };
    assert_eq!(listening(), 3);
    scene.fleet.proxy(0).forget();
    let start = Instant::now();
    while start.elapsed() < SECOND * 20 {
        thread::sleep(SECOND);
        if listening() == 3 {
            return;
        }
    }
    // All else works.
    scene.expect_all_admit("pat", SECOND * 3);
    panic!("after {:?} only {} servers listen", start.elapsed(), listening());
}

/// Answers come byte by byte on the connections that there are. New ones are fast.
#[test]
fn call_that_trickles_ends_in_its_time_limit() {
    let options = FleetOptions { proxies: true, ..FleetOptions::new(&[]) };
    let Some(scene) = Scene::start(104, options) else { return };
    let _held = scene.fill(0, "kim");
    scene.fleet.proxy(0).trickle();
    thread::sleep(scene.options.fence + scene.options.call * 2);
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < SECOND * 20 {
        let id = scene.crowd.connect(0, "pat").unwrap();
        let answer = scene.crowd.answer(id, SECOND * 4);
        if matches!(answer, Status::In(_)) {
            return;
        }
        last = Some(answer);
        thread::sleep(SECOND / 2);
    }
    panic!("20 s after the fence server 0 still admits nobody, though a new connection would work: {last:?}");
}

/// A server is stopped for more than L, told to end, and goes on.
#[test]
fn stopped_server_that_is_told_to_end_says_nothing() {
    let Some(scene) = Scene::with_arguments(105, &[]) else { return };
    let users: Vec<String> = (0..40).map(|number| format!("u{number}")).collect();
    let connect = |user| [(); 2].map(|()| scene.crowd.connect_until_in(0, user, SECOND * 2));
    let held: Vec<_> = users.iter().flat_map(|user| connect(user)).collect();
    scene.pause(0);
    thread::sleep(scene.options.lease + SECOND * 2);
    send_signal(scene.fleet.id(0), Signal::TERM);
    scene.fleet.resume_server(0);
    thread::sleep(SECOND * 2);
    let is_told = |status: &Status| matches!(status, Status::Out(Received::Close(..)));
    let told = scene.crowd.referee(|referee| {
        held.iter().filter(|id| referee.client(**id).is_some_and(|client| is_told(&client.status))).count()
    });
    assert_eq!(told, 0);
}

/// The victim's server is stopped. The newcomer waits, but no longer than for any answer of the store. Once that server is buried, it
/// is in.
#[test]
fn newcomer_comes_back_for_the_slot_of_a_stopped_server() {
    let Some(scene) = Scene::with_arguments(120, &["--when-full", "evict-oldest"]) else { return };
    let _held = scene.fill(0, "kim");
    scene.pause(0);
    let start = Instant::now();
    let newcomer = scene.crowd.connect_with(1, "kim", "\"kim\"".into()).unwrap();
    let answer = scene.crowd.answer(newcomer, scene.options.lease + SECOND * 2);
    assert!(matches!(&answer, Status::Out(Received::Close(1013, _))), "{answer:?}");
    let left = (scene.options.lease + SECOND).saturating_sub(start.elapsed());
    thread::sleep(left);
    let newcomer = scene.crowd.connect_with(1, "kim", "\"kim\"".into()).unwrap();
    let answer = scene.crowd.answer(newcomer, SECOND * 2);
    scene.resume(0);
    assert!(matches!(answer, Status::In(_)), "{answer:?}");
    scene.crowd.expect_no_offence();
}

/// A data directory is copied, as with an image of a machine or a volume.
#[test]
fn copy_of_a_data_directory_buries_nobody() {
    let Some(mut scene) = Scene::with_arguments(122, &[]) else { return };
    let held = scene.fill(0, "kim");
    scene.kill(1);
    std::fs::copy(scene.fleet.data(0).join("node-id"), scene.fleet.data(1).join("node-id")).unwrap();
    scene.start_again(1);
    let start = Instant::now();
    while start.elapsed() < SECOND * 2 {
        let id = scene.crowd.connect(2, "kim").unwrap();
        let _answer = scene.crowd.answer(id, SECOND * 2);
        thread::sleep(Duration::from_millis(5));
    }
    scene.crowd.expect_no_offence();
    scene.crowd.expect_alive(&held);
}

/// What that does to the walk.
#[test]
fn clean_stop_with_a_record_that_is_too_short() {
    let Some(mut scene) = Scene::with_arguments(123, &[]) else { return };
    for bucket in 0..64 {
        scene.fleet.redis.command(&["HSET", &format!("{{test:{bucket}}}:records"), "junk", "12345678"]);
    }
    // So that there is a walk.
    let held = scene.fill(1, "kim");
    scene.kill(1);
    scene.expect_out(&held, SECOND * 2);
    thread::sleep(scene.options.lease + SECOND * 2);
    let left: usize = (0..64)
        .map(|bucket| {
            let key = format!("{{test:{bucket}}}:records");
            redis::from_redis_value::<usize>(scene.fleet.redis.command(&["HLEN", &key])).unwrap() - 1
        })
        .sum();
    let start = Instant::now();
    scene.fleet.stop_server(0);
    scene.fleet.stop_server(2);
    assert!(left == 0 && start.elapsed() < SECOND * 2, "{left} records of a dead server are never swept");
}

/// Some buckets of a server fence, and others do not, again and again.
#[test]
fn some_buckets_fence_again_and_again() {
    let options = FleetOptions { proxies: true, ..FleetOptions::new(&["--when-full", "evict-oldest"]) };
    let Some(mut scene) = Scene::start(130, options) else { return };
    scene.crowd.come_and_go();
    for round in 0..3 {
        scene.fault("a lane trickles", |fleet| fleet.proxy(round % 2).trickle_some(Some(round as u64 % 4)));
        thread::sleep(SECOND * 3);
        scene.fault("it does not", |fleet| fleet.proxy(round % 2).trickle_some(None));
        thread::sleep(SECOND / 3);
        scene.crowd.expect_no_offence();
    }
    scene.visits(SECOND * 2);
    scene.finish();
}

/// A round trip takes 300 ms.
#[test]
fn node_listens_over_a_long_way() {
    let options = FleetOptions {
        proxies: true,
        fence: SECOND * 8,
        lease: SECOND * 9,
        call: SECOND * 3,
        ..FleetOptions::new(&[])
    };
    let Some(scene) = Scene::start(140, options) else { return };
    scene.fleet.proxy(0).slow();
    scene.fleet.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    thread::sleep(SECOND * 4);
    scene.expect_all_admit("pat", SECOND * 6);
    let mut heard = 0;
    for _ in 0..50 {
        thread::sleep(SECOND / 10);
        let channels: Vec<String> =
            redis::from_redis_value(scene.fleet.redis.command(&["PUBSUB", "CHANNELS", "test:node:*"])).unwrap();
        heard += usize::from(channels.len() == 3);
    }
    assert_eq!(heard, 50);
}

/// As a replica takes over that lacks the last records, and a connection breaks within an answer.
#[test]
fn broken_answer_of_a_store_that_has_lost_data_admits_nobody() {
    let options = FleetOptions {
        proxies: true,
        beat: SECOND * 2,
        fence: SECOND * 6,
        lease: SECOND * 8,
        redis: [&NOTHING_KEPT[..], &["--enable-debug-command", "yes"]].concat(),
        ..FleetOptions::new(&[])
    };
    let Some(scene) = Scene::start(150, options) else { return };
    let records: Vec<String> = (0..64).map(|bucket| format!("{{test:{bucket}}}:records")).collect();
    for round in 0..2 {
        let held = scene.fill(0, &format!("kim{round}"));
        scene.fleet.proxy(1).end_before_info();
        let words: Vec<&str> = ["DEL"].into_iter().chain(records.iter().map(String::as_str)).collect();
        scene.fleet.redis.command(&words);
        scene.fleet.redis.command(&["DEBUG", "CHANGE-REPL-ID"]);
        let newcomer = scene.crowd.connect(1, &format!("kim{round}")).unwrap();
        let answer = scene.crowd.answer(newcomer, SECOND * 4);
        scene.crowd.expect_no_offence();
        assert!(!matches!(answer, Status::In(_)), "{answer:?}");
        drop(held);
        scene.expect_all_admit("pat", SECOND * 14);
    }
}
