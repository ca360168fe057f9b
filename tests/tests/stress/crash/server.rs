//! The server as a process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "seeds, times and skipped tests are to be seen")]

use rustix::process::{Pid, Signal, kill_process};
use shell::client::Url;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use tests::test_process::{FirstLine, SpawnedProcess, address_in, wait_for_exit, without_connection_limits};

/// The real server as a process of its own, which may also fail to start. Killed when dropped.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) first_line: FirstLine,
    pub(super) address: Option<SocketAddr>,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(super) fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::spawn(data, arguments);
        server.listen().unwrap_or_else(|words| panic!("the server does not start: {words}"));
        server
    }

    pub(super) fn spawn(data: &Path, arguments: &[&str]) -> Self {
        let mut command = without_connection_limits(env!("CARGO_BIN_EXE_server-under-test"));
        command.args(["--log", "error"]).args(arguments).stderr(Stdio::piped());
        let SpawnedProcess { child, first_line } = SpawnedProcess::spawn(command, data);
        Self { child, first_line, address: None }
    }

    /// Waits until it listens, or else for what it says instead.
    pub(super) fn listen(&mut self) -> Result<(), String> {
        self.address = address_in(&self.first_line.wait());
        self.address.map(drop).ok_or_else(|| self.words())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address.expect("it listens")
    }

    pub(super) fn url(&self) -> Url {
        format!("ws://{}/", self.address()).parse().unwrap()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Ends it with SIGKILL and waits until it has ended.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself: its exit code, and what it says about it.
    pub(super) fn end(mut self) -> (Option<i32>, String) {
        (wait_for_exit(&mut self.child).code(), self.words())
    }

    /// What it has said on standard error, once it has ended.
    pub(super) fn words(&mut self) -> String {
        wait_for_exit(&mut self.child);
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut words).unwrap();
        }
        words
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking()
            && let Some(mut stderr) = self.child.stderr.take()
        {
            let mut words = String::new();
            drop(stderr.read_to_string(&mut words));
            println!("the server said: {words}");
        }
    }
}
