//! What the operator's commands answer: what they did, whom the server knows, and how it is doing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(unix)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::raw_client::{RawClient, upgrade_request};
use tests::test_process::{TestProcess, send_signal};
use tests::waiting::eventually;

use super::admin_commands::{report, run_command, sign_in};

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");

/// The exit code and the first line of a command that writes no error.
fn first_line(data: &Path, arguments: &[&str]) -> (i32, String) {
    let (code, out, err) = run_command(data, arguments);
    assert_eq!(err, "", "{out}");
    (code, out.lines().next().unwrap().to_owned())
}

/// Ends a server as a service manager does: it writes down what it knows.
fn stop(mut process: TestProcess) {
    send_signal(process.id(), Signal::TERM);
    assert!(process.wait().success());
}

/// The body of the answer to this request.
fn get(data: &Path, target: &str) -> Value {
    let mut socket = UnixStream::connect(data.join("operator.sock")).unwrap();
    write!(socket, "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn check_orders(data: &Path) {
    let line = |arguments: &[&str]| first_line(data, arguments);
    let nothing = |text: &str| (6, format!("nothing to do: {text}"));
    let done = |text: &str| (0, format!("done: {text}"));
    let default = "3 (the server's default, unless a token has another)";
    assert_eq!(line(&["forget", "nobody"]), nothing("the server knows nothing of user \"nobody\""));
    assert_eq!(line(&["end", "nobody"]), nothing("user \"nobody\" holds no slot"));
    assert_eq!(
        line(&["limit", "eve", "5", "--dry-run"]),
        (
            0,
            format!(
                "dry run, nothing is changed: the limit of user \"eve\" was {default}, and would be 5 (per-user override)"
            )
        )
    );
    let five = done(&format!("the limit of user \"eve\" was {default}, and is now 5 (per-user override)"));
    assert_eq!(line(&["limit", "eve", "5"]), five, "the dry run has changed nothing");
    assert_eq!(line(&["limit", "eve", "5"]), nothing("the limit of user \"eve\" is 5 (per-user override), as before"));
    let (code, text) = line(&["limit", "eve", "5", "--dry-run"]);
    assert!(code == 6 && text.starts_with("dry run, there would be nothing to do: "), "{code} {text}");
    let (code, out, _) = run_command(data, &["limit", "eve", "0"]);
    assert!(code == 0 && out.contains("the server has never seen this user"), "{out}");
    let (code, out, _) = run_command(data, &["forget", "eve"]);
    assert!(code == 0 && !out.contains("is the id right?"), "the id was right: {out}");
    assert!(out.starts_with("done: user \"eve\" is forgotten; the limit was 0 (per-user override)\n"), "{out}");
    assert_eq!(line(&["limit", "eve"]).0, 0, "a question is always answered");
}

#[test]
fn orders_say_what_they_did_with_and_without_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let process = TestProcess::start(SERVER, data, &[]);
    check_orders(data);
    let (_one, one) = sign_in(&process, "ada", "laptop");
    let (_two, two) = sign_in(&process, "ada", "phone");
    let [one, two] = [one, two].map(Result::unwrap);
    let (code, out, _) = run_command(data, &["limit", "ada", "0"]);
    assert!(code == 0 && out.contains("\n2 sessions are beyond the limit and go on; --enforce ends"), "{out}");
    assert_eq!(report(data, &["limit", "ada", "1"])["beyond_limit"], json!([two]));
    let enforced = report(data, &["limit", "ada", "1", "--enforce"]);
    assert_eq!((&enforced["change"], &enforced["connections_before"]), (&"made".into(), &2.into()));
    assert_eq!(enforced["before"]["overrides"], json!({ "limit": 1 }));
    assert_eq!(first_line(data, &["limit", "ada", "1", "--enforce"]).0, 6);
    let ended = first_line(data, &["end", "ada"]);
    assert_eq!(ended, (0, "done: ended 1 session of user \"ada\", who held 1 slot".into()), "{one}");
    let (code, text) = first_line(data, &["forget", "ada"]);
    assert!(code == 0 && text.starts_with("done: user \"ada\" is forgotten; first seen 2"), "{text}");
    assert!(text.ends_with("; the limit was 1 (per-user override)"), "{text}");
    drop(process);
    check_orders(data);
}

