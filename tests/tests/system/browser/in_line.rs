//! Tabs that wait in line for a slot, and tabs that watch the others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::{Value, json};

use super::site::Site;
use super::tab::Tab;

/// Opens a tab that waits in line if it must.
fn open_patient(site: &Site, label: &str) -> Tab {
    site.open_at(site.relay.address, &format!("user=ada&label={label}&wait=600000"))
}

/// Waits until the tab is told that this is its place.
fn expect_place(tab: &Tab, place: u16) {
    tab.wait_until(&format!("page.state === 'in line' && page.line.place === {place}"));
}

fn labels(tab: &Tab) -> Vec<String> {
    tab.sessions().into_iter().map(|session| session.label).collect()
}

/// The tabs come in as they came, and one that is closed holds nobody up.
#[test]
fn waiting_tabs_get_the_slot_in_order() {
    let Some(site) = Site::start(&["--limit", "1", "--linger-grace", "1s"]) else { return };
    let holder = site.open("holder");
    holder.expect_in();
    let first = open_patient(&site, "first");
    expect_place(&first, 1);
    let second = open_patient(&site, "second");
    expect_place(&second, 2);
    assert!(second.value("page.line.wait_ms").as_u64().is_some_and(|wait| wait > 0 && wait <= 600_000));
    assert_eq!(second.value("[page.line.limit, page.line.connections]"), json!([1, 1]));
    assert_eq!(second.value("page.line.sessions.map(({ label }) => label)"), json!(["holder"]));

    // Its slot lingers, and is free once its grace is over.
    holder.close();
    assert_eq!(first.expect_in()["connections"], 1);
    expect_place(&second, 1);
    assert_eq!(labels(&first), ["first"]);
    let third = open_patient(&site, "third");
    expect_place(&third, 2);
    second.close();
    expect_place(&third, 1);
    first.run("send('BYE', null)");
    third.expect_in();
    assert_eq!(first.expect_out(), [1000]);
    assert_eq!(labels(&third), ["third"]);
    third.expect_undisturbed();
}

/// Who is tired of the line picks a session to end, as at the limit.
#[test]
fn waiting_tab_replaces_the_picked_tab() {
    let Some(site) = Site::start(&["--limit", "1"]) else { return };
    let holder = site.open("holder");
    holder.expect_in();
    let first = open_patient(&site, "first");
    assert_eq!(first.expect_picker(), ["holder"]);
    let second = open_patient(&site, "second");
    expect_place(&second, 2);
    first.pick("holder");
    assert_eq!(first.expect_in()["ended"][0]["label"], "holder");
    holder.expect_evicted("taken", "first has taken the place of this session");
    expect_place(&second, 1);
    second.wait_until("page.line.sessions[0].label === 'first'");
    second.expect_undisturbed();
}

/// A tab that never asks again is told what happens.
#[test]
fn watching_tab_is_told_who_comes_and_goes() {
    let Some(site) = Site::start(&["--limit", "2"]) else { return };
    let watching = site.open("watching");
    watching.expect_in();
    let listed = "map(({ label, state }) => `${label} ${state}`).sort().join()";
    let expect_change = |sessions: &str, waiting: u16| {
        let list = format!("page.changed?.sessions.{listed} === '{sessions}'");
        watching.wait_until(&format!("{list} && (page.changed.waiting ?? 0) === {waiting}"));
    };
    assert_eq!(watching.value(&format!("list(true).then((all) => all.{listed})")), "watching live");
    assert_eq!(watching.value("page.changed"), Value::Null);
    let other = site.open("other");
    other.expect_in();
    expect_change("other live,watching live", 0);
    let waiting = open_patient(&site, "waiting");
    expect_place(&waiting, 1);
    expect_change("other live,watching live", 1);
    other.run("send('BYE', null)");
    waiting.expect_in();
    expect_change("waiting live,watching live", 0);
    waiting.close();
    expect_change("waiting lingering,watching live", 0);
    assert_eq!(watching.value("page.changed.sessions.filter((session) => session.self).length"), 1);
    watching.expect_undisturbed();
}
