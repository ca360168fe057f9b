//! Tabs of one user, among themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use session_core::protocol::{CloseReason, Greeting, Reconnect};
use tests::waiting::eventually;

use super::site::Site;
use super::tab::Tab;

/// Opens this many tabs, one after the other, and waits until they are in.
pub(super) fn open_three(open: impl Fn(&str) -> Tab) -> [Tab; 3] {
    ["first", "second", "third"].map(|label| {
        let tab = open(label);
        tab.expect_in();
        tab
    })
}

/// A fourth tab is refused, shows who holds the slots, and takes the place of the tab that is picked.
pub(super) fn pick(open: impl Fn(&str) -> Tab) {
    let [first, second, third] = open_three(&open);
    let fourth = open("fourth");
    assert_eq!(fourth.expect_picker(), ["first", "second", "third"]);
    assert_eq!(fourth.value("page.failure.code"), "limit_reached");
    assert_eq!(fourth.value("page.failure.connections"), 3);
    assert!(fourth.value("page.failure.choose_within_ms").as_u64() > Some(0));
    fourth.pick("second");
    let grant = fourth.expect_in();
    assert_eq!(grant["connections"], 3);
    assert_eq!(grant["ended"], json!([{ "slot": second.value("page.grant.slot"), "label": "second" }]));

    second.expect_evicted("taken", "fourth has taken the place of this session");
    assert_eq!(second.value("page.evicted.label"), "fourth");
    let labels: Vec<_> = first.sessions().into_iter().map(|session| (session.label, session.state)).collect();
    assert_eq!(labels, ["first", "fourth", "third"].map(|label| (label.to_owned(), "live".to_owned())));
    // Also a reload throws nobody out.
    second.reload();
    assert_eq!(second.expect_picker(), ["first", "third", "fourth"]);
    for tab in [first, third, fourth] {
        tab.expect_undisturbed();
    }
}

/// Each tab comes back into its own slot after a reload, and no other notices.
pub(super) fn reload(open: impl Fn(&str) -> Tab) {
    let tabs = open_three(open);
    let before = tabs[0].sessions();
    assert_eq!(before.len(), 3);
    for reloaded in [1, 1, 2] {
        tabs[reloaded].reload();
        let grant = tabs[reloaded].expect_in();
        assert_eq!((&grant["connections"], &grant["resumed"]), (&json!(3), &json!(true)));
        assert_eq!(tabs[0].sessions(), before);
    }
    for tab in &tabs {
        tab.expect_undisturbed();
    }
    // As at the end of an update of the application: all at once.
    for tab in &tabs {
        tab.start_reload();
    }
    for tab in &tabs {
        assert_eq!(tab.expect_in()["resumed"], true);
        // Each knows itself in the list.
        let own = tab.value("list().then((all) => all.filter((session) => session.self).map(({ slot }) => slot))");
        assert_eq!(own, json!([tab.value("page.grant.slot")]));
    }
    assert_eq!(tabs[0].sessions(), before);
}

#[test]
fn fourth_tab_replaces_the_picked_tab() {
    let Some(site) = Site::start(&[]) else { return };
    pick(|label| site.open(label));
}

#[test]
fn reloaded_tab_resumes_its_own_slot() {
    let Some(site) = Site::start(&[]) else { return };
    reload(|label| site.open(label));
}

/// A slot of a tab that was closed lingers. The next tab waits until it may take it, and takes no live one.
#[test]
fn closed_tab_makes_room() {
    let Some(site) = Site::start(&["--linger-grace", "3s"]) else { return };
    let [first, second, third] = open_three(|label| site.open(label));
    second.close();
    let fourth = site.open("fourth");
    assert_eq!(fourth.expect_in()["connections"], 3);
    for tab in [first, third] {
        tab.expect_undisturbed();
    }
}

/// A person follows a link, and comes back with the back button. Meanwhile Chromium keeps the page, frozen.
#[test]
fn tab_that_was_elsewhere_resumes_its_slot() {
    let Some(site) = Site::start(&[]) else { return };
    let [first, second, third] = open_three(|label| site.open(label));
    let before = first.sessions();
    second.run("location.href = '/elsewhere'");
    first.wait_until_listed("second", "lingering");
    second.wait_until("location.pathname === '/elsewhere' && document.readyState === 'complete'");
    second.run("history.back()");
    first.wait_until_listed("second", "live");
    assert_eq!(first.sessions(), before);
    second.expect_in();
    assert_eq!(second.value("page.journal.includes('resume')"), true);
    for tab in [first, third] {
        tab.expect_undisturbed();
    }
}

