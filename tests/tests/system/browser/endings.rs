//! Sessions that end by the server's rules.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use super::site::{SERVER, Site, write};
use super::tabs::open_three;
use crate::admin_commands::report;

/// The page notices that its token has run out, fetches a fresh one, and comes back.
#[test]
fn expired_token_is_replaced_by_a_fresh_one() {
    let jwt = |directory: &std::path::Path| {
        let secret = write(directory, "secret", "thirty-two bytes of nothing much");
        ["--auth", "jwt", "--jwt-secret-file", &secret].map(str::to_owned).into()
    };
    let Some(site) = Site::start_with(&[], jwt) else { return };
    let secret = site.data().with_file_name("secret");
    let issue = |ttl: &str| {
        let mut command = Command::new(SERVER);
        command.args(["token", "--user", "ada", "--ttl", ttl, "--jwt-secret-file"]).arg(&secret);
        let output = command.output().unwrap();
        assert!(output.status.success());
        site.serve("/token", String::from_utf8(output.stdout).unwrap().trim());
    };
    issue("1h");
    let [first, other] = ["first", "other"].map(|label| {
        let tab = site.open_at(site.relay.address, &format!("token=/token&label={label}"));
        tab.expect_in();
        tab
    });
    // A token that is about to run out takes the place of the first one.
    let before = other.sessions();
    issue("3s");
    first.value("renew()");
    issue("1h");
    assert_eq!(first.expect_return()["resumed"], true);
    assert_eq!(first.closes(), [4402]);
    other.expect_undisturbed();
    assert_eq!(other.sessions(), before);
}

/// The operator ends sessions in three ways. The tabs are told which, and do not come back by themselves.
#[test]
fn tabs_are_told_what_the_operator_did() {
    const WORDS: &str = "The operator has ended this session";
    let Some(site) = Site::start(&[]) else { return };
    let operator = |arguments: &[&str]| report(&site.data(), arguments);
    let [first, second, third] = open_three(|label| site.open(label));
    operator(&["limit", "ada", "2", "--enforce"]);
    third.expect_evicted("limit_lowered", WORDS);
    let session = second.value("page.grant.session");
    operator(&["end", "ada", session.as_str().unwrap()]);
    second.expect_evicted("operator", WORDS);
    first.expect_undisturbed();
    operator(&["limit", "ada", "0", "--enforce"]);
    first.expect_evicted("banned", WORDS);
    // Also when a person asks for it.
    for tab in [first, second, third] {
        tab.reload();
        tab.wait_until("page.state === 'refused'");
        assert_eq!(tab.value("page.failure.code"), "banned");
    }
    assert_eq!(operator(&["explain", "ada"])["connections"], 0);
}
