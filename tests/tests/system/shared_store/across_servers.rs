//! Without faults: one limit, eviction, resumption and operators across servers.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tests::raw_client::Received;
use tests::referee::{ClientId, ServerId, Status, Watched};

use super::{Instant, LIMIT, SECOND, Scene, measured};
use crate::admin_commands::report;

/// Connects with this payload, and returns the answer.
fn sign_in(scene: &Scene, server: ServerId, payload: &Value) -> (ClientId, Status) {
    let user = payload["user"].as_str().or(payload.as_str()).unwrap();
    let id = scene.crowd.connect_with(server, user, payload.to_string()).unwrap();
    (id, scene.crowd.answer(id, SECOND * 4))
}

/// As [`sign_in`], of a client that is admitted. Returns the payload of the answer.
pub(super) fn admitted(scene: &Scene, server: ServerId, payload: &Value) -> (ClientId, Value) {
    match sign_in(scene, server, payload) {
        (id, Status::In(text)) => (id, serde_json::from_str::<Value>(&text).unwrap()["payload"].take()),
        (_, other) => panic!("{payload} is not admitted: {other:?}"),
    }
}

/// As [`sign_in`], of a client that is denied a slot. Returns the answer.
fn denied(scene: &Scene, server: ServerId, payload: &Value) -> Value {
    match sign_in(scene, server, payload) {
        (_, Status::Denied(text)) => serde_json::from_str(&text).unwrap(),
        (_, other) => panic!("{payload} is not denied: {other:?}"),
    }
}

fn bye(scene: &Scene, id: ClientId) {
    scene.crowd.referee(|referee| referee.say_bye(id));
}

/// Waits until the client is closed with this code. The text of its EVICTED, if it had one.
fn closed_with(scene: &Scene, id: ClientId, code: u16) -> Option<String> {
    let is_closed = |client: &Watched| matches!(&client.status, Status::Out(Received::Close(sent, _)) if *sent == code);
    scene.crowd.wait_until(&format!("client {id} is closed with {code}"), SECOND * 2, |referee| {
        is_closed(referee.client(id).unwrap())
    });
    scene.crowd.referee(|referee| referee.client(id).unwrap().evicted.clone())
}

#[test]
fn one_limit_holds_over_three_servers() {
    let Some(scene) = Scene::with_arguments(1, &[]) else { return };
    scene.visits(SECOND * 6);
    let (admitted, most) = scene.crowd.referee(|referee| (referee.admitted(), referee.most().clone()));
    assert!(admitted > 50, "{admitted}");
    assert!(most.iter().all(|(user, most)| *most == LIMIT || user == "pat"), "{most:?}");
    scene.finish();
}

#[test]
fn evictions_at_random_keep_the_limit() {
    let Some(scene) = Scene::with_arguments(2, &["--when-full", "evict-oldest"]) else { return };
    scene.visits(SECOND * 6);
    scene.finish();
}

#[test]
fn victim_at_another_server_is_told() {
    let Some(scene) = Scene::with_arguments(3, &["--when-full", "evict-oldest"]) else { return };
    let mut held: Vec<_> = (0..LIMIT).map(|server| admitted(&scene, server, &json!({"user": "kim"})).0).collect();
    let mut longest = Duration::ZERO;
    for round in 0..12 {
        let start = Instant::now();
        // The oldest one is at another server.
        let newcomer = admitted(&scene, (round + 2) % 3, &json!("kim")).0;
        let took = start.elapsed();
        assert!(took < SECOND * 2, "{took:?}");
        longest = longest.max(took);
        held.push(newcomer);
        let words = closed_with(&scene, held.remove(0), 4409).unwrap();
        assert!(words.contains("Another session of this user has taken the place of this one"), "{words}");
    }
    measured("the longest time from connecting to the place of a victim at another server", longest);
    scene.crowd.expect_alive(&held);
    scene.finish();
}

