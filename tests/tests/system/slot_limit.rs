//! The limit over real sockets: denials, evictions and resumes.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::needless_pass_by_value, reason = "messages are made where they are sent")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use session_core::ledger::AdmissionPolicy;
use session_core::ledger::{CountBy, SlotLimit, WhenFull};
use shell::auth::OpenAuthenticator;
use shell::store::{MemoryStore, Store as _};
use tests::raw_client::{RawClient, Received};
use tests::test_process::TestProcess;
use tests::test_server::{NODE, TestServer, settings};
use tests::waiting::eventually;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const LIMIT_REACHED: &str = "User has reached connection limit, no more connections allowed";

/// A server with this policy and a limit of two.
fn server(policy: impl FnOnce(&mut AdmissionPolicy)) -> (TestServer, Arc<MemoryStore>) {
    let mut initial = AdmissionPolicy::new(SlotLimit::new(2).unwrap());
    policy(&mut initial);
    let store = Arc::new(MemoryStore::with_policy(NODE, initial));
    (
        TestServer::with_authenticator(
            Arc::<MemoryStore>::clone(&store),
            Box::new(OpenAuthenticator::default()),
            settings(),
            2,
        ),
        store,
    )
}

fn send_json(peer: &mut RawClient, message: &Value) -> Value {
    peer.text(&message.to_string());
    read_json(peer)
}

fn read_json(peer: &mut RawClient) -> Value {
    match peer.read() {
        Received::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("no answer but {other:?}"),
    }
}

fn authenticate(peer: &mut RawClient, payload: Value) -> Value {
    send_json(peer, &json!({"type": "AUTHENTICATE", "payload": payload}))
}

/// Authenticates with this object and is admitted. Returns the connection and the payload.
fn admitted(server: &TestServer, payload: Value) -> (RawClient, Value) {
    let mut peer = RawClient::open(server.address);
    let answer = authenticate(&mut peer, payload);
    assert_eq!(answer["type"], "AUTHENTICATE_SUCCESS", "{answer}");
    (peer, answer["payload"].clone())
}

/// Authenticates with this object and is denied. Returns the connection and the answer.
fn denied(server: &TestServer, payload: Value) -> (RawClient, Value) {
    let mut peer = RawClient::open(server.address);
    let answer = authenticate(&mut peer, payload);
    assert_eq!((&answer["type"], &answer["payload"]), (&json!("AUTHENTICATE_FAILURE"), &json!(LIMIT_REACHED)));
    (peer, answer)
}

fn expect_evicted(peer: &mut RawClient, words: &str) {
    let evicted = read_json(peer);
    assert_eq!((&evicted["type"], &evicted["payload"]), (&json!("EVICTED"), &json!(words)));
    peer.expect_goodbye(4409);
}

