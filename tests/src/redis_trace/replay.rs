//! Replays a trace with the reference.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;
use session_core::cluster::{AnswerBody, BucketContents, BucketKeys, HistoryId, Published, Request};
use session_core::ledger::{CountBy, SlotLimit};
use shell::store::{CommandReader, ScriptCall};

use super::conversation::{Conversation, Exchange, readable};
use super::monitor::Monitored;
use super::recorder::{SAVED, SNAPSHOT};
use super::report::Report;
use super::resp::Timed;
use super::scans::{Scans, page_of};
use super::trace::{Beginning, Life, Trace};
use crate::cluster_simulation::{AppliedChecks, Event, settled};

/// By how much the clock of the Redis may seem to differ from that of the proxies, in microseconds. It reads its clock seldom.
const CLOCK_ERROR: u64 = 100_000;

/// Commands that change nothing of a bucket.
const READS: [&str; 6] = ["EXISTS", "HGET", "HGETALL", "HLEN", "HSCAN", "PUBLISH"];

/// A store as the reference sees it.
struct Replay {
    reader: CommandReader,
    conversations: Vec<Conversation>,
    buckets: BTreeMap<u16, BucketKeys>,
    saved: BTreeMap<u16, BucketKeys>,
    history: HistoryId,
    /// The hashes of the scripts that are loaded.
    loaded: BTreeSet<Vec<u8>>,
    /// The hash of each source that was ever loaded.
    hashes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Which connections have subscribed to a channel.
    subscribers: BTreeMap<String, BTreeSet<usize>>,
    /// What each of them should have received.
    should_receive: BTreeMap<usize, Vec<(String, Vec<u8>)>>,
    scans: Scans,
    checks: AppliedChecks,
    report: Report,
}

/// Replays the trace of servers with this prefix that all have this limit for each user. At its end all clients are gone.
///
/// Applies each request to the reference, in the order in which the Redis has applied them, and compares the answers. Checks also
/// what the simulation checks of each request that its store has applied.
///
/// # Errors
/// The first thing in which the Redis and the reference differ, or that must not be.
pub fn replay(trace: &Trace, prefix: &str, limit: SlotLimit) -> Result<Report, String> {
    let mut replay = Replay {
        reader: CommandReader::new(prefix),
        conversations: trace.connections.iter().map(Conversation::of).collect::<Result<_, _>>()?,
        buckets: BTreeMap::new(),
        saved: BTreeMap::new(),
        history: HistoryId([0; 20]),
        loaded: BTreeSet::new(),
        hashes: BTreeMap::new(),
        subscribers: BTreeMap::new(),
        should_receive: BTreeMap::new(),
        scans: Scans::default(),
        checks: AppliedChecks::new(CountBy::Sessions, limit),
        report: Report::default(),
    };
    for life in &trace.lives {
        replay.begin(life)?;
        for line in &life.monitored {
            let told = Monitored::parse(line).ok_or_else(|| format!("MONITOR tells what makes no sense: {line}"))?;
            replay.apply(&told).map_err(|what| format!("at {}, of {}: {what}", told.at, told.client))?;
        }
    }
    replay.end()
}

impl Replay {
    fn begin(&mut self, life: &Life) -> Result<(), String> {
        let info = format!("role:master\r\nmaster_replid:{}\r\n", life.history);
        let history = CommandReader::history(&Value::BulkString(info.into_bytes()));
        self.history = history.ok_or_else(|| format!("{} is no history", life.history))?;
        self.loaded.clear();
        self.subscribers.clear();
        match life.beginning {
            Beginning::Nothing => {
                if !self.buckets.is_empty() {
                    self.report.coverage.saw(Event::RestartedEmpty);
                }
                self.forget(None);
            }
            Beginning::Saved => {
                self.report.coverage.saw(Event::RestartedFromDisk);
                self.forget(Some(self.saved.clone()));
            }
        }
        Ok(())
    }

    /// The Redis has nothing any more, or what it had before.
    fn forget(&mut self, instead: Option<BTreeMap<u16, BucketKeys>>) {
        self.buckets = instead.unwrap_or_default();
        self.checks.forgot();
        self.scans.forget();
    }

    /// The connection that a client of the Redis is. `None` if it is no connection of a proxy.
    fn connection(&self, told: &Monitored) -> Option<usize> {
        let is_it = |of: &Conversation| of.address == told.client && of.opened <= told.at + CLOCK_ERROR;
        self.conversations.iter().rposition(is_it)
    }

