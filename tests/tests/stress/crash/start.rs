//! Several servers are started on one directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Barrier;
use tests::waiting::eventually;

use super::account::*;
use super::load::*;
use super::server::*;

#[test]
fn one_of_several_simultaneous_servers_serves() {
    let mut directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        if round % 4 == 0 {
            directory = tempfile::tempdir().unwrap();
        }
        let (data, count) = (directory.path().join("data"), 2 + round % 2);
        let ready = Barrier::new(count);
        let mut servers = in_parallel((0..count).map(|_| None).collect(), |server| {
            ready.wait();
            *server = Some(Server::spawn(&data, &[]));
        });
        let mut servers: Vec<_> = servers.drain(..).flatten().collect();
        eventually("all but one have ended", || {
            servers.iter_mut().filter_map(|server| server.child.try_wait().unwrap()).count() >= count - 1
        });
        let serving = servers.iter_mut().position(|server| server.child.try_wait().unwrap().is_none());
        let mut serving = servers.swap_remove(serving.expect("one serves"));
        serving.listen().unwrap_or_else(|words| panic!("round {round}: {words}"));
        for refused in servers {
            let (code, words) = refused.end();
            assert_eq!(code, Some(1), "{words}");
            assert!(words.contains(data.to_str().unwrap()) && words.contains("is in use by"), "{words}");
            let names = |id: u32| words.contains(&format!("process {id};"));
            // Between taking the lock and signing it, the one that serves is not known yet.
            assert!(names(serving.child.id()) || words.contains("by another process;"), "{words}");
        }
        Account::new("ada".into()).take_the_rest(&serving.url());
        serving.kill();
    }
}
