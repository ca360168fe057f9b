//! What was said on one connection: each command with its answer.

use std::collections::VecDeque;
use std::net::SocketAddr;

use redis::Value;

use super::resp::{Timed, values, words};
use super::tape::Connection;

/// What was said on a connection.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) address: SocketAddr,
    pub(super) opened: u64,
    /// The commands that were not applied yet.
    left: VecDeque<Exchange>,
    /// What came on the channels to which it had subscribed, with the channels.
    pub(super) messages: Vec<(String, Vec<u8>)>,
}

/// A command and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) words: Vec<Vec<u8>>,
    /// When it was sent.
    pub(super) sent: u64,
    /// `None` if the connection ended before it came.
    pub(super) answer: Option<Timed<Value>>,
}

impl Conversation {
    pub(super) fn of(connection: &Connection) -> Result<Self, String> {
        let mut commands = Vec::new();
        for Timed { at, value } in values(&connection.sent)? {
            let words = words(value).ok_or("a command is no list of words")?;
            commands.push((at, words));
        }
        let mut answers = values(&connection.answered)?;
        let subscribed = commands.iter().position(|(_, words)| words[0] == b"SUBSCRIBE").unwrap_or(answers.len());
        let messages = answers.split_off(subscribed.min(answers.len())).into_iter();
        let mut answers = answers.into_iter();
        let exchange = |(sent, words)| Exchange { words, sent, answer: answers.next() };
        Ok(Self {
            address: connection.address,
            opened: connection.opened,
            left: commands.into_iter().map(exchange).collect(),
            messages: messages.filter_map(|message| published(message.value)).collect(),
        })
    }

    /// The next command with these words. MONITOR does not tell some commands, nor those that the Redis refuses as
    /// a whole. They are skipped. It tells all other calls of scripts.
    pub(super) fn next(&mut self, words: &[Vec<u8>]) -> Result<Exchange, String> {
        while let Some(exchange) = self.left.pop_front() {
            if exchange.words == words {
                return Ok(exchange);
            }
            let is_refused =
                exchange.answer.as_ref().is_some_and(|answer| matches!(answer.value, Value::ServerError(_)));
            if exchange.words[0].starts_with(b"EVAL") && !is_refused {
                let (told, sent) = (readable(words), readable(&exchange.words));
                return Err(format!("MONITOR tells another command than was sent:\n  {told}\n  {sent}"));
            }
        }
        Err(format!("nobody has sent what MONITOR tells: {}", readable(words)))
    }
}

/// The words of a command, for a person.
pub(super) fn readable(words: &[Vec<u8>]) -> String {
    words.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

/// The channel and the text of a message. `None` if it is an answer.
fn published(message: Value) -> Option<(String, Vec<u8>)> {
    let mut words = words(message)?.into_iter();
    if words.next()? != b"message" {
        return None;
    }
    Some((String::from_utf8(words.next()?).ok()?, words.next()?))
}
