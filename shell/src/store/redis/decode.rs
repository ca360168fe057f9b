//! Reads commands for the shared store back as the requests that they were packed from.
//!
//! Tests use it: they record what real servers and a real Redis say to each other, and replay it with
//! [`BucketKeys`](session_core::cluster::BucketKeys). Servers do not read commands.

use std::collections::BTreeMap;
use std::str::{FromStr, from_utf8};
use std::time::Duration;

use redis::{Cmd, Value};
use session_core::cluster::{
    AnswerBody, BucketContents, Floor, GenerationId, HistoryId, OverridesRequest, OverridesVersion, OwnId, Published,
    Request, ScanPosition, Stamp, WriteRequest,
};
use session_core::ledger::UserOverrides;
use session_core::{NodeId, Timestamp, UserId};
use thiserror::Error;

use super::command::{BucketNames, Expected, PAGE, Packer, channel};
use super::script::Script;
use super::{reply, value};
use crate::store::overrides_bytes;

/// Reads the commands of servers with one prefix.
#[derive(Debug)]
pub struct CommandReader {
    prefix: String,
    /// How each script is called, by its number. Empty if it was not loaded yet.
    hashes: Vec<String>,
}

/// A call of a script.
#[derive(Debug)]
pub struct ScriptCall {
    /// The bucket that it concerns.
    pub bucket: u16,
    /// What it asks for.
    pub request: Request,
    expected: Expected,
}

/// Why a call of a script, or an answer to one, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// No server sends such a command.
    #[error("the arguments of {0} make no sense")]
    Malformed(String),
    /// The request that was read would be sent as another command.
    #[error("it is not the command of the request that it is read as: {0:?}")]
    Differs(Box<Request>),
    /// The answer makes no sense to a server.
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    /// A key holds what no server writes.
    #[error("the key {0} makes no sense")]
    Key(String),
}

impl CommandReader {
    /// Knows no script yet.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), hashes: vec![String::new(); Script::ALL.len()] }
    }

    /// A script with this source was loaded, and is called by this hash. False if it is none of those that requests need.
    pub fn learn(&mut self, source: &[u8], hash: &str) -> bool {
        let script = Script::ALL.into_iter().find(|script| script.source().as_bytes() == source);
        if let Some(script) = script {
            hash.clone_into(&mut self.hashes[script.number()]);
        }
        script.is_some()
    }

    /// The call that this command is. `None` if it is none of a script that was loaded.
    ///
    /// # Errors
    /// It is one, but no request is sent like that.
    pub fn read(&self, command: &[Vec<u8>]) -> Option<Result<ScriptCall, CommandError>> {
        let [name, hash, rest @ ..] = command else { return None };
        let is_it = |script: &Script| self.hashes[script.number()].as_bytes() == hash;
        let script = Script::ALL.into_iter().find(is_it).filter(|_| name == b"EVALSHA")?;
        let malformed = || CommandError::Malformed(format!("{script:?}"));
        let call = self.call(script, rest).ok_or_else(malformed);
        Some(call.and_then(|call| {
            let mut packed = Cmd::new();
            packed.arg(command);
            let mut bytes = Vec::new();
            let names = BucketNames::new(&self.prefix, call.bucket);
            let expected = Packer::new(&self.hashes).pack(&names, call.request.clone(), &mut bytes);
            let ScriptCall { bucket, request, .. } = call;
            let is_same = bytes == packed.get_packed_command();
            if is_same {
                Ok(ScriptCall { bucket, request, expected })
            } else {
                Err(CommandError::Differs(request.into()))
            }
        }))
    }

    fn call(&self, script: Script, rest: &[Vec<u8>]) -> Option<ScriptCall> {
        let (count, rest) = rest.split_first()?;
        let (keys, arguments) = rest.split_at_checked(number(count)?)?;
        let (bucket, _) = self.bucket(keys.first()?)?;
        let request = request(script, &mut Arguments(arguments))?;
        Some(ScriptCall { bucket, request, expected: Expected::Done })
    }

    /// The bucket of a key, and the rest of its name. `None` if it is no key of a bucket.
    fn bucket<'a>(&self, key: &'a [u8]) -> Option<(u16, &'a str)> {
        let key = from_utf8(key).ok()?.strip_prefix('{')?.strip_prefix(&*self.prefix)?.strip_prefix(':')?;
        let (bucket, name) = key.split_once("}:")?;
        Some((bucket.parse().ok()?, name))
    }

    /// The bucket to which a key belongs, and whether that is the key of its nodes (`Some(true)`), of its meta (`Some(false)`)
    /// or another one. `None` if requests do not concern it.
    #[must_use]
    pub fn key(&self, key: &[u8]) -> Option<(u16, Option<bool>)> {
        let (bucket, name) = self.bucket(key)?;
        match name {
            "nodes" => Some((bucket, Some(true))),
            "meta" => Some((bucket, Some(false))),
            "records" | "overrides" => Some((bucket, None)),
            _ => name.starts_with("inbox:").then_some((bucket, None)),
        }
    }

    /// What these keys hold, by bucket. Each key comes with all that is in it: fields and values, or members.
    ///
    /// # Errors
    /// A key holds what no server writes.
    pub fn contents(&self, keys: &[(Vec<u8>, Value)]) -> Result<BTreeMap<u16, BucketContents>, CommandError> {
        let mut all: BTreeMap<u16, BucketContents> = BTreeMap::new();
        for (key, content) in keys {
            let Some((bucket, name)) = self.bucket(key) else { continue };
            let read = read_key(name, content, all.entry(bucket).or_default());
            read.ok_or_else(|| CommandError::Key(String::from_utf8_lossy(key).into_owned()))?;
        }
        Ok(all)
    }

    /// The history that a server reads in this answer to INFO. `None` if it is a replica.
    #[must_use]
    pub fn history(info: &Value) -> Option<HistoryId> {
        reply::parse_history(info)
    }

    /// On which channel this is published, and how it reads there.
    #[must_use]
    pub fn message(&self, published: &Published) -> (String, Vec<u8>) {
        match published {
            Published::Changed(node, user) => (channel(&self.prefix, *node), value::changed(user)),
            Published::Session(hint) => (channel(&self.prefix, hint.session.node()), value::hint(*hint)),
        }
    }
}

