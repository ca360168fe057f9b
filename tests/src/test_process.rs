//! The server binary as a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::raw_client::RawClient;
use crate::waiting::{TIMEOUT, eventually};

/// A server process that listens. Killed when dropped.
pub struct TestProcess {
    /// Its first address.
    pub address: SocketAddr,
    /// The line that it printed at its start.
    pub announcement: String,
    child: KillOnDrop,
}

impl TestProcess {
    /// Starts the server binary, [`without_connection_limits`], on a port of its own and waits until it listens.
    #[must_use]
    pub fn start(binary: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::run(without_connection_limits(binary), data, arguments)
    }

    /// As [`TestProcess::start`], with the default connection limits.
    #[must_use]
    pub fn start_with_default_limits(binary: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::run(Command::new(binary), data, arguments)
    }

    /// Starts a command that is the server binary, perhaps in an environment of its own. It logs warnings and errors.
    #[must_use]
    pub fn run(mut command: Command, data: &Path, arguments: &[&str]) -> Self {
        command.args(["--log", "warn"]).args(arguments);
        Self::run_as(command, data)
    }

    /// As [`TestProcess::run`], without a log level.
    #[must_use]
    pub fn run_as(command: Command, data: &Path) -> Self {
        let started = SpawnedProcess::spawn(command, data).listen();
        started.unwrap_or_else(|failure| panic!("the server does not start: {failure:?}"))
    }

    /// The URL for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// The status of the answer to a health check.
    #[must_use]
    pub fn health(&self) -> u16 {
        let mut peer = RawClient::connect(self.address);
        peer.write(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n");
        let head = peer.try_head();
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status")
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Its standard error, if its command has that piped. Once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.0.stderr.take()
    }

    /// Ends it with SIGKILL and waits until it has ended.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for_exit(&mut self.child.0)
    }
}

/// A server process that may not listen yet, and may fail to. Killed when dropped.
pub struct SpawnedProcess {
    child: KillOnDrop,
    first_line: mpsc::Receiver<String>,
}

/// A server process that ended before it listened.
#[derive(Debug)]
pub struct StartFailure {
    /// Its exit code, if no signal ended it.
    pub code: Option<i32>,
    /// Its standard error, if its command has that piped.
    pub message: String,
}

impl SpawnedProcess {
    /// Starts a command that is the server binary, on a port of its own and with this data directory.
    #[must_use]
    pub fn spawn(mut command: Command, data: &Path) -> Self {
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data);
        Self::from_command(command)
    }

    /// Starts a command that says where it listens in its first line, as the server does.
    #[must_use]
    pub fn from_command(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = KillOnDrop(command.spawn().expect("the server binary starts"));
        let mut stdout = BufReader::new(child.0.stdout.take().expect("it was piped"));
        let (sender, first_line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("its output is text");
            // A test that kills the server while it starts does not wait for the line.
            drop(sender.send(line));
        });
        Self { child, first_line }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.0.try_wait().expect("it is our child").is_some()
    }

    /// Ends it with SIGKILL and waits until it has ended.
    pub fn kill(mut self) {
        self.child.kill();
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// If it ends instead.
    pub fn listen(self) -> Result<TestProcess, StartFailure> {
        let announcement = self.first_line.recv_timeout(TIMEOUT).expect("the server listens or ends");
        match announcement.split(['/', ',', ' ', '\n', '"']).find_map(|word| word.parse().ok()) {
            Some(address) => Ok(TestProcess { address, announcement, child: self.child }),
            None => Err(self.wait_for_failure()),
        }
    }

    /// Waits until it ends by itself.
    #[must_use]
    pub fn wait_for_failure(mut self) -> StartFailure {
        let code = wait_for_exit(&mut self.child.0).code();
        StartFailure { code, message: self.child.read_stderr() }
    }
}

/// Kills the process when dropped. If the test fails, its standard error is printed, unless the test has taken that.
struct KillOnDrop(Child);

impl KillOnDrop {
    fn kill(&mut self) {
        self.0.kill().expect("it is ours to kill");
        self.0.wait().expect("it was killed");
    }

    fn read_stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut text).expect("its errors are text");
        }
        text
    }
}

impl Drop for KillOnDrop {
    #[allow(clippy::print_stderr, reason = "it explains why a test failed")]
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        if thread::panicking()
            && let Some(mut stderr) = self.0.stderr.take()
        {
            let mut text = String::new();
            drop(stderr.read_to_string(&mut text));
            eprintln!("standard error of the server: {text}");
        }
    }
}

/// The server binary without connection limits, since all clients of a test have one address. Arguments override that.
#[must_use]
pub fn without_connection_limits(binary: &str) -> Command {
    let mut command = Command::new(binary);
    for bound in
        ["CONNECTIONS_PER_ADDRESS", "CONNECTION_RATE", "WORK_PER_ADDRESS", "WORK_PER_THREAD", "UNAUTHENTICATED"]
    {
        command.env(format!("SESSIONS_MAX_{bound}"), "unlimited");
    }
    command
}

/// Waits until a child process ends.
pub fn wait_for_exit(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().expect("it is our child");
        status.is_some()
    });
    status.expect("it has ended")
}

/// Sends a signal to a process.
pub fn send_signal(id: u32, signal: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(id, signal).expect("the process takes signals");
}

/// Waits until all threads of a child process have stopped, after a SIGSTOP.
pub fn wait_until_stopped(id: u32) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
    let (_, status) = waitpid(Some(id), WaitOptions::UNTRACED).expect("it is our child").expect("it is waited for");
    assert!(status.stopped(), "the process has ended: {status:?}");
}
