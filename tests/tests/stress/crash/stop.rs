//! The server is stopped for a while.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds, times and skipped tests are to be seen")]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::raw_client::{RawClient, Received, upgrade_request};
use tests::test_process::send_signal;
use tests::waiting::eventually;

use super::account::*;
use super::server;

#[test]
fn stopped_server_drops_only_silent_clients() {
    const SILENCE_BOUND: Duration = Duration::from_secs(3);
    let data = tempfile::tempdir().unwrap();
    let server = server::start(data.path(), &["--ping-interval", "1s", "--pong-timeout", "2s"]);
    let address = server.address;
    let trio = |user: &str| (1..=LIMIT).map(|held| RawClient::authenticated(address, user, held)).collect::<Vec<_>>();
    let [mut answering, mut talking, leaving, mut silent, mut mixed] =
        ["answering", "talking", "leaving", "silent", "mixed"].map(trio);
    for peer in [&mut answering, &mut talking, &mut silent, &mut mixed].into_iter().flatten() {
        assert_eq!(peer.read(), Received::Ping);
    }
    // The server awaits their pongs. It has not pinged the following clients yet, or not accepted them.
    let [mut unpinged, mut unpinged_silent] = ["unpinged", "unpinged silent"].map(trio);
    let mut after_hello = RawClient::open(address);

    send_signal(server.id(), Signal::STOP);
    answering.iter_mut().chain(&mut mixed[..1]).for_each(RawClient::pong);
    talking.iter_mut().for_each(check_connections);
    drop(leaving);
    drop(mixed.remove(2));
    after_hello.authenticate("greeted");
    let mut newcomer = RawClient::connect(address);
    newcomer.write(upgrade_request("").as_bytes());
    // Not a wait for something: the stop must last longer than the timeout.
    thread::sleep(SILENCE_BOUND + Duration::from_millis(300));
    send_signal(server.id(), Signal::CONT);
    let resumed = Instant::now();

    for (user, peers) in [("answering", &mut answering), ("unpinged", &mut unpinged), ("mixed", &mut mixed)] {
        let last = if user == "mixed" { 1 } else { peers.len() };
        peers[..last].iter_mut().for_each(check_connections);
        for peer in &mut peers[..last] {
            let count = parse_connections(user, &read_text(peer));
            assert!(count == LIMIT || user == "mixed", "{user}: {count}");
        }
    }
    talking.iter_mut().for_each(|peer| assert_eq!(parse_connections("talking", &read_text(peer)), LIMIT));
    assert!(read_text(&mut after_hello).contains(r#""id":"greeted","connections":1"#));
    newcomer.skip_head();
    newcomer.expect_text(r#"{"type":"HELLO","payload":"message from server"}"#);

    for user in ["leaving", "silent", "unpinged silent"] {
        eventually("the slots are free", || can_fill(address, user));
    }
    eventually("only the one that answered is left", || {
        check_connections(&mut mixed[0]);
        parse_connections("mixed", &read_text(&mut mixed[0])) == 1
    });
    let took = resumed.elapsed();
    println!("after SIGCONT every slot was back within {took:?}");
    assert!(took < SILENCE_BOUND + Duration::from_secs(2), "{took:?}");
    for peer in silent.iter_mut().chain(&mut unpinged_silent).chain(&mut mixed[1..]) {
        assert_eq!(read_after_pings(peer), Received::Close(4408, "Peer was silent for too long".into()));
    }
}

fn check_connections(peer: &mut RawClient) {
    peer.text(r#"{"type":"CHECK_CONNECTIONS"}"#);
}

/// Reads the next message. Answers pings before it.
fn read_text(peer: &mut RawClient) -> String {
    loop {
        match peer.read() {
            Received::Text(text) => return text,
            Received::Ping => peer.pong(),
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

fn read_after_pings(peer: &mut RawClient) -> Received {
    loop {
        match peer.read() {
            Received::Ping => {}
            other => return other,
        }
    }
}

fn parse_connections(user: &str, reply: &str) -> u32 {
    let count = reply
        .strip_prefix(&format!(r#"{{"type":"CHECK_CONNECTIONS_SUCCESS","payload":{{"id":"{user}","connections":"#));
    count.and_then(|rest| rest.strip_suffix("}}")?.parse().ok()).unwrap_or_else(|| panic!("{user}: {reply}"))
}

/// Whether the user can take all slots of its limit.
fn can_fill(address: SocketAddr, user: &str) -> bool {
    let mut peers = Vec::new();
    let all = (1..=LIMIT).all(|number| {
        let mut peer = RawClient::open(address);
        peer.authenticate(user);
        let reply = read_text(&mut peer);
        peers.push(peer);
        reply.contains(&format!(r#""connections":{number}}}"#))
    });
    peers.iter_mut().for_each(RawClient::send_bye);
    all
}