impl ScriptCall {
    /// What a server reads this reply as.
    ///
    /// # Errors
    /// It makes no sense to a server.
    pub fn answer(&self, reply: &Value) -> Result<AnswerBody, CommandError> {
        let mut unreadable = Vec::new();
        let answer = reply::parse(self.expected.clone(), reply, &mut unreadable);
        match (answer, unreadable.pop()) {
            (Err(error), _) | (_, Some((_, error))) => Err(CommandError::Answer(error.to_string())),
            (Ok(answer), None) => Ok(answer),
        }
    }
}

/// The arguments of a script that were not read yet.
struct Arguments<'a>(&'a [Vec<u8>]);

impl<'a> Arguments<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (next, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(next)
    }

    fn number<T: FromStr>(&mut self) -> Option<T> {
        number(self.next()?)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.next()? == b"1")
    }

    fn user(&mut self) -> Option<UserId> {
        value::parse_user(self.next()?)
    }

    fn node(&mut self) -> Option<NodeId> {
        value::parse_node(self.next()?)
    }

    /// The node whose floor this field has.
    fn floor(&mut self) -> Option<NodeId> {
        value::parse_node(self.next()?.strip_prefix(b"floor ")?)
    }

    fn generation(&mut self) -> Option<GenerationId> {
        value::parse_generation_id(self.next()?)
    }

    fn version(&mut self) -> Option<OverridesVersion> {
        value::parse_version(self.next()?)
    }

    fn overrides(&mut self) -> Option<UserOverrides> {
        let bytes = self.next()?;
        if bytes.is_empty() { Some(UserOverrides::default()) } else { overrides_bytes::decode(bytes).ok() }
    }

    /// What is read of the next argument, or `None` if that is empty.
    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.0.first()?.is_empty() {
            self.next()?;
            return Some(None);
        }
        read(self).map(Some)
    }

    /// As many as there are left.
    fn all<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(read(self)?);
        }
        Some(all)
    }

    /// A number, and as many as it says.
    fn counted<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count: usize = self.number()?;
        (0..count).map(|_| read(self)).collect()
    }
}

fn number<T: FromStr>(text: &[u8]) -> Option<T> {
    from_utf8(text).ok()?.parse().ok()
}

