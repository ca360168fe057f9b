//! The log of a server process, line by line.

use std::io::{BufRead as _, BufReader};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use crate::test_process::TestProcess;
use crate::waiting::TIMEOUT;

/// The lines that a server process has logged since it started. Its command must have standard error piped.
pub struct ProcessLog(Receiver<String>);

impl ProcessLog {
    /// Takes the log of this process.
    ///
    /// # Panics
    /// If its standard error is not piped, or was taken before.
    #[must_use]
    pub fn take(process: &mut TestProcess) -> Self {
        let (sender, lines) = channel();
        let read = BufReader::new(process.stderr().expect("standard error is piped")).lines();
        thread::spawn(move || read.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self(lines)
    }

    /// Waits for a line with this text, and returns it.
    ///
    /// # Panics
    /// If none comes in time.
    #[must_use]
    pub fn wait_for(&self, text: &str) -> String {
        let start = Instant::now();
        let mut others = Vec::new();
        loop {
            let left = TIMEOUT.saturating_sub(start.elapsed());
            let line = self.0.recv_timeout(left).unwrap_or_else(|_| panic!("no {text:?} in {others:#?}"));
            if line.contains(text) {
                return line;
            }
            others.push(line);
        }
    }
}
