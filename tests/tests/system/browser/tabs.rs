//! Tabs of one user, among themselves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use serde_json::Value;
use session_core::protocol::{CloseReason, Reconnect};

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
    fourth.pick("second");
    assert_eq!(fourth.expect_in()["connections"], 3);

    assert_eq!(second.expect_out(), [4409]);
    assert_eq!(second.value("page.evicted"), "fourth has taken the place of this session");
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
        assert_eq!(tabs[reloaded].expect_in()["connections"], 3);
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
        assert_eq!(tab.expect_in()["connections"], 3);
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

/// A slot of a tab that was closed lingers. The next tab takes it, and no live one.
#[test]
fn closed_tab_makes_room() {
    let Some(site) = Site::start(&[]) else { return };
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