    /// A command that the Redis has applied.
    fn apply(&mut self, told: &Monitored) -> Result<(), String> {
        if told.database != 0 {
            return Err(format!("another database is in use: {}", readable(&told.words)));
        }
        let connection = self.connection(told);
        let exchange = match connection {
            Some(connection) => Some(self.conversations[connection].next(&told.words)?),
            None => None,
        };
        let answer = exchange.as_ref().and_then(|exchange| exchange.answer.as_ref());
        if let Some(Exchange { sent, answer, .. }) = &exchange {
            let is_late = answer.as_ref().is_some_and(|answer| answer.at + CLOCK_ERROR < told.at);
            if *sent > told.at + CLOCK_ERROR || is_late {
                return Err(format!("it was applied before it was sent, or after its answer: {exchange:?}"));
            }
        }
        let name = String::from_utf8_lossy(&told.words[0]).to_ascii_uppercase();
        match (&*name, connection, &exchange) {
            ("EVALSHA", Some(connection), Some(exchange)) => self.call(connection, exchange),
            ("SCRIPT", ..) => self.script(&told.words, answer),
            ("EVAL", ..) if told.words.get(1).is_some_and(|source| source == SNAPSHOT.as_bytes()) => {
                answer.map_or(Ok(()), |answer| self.snapshot(&answer.value))
            }
            ("ECHO", ..) if told.words == SAVED => {
                self.saved.clone_from(&self.buckets);
                Ok(())
            }
            ("FLUSHALL" | "FLUSHDB", ..) => {
                self.report.coverage.saw(Event::Flushed);
                self.forget(None);
                Ok(())
            }
            ("INFO", ..) if told.words.get(1).is_some_and(|section| section == b"replication") => {
                let is_same = |answer: &Timed<Value>| CommandReader::history(&answer.value) == Some(self.history);
                let is_same = answer.is_none_or(is_same);
                if is_same { Ok(()) } else { Err(format!("the history is another one: {answer:?}")) }
            }
            ("SUBSCRIBE" | "UNSUBSCRIBE", Some(connection), _) => {
                for channel in &told.words[1..] {
                    let channel = String::from_utf8_lossy(channel).into_owned();
                    let subscribers = self.subscribers.entry(channel).or_default();
                    if name == "SUBSCRIBE" {
                        subscribers.insert(connection)
                    } else {
                        subscribers.remove(&connection)
                    };
                }
                Ok(())
            }
            _ => self.other(&name, &told.words),
        }
    }

    /// A command that no request is sent as.
    fn other(&mut self, name: &str, words: &[Vec<u8>]) -> Result<(), String> {
        for key in &words[1..] {
            match self.reader.key(key) {
                None => {}
                Some(_) if READS.contains(&name) => {}
                Some((bucket, Some(nodes))) if name == "DEL" => {
                    self.buckets.entry(bucket).or_default().lose(nodes);
                    self.checks.forgot();
                }
                Some(_) => return Err(format!("the reference has no such command: {}", readable(words))),
            }
        }
        Ok(())
    }

    fn script(&mut self, words: &[Vec<u8>], answer: Option<&Timed<Value>>) -> Result<(), String> {
        let [_, what, rest @ ..] = words else { return Err("SCRIPT says nothing".into()) };
        if what.eq_ignore_ascii_case(b"FLUSH") {
            self.loaded.clear();
            return Ok(());
        }
        let (b"LOAD", [source]) = (&*what.to_ascii_uppercase(), rest) else { return Ok(()) };
        if let Some(Timed { value: Value::BulkString(hash), .. }) = answer {
            self.hashes.insert(source.clone(), hash.clone());
            self.reader.learn(source, &String::from_utf8_lossy(hash));
        }
        if let Some(hash) = self.hashes.get(source) {
            self.loaded.insert(hash.clone());
        }
        Ok(())
    }

    /// A call of a script by a server.
    fn call(&mut self, connection: usize, exchange: &Exchange) -> Result<(), String> {
        let Exchange { words, answer, .. } = exchange;
        let error = answer.as_ref().and_then(|answer| {
            if let Value::ServerError(error) = &answer.value { Some(error.code().to_owned()) } else { None }
        });
        if !words.get(1).is_some_and(|hash| self.loaded.contains(hash)) {
            self.report.not_loaded += 1;
            let is_right = answer.is_none() || error.is_some_and(|error| error == "NOSCRIPT");
            return if is_right { Ok(()) } else { Err(format!("a script that is not loaded was run: {exchange:?}")) };
        }
        // Another one than those that requests need.
        let Some(call) = self.reader.read(words) else { return Ok(()) };
        let call = call.map_err(|error| format!("{error}: {}", readable(words)))?;
        self.report.coverage.asked(&call.request);
        if let Some(error) = error {
            self.report.coverage.saw(Event::Failed);
            self.report.out_of_memory += u64::from(error == "OOM");
            return if error == "OOM" { Ok(()) } else { Err(format!("{:?} is answered {answer:?}", call.request)) };
        }
        self.request(connection, &call, answer.as_ref())
            .map_err(|what| format!("{what}\n  in bucket {}, by {:?}", call.bucket, call.request))
    }