#[test]
fn session_resumes_at_another_server() {
    let arguments = ["--linger", "1m", "--lingering-first=false", "--linger-grace", "0s"];
    let Some(scene) = Scene::with_arguments(4, &arguments) else { return };
    let (lost, first) = admitted(&scene, 0, &json!({"user": "kim", "label": "one"}));
    let (other, _) = admitted(&scene, 1, &json!({"user": "kim"}));
    let resume = json!({"user": "kim", "resume": first["resume"], "if_not_resumed": "refuse"});
    let same = |answer: &Value| {
        assert_eq!((&answer["resumed"], &answer["resume"]), (&json!(true), &first["resume"]), "{answer}");
        assert_eq!((&answer["slot"], &answer["connections"]), (&first["slot"], &json!(2)), "{answer}");
        assert_ne!(answer["session"], first["session"]);
    };

    // A lost session keeps its slot, for its client alone.
    scene.crowd.referee(|referee| referee.hang_up(lost));
    assert_eq!(denied(&scene, 2, &json!({"user": "kim"}))["code"], "limit_reached");
    let (back, answer) = admitted(&scene, 1, &resume);
    same(&answer);
    // A live one goes on here, and the other connection is closed before.
    let (again, answer) = admitted(&scene, 2, &resume);
    same(&answer);
    closed_with(&scene, back, 4410);
    // After BYE nobody can resume it. Another server knows of it once that has given the slot up.
    bye(&scene, again);
    thread::sleep(Duration::from_millis(200));
    let answer = denied(&scene, 0, &resume);
    assert_eq!(answer["code"], "not_resumed", "{answer}");
    bye(&scene, other);
    scene.finish();
}

#[test]
fn session_ends_another_one_elsewhere() {
    let Some(scene) = Scene::with_arguments(6, &[]) else { return };
    let (first, _) = admitted(&scene, 0, &json!({"user": "kim", "label": "one"}));
    let (second, answer) = admitted(&scene, 1, &json!({"user": "kim"}));
    let end = json!({"type": "END_SESSION", "payload": answer["session"]});
    scene.crowd.referee(|referee| referee.send(first, &end.to_string()));
    let words = closed_with(&scene, second, 4409).unwrap();
    assert!(words.contains("one has ended this session"), "{words}");
    // The slot is free at once.
    admitted(&scene, 2, &json!({"user": "kim"}));
    scene.crowd.expect_alive(&[first]);
    scene.finish();
}

#[test]
fn client_in_line_gets_a_slot_freed_elsewhere() {
    let Some(scene) = Scene::with_arguments(7, &[]) else { return };
    let held = scene.fill(0, "kim");
    let payload = json!({"user": "kim", "wait_ms": 10_000}).to_string();
    let waiting = scene.crowd.connect_with(1, "kim", payload).unwrap();
    thread::sleep(SECOND / 2);
    scene.crowd.referee(|referee| {
        assert_eq!(referee.client(waiting).unwrap().status, Status::Asked);
        referee.say_bye(held[0]);
    });
    let start = Instant::now();
    assert!(matches!(scene.crowd.answer(waiting, SECOND * 3), Status::In(_)));
    measured("a client in line had the slot that was freed elsewhere after", start.elapsed());
    scene.finish();
}

#[test]
fn operator_commands_hold_at_all_servers() {
    let Some(scene) = Scene::with_arguments(5, &[]) else { return };
    let at = |server: ServerId| scene.fleet.data(server);
    let kim = json!({"user": "kim"});
    let (first, _) = admitted(&scene, 1, &kim);
    assert_eq!(report(at(0), &["limit", "kim", "1"])["limit"], 1);
    for server in [0, 1, 2] {
        let answer = denied(&scene, server, &kim);
        assert_eq!((&answer["code"], &answer["limit"]), (&json!("limit_reached"), &json!(1)), "{answer}");
    }
    let explained = report(at(2), &["explain", "kim"]);
    assert_eq!((&explained["limit"], &explained["connections"]), (&json!(1), &json!(1)), "{explained}");
    assert_eq!(explained["rule"], "user");

    // A ban holds at once for newcomers. It ends no session by itself.
    assert_eq!(report(at(1), &["limit", "kim", "0"])["limit"], 0);
    for server in [0, 1, 2] {
        assert_eq!(denied(&scene, server, &kim)["code"], "banned");
    }
    scene.crowd.expect_alive(&[first]);
    assert_eq!(report(at(2), &["end", "kim"])["ended"].as_array().unwrap().len(), 1);
    let words = closed_with(&scene, first, 4409).unwrap();
    assert!(words.contains("The operator has ended this session"), "{words}");

    report(at(0), &["limit", "kim", "default"]);
    let held: Vec<_> = (0..LIMIT).map(|server| admitted(&scene, server, &kim).0).collect();
    assert_eq!(report(at(2), &["explain", "kim"])["connections"], LIMIT);
    // A lowered limit that is enforced ends the newest, wherever it is.
    let report = report(at(2), &["limit", "kim", "1", "--enforce"]);
    assert_eq!((report["ended"].as_array().unwrap().len(), &report["connections"]), (1, &json!(1)));
    closed_with(&scene, held[1], 4409).unwrap();
    scene.crowd.expect_alive(&held[..1]);
    self::report(at(1), &["limit", "kim", "default"]);
    scene.finish();
}