/// The copy has the token of the slot. It takes the slot over, and the first tab does not take it back by itself.
#[test]
fn duplicated_tab_takes_over_the_slot() {
    let Some(site) = Site::start(&[]) else { return };
    let first = site.open("first");
    first.expect_in();
    let before = first.sessions();
    let copy = first.duplicate();
    assert_eq!(copy.expect_in()["connections"], 1);
    assert_eq!(first.expect_out(), [4410]);
    assert_eq!(copy.sessions(), before);
    copy.expect_undisturbed();
}

/// Two tabs with the same token that take the slot from each other without end are told so. One has to give up the token.
#[test]
fn tabs_that_fight_for_a_slot_are_told() {
    let Some(site) = Site::start(&[]) else { return };
    let first = site.open("first");
    first.expect_in();
    let copy = first.duplicate();
    copy.expect_in();
    assert_eq!(first.expect_out(), [4410]);
    // The page is not so foolish by itself.
    for tab in [&first, &copy] {
        tab.run("RECONNECT[4410] = 'yes'");
    }
    first.run("connect()");
    let mut tabs = [first, copy];
    eventually("one of them is out", || {
        tabs.sort_by_key(|tab| tab.value("page.state") != "out");
        tabs[0].value("page.state") == "out"
    });
    let [loser, winner] = tabs;
    assert_eq!(loser.closes().last(), Some(&4411));
    assert_eq!(loser.value("sessionStorage.resume ?? null"), Value::Null);
    assert_eq!(winner.expect_in()["connections"], 1);
    // A person may go on there as well, with a slot of its own.
    loser.reload();
    assert_eq!(loser.expect_in()["connections"], 2);
    assert_ne!(loser.value("page.grant.slot"), winner.value("page.grant.slot"));
}

/// The list of the first tab is older than the reload, and its slots are good all the same.
#[test]
fn tab_ends_another_by_its_slot() {
    let Some(site) = Site::start(&[]) else { return };
    let [first, second, third] = open_three(|label| site.open(label));
    let slot = first.value("list().then((all) => all.find(({ label }) => label === 'second').slot)");
    second.reload();
    second.expect_in();
    let end = format!("send('END_SESSION', {slot})");
    first.run(&end);
    second.expect_evicted("ended_by_user", "first has ended this session");
    // Nothing is there any more, and the answer says what is.
    first.run(&end);
    first.wait_until("page.error !== null");
    assert_eq!(first.value("page.error.code"), "gone");
    assert_eq!(first.value("page.error.sessions.map(({ label }) => label)"), json!(["first", "third"]));
    third.expect_undisturbed();
}

/// What the server says before anybody asks, and whether the line is alive.
#[test]
fn page_learns_what_the_server_can_do() {
    let Some(site) = Site::start(&[]) else { return };
    let tab = site.open("first");
    tab.expect_in();
    assert_eq!(tab.value("page.socket.protocol"), "sessions.v1");
    assert_eq!(tab.value("page.hello.protocol"), "sessions.v1");
    assert!(tab.value("page.hello.authenticate_within_ms").as_u64() > Some(0));
    assert_eq!(tab.value("page.hello.features"), json!(Greeting::FEATURES));
    assert_eq!(tab.value("ping()"), "pong");
    assert_eq!(tab.value("[page.grant.ping_interval_ms, page.grant.pong_timeout_ms]"), json!([30_000, 10_000]));
}

/// The page must do what the table says.
#[test]
fn page_follows_the_table_of_close_codes() {
    let Some(site) = Site::start(&[]) else { return };
    let tab = site.open("first");
    tab.expect_in();
    let mut expected: BTreeMap<_, _> = CloseReason::ALL
        .into_iter()
        .filter(|reason| reason.reconnect() != Reconnect::Never)
        .map(|reason| (reason.code().to_string(), Value::from(reason.reconnect().to_string())))
        .collect();
    // No server sends it: the browser says it of a lost socket.
    expected.insert("1006".into(), Reconnect::WithBackoff.to_string().into());
    assert_eq!(tab.value("RECONNECT"), Value::from_iter(expected));
}