#[test]
fn detailed_denial_lists_sessions_to_choose_from() {
    let (server, _) = server(|policy| policy.client_choice = true);
    let (mut first, _) = admitted(&server, json!({"user": "ada", "label": "Firefox on the laptop", "device": "l"}));
    let mut plain = RawClient::authenticated(server.address, "ada", 2);
    let (mut newcomer, failure) = denied(&server, json!({"user": "ada", "device": "phone"}));
    assert_eq!((&failure["code"], &failure["limit"]), (&json!("limit_reached"), &json!(2)));
    assert_eq!(failure.get("retry_after_ms"), None);
    let sessions = failure["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!((&sessions[0]["label"], &sessions[0]["state"]), (&json!("Firefox on the laptop"), &json!("live")));
    assert_eq!(sessions[1].get("label"), None);

    // The choice succeeds on the same socket, in one step.
    let choice = json!({"user": "ada", "device": "phone", "evict": [sessions[0]["id"]]});
    let granted = authenticate(&mut newcomer, choice);
    assert_eq!((&granted["type"], &granted["payload"]["connections"]), (&json!("AUTHENTICATE_SUCCESS"), &json!(2)));
    expect_evicted(&mut first, "phone has taken the place of this session");
    // `oldest` ends the oldest remaining session.
    let (_third, granted) = admitted(&server, json!({"user": "ada", "evict": "oldest"}));
    assert_eq!(granted["connections"], 2);
    expect_evicted(&mut plain, "Another session of this user has taken the place of this one");
}

#[test]
fn evict_without_permission_or_effect_is_denied() {
    let (server, store) = server(|_| {});
    let (_first, granted) = admitted(&server, json!({"user": "ada"}));
    let _second = admitted(&server, json!({"user": "ada"}));
    denied(&server, json!({"user": "ada", "evict": "oldest"}));
    denied(&server, json!({"user": "ada", "evict": [granted["session"]]}));

    // With the lower limit two sessions would have to end.
    store.set_policy(AdmissionPolicy { client_choice: true, ..AdmissionPolicy::new(SlotLimit::new(1).unwrap()) });
    denied(&server, json!({"user": "ada", "evict": [granted["session"]]}));
    denied(&server, json!({"user": "ada", "evict": [granted["session"], granted["session"]]}));
    let mut peer = RawClient::open(server.address);
    let gone = authenticate(&mut peer, json!({"user": "ada", "evict": [granted["slot"], "0".repeat(32)]}));
    assert_eq!((&gone["type"], &gone["code"]), (&json!("AUTHENTICATE_FAILURE"), &json!("gone")));
    assert_eq!(gone["sessions"].as_array().map(Vec::len), Some(2));
    // All sessions are still there.
    let mut peer = RawClient::open(server.address);
    assert_eq!(
        authenticate(&mut peer, json!("ada")),
        json!({"type": "AUTHENTICATE_FAILURE", "payload": LIMIT_REACHED})
    );
    let (_third, granted) = admitted(&server, json!({"user": "ada", "evict": "oldest"}));
    assert_eq!(granted["connections"], 1);
}

#[test]
fn evict_oldest_applies_to_plain_clients() {
    let (server, _) = server(|policy| policy.when_full = WhenFull::EvictOldest);
    let mut held: Vec<_> = (1..=2).map(|held| RawClient::authenticated(server.address, "ada", held)).collect();
    for _ in 0..5 {
        held.push(RawClient::authenticated(server.address, "ada", 2));
        expect_evicted(&mut held.remove(0), "Another session of this user has taken the place of this one");
    }
    // An eviction does not affect other sessions, and BYE still frees a slot.
    held[0].send_bye();
    let _last = RawClient::authenticated(server.address, "ada", 2);
}

#[test]
fn concurrent_evictions_keep_the_limit() {
    let (server, _) = server(|policy| policy.when_full = WhenFull::EvictOldest);
    let address = server.address;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                (0..25).for_each(|_| {
                    let mut peer = RawClient::open(address);
                    let granted = authenticate(&mut peer, json!("ada"));
                    // It may have been evicted before the grant was sent.
                    if granted["type"] == "AUTHENTICATE_SUCCESS" {
                        assert!(granted["payload"]["connections"].as_u64().unwrap() <= 2, "{granted}");
                    } else {
                        assert_eq!(granted["type"], "EVICTED");
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut last = RawClient::open(address);
    eventually("all of them have left", || {
        let granted = authenticate(&mut last, json!("eve"));
        granted["type"] == "AUTHENTICATE_SUCCESS" || granted["type"] == "ERROR"
    });
}

#[test]
fn only_sessions_of_the_user_end_each_other() {
    let (server, _) = server(|_| {});
    let (mut first, granted) = admitted(&server, json!({"user": "ada", "label": "first"}));
    let mut plain = RawClient::authenticated(server.address, "ada", 2);
    let (mut eve, _) = admitted(&server, json!({"user": "eve"}));
    let list = json!({"type": "LIST_SESSIONS"});
    let listed = send_json(&mut plain, &list);
    assert_eq!(listed["type"], "LIST_SESSIONS_SUCCESS");
    let sessions = &listed["payload"]["sessions"];
    assert_eq!((&sessions[0]["id"], &sessions[0]["label"]), (&granted["session"], &json!("first")));
    let end = |id: &Value| json!({"type": "END_SESSION", "payload": id});
    let gone = send_json(&mut eve, &end(&granted["session"]));
    assert_eq!((&gone["code"], &gone["payload"]), (&json!("gone"), &json!("This user has no such session")));
    assert_eq!((gone["sessions"].as_array().map(Vec::len), &gone["sessions"][0]["self"]), (Some(1), &json!(true)));
    for own in ["session", "slot"] {
        assert_eq!(send_json(&mut first, &end(&granted[own]))["payload"], "A session ends itself with BYE");
    }
    assert_eq!(
        send_json(&mut first, &end(&sessions[1]["id"])),
        json!({"type": "END_SESSION_SUCCESS", "payload": {"id": "ada", "connections": 1}})
    );
    expect_evicted(&mut plain, "first has ended this session");
    assert_eq!(send_json(&mut first, &end(&sessions[1]["id"]))["code"], "gone");
    let mut anonymous = RawClient::open(server.address);
    let refused = json!({"type": "ERROR", "payload": "This session is not authenticated"});
    assert_eq!(send_json(&mut anonymous, &list), refused);
}

#[test]
fn lost_session_resumes_only_with_its_own_token() {
    let (server, _) = server(|policy| (policy.linger, policy.lingering_first) = (Duration::from_secs(60), false));
    let (lost, granted) = admitted(&server, json!({"user": "ada", "label": "one"}));
    let (_other, _) = admitted(&server, json!({"user": "ada"}));
    let token = granted["resume"].as_str().unwrap().to_owned();
    assert_eq!((token.len(), &granted["linger_ms"]), (64, &json!(60_000)));
    drop(lost);
    let mut eve = RawClient::open(server.address);
    let strangers = authenticate(&mut eve, json!({"user": "eve", "resume": token}));
    assert_ne!(strangers["payload"]["resume"], token, "another user cannot resume with it");
    let mut failure = Value::Null;
    eventually("the session is lost", || {
        failure = denied(&server, json!({"user": "ada"})).1;
        failure["sessions"][0]["state"] == "lingering"
    });
    let wait = failure["retry_after_ms"].as_u64().unwrap();
    assert!((50_000..=60_000).contains(&wait), "{failure}");

    let (mut back, resumed) = admitted(&server, json!({"user": "ada", "resume": token}));
    assert_eq!((&resumed["connections"], &resumed["resume"]), (&json!(2), &json!(token)));
    assert_ne!(resumed["session"], granted["session"]);
    // A resume of a live session continues here and closes the other connection.
    let (mut again, _) = admitted(&server, json!({"user": "ada", "resume": token}));
    back.expect_goodbye(4410);
    let listed = send_json(&mut again, &json!({"type": "LIST_SESSIONS"}));
    assert_eq!(
        (&listed["payload"]["connections"], &listed["payload"]["sessions"][0]["label"]),
        (&json!(2), &json!("one"))
    );
    // After BYE the slot does not linger, and the token is invalid.
    again.send_bye();
    let (_anew, granted) = admitted(&server, json!({"user": "ada", "resume": token}));
    assert_ne!(granted["resume"], token);
}

#[test]
fn lingering_slot_yields_or_expires() {
    let (server, store) =
        server(|policy| (policy.linger, policy.linger_grace) = (Duration::from_secs(60), Duration::ZERO));
    let (lost, granted) = admitted(&server, json!({"user": "ada"}));
    let (_second, _) = admitted(&server, json!({"user": "ada"}));
    drop(lost);
    eventually("the lingering slot makes room", || {
        let mut newcomer = RawClient::open(server.address);
        let answer = authenticate(&mut newcomer, json!("ada"));
        newcomer.send_bye();
        answer["type"] == "AUTHENTICATE_SUCCESS"
    });
    let (_third, anew) = admitted(&server, json!({"user": "ada", "resume": granted["resume"]}));
    assert_ne!(anew["resume"], granted["resume"], "the slot was evicted");

    store.set_policy(AdmissionPolicy {
        linger: Duration::from_millis(300),
        lingering_first: false,
        ..AdmissionPolicy::default()
    });
    let (lost, granted) = admitted(&server, json!({"user": "bob"}));
    drop(lost);
    let mut watcher = RawClient::open(server.address);
    assert_eq!(authenticate(&mut watcher, json!({"user": "bob"}))["type"], "AUTHENTICATE_SUCCESS");
    let start = Instant::now();
    let check = json!({"type": "CHECK_CONNECTIONS"});
    eventually("it has lingered for its time", || {
        std::thread::sleep(Duration::from_millis(20));
        send_json(&mut watcher, &check)["payload"]["connections"] == 1
    });
    assert!(start.elapsed() < Duration::from_secs(2));
    let (_late, anew) = admitted(&server, json!({"user": "bob", "resume": granted["resume"]}));
    assert_ne!(anew["resume"], granted["resume"]);
}

#[test]
fn slots_of_a_killed_server_can_be_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--limit", "1", "--linger", "1m", "--lingering-first=false"];
    let mut process = TestProcess::start(SERVER, directory.path(), &arguments);
    let sign_in = |process: &TestProcess, payload: Value| {
        let mut peer = RawClient::open(process.address);
        let answer = authenticate(&mut peer, payload);
        (peer, answer)
    };
    let (_held, granted) = sign_in(&process, json!({"user": "ada"}));
    let _plain = RawClient::authenticated(process.address, "bob", 1);
    process.kill();
    let process = TestProcess::start(SERVER, directory.path(), &arguments);
    // The slot of the plain client cannot be resumed, so it is free. The other one lingers.
    let _bob = RawClient::authenticated(process.address, "bob", 1);
    let (_newcomer, failure) = sign_in(&process, json!({"user": "ada"}));
    assert_eq!((&failure["code"], &failure["sessions"][0]["state"]), (&json!("limit_reached"), &json!("lingering")));
    let (_home, resumed) = sign_in(&process, json!({"user": "ada", "resume": granted["payload"]["resume"]}));
    assert_eq!(resumed["payload"]["resume"], granted["payload"]["resume"], "{resumed}");
}

#[test]
fn sessions_of_one_device_end_together() {
    let (server, _) = server(|policy| {
        (policy.count_by, policy.client_choice) = (CountBy::Devices, true);
        policy.sessions_per_device = 3.try_into().unwrap();
    });
    let tab = |device: &str| json!({"user": "ada", "device": device});
    let mut tabs: Vec<_> = (0..3).map(|_| admitted(&server, tab("laptop"))).collect();
    assert!(tabs.iter().all(|(_, granted)| granted["connections"] == 1));
    let mut peer = RawClient::open(server.address);
    let failure = authenticate(&mut peer, tab("laptop"));
    assert_eq!(
        (&failure["code"], &failure["payload"]),
        (&json!("device_full"), &json!("This device has as many sessions as one may"))
    );
    let (mut phone, granted) = admitted(&server, tab("phone"));
    assert_eq!(granted["connections"], 2);
    denied(&server, json!({"user": "ada"}));
    // One of three sessions leaves. The slot of the device is still taken.
    tabs.pop().unwrap().0.send_bye();
    denied(&server, json!({"user": "ada"}));
    let (_tablet, granted) =
        admitted(&server, json!({"user": "ada", "device": "tablet", "evict": [tabs[1].1["session"]]}));
    assert_eq!(granted["connections"], 2);
    for (tab, _) in &mut tabs {
        expect_evicted(tab, "tablet has taken the place of this session");
    }
    phone.send_bye();
}

#[test]
fn invalid_options_are_answered_with_a_reason() {
    let (server, _) = server(|_| {});
    let mut peer = RawClient::open(server.address);
    for (payload, words) in [
        (json!({"user": "ada", "token": "x"}), "AUTHENTICATE takes a user or a token, not both"),
        (
            json!({"user": "ada", "device": ""}),
            "device must be a string of 1 to 64 characters without control characters",
        ),
        (json!({"user": "ada", "label": "a\nb"}), "label must be a string without control characters, and not empty"),
        (json!({"user": "ada", "resume": "x"}), "resume must be a token from an earlier grant, 64 hexadecimal digits"),
        (
            json!({"user": "ada", "evict": []}),
            "evict must be \"oldest\", \"nobody\" or a list of 1 to 100 ids of slots or sessions",
        ),
        (
            json!({"user": "ada", "evict": ["x"]}),
            "evict must be \"oldest\", \"nobody\" or a list of 1 to 100 ids of slots or sessions",
        ),
    ] {
        let failure = authenticate(&mut peer, payload);
        assert_eq!((&failure["type"], &failure["payload"]), (&json!("AUTHENTICATE_FAILURE"), &json!(words)));
        assert_eq!(failure["code"], "bad_request");
        assert!(words.contains(failure["field"].as_str().unwrap()), "{failure}");
    }
    let failure = authenticate(&mut peer, json!({"label": "nobody"}));
    assert_eq!((&failure["code"], &failure["type"]), (&json!("credential_refused"), &json!("AUTHENTICATE_FAILURE")));
    assert_eq!(
        authenticate(&mut peer, json!({"user": "ada", "device": null, "more": {"x": [1]}}))["type"],
        "AUTHENTICATE_SUCCESS"
    );
}

/// A list of a hundred sessions with the longest names has 36 KiB.
#[test]
fn longest_session_list_arrives_whole() {
    let name = "🦀".repeat(64);
    let (server, _store) =
        server(|policy| (policy.limit, policy.linger) = (SlotLimit::new(110).unwrap(), Duration::from_secs(1)));
    let send_json = json!({"user": "ada", "device": name, "label": name});
    let mut held: Vec<_> = (0..110).map(|_| admitted(&server, send_json.clone()).0).collect();
    let actual = self::send_json(&mut held[0], &json!({"type": "LIST_SESSIONS"}));
    let sessions = |actual: &Value| actual["sessions"].as_array().map(Vec::len);
    let payload = &actual["payload"];
    assert_eq!((sessions(payload), &payload["connections"], &payload["limit"]), (Some(100), &json!(110), &json!(110)));
    let (mut refused, actual) = denied(&server, send_json);
    assert_eq!((sessions(&actual), &actual["connections"]), (Some(100), &json!(110)));
    assert_eq!(actual["sessions"][99]["label"], json!(name));
    refused.send_bye();
    held[0].send_bye();
}