#[test]
fn explain_shows_the_whole_address_of_a_client() {
    let directory = tempfile::tempdir().unwrap();
    let process = TestProcess::start(SERVER, directory.path(), &["--trusted-proxies", "127.0.0.1"]);
    let mut clients = Vec::new();
    for address in ["2001:db8:1:2:3:4:5:6", "192.0.2.7"] {
        let mut client = RawClient::connect(process.address);
        client.write(upgrade_request(&format!("X-Forwarded-For: {address}\r\n")).as_bytes());
        client.skip_head();
        client.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);
        client.authenticate("ada");
        drop(client.read());
        clients.push(client);
    }
    let sessions = report(directory.path(), &["explain", "ada"])["sessions"].take();
    let addresses: Vec<_> = sessions.as_array().unwrap().iter().map(|session| session["from"].clone()).collect();
    assert_eq!(addresses, ["2001:db8:1:2:3:4:5:6", "192.0.2.7"]);
    assert!(addresses.iter().all(|address| address.as_str().unwrap().parse::<IpAddr>().is_ok()));
    assert_eq!(sessions[0]["client_prefix"], "2001:db8:1:2::/64");
    let (_, text, _) = run_command(directory.path(), &["explain", "ada"]);
    assert!(text.contains(", from 2001:db8:1:2:3:4:5:6 (counted as 2001:db8:1:2::/64)\n"), "{text}");
    assert!(text.contains(", from 192.0.2.7\n"), "{text}");
}

