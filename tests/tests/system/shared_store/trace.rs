//! A run with faults is recorded and replayed: what the simulation believes of a Redis is compared with a real one.
//!
//! A trace that cannot be replayed is kept in the temporary directory of the tests (`target/tmp`). `SHARED_STORE_TRACE` names a file: if
//! there is such a file, the test replays it and runs nothing; otherwise the trace is kept there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use serde_json::json;
use session_core::ledger::SlotLimit;
use tests::cluster_simulation::Event;
use tests::fleet::{Fleet, FleetOptions};
use tests::redis_process::{RedisProcess, RestartWith};
use tests::redis_trace::{Recorder, Report, Trace, replay};
use tests::referee::Status;
use tests::tcp_proxy::TcpProxy;
use tests::waiting::{TIMEOUT, eventually};

use super::across_servers::admitted;
use super::{Instant, LIMIT, SECOND, SERVER, Scene, USERS, measured};
use crate::admin_commands::run_command;

/// What must have happened in the run. A beat that comes after its node was buried is left to chance, and to the random requests that
/// the scripts are compared with: whether a connection that is cut off has sent a beat last, or something else, nobody decides.
const WANTED: [Event; 15] = [
    Event::Beat,
    Event::Bury,
    Event::BuryFormer,
    Event::Open,
    Event::Leave,
    Event::RaiseFloor,
    Event::Read,
    Event::Write,
    Event::Scan,
    Event::ReadOverrides,
    Event::WriteOverrides,
    Event::RestoreOverrides,
    Event::NotWritten,
    Event::Flushed,
    Event::RestartedFromDisk,
];

#[test]
fn run_is_replayed_by_the_reference() {
    let kept = env::var_os("SHARED_STORE_TRACE").map(PathBuf::from);
    if let Some(file) = kept.as_ref().filter(|file| file.exists()) {
        print(&replayed(&Trace::read(file).unwrap(), file));
        return;
    }
    if !RedisProcess::is_installed() {
        return;
    }
    let name = format!("shared-store-trace-{}.txt", process::id());
    let file = kept.clone().unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    let trace = run();
    trace.write(&file).unwrap();
    let read = Trace::read(&file).unwrap();
    assert!(read == trace, "the file has the whole trace");
    let start = Instant::now();
    let report = replayed(&read, &file);
    measured("the replay took", start.elapsed());
    print(&report);
    for event in WANTED {
        assert!(report.count(event) > 0, "no {event:?} in this run");
    }
    let Report { admitted, released, ended, acknowledged, lingers, resumed, restored, .. } = report;
    for (what, count) in [
        ("admission", admitted),
        ("release", released),
        ("eviction", ended),
        ("acknowledgement", acknowledged),
        ("lingering slot", lingers),
        ("resumption", resumed),
        ("restored session", restored),
        ("lost answer", report.unanswered),
        ("call of a forgotten script", report.not_loaded),
        ("message", report.messages),
    ] {
        assert!(count > 0, "no {what} in this run");
    }
    assert!(report.compared > 5000 && report.snapshots >= 4, "{} answers compared", report.compared);
    if kept.is_none() {
        fs::remove_file(&file).unwrap();
    }
}

fn replayed(trace: &Trace, file: &Path) -> Report {
    let limit = SlotLimit::new(u32::try_from(LIMIT).unwrap()).unwrap();
    replay(trace, "test", limit).unwrap_or_else(|what| panic!("{what}\nThe trace is in {}", file.display()))
}

