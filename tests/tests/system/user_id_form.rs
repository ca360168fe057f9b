//! The form in which user ids count, from sign-in to an operator's command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use tests::raw_client::{RawClient, Received};
use tests::test_process::TestProcess;

const SERVER: &str = env!("CARGO_BIN_EXE_server-under-test");
const COMPOSED: &str = "zo\u{e9}";
const DECOMPOSED: &str = "zoe\u{301}";
const FULL_WIDTH: &str = "\u{ff3a}\u{ff4f}\u{ff45}";

/// The exit code and both outputs of a command for this data directory.
fn command(data: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(SERVER);
    let Output { status, stdout, stderr } = command.args(arguments).arg("--data").arg(data).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

/// Signs in. Returns the connection and the answer.
fn sign_in(process: &TestProcess, user: &str) -> (RawClient, String) {
    let mut client = RawClient::open(process.address);
    client.text(&format!(r#"{{"type":"AUTHENTICATE","payload":"{user}"}}"#));
    let Received::Text(answer) = client.read() else { panic!("no answer") };
    (client, answer)
}

#[test]
fn exact_ids_that_look_alike_are_two_users() {
    let directory = tempfile::tempdir().unwrap();
    let process = TestProcess::start(SERVER, directory.path(), &[]);
    let held: Vec<_> =
        [COMPOSED, DECOMPOSED, "zoe", "zoe ", FULL_WIDTH].map(|user| sign_in(&process, user)).into_iter().collect();
    assert!(held.iter().all(|(_, answer)| answer.contains(r#""connections":1"#)));
    for (user, others) in [
        ("zoe", &["\"zoe \""][..]),
        ("zoe ", &["\"zoe\""]),
        (FULL_WIDTH, &["\"zoe\""]),
        (COMPOSED, &["another user looks like this one"]),
        (DECOMPOSED, &["another user looks like this one"]),
    ] {
        let (code, text) = command(directory.path(), &["explain", user]);
        assert_eq!(code, Some(0), "{text}");
        assert!(others.iter().all(|other| text.contains(other)), "{user:?}: {text}");
    }
    let (_, text) = command(directory.path(), &["explain", "bob"]);
    assert!(!text.contains("looks like"), "{text}");
}

#[test]
fn spellings_of_one_form_share_a_limit_and_its_override() {
    for (form, first, second, user) in [("nfc", DECOMPOSED, COMPOSED, COMPOSED), ("precis", FULL_WIDTH, "ZOE", "zoe")] {
        let directory = tempfile::tempdir().unwrap();
        let process = TestProcess::start(SERVER, directory.path(), &["--user-id-form", form, "--limit", "2"]);
        // The command does not know the form, the server does.
        let (code, text) = command(directory.path(), &["limit", second, "1"]);
        assert!(code == Some(0) && text.contains(&format!("user {user:?} ")), "{form}: {text}");
        let (_held, answer) = sign_in(&process, first);
        assert!(answer.contains(&format!(r#"{{"id":"{user}","connections":1}}"#)), "{form}: {answer}");
        for spelling in [first, second, user] {
            let (_denied, answer) = sign_in(&process, spelling);
            assert!(answer.contains("reached connection limit"), "{form} {spelling:?}: {answer}");
        }
        let (code, text) = command(directory.path(), &["end", first]);
        assert!(code == Some(0) && text.contains(&format!("user {user:?} holds 0 slots")), "{form}: {text}");
    }
}

#[test]
fn precis_refusals_say_which_rule_an_id_breaks() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = TestProcess::start(SERVER, directory.path(), &["--user-id-form", "precis"]);
    let (_refused, answer) = sign_in(&process, "zoe ");
    assert!(answer.contains("User id is not a username (RFC 8265)"), "{answer}");
    let (code, text) = command(directory.path(), &["explain", "zoe "]);
    assert!(code == Some(1) && text.contains("the character U+0020 at position 4 is not allowed"), "{text}");
    process.kill();
    // Without a server the command has its own configuration: so it reaches a record under an old spelling.
    let (code, text) = command(directory.path(), &["explain", "zoe "]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = command(directory.path(), &["--user-id-form", "precis", "explain", "zoe "]);
    assert!(code == Some(1) && text.contains("U+0020"), "{text}");
}
