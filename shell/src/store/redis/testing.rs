//! A server for the tests of this folder.

#![allow(clippy::print_stderr, reason = "it tells who runs the tests what they left out")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use tempfile::TempDir;

/// A `redis-server` that keeps nothing on disk. It ends with this.
pub(super) struct RedisServer {
    process: Child,
    directory: TempDir,
}

impl RedisServer {
    /// `None` if there is no such program here, which is said.
    pub(super) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.arg("--port").arg("0").arg("--unixsocket").arg(&socket).arg("--dir").arg(directory.path());
        command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "local"]);
        let Ok(process) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
            assert!(env::var_os("REQUIRE_PROGRAMS").is_none(), "redis-server is required");
            eprintln!("skipped: redis-server is not installed");
            return None;
        };
        let server = Self { process, directory };
        for _ in 0..1000 {
            if server.client().get_connection().is_ok() {
                return Some(server);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not answer");
    }

    pub(super) fn client(&self) -> redis::Client {
        redis::Client::open(format!("unix://{}", self.directory.path().join("redis.sock").display())).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _status = self.process.wait();
    }
}