/// Three servers and their clients on a Redis to which all happens that a replay can model.
fn run() -> Trace {
    // Nothing is saved but by command.
    let redis = RedisProcess::start(&["--save", "", "--appendonly", "no"]);
    let recorder = &mut Recorder::start(&redis);
    let arguments = ["--when-full", "evict-oldest", "--linger", "1s", "--linger-grace", "0s", "--limit", "2"];
    let options = FleetOptions::new(&arguments);
    let address = redis.address();
    let fleet = Fleet::start_recorded(SERVER, &options, redis, address, recorder.tape());
    let mut scene = Scene::of_fleet(41, options, fleet, &USERS);

    // An operator sets a limit. A slot is resumed at another server.
    set_limit(&scene, "zoe", "1");
    let (lost, answer) = admitted(&scene, 0, &json!({"user": "kim", "label": "one"}));
    scene.crowd.referee(|referee| referee.hang_up(lost));
    thread::sleep(SECOND / 5);
    admitted(&scene, 1, &json!({"user": "kim", "resume": answer["resume"], "if_not_resumed": "refuse"}));
    scene.crowd.come_and_go();
    thread::sleep(SECOND / 2);

    // A server is killed, and buries its former id when it starts again.
    scene.kill(0);
    scene.start_again(0);
    // One is cut off for so long that the others bury it: what it has sent arrives after that.
    scene.fault("server 1 has no cable", |fleet| fleet.proxy(1).black_hole());
    let cut = Instant::now();
    // What another one writes comes after it has asked again on a new connection, and has found nothing.
    scene.fault("requests of server 2 are held back", |fleet| fleet.proxy(2).hold_requests());
    let refused = scene.crowd.connect(2, "lone").unwrap();
    let answer = scene.crowd.answer(refused, SECOND * 3);
    assert!(!matches!(answer, Status::In(_)), "{answer:?}");
    thread::sleep(scene.options.beat);
    scene.fault("they arrive", |fleet| fleet.proxy(2).let_go());
    // Then it is stopped for longer than its fence.
    scene.pause(2);
    thread::sleep(scene.options.fence + scene.options.beat * 2);
    scene.resume(2);
    scene.fault("SCRIPT FLUSH", |fleet| fleet.redis.command(&["SCRIPT", "FLUSH"]));
    thread::sleep((scene.options.lease + scene.options.beat * 3).saturating_sub(cut.elapsed()));
    recorder.snapshot();
    scene.fault("server 1 has its cable again", |fleet| fleet.proxy(1).pass());
    thread::sleep(SECOND / 2);
    // The Redis applies requests, and nobody reads its answers.
    scene.fault("connections are cut while the Redis is stopped", |fleet| {
        fleet.redis.pause();
        thread::sleep(Duration::from_millis(300));
        fleet.proxies().for_each(TcpProxy::cut);
        fleet.redis.resume();
        fleet.proxies().for_each(TcpProxy::pass);
    });
    thread::sleep(SECOND / 2);
    recorder.save();
    // A client that is there when the Redis forgets.
    let _in = scene.crowd.connect_until_in(0, "kim", TIMEOUT);
    thread::sleep(SECOND / 2);
    recorder.snapshot();

    // The Redis forgets all, then parts of what it has got since, and then it has older data.
    scene.fault("FLUSHALL", |fleet| fleet.redis.command(&["FLUSHALL"]));
    thread::sleep(SECOND / 2);
    scene.fault("DEL", |fleet| fleet.redis.command(&["DEL", "{test:5}:nodes", "{test:6}:meta"]));
    thread::sleep(SECOND / 2);
    recorder.snapshot();
    scene.fault("restart with older data, while requests are under way", |fleet| {
        fleet.redis.pause();
        thread::sleep(Duration::from_millis(300));
        recorder.restart(fleet, RestartWith::ItsData);
    });
    scene.first_admission("pat", TIMEOUT);
    thread::sleep(SECOND / 2);

    set_limit(&scene, "zoe", "default");
    scene.crowd.stay();
    scene.crowd.expect_all_slots_free(scene.options.mended_within());
    // All that is left to acknowledge is, at the next beats.
    thread::sleep(scene.options.beat * 4);
    recorder.snapshot();
    (0..3).for_each(|server| scene.fleet.stop_server(server));
    recorder.snapshot();
    recorder.finish(&scene.fleet.redis)
}

/// An operator tries until the user has this limit (6: it has it already). The part of one user may admit later than that of another.
fn set_limit(scene: &Scene, user: &str, limit: &str) {
    eventually("the limit is set", || matches!(run_command(scene.fleet.data(0), &["limit", user, limit]).0, 0 | 6));
}

#[allow(clippy::print_stderr, reason = "it tells who runs the tests what was replayed")]
fn print(report: &Report) {
    eprintln!("{report}");
}