    /// A request that the Redis has applied.
    fn request(&mut self, connection: usize, call: &ScriptCall, answer: Option<&Timed<Value>>) -> Result<(), String> {
        let ScriptCall { bucket, request, .. } = call;
        let answer = answer.map(|answer| call.answer(&answer.value)).transpose().map_err(|error| error.to_string())?;
        let keys = self.buckets.entry(*bucket).or_default();
        let record = Report::record_before(request, keys);
        let mut published = Vec::new();
        let should_be = self.checks.apply(*bucket, keys, request, self.history, &mut published)?;
        if let Request::Write(write) = request {
            self.scans.changed(*bucket, &write.user, keys);
            if matches!(&should_be, AnswerBody::Record(answer) if answer.is_written) {
                self.report.wrote(&record, write, keys);
            }
        }
        if matches!(request, Request::Scan { .. }) {
            self.scans.page(connection, *bucket, request, answer.as_ref().and_then(page_of), keys)?;
        } else if let Some(answer) = answer.clone() {
            let (answer, should_be) = (in_order(answer), in_order(should_be.clone()));
            if answer != should_be {
                return Err(format!("the Redis answers\n  {answer:?}\n  and the reference\n  {should_be:?}"));
            }
        }
        self.report.coverage.applied(request, &should_be);
        let count = if answer.is_some() { &mut self.report.compared } else { &mut self.report.unanswered };
        *count += 1;
        self.publish(&published);
        Ok(())
    }

    fn publish(&mut self, published: &[Published]) {
        for message in published.iter().map(|published| self.reader.message(published)) {
            for connection in self.subscribers.get(&message.0).into_iter().flatten() {
                self.should_receive.entry(*connection).or_default().push(message.clone());
            }
        }
    }

    /// Compares all keys.
    fn snapshot(&mut self, answer: &Value) -> Result<(), String> {
        let malformed = || format!("a snapshot makes no sense: {answer:?}");
        let Value::Array(values) = answer else { return Err(malformed()) };
        let (pairs, []) = values.as_chunks() else { return Err(malformed()) };
        let key = |[key, content]: &[Value; 2]| {
            let Value::BulkString(key) = key else { return None };
            Some((key.clone(), content.clone()))
        };
        let keys: Vec<_> = pairs.iter().map(key).collect::<Option<_>>().ok_or_else(malformed)?;
        let mut contents = self.reader.contents(&keys).map_err(|error| error.to_string())?;
        for (bucket, keys) in &self.buckets {
            let (is, should_be) = (contents.remove(bucket).unwrap_or_default(), keys.contents());
            if is != should_be {
                return Err(format!("bucket {bucket} differs:{}", differences(&is, &should_be)));
            }
            self.report.compared_buckets += 1;
        }
        self.report.snapshots += 1;
        match contents.pop_first() {
            Some(more) => Err(format!("nothing should be there: {more:?}")),
            None => Ok(()),
        }
    }

    /// What must hold once all clients are gone.
    fn end(mut self) -> Result<Report, String> {
        for (number, conversation) in self.conversations.iter().enumerate() {
            let should_be = self.should_receive.remove(&number).unwrap_or_default();
            // The last ones may not have come before the connection ended.
            if !should_be.starts_with(&conversation.messages) {
                let of = conversation.address;
                let received = &conversation.messages;
                return Err(format!("{of} has received\n  {received:?}\n  and should have received\n  {should_be:?}"));
            }
            self.report.messages += conversation.messages.len() as u64;
        }
        for (bucket, keys) in &self.buckets {
            if let Some(session) = settled(*bucket, keys)?.first() {
                return Err(format!("leak: session {session} has a slot, and all clients are gone"));
            }
        }
        Ok(self.report)
    }
}

/// The parts of a bucket that differ.
fn differences(is: &BucketContents, should_be: &BucketContents) -> String {
    let parts = |of: &BucketContents| {
        let BucketContents { generation, nodes, meta, version, floors, records, inboxes, overrides } = of;
        [
            format!("generation {generation:?}"),
            format!("nodes {nodes:?}"),
            format!("meta {meta:?} {version:?}"),
            format!("floors {floors:?}"),
            format!("records {records:?}"),
            format!("inboxes {inboxes:?}"),
            format!("overrides {overrides:?}"),
        ]
    };
    let pairs = parts(is).into_iter().zip(parts(should_be)).filter(|(is, should_be)| is != should_be);
    pairs.map(|(is, should_be)| format!("\n  the Redis has     {is}\n  the reference has {should_be}")).collect()
}

/// Sessions have no order in inboxes.
fn in_order(mut answer: AnswerBody) -> AnswerBody {
    if let AnswerBody::Beat(answer) = &mut answer {
        answer.inbox.sort();
    }
    answer
}
