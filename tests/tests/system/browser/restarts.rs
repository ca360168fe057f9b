//! Tabs whose server ends, and whose line goes dead.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use tests::waiting::eventually;

use super::site::Site;
use super::tabs::open_three;
use crate::admin_commands::report;

/// All three tabs come back into their own slots, and a fourth that shows its picker meanwhile takes none. The first thing
/// that each saw is this close code.
fn check_restart(restart: impl FnOnce(&mut Site), code: u64) {
    let Some(mut site) = Site::start(&["--linger-grace", "1m"]) else { return };
    let tabs = open_three(|label| site.open(label));
    let before = tabs[0].sessions();
    assert_eq!(before.len(), 3);
    let fourth = site.open("fourth");
    fourth.expect_picker();
    restart(&mut site);
    for tab in &tabs {
        assert_eq!(tab.expect_return()["resumed"], true);
        assert_eq!(tab.closes()[0], code);
        // Nobody was refused on the way.
        assert_eq!(tab.value("page.journal.filter((line) => line.includes('FAILURE'))").as_array().unwrap().len(), 0);
    }
    fourth.wait_until("page.closes.length > 0 && page.state === 'refused'");
    for tab in &tabs {
        assert_eq!(tab.sessions(), before);
    }
}

#[test]
fn tabs_return_after_an_orderly_restart() {
    check_restart(Site::restart, 1001);
}

#[test]
fn tabs_return_after_the_server_was_killed() {
    check_restart(Site::kill_and_restart, 1006);
}

/// A laptop that sleeps: Chromium freezes its tab, and its line is dead. The server notices, and keeps the slot.
#[test]
fn sleeping_tab_returns_to_its_slot() {
    let Some(site) = Site::start(&["--ping-interval", "300ms", "--pong-timeout", "4s"]) else { return };
    let laptop = site.open("laptop");
    laptop.expect_in();
    // The telephone has a line of its own.
    let phone = site.open_at(site.server_address(), "user=ada&label=phone");
    phone.expect_in();
    let before = phone.sessions();
    assert_eq!(before.iter().map(|session| &*session.state).collect::<Vec<_>>(), ["live", "live"]);

    laptop.freeze();
    site.relay.go_dead();
    phone.wait_until_listed("laptop", "lingering");
    // The page knows nothing of it yet.
    assert_eq!(laptop.value("page.state"), "in");
    site.relay.come_back();
    laptop.wake();
    laptop.expect_return();
    assert_eq!(laptop.value("page.journal.filter((line) => /freeze|resume$/.test(line)).join()"), "freeze,resume");
    assert_eq!(phone.sessions(), before);
}

/// A tab that nobody freezes hears from the server why it was cut, as soon as its line is there again.
#[test]
fn tab_with_a_dead_line_returns_to_its_slot() {
    let Some(site) = Site::start(&["--ping-interval", "300ms", "--pong-timeout", "4s"]) else { return };
    let tab = site.open("train");
    tab.expect_in();
    let before = tab.sessions();
    site.relay.go_dead();
    eventually("the slot lingers", || report(&site.data(), &["explain", "ada"])["sessions"][0]["state"] == "lingering");
    site.relay.come_back();
    tab.expect_return();
    assert_eq!(tab.closes()[0], 4408);
    assert_eq!(tab.sessions(), before);
}

/// A frozen tab answers pings, so it keeps its slot. But it does not hear that it was ended: when it wakes, its socket is
/// lost, and whatever the server sent is lost, too. It comes back with a token of no use, and must rob nobody.
#[test]
fn frozen_tab_that_was_ended_robs_nobody() {
    let Some(site) = Site::start(&["--when-full", "evict-oldest"]) else { return };
    let [first, second, third] = open_three(|label| site.open(label));
    first.freeze();
    let fourth = site.open("fourth");
    fourth.expect_in();
    first.wake();
    first.wait_until("page.state === 'refused'");
    assert_eq!(first.value("page.failure.code"), "not_resumed");
    for tab in [second, third, fourth] {
        tab.expect_undisturbed();
    }
    // Told to, it takes a place.
    first.reload();
    assert_eq!(first.expect_in()["connections"], 3);
}