#[test]
fn users_are_listed_in_pages_with_and_without_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let process = TestProcess::start(SERVER, data, &[]);
    let ids = |list: &Value| -> Vec<String> {
        list["users"].as_array().unwrap().iter().map(|user| user["user"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(run_command(data, &["users"]), (0, "no user\n".into(), String::new()));
    let names = ["ada", "ada ", "b/c?d&e", "zoe\u{308}"];
    let mut clients: Vec<_> = names.iter().map(|name| RawClient::authenticated(process.address, name, 1)).collect();
    report(data, &["limit", "bob", "7"]);
    let all = ["ada", "ada ", "b/c?d&e", "bob", "zoe\u{308}"];
    // Users are listed at once, noted or not.
    let list = report(data, &["users"]);
    assert_eq!((ids(&list), &list["next"]), (all.map(String::from).into(), &Value::Null));
    assert_eq!(get(data, "/v1/users"), list);
    assert_eq!(
        list["users"][3],
        json!({
            "user": "bob", "sessions": { "live": 0, "lingering": 0 }, "known": false, "overrides": { "limit": 7 },
        })
    );
    assert_eq!((&list["users"][0]["known"], &list["users"][0]["sessions"]["live"]), (&true.into(), &1.into()));
    let (_, text, _) = run_command(data, &["users"]);
    assert!(text.contains("\"ada \" 1 session, first seen 2") && text.contains("\"zoe\\u{308}\" 1 session"), "{text}");
    assert!(text.contains("\"bob\" 0 sessions, never seen, limit 7\n"), "{text}");

    clients.remove(0).send_bye();
    let read_pages = |arguments: &[&str]| {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let go_on = after.iter().flat_map(|after| ["--after", after]).collect::<Vec<_>>();
            let list = report(data, &[&["users", "--limit", "2"], arguments, &go_on].concat());
            found.extend(ids(&list));
            let Some(next) = list["next"].as_str() else { return found };
            after = Some(next.to_owned());
        }
    };
    assert_eq!(read_pages(&[]), all);
    assert_eq!(read_pages(&["--with-sessions"]), ["ada ", "b/c?d&e", "zoe\u{308}"]);
    assert_eq!(read_pages(&["--prefix", "b/c?d&"]), ["b/c?d&e"]);
    for [flag, value] in [["--after", "x"], ["--limit", "1001"]] {
        let (code, _, err) = run_command(data, &["users", flag, value]);
        assert!(code == 2 && err.contains(&format!("invalid value '{value}' for '{flag} <")), "{err}");
    }
    assert_eq!(get(data, "/v1/users?after=x"), json!({ "error": "`after` is not the `next` of a page" }));
    assert_eq!(get(data, "/v1/users?limit=0"), json!({ "error": "a page has 1 to 1000 users" }));
    stop(process);
    assert_eq!(read_pages(&[]), all);
    assert!(read_pages(&["--with-sessions"]).is_empty());
}

#[test]
fn status_shows_the_server_and_what_needs_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = directory.path().join("sessions.toml");
    fs::write(&config, "limit = 3\nthreads = 2\n").unwrap();
    let process = TestProcess::start(SERVER, &data, &["--config", config.to_str().unwrap()]);
    let (_ada, session) = sign_in(&process, "ada", "x");
    let _silent = RawClient::open(process.address);
    report(&data, &["limit", "bob", "7"]);
    let status = report(&data, &["status"]);
    let server = &status["server"];
    assert_eq!(server["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server["node"], session.unwrap()[..16]);
    assert_eq!(
        (&server["process"], &server["listen"]),
        (&process.id().into(), &json!([process.url().trim_end_matches('/')]))
    );
    assert_eq!((&server["connections"]["open"], &server["connections"]["unauthenticated"]), (&2.into(), &1.into()));
    let descriptors = &server["descriptors"];
    assert!(descriptors["used"].as_u64().is_none_or(|used| used > 5), "{descriptors}");
    assert_eq!(server["configuration"], json!({ "needs_restart": [], "needs_reload": [], "error": null }));
    assert_eq!(status["sessions"], json!({ "live": 1, "lingering": 0, "users": 1, "complete": true }));
    assert_eq!(status["users"]["with_overrides"], 1);
    let store = &status["store"];
    assert_eq!((&store["admits"], &store["refusal"], &store["problems"]), (&true.into(), &Value::Null, &json!([])));
    for map in ["live", "users"] {
        let bytes = |key: &str| store[map][key].as_u64().unwrap();
        assert!(0 < bytes("used_bytes") && bytes("used_bytes") < bytes("file_bytes"), "{store}");
        assert!(bytes("file_bytes") < bytes("max_bytes"), "{store}");
    }
    assert_eq!(status["data"], data.to_str().unwrap());
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&get(&data, "/v1/status")), keys(&status));

    fs::write(&config, "limit = 4\nthreads = 3\n").unwrap();
    let changed = |key: &str, in_force: &str, now: &str| json!([{ "key": key, "in_force": in_force, "now": now }]);
    let configuration = || report(&data, &["status"])["server"]["configuration"].take();
    assert_eq!(
        configuration(),
        json!({ "needs_restart": changed("threads", "2", "3"), "needs_reload": changed("limit", "3", "4"), "error": null })
    );
    send_signal(process.id(), Signal::HUP);
    eventually("the reload is done", || configuration()["needs_reload"] == json!([]));
    assert_eq!(configuration()["needs_restart"], changed("threads", "2", "3"), "a reload does not change it");
    fs::write(&config, "limit = -1\n").unwrap();
    assert!(configuration()["error"].as_str().unwrap().contains("sessions.toml:1:1: limit: "));
    let (code, text, _) = run_command(&data, &["status"]);
    assert!(code == 0 && text.contains("\nneeds restart  threads is \"2\" in force, and \"3\" in the"), "{text}");

    stop(process);
    let (code, out, err) = run_command(&data, &["status", "--json"]);
    assert_eq!((code, &*err), (7, ""));
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&status["server"], &status["users"]["with_overrides"]), (&Value::Null, &1.into()));
    assert_eq!((&status["users"]["known"], &status["sessions"]["live"]), (&1.into(), &0.into()));
    let (code, text, _) = run_command(&data, &["status"]);
    assert!(code == 7 && text.starts_with("server         does not run"), "{text}");
    let (code, _, err) = run_command(&directory.path().join("missing"), &["status"]);
    assert!(code == 1 && err.contains("there is no server data in"), "{err}");
}
