//! The client binary as a process of its own.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::test_process::{send_signal, wait_for_exit};

/// A client process, one output of which is read line by line.
pub struct ClientProcess {
    child: Child,
    lines: BufReader<Box<dyn Read>>,
    other: Box<dyn Read>,
}

impl ClientProcess {
    /// Starts a command that is the client binary, to read its standard output line by line.
    #[must_use]
    pub fn start(command: Command) -> Self {
        let (child, stdout, stderr) = spawn(command);
        Self { child, lines: BufReader::new(stdout), other: stderr }
    }

    /// The same for its standard error.
    #[must_use]
    pub fn start_reading_stderr(command: Command) -> Self {
        let (child, stdout, stderr) = spawn(command);
        Self { child, lines: BufReader::new(stderr), other: stdout }
    }

    /// Reads one line.
    pub fn read_line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).expect("its output is text"), 0, "the client ended");
        line
    }

    /// Reads up to the line that contains this text.
    pub fn read_until(&mut self, text: &str) -> String {
        loop {
            let line = self.read_line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.child.id(), signal);
    }

    /// Ends it with SIGKILL and waits until it has ended.
    pub fn kill(mut self) {
        self.child.kill().expect("it is ours to kill");
        self.child.wait().expect("it was killed");
    }

    /// Waits until it ends by itself: the exit code, and the rest of both outputs.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.other.read_to_string(&mut rest).expect("its output is text");
        self.lines.read_to_string(&mut rest).expect("its output is text");
        (wait_for_exit(&mut self.child).code(), rest)
    }
}

fn spawn(mut command: Command) -> (Child, Box<dyn Read>, Box<dyn Read>) {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the client binary starts");
    let stdout = child.stdout.take().expect("it was piped");
    let stderr = child.stderr.take().expect("it was piped");
    (child, Box::new(stdout), Box::new(stderr))
}
