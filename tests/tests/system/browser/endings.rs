//! Sessions that end by the server's rules.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use super::site::{SERVER, Site, write};
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
    issue("3s");
    first.value("renew()");
    issue("1h");
    first.expect_return();
    assert_eq!(first.closes(), [4402]);
    other.expect_undisturbed();
    let sessions: Vec<_> = other.sessions().into_iter().map(|session| (session.label, session.state)).collect();
    assert_eq!(sessions, ["first", "other"].map(|label| (label.to_owned(), "live".to_owned())));
}

/// The operator ends all sessions of a user. Their tabs do not come back by themselves, and are refused if told to.
#[test]
fn banned_user_stays_out() {
    let Some(site) = Site::start(&[]) else { return };
    let tabs = ["first", "second"].map(|label| {
        let tab = site.open(label);
        tab.expect_in();
        tab
    });
    let answer = report(&site.data(), &["limit", "ada", "0", "--enforce"]);
    assert_eq!(answer["connections"], 0, "{answer}");
    for tab in &tabs {
        assert_eq!(tab.expect_out(), [4409]);
        assert_eq!(tab.value("page.evicted"), "The operator has ended this session");
    }
    for tab in &tabs {
        tab.reload();
        tab.wait_until("page.state === 'refused'");
        assert_eq!(tab.value("page.failure.code"), "banned");
    }
    assert_eq!(report(&site.data(), &["explain", "ada"])["connections"], 0);
}
