//! What operators see of the servers that share a Redis, and the order to declare one dead.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::fleet::FleetOptions;
use tests::redis_process::{NOTHING_KEPT, RedisProcess};
use tests::test_process::{SpawnedProcess, TestProcess};
use tests::waiting::eventually;

use super::{Instant, SECOND, SERVER, Scene, measured};
use crate::admin_commands::{report, run_command};

/// What `server nodes` says at a server.
fn nodes(scene: &Scene, at: usize) -> Value {
    report(scene.fleet.data(at), &["nodes"])
}

/// The node with this name that is not dead and has not left.
fn node<'a>(report: &'a Value, name: &str) -> Option<&'a Value> {
    let nodes = report["nodes"].as_array().unwrap();
    let is_in = |node: &&Value| node["state"] != "dead" && node["state"] != "left" && node["renamed_to"].is_null();
    nodes.iter().filter(is_in).find(|node| node["name"] == name)
}

/// The node with this id.
fn with_id<'a>(report: &'a Value, id: &str) -> Option<&'a Value> {
    report["nodes"].as_array().unwrap().iter().find(|node| node["node"] == id)
}

/// The id of a server, once the server `at` sees it alive in all parts, with its name.
fn id_of(scene: &Scene, at: usize, server: usize) -> String {
    let name = format!("server-{server}");
    let mut id = String::new();
    eventually("the server is seen alive in all parts", || {
        let report = nodes(scene, at);
        let found = node(&report, &name).filter(|node| node["state"] == "alive" && node["parts"]["alive"] == 64);
        id = found.map(|node| node["node"].as_str().unwrap().to_owned()).unwrap_or_default();
        !id.is_empty()
    });
    id
}

fn exists(scene: &Scene, key: &str) -> bool {
    scene.fleet.redis.command(&["EXISTS", key]) == redis::Value::Int(1)
}

#[test]
fn servers_are_listed_with_names_and_settings() {
    let own_arguments = vec![(2, "--linger=7s"), (2, "--node-name=other")];
    let Some(scene) = Scene::start(61, FleetOptions { own_arguments, ..FleetOptions::new(&[]) }) else { return };
    let held = scene.fill(1, "kim");
    let [first, second] = [0, 1].map(|server| id_of(&scene, 2, server));
    assert_ne!(first, second);
    for (at, name) in [(0, "server-0"), (1, "server-1"), (2, "other")] {
        let report = nodes(&scene, at);
        assert_eq!(report["shared"], true);
        let this: Vec<_> = report["nodes"].as_array().unwrap().iter().filter(|node| node["this"] == true).collect();
        assert!(this.len() == 1 && this[0]["name"] == name, "{report}");
        let seen = node(&report, "server-0").unwrap();
        assert_eq!(seen["node"], *first);
        assert!(seen["version"].as_str().unwrap().contains('.') && seen["age_ms"].as_u64().unwrap() < 60_000, "{seen}");
        assert!(seen["last_beat_ms"].as_u64().is_some(), "{seen}");
        let other = node(&report, "other").unwrap()["node"].clone();
        let differing = &report["differing_settings"];
        assert_eq!((differing.as_array().unwrap().len(), &differing[0]["key"]), (1, &json!("linger")), "{report}");
        assert_eq!(differing[0]["values"][0]["value"], "0s");
        assert_eq!(differing[0]["values"][1], json!({ "value": "7s", "nodes": [other] }));
    }
    let (code, text, _) = run_command(scene.fleet.data(0), &["nodes"]);
    assert_eq!(code, 0);
    assert!(text.starts_with("NAME ") && text.contains(", this server") && text.contains(&second), "{text}");
    assert!(text.contains("linger differs, and should be the same at all servers: \"0s\" at server-0 "), "{text}");
    assert!(text.contains("\"7s\" at other\n"), "{text}");

    // A reload writes it again at once, with the sessions of now.
    scene.fleet.reload_server(1);
    eventually("the sessions are counted", || node(&nodes(&scene, 0), "server-1").unwrap()["sessions"] == 2);
    // So does a store that has lost everything.
    scene.fleet.redis.command(&["FLUSHALL"]);
    eventually("it is written again", || {
        exists(&scene, "{test:0}:format") && exists(&scene, &format!("{{test:0}}:about:{first}"))
    });
    scene.crowd.expect_alive(&held);
    scene.expect_all_admit("pat", scene.options.mended_within());
    scene.finish();
}

