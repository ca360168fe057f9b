//! Several servers are started on one directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Barrier;

use tests::test_process::{SpawnedProcess, StartFailure};
use tests::waiting::eventually;

use super::account::*;
use super::load::*;
use super::server;

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
            *server = Some(server::spawn(&data, &[]));
        });
        let mut servers: Vec<_> = servers.drain(..).flatten().collect();
        eventually("all but one have ended", || {
            servers.iter_mut().map(SpawnedProcess::has_ended).filter(|&has_ended| has_ended).count() >= count - 1
        });
        let serving = servers.iter_mut().position(|server| !server.has_ended());
        let serving = servers.swap_remove(serving.expect("one serves"));
        let mut serving = serving.listen().unwrap_or_else(|failure| panic!("round {round}: {failure:?}"));
        for refused in servers {
            let StartFailure { code, message } = refused.wait_for_failure();
            assert_eq!(code, Some(1), "{message}");
            assert!(message.contains(data.to_str().unwrap()) && message.contains("is in use by"), "{message}");
            let names_serving = message.contains(&format!("process {};", serving.id()));
            // A server takes the lock before it writes its process id into it.
            assert!(names_serving || message.contains("by another process;"), "{message}");
        }
        Account::new("ada".into()).fill(&server::url(&serving));
        serving.kill();
    }
}
