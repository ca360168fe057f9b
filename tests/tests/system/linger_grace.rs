//! Tabs get their own slots back over a restart of the server, although a newcomer tries to get in meanwhile.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::raw_client::{RawClient, Received};
use tests::test_process::{TestProcess, send_signal};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// How the server stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    InOrder,
    Killed,
}

/// A server where a user has three slots, which linger. Clients may end what they choose.
fn start(data: &Path, grace: &str) -> TestProcess {
    let arguments = ["--limit", "3", "--linger", "10m", "--client-choice", "--linger-grace", grace];
    TestProcess::start(SERVER, data, &arguments)
}

fn authenticate(server: &TestProcess, payload: &Value) -> (RawClient, Value) {
    let mut client = RawClient::open(server.address);
    client.text(&json!({ "type": "AUTHENTICATE", "payload": payload }).to_string());
    match client.read() {
        Received::Text(text) => (client, serde_json::from_str(&text).unwrap()),
        other => panic!("no answer but {other:?}"),
    }
}

fn stop(process: &mut TestProcess, tabs: Vec<RawClient>, how: Stop) {
    match how {
        Stop::Killed => process.kill(),
        Stop::InOrder => {
            send_signal(process.id(), Signal::TERM);
            for mut tab in tabs {
                tab.expect_goodbye(1001);
            }
            assert!(process.wait().success());
        }
    }
}

/// How many of three tabs have their own slots after a restart, and the answers to a newcomer that asks before each of them.
fn restart(how: Stop, grace: &str) -> (usize, Vec<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let mut first = start(directory.path(), grace);
    let mut tabs = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let (tab, granted) = authenticate(&first, &json!({ "user": "ada" }));
        tokens.push(granted["payload"]["resume"].clone());
        tabs.push(tab);
    }
    stop(&mut first, tabs, how);

    let second = start(directory.path(), grace);
    let (mut own, mut answers, mut connected) = (0, Vec::new(), Vec::new());
    for token in tokens {
        let (newcomer, answer) = authenticate(&second, &json!({ "user": "ada" }));
        connected.push(newcomer);
        answers.push(answer);
        let (tab, answer) = authenticate(&second, &json!({ "user": "ada", "resume": token }));
        connected.push(tab);
        own += usize::from(answer["payload"]["resume"] == token);
    }
    (own, answers)
}

#[test]
fn every_tab_resumes_its_slot_beside_a_newcomer() {
    for how in [Stop::InOrder, Stop::Killed] {
        let (own, answers) = restart(how, "5m");
        assert_eq!(own, 3, "{answers:?}");
        for answer in answers {
            assert_eq!((&answer["type"], &answer["code"]), (&json!("AUTHENTICATE_FAILURE"), &json!("limit_reached")));
            let wait = answer["retry_after_ms"].as_u64().unwrap();
            assert!((1..=300_000).contains(&wait), "the rest of the grace, not of the ten minutes: {answer}");
        }
    }
}

/// Otherwise the test above shows nothing.
#[test]
fn newcomer_robs_a_tab_without_a_grace() {
    for how in [Stop::InOrder, Stop::Killed] {
        let (own, answers) = restart(how, "0s");
        assert!(own < 3, "{answers:?}");
        assert_eq!(answers[0]["type"], "AUTHENTICATE_SUCCESS");
    }
}

#[test]
fn person_who_names_a_just_lost_slot_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = start(directory.path(), "5m");
    let tabs: Vec<_> = (0..3).map(|_| authenticate(&first, &json!({ "user": "ada" })).0).collect();
    stop(&mut first, tabs, Stop::Killed);
    let second = start(directory.path(), "5m");
    let (_denied, denial) = authenticate(&second, &json!({ "user": "ada" }));
    assert_eq!(denial["sessions"][1]["state"], "lingering", "{denial}");
    let named = json!({ "user": "ada", "evict": [denial["sessions"][1]["id"]] });
    let (_newcomer, granted) = authenticate(&second, &named);
    assert_eq!((&granted["type"], &granted["payload"]["connections"]), (&json!("AUTHENTICATE_SUCCESS"), &json!(3)));
}