#[test]
fn killed_server_becomes_silent_and_dead() {
    let Some(mut scene) = Scene::with_arguments(62, &[]) else { return };
    let [killed, stopped] = [0, 2].map(|server| id_of(&scene, 1, server));
    scene.kill(0);
    let start = Instant::now();
    eventually("it is silent", || with_id(&nodes(&scene, 1), &killed).unwrap()["state"] == "silent");
    assert!(start.elapsed() < scene.options.lease, "it is silent before it is dead");
    eventually("it is dead", || with_id(&nodes(&scene, 1), &killed).unwrap()["state"] == "dead");
    measured("a killed server was dead after", start.elapsed());
    let report = nodes(&scene, 1);
    let dead = with_id(&report, &killed).unwrap();
    assert_eq!((&dead["name"], &dead["parts"]["dead"]), (&json!("server-0"), &json!(64)), "{dead}");
    assert!(dead["dead_since"].as_u64().is_some() && dead["last_beat_ms"].is_null(), "{dead}");
    // One that stops takes its description with it.
    assert!(exists(&scene, &format!("{{test:0}}:about:{stopped}")));
    scene.fleet.stop_server(2);
    scene.crowd.set_addresses(scene.fleet.addresses());
    eventually("it has left", || with_id(&nodes(&scene, 1), &stopped).unwrap()["state"] == "left");
    assert!(!exists(&scene, &format!("{{test:0}}:about:{stopped}")));
    // There is nothing to bury.
    for id in [&killed, &stopped] {
        let (code, out, err) = run_command(scene.fleet.data(1), &["nodes", "bury", id, "--yes"]);
        assert_eq!((code, &*err), (6, ""));
        assert!(out.starts_with("nothing to do: "), "{out}");
    }
    scene.start_again(0);
    assert_ne!(id_of(&scene, 1, 0), killed);
    scene.start_again(2);
    scene.finish();
}