fn request(script: Script, of: &mut Arguments<'_>) -> Option<Request> {
    let request = match script {
        Script::Beat => Request::Beat {
            number: of.number()?,
            seen: of.optional(Arguments::generation)?,
            seen_number: of.number()?,
            proposed: of.generation()?,
            ids: of.all(|of| Some(OwnId { node: of.node()?, has_joined: of.flag()? }))?,
        },
        Script::Bury => Request::Bury {
            node: of.node()?,
            beat: of.optional(Arguments::number)?,
            at: Timestamp::from_epoch(Duration::from_millis(of.number()?)),
        },
        Script::Open => Request::Open(of.generation()?),
        Script::Leave => Request::Leave { node: of.node()?, generation: of.generation()? },
        Script::Forget => Request::Forget { node: of.node()?, generation: of.generation()? },
        Script::RaiseFloor => {
            Request::RaiseFloor { generation: of.generation()?, epoch: of.number()?, nodes: of.all(Arguments::node)? }
        }
        Script::Read => Request::Read(of.user()?),
        Script::Write | Script::Admit => Request::Write(Box::new(write(of)?)),
        Script::Scan => {
            let from = of.number().map(|from| (from != 0).then_some(ScanPosition(from)))?;
            if of.number() != Some(PAGE) {
                return None;
            }
            let lingering = of.flag()?;
            let node = |of: &mut Arguments<'_>| Some(NodeId::new(u64::from_be_bytes(of.next()?.try_into().ok()?)));
            Request::Scan { from, lingering, except: of.all(node)? }
        }
        Script::ReadOverrides => Request::ReadOverrides,
        Script::WriteOverrides => Request::WriteOverrides(Box::new(OverridesRequest {
            user: of.user()?,
            generation: of.generation()?,
            node: of.floor()?,
            epoch: of.number()?,
            expected: of.version()?,
            version: of.version()?,
            overrides: of.overrides()?,
        })),
        Script::RestoreOverrides => Request::RestoreOverrides {
            generation: of.generation()?,
            version: of.version()?,
            overrides: of.all(|of| Some((of.user()?, of.overrides()?)))?,
        },
    };
    of.0.is_empty().then_some(request)
}

fn write(of: &mut Arguments<'_>) -> Option<WriteRequest> {
    let mut write = WriteRequest {
        user: of.user()?,
        generation: of.generation()?,
        node: of.floor()?,
        epoch: of.number()?,
        expected: of.optional(|of| Some(Stamp(u64::from_be_bytes(of.next()?.try_into().ok()?))))?,
        overrides: of.optional(Arguments::version)?,
        record: of.optional(|of| value::parse_record(of.next()?).ok())?,
        ended: Vec::new(),
        closed: Vec::new(),
        tell: Vec::new(),
        hints: Vec::new(),
    };
    if of.0.is_empty() {
        return Some(write);
    }
    let session = |of: &mut Arguments<'_>| value::parse_inbox_member(of.next()?).map(|(_, session)| session);
    write.ended = of.counted(|of| {
        let (_node, session, _channel) = (of.next()?, session(of)?, of.next()?);
        Some(session)
    })?;
    write.closed = of.counted(session)?;
    let message = |of: &mut Arguments<'_>| {
        let channel = of.next()?;
        let node = value::parse_node(channel.rsplit(|byte| *byte == b':').next()?)?;
        value::parse_message(node, of.next()?)
    };
    for published in of.all(message)? {
        match published {
            Published::Changed(node, _) => write.tell.push(node),
            Published::Session(hint) => write.hints.push(hint),
        }
    }
    Some(write)
}

/// Adds what a key of a bucket holds. `None` if that makes no sense.
fn read_key(name: &str, content: &Value, into: &mut BucketContents) -> Option<()> {
    let user = |name: &[u8]| value::parse_user(name);
    if let Some(node) = name.strip_prefix("inbox:") {
        let node = value::parse_node(node.as_bytes())?;
        for member in reply::array(content).ok()? {
            let (user, session) = value::parse_inbox_member(reply::bytes(member)?)?;
            into.inboxes.insert((node, user, session));
        }
        return Some(());
    }
    if !["nodes", "meta", "records", "overrides"].contains(&name) {
        // What servers say of themselves, and the format of the keys.
        return Some(());
    }
    for (field, bytes) in reply::pairs(content).ok()? {
        match (name, field) {
            ("nodes", b"generation") => into.generation = Some(value::parse_generation(bytes)?),
            ("nodes", node) => drop(into.nodes.insert(value::parse_node(node)?, value::parse_entry(bytes)?)),
            ("meta", b"generation") => into.meta = Some(value::parse_generation_id(bytes)?),
            ("meta", b"overrides") => into.version = value::parse_version(bytes)?,
            ("meta", field) => {
                let floor = if bytes == b"x" { Floor::Closed } else { Floor::Epoch(number(bytes)?) };
                into.floors.insert(value::parse_node(field.strip_prefix(b"floor ")?)?, floor);
            }
            ("records", name) => {
                let (stamp, record) = value::parse_record(bytes).ok()?;
                if value::record(stamp, &record) != bytes {
                    return None;
                }
                into.records.insert(user(name)?, (stamp, record));
            }
            (_, name) => drop(into.overrides.insert(user(name)?, overrides_bytes::decode(bytes).ok()?)),
        }
    }
    Some(())
}
