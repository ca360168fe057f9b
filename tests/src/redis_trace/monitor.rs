//! Listens to MONITOR: the Redis tells each command that it is about to apply, in order.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// A line of MONITOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Monitored {
    /// When the Redis applied it, in microseconds since the Unix epoch.
    pub(super) at: u64,
    /// Who sent it.
    pub(super) client: SocketAddr,
    /// The number of the database.
    pub(super) database: u32,
    pub(super) words: Vec<Vec<u8>>,
}

/// A connection on which MONITOR runs.
pub(super) struct Monitor {
    lines: Arc<Mutex<Vec<String>>>,
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Begins. Every command that is sent after this has a line.
    pub(super) fn start(redis: SocketAddr) -> Self {
        let stream = TcpStream::connect(redis).expect("the Redis listens");
        (&stream).write_all(b"MONITOR\r\n").expect("the Redis reads");
        let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut first = String::new();
        reader.read_line(&mut first).expect("the Redis answers");
        assert_eq!(first, "+OK\r\n");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        // All is escaped, so it is text. An error is the end of the Redis, or of this.
        let thread = thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok).filter(|line| !is_of_script(line)) {
                lock(&read).push(line);
            }
        });
        Self { lines, stream, thread: Some(thread) }
    }

    /// Whether it has told a command with this word.
    pub(super) fn has_told(&self, word: &str) -> bool {
        lock(&self.lines).iter().rev().any(|line| line.contains(word))
    }

    /// All lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    /// All lines, once the Redis has ended.
    pub(super) fn end(mut self) -> Vec<String> {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it only reads");
        }
        self.lines()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().expect("no thread panics with it")
}

/// Whether a script has called the command. The scripts themselves are replayed.
fn is_of_script(line: &str) -> bool {
    line.split_once(']').is_some_and(|(client, _)| client.ends_with(" lua"))
}

impl Monitored {
    /// Reads a line. `None` if it makes no sense.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (time, rest) = line.strip_prefix('+')?.split_once(" [")?;
        let (seconds, micros) = time.split_once('.').filter(|(_, micros)| micros.len() == 6)?;
        let at = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
        let (origin, mut rest) = rest.split_once("] ")?;
        let (database, client) = origin.split_once(' ')?;
        let mut words = Vec::new();
        loop {
            let (word, after) = quoted(rest)?;
            words.push(word);
            match after.strip_prefix(' ') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return None,
            }
        }
        Some(Self { at, client: client.parse().ok()?, database: database.parse().ok()?, words })
    }
}

/// The bytes of a word in quotation marks, and what comes after it.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = inside.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    Some((unescaped(&inside[..end])?, &inside[end + 1..]))
}

/// The bytes of a text in which some are escaped, as the Redis and [`slice::escape_ascii`] do it. `None` if another one is.
pub(super) fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 0x07,
            b'b' => 0x08,
            b'x' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            same @ (b'\\' | b'"' | b'\'') => same,
            _ => return None,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use redis::Client;

    use super::*;
    use crate::redis_process::{NOTHING_KEPT, RedisProcess};
    use crate::waiting::eventually;

    #[test]
    fn every_byte_comes_back() {
        if !RedisProcess::is_installed() {
            return;
        }
        let redis = RedisProcess::start(&NOTHING_KEPT);
        let monitor = Monitor::start(redis.address());
        let words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte, b'\\', byte, b'"', byte]).chain([vec![]]).collect();
        let mut connection = Client::open(redis.url()).unwrap().get_connection().unwrap();
        redis::cmd("DEL").arg(&words).exec(&mut connection).unwrap();
        redis::cmd("EVAL").arg("redis.call('SET', '] [', 'of the script')").arg(0).exec(&mut connection).unwrap();
        redis::cmd("ECHO").arg("the end").exec(&mut connection).unwrap();
        eventually("the last command is told", || monitor.has_told("the end"));
        let lines = monitor.lines();
        let told: Vec<_> = lines.iter().map(|line| Monitored::parse(line).unwrap()).collect();
        let told = told.iter().find(|told| told.words[0] == b"DEL").unwrap();
        assert_eq!((told.words[1..].to_owned(), told.database), (words, 0));
        assert!(!lines.iter().any(|line| line.contains("\"SET\"")), "what a script calls is left out");
    }
}