#[test]
fn burial_frees_slots_before_the_lease() {
    let options = FleetOptions { fence: SECOND * 10, lease: SECOND * 12, ..FleetOptions::new(&[]) };
    let Some(mut scene) = Scene::start(63, options) else { return };
    let [killed, own] = [0, 1].map(|server| id_of(&scene, 1, server));
    let held = scene.fill(0, "kim");
    scene.kill(0);
    let start = Instant::now();
    scene.expect_out(&held, SECOND);

    let bury =
        |scene: &Scene, arguments: &[&str]| run_command(scene.fleet.data(1), &[&["nodes", "bury"], arguments].concat());
    let (code, out, err) = bury(&scene, &[&killed]);
    assert_eq!((code, &*out), (1, ""), "it asks first");
    assert!(
        err.starts_with(&format!("warning: {killed} (server-0) is ")) && err.contains("more sessions than"),
        "{err}"
    );
    assert!(err.contains("\nerror: nothing was done: give --yes"), "{err}");
    let (code, _, err) = bury(&scene, &[&own, "--yes"]);
    assert!(code == 1 && err.contains("does not declare itself dead"), "{code} {err}");
    let (code, _, err) = bury(&scene, &["0123456789abcdef", "--yes"]);
    assert!(
        code == 1 && err.contains("no server has the id 0123456789abcdef") && err.contains(&killed),
        "{code} {err}"
    );
    let (code, _, err) = bury(&scene, &["server-0", "--yes"]);
    assert!(code == 2 && err.contains("16 hexadecimal digits"), "{code} {err}");
    let denied = scene.crowd.connect(2, "kim").unwrap();
    assert!(!matches!(scene.crowd.answer(denied, SECOND * 2), tests::referee::Status::In(_)), "nothing was done");

    let buried = Instant::now();
    let (code, out, err) = bury(&scene, &[&killed, "--yes"]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert!(out.starts_with(&format!("done: {killed} is dead in 64 parts")), "{out}");
    scene.crowd.connect_until_in(2, "kim", SECOND * 3);
    scene.crowd.connect_until_in(1, "kim", SECOND * 3);
    measured("the slots of a server that was declared dead came back after", buried.elapsed());
    assert!(start.elapsed() < scene.options.lease, "it was declared dead too late to show anything");
    scene.start_again(0);
    scene.visits(SECOND);
    scene.finish();
}

#[test]
fn living_server_that_is_buried_joins_anew() {
    let Some(scene) = Scene::with_arguments(64, &[]) else { return };
    let buried = id_of(&scene, 1, 0);
    let held = scene.fill(0, "kim");
    let bury = ["nodes", "bury", &buried, "--yes"];
    let (code, out, err) = run_command(scene.fleet.data(1), &bury);
    assert_eq!((code, &*err), (0, ""), "{out}");
    measured("a server that was declared dead cut its clients after", scene.expect_cut(&held, SECOND * 2));
    let id = id_of(&scene, 1, 0);
    assert_ne!(id, buried);
    // Server 1 sees it at its next beats.
    eventually("it is dead in all parts", || with_id(&nodes(&scene, 1), &buried).unwrap()["state"] == "dead");
    let (code, _, err) = run_command(scene.fleet.data(0), &["nodes", "bury", &id, "--yes"]);
    assert!(code == 1 && err.contains("does not declare itself dead"), "{code} {err}");
    scene.expect_all_admit("pat", scene.options.mended_within());
    scene.finish();
}

#[test]
fn servers_of_another_format_do_not_share_a_prefix() {
    if !RedisProcess::is_installed() {
        return;
    }
    let redis = RedisProcess::start(&NOTHING_KEPT);
    redis.command(&["SET", "{test:0}:format", r#"{"format":999,"parts":128}"#]);
    let directory = tempfile::tempdir().unwrap();
    let start = |prefix: &str| {
        let mut command = Command::new(SERVER);
        command
            .args(["--store", "redis", "--redis-prefix", prefix, "--redis-url", &redis.url()])
            .stderr(Stdio::piped());
        SpawnedProcess::spawn(command, directory.path())
    };
    let failure = start("test").wait_for_failure();
    assert_eq!(failure.code, Some(1));
    for part in ["format 999 with 128 parts", "and this server has format 1 with 64 parts", "another redis_prefix"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    assert!(start("other").listen().is_ok());
}

#[test]
fn format_that_changes_meanwhile_stops_admission() {
    let Some(scene) = Scene::with_arguments(65, &[]) else { return };
    let held = scene.fill(0, "kim");
    let format = "{test:0}:format";
    scene.fleet.redis.command(&["SET", format, r#"{"format":999,"parts":64}"#]);
    let store = || report(scene.fleet.data(0), &["status"])["store"].clone();
    let reload = || (0..3).for_each(|server| scene.fleet.reload_server(server));
    reload();
    eventually("nobody is admitted", || store()["admits"] == false);
    assert!(store()["problems"][0].as_str().unwrap().contains("format 999"), "{}", store());
    scene.crowd.expect_alive(&held);
    scene.fleet.redis.command(&["DEL", format]);
    reload();
    eventually("sessions are admitted", || store()["admits"] == true);
    assert!(exists(&scene, format));
    scene.finish();
}

#[test]
fn store_of_one_server_is_shared_with_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let _process = TestProcess::start(SERVER, directory.path(), &[]);
    let (code, out, err) = run_command(directory.path(), &["nodes"]);
    assert_eq!((code, &*err), (0, ""));
    assert!(out.starts_with("this server shares its store with nobody"), "{out}");
    let report = report(directory.path(), &["nodes"]);
    assert_eq!((&report["shared"], &report["nodes"]), (&json!(false), &json!([])));
    let (code, _, err) = run_command(directory.path(), &["nodes", "bury", "0123456789abcdef", "--yes"]);
    assert_eq!((code, &*err), (1, "error: this server shares its store with nobody\n"));
    let (code, out, _) = run_command(directory.path(), &["--store", "memory", "nodes"]);
    assert!(code == 0 && out.starts_with("this server shares its store with nobody"), "{out}");
}
