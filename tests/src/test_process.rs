//! The server binary as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::waiting::{TIMEOUT, eventually};

/// The real server as a process of its own. Killed when dropped.
pub struct TestProcess {
    /// Where it listens first.
    pub address: SocketAddr,
    /// The line it printed at its start.
    pub announcement: String,
    child: Child,
}

impl TestProcess {
    /// Starts the server binary, [`without_connection_limits`], on a port of its own and waits until it listens.
    #[must_use]
    pub fn start(binary: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::run(without_connection_limits(binary), data, arguments)
    }

    /// Starts the server binary as it is, with the bounds on what comes from one address at their defaults.
    #[must_use]
    pub fn start_with_default_limits(binary: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::run(Command::new(binary), data, arguments)
    }

    /// Starts a command that is the server binary, perhaps in an environment of its own.
    #[must_use]
    pub fn run(mut command: Command, data: &Path, arguments: &[&str]) -> Self {
        command.args(["--log", "warn"]).args(arguments);
        Self::run_as(command, data)
    }

    /// As [`TestProcess::run`], with nothing said about the log.
    #[must_use]
    pub fn run_as(command: Command, data: &Path) -> Self {
        let SpawnedProcess { child, first_line } = SpawnedProcess::spawn(command, data);
        let announcement = first_line.wait();
        let address = address_in(&announcement);
        let address = address.unwrap_or_else(|| panic!("the server did not say where it listens: {announcement:?}"));
        Self { address, announcement, child }
    }

    /// The URL for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says on standard error, if its command has that piped. Once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Ends it with SIGKILL and waits until it has ended.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours to kill");
        self.child.wait().expect("it was killed");
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for_exit(&mut self.child)
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server binary that was started and may not listen yet. It is not killed when dropped.
pub struct SpawnedProcess {
    /// The process.
    pub child: Child,
    /// Its first line on standard output.
    pub first_line: FirstLine,
}

/// The first line that a process prints.
pub struct FirstLine(mpsc::Receiver<String>);

impl SpawnedProcess {
    /// Starts a command that is the server binary, on a port of its own and with this data directory.
    #[must_use]
    pub fn spawn(mut command: Command, data: &Path) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("its output is text");
            // A test that kills the server while it starts does not wait for the line.
            drop(sender.send(line));
        });
        Self { child, first_line: FirstLine(receiver) }
    }
}

impl FirstLine {
    /// Waits for the line, which is empty if the process ends without one.
    #[must_use]
    pub fn wait(&self) -> String {
        self.0.recv_timeout(TIMEOUT).expect("the server listens or ends")
    }
}

/// The address in a server's first line.
#[must_use]
pub fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(['/', ',', ' ']).find_map(|word| word.parse().ok())
}

/// The server binary with the bounds on what comes from one address off, as everybody in a test does. Its arguments may say
/// otherwise.
#[must_use]
pub fn without_connection_limits(binary: &str) -> Command {
    let mut command = Command::new(binary);
    for bound in ["CONNECTIONS_PER_ADDRESS", "CONNECTION_RATE", "UNAUTHENTICATED"] {
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
