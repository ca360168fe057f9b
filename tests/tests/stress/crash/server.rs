//! The server of the crash tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Stdio};

use shell::client::Url;
use tests::test_process::{SpawnedProcess, TestProcess, without_connection_limits};

/// Starts it and waits until it listens.
pub(super) fn start(data: &Path, arguments: &[&str]) -> TestProcess {
    TestProcess::run_as(command(arguments), data)
}

/// Starts it, and does not wait.
pub(super) fn spawn(data: &Path, arguments: &[&str]) -> SpawnedProcess {
    SpawnedProcess::spawn(command(arguments), data)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = without_connection_limits(env!("CARGO_BIN_EXE_server-under-test"));
    command.args(["--log", "error"]).args(arguments).stderr(Stdio::piped());
    command
}

pub(super) fn url(server: &TestProcess) -> Url {
    server.url().parse().unwrap()
}
