//! A trace, and its file.
//!
//! The file is text, so that a person can read it. Bytes are escaped:
//!
//! ```text
//! connection ADDRESS TIME              it was opened
//! sent TIME BYTES                      to the Redis, on the connection above
//! answered TIME BYTES                  by the Redis
//! life HISTORY nothing|saved           a Redis process begins, with nothing or with what it had saved
//! monitored LINE                       a line of MONITOR
//! ```

use std::fs;
use std::io;
use std::path::Path;

use super::monitor::unescaped;
use super::tape::{Chunk, Connection};

/// What servers and a Redis have said to each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    pub(super) connections: Vec<Connection>,
    /// The Redis processes, one after the other.
    pub lives: Vec<Life>,
}

/// A Redis process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Its `master_replid`.
    pub history: String,
    /// What it had when it began.
    pub beginning: Beginning,
    /// The lines of MONITOR, in the order in which the commands were applied.
    pub(super) monitored: Vec<String>,
}

/// What a Redis process has when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing.
    Nothing,
    /// What the one before it had when it last saved.
    Saved,
}

impl Trace {
    /// Writes it to a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut lines = Vec::new();
        for Connection { address, opened, sent, answered } in &self.connections {
            lines.push(format!("connection {address} {opened}"));
            for (name, chunks) in [("sent", sent), ("answered", answered)] {
                lines.extend(chunks.iter().map(|Chunk { at, bytes }| format!("{name} {at} {}", bytes.escape_ascii())));
            }
        }
        for Life { history, beginning, monitored } in &self.lives {
            let beginning = match beginning {
                Beginning::Nothing => "nothing",
                Beginning::Saved => "saved",
            };
            lines.push(format!("life {history} {beginning}"));
            lines.extend(monitored.iter().map(|line| format!("monitored {line}")));
        }
        fs::write(file, lines.join("\n"))
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// If the file cannot be read, or has a line that makes no sense.
    pub fn read(file: &Path) -> io::Result<Self> {
        let mut trace = Self::default();
        for line in fs::read_to_string(file)?.lines() {
            trace.add(line).ok_or_else(|| io::Error::other(format!("this line of a trace makes no sense: {line}")))?;
        }
        Ok(trace)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        if kind == "monitored" {
            self.lives.last_mut()?.monitored.push(rest.to_owned());
            return Some(());
        }
        let (first, second) = rest.split_once(' ')?;
        let chunk = || Some(Chunk { at: first.parse().ok()?, bytes: unescaped(second)? });
        match kind {
            "connection" => {
                let (address, opened) = (first.parse().ok()?, second.parse().ok()?);
                self.connections.push(Connection { address, opened, sent: Vec::new(), answered: Vec::new() });
            }
            "sent" => self.connections.last_mut()?.sent.push(chunk()?),
            "answered" => self.connections.last_mut()?.answered.push(chunk()?),
            "life" => {
                let beginning = match second {
                    "nothing" => Beginning::Nothing,
                    "saved" => Beginning::Saved,
                    _ => return None,
                };
                self.lives.push(Life { history: first.to_owned(), beginning, monitored: Vec::new() });
            }
            _ => return None,
        }
        Some(())
    }
}
