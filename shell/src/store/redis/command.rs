//! Turns requests into commands for the shared store.

use redis::Cmd;
use session_core::cluster::{GenerationId, OverridesRequest, Request, StoredRecord, WriteRequest};
use session_core::ledger::UserOverrides;
use session_core::{NodeId, UserId};

use super::script::Script;
use super::value;
use crate::store::overrides_bytes;

/// How many records a page of a scan looks at, at least.
pub(super) const PAGE: usize = 250;

/// The names of a bucket's keys.
#[derive(Debug)]
pub(super) struct BucketNames {
    nodes: String,
    meta: String,
    records: String,
    overrides: String,
    inbox: String,
    channel: String,
}

/// What the answer to a command is read as.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    Beat,
    Done,
    /// The record of this user.
    Record(UserId),
    /// A write, which is not answered with what it wrote.
    Written(UserId, GenerationId, StoredRecord),
    Page,
    Overrides,
}

impl BucketNames {
    /// The keys of this bucket. The braces put them on one shard of a cluster.
    pub(super) fn new(prefix: &str, bucket: u16) -> Self {
        let key = |name: &str| format!("{{{prefix}:{bucket}}}:{name}");
        Self {
            nodes: key("nodes"),
            meta: key("meta"),
            records: key("records"),
            overrides: key("overrides"),
            inbox: key("inbox:"),
            channel: channel_prefix(prefix),
        }
    }

    fn inbox(&self, node: NodeId) -> String {
        format!("{}{node}", self.inbox)
    }

    fn channel(&self, node: NodeId) -> String {
        format!("{}{node}", self.channel)
    }

    /// The key of the records.
    pub(super) fn records(&self) -> &str {
        &self.records
    }
}

fn channel_prefix(prefix: &str) -> String {
    format!("{prefix}:node:")
}

/// The channel on which this node is told what has changed.
pub(super) fn channel(prefix: &str, node: NodeId) -> String {
    format!("{}{node}", channel_prefix(prefix))
}

/// Packs commands, one behind the other.
pub(super) struct Packer<'a> {
    /// How the server calls each script, by its number.
    pub hashes: &'a [String],
    cmd: Cmd,
}

impl<'a> Packer<'a> {
    pub(super) fn new(hashes: &'a [String]) -> Self {
        Self { hashes, cmd: Cmd::new() }
    }

    fn call(&mut self, script: Script, keys: &[&str]) -> &mut Cmd {
        self.cmd.clear();
        self.cmd.arg("EVALSHA").arg(&self.hashes[script.number()]).arg(keys.len()).arg(keys)
    }

    /// Appends the command of a request. Returns what its answer is.
    pub(super) fn pack(&mut self, names: &BucketNames, request: Request, out: &mut Vec<u8>) -> Expected {
        let BucketNames { nodes, meta, records, overrides, .. } = names;
        let expected = match request {
            Request::Beat { ids, number, seen, seen_number, proposed } => {
                let inboxes: Vec<_> = ids.iter().map(|own| names.inbox(own.node)).collect();
                let mut keys = vec![nodes.as_str(), meta];
                keys.extend(inboxes.iter().map(String::as_str));
                let cmd = self.call(Script::Beat, &keys);
                let seen = seen.map(value::generation_id).unwrap_or_default();
                cmd.arg(number).arg(seen).arg(seen_number).arg(value::generation_id(proposed));
                for own in ids {
                    cmd.arg(&value::node(own.node)).arg(u8::from(own.has_joined));
                }
                Expected::Beat
            }
            Request::Bury { node, beat, at } => {
                let beat = beat.map(|beat| beat.to_string()).unwrap_or_default();
                let cmd = self.call(Script::Bury, &[nodes, meta, &names.inbox(node)]);
                cmd.arg(&value::node(node)).arg(beat).arg(at.millis());
                Expected::Done
            }
            Request::Open(generation) => {
                self.call(Script::Open, &[nodes]).arg(value::generation_id(generation));
                Expected::Done
            }
            Request::Leave { node, generation } => {
                let cmd = self.call(Script::Leave, &[nodes, meta, &names.inbox(node)]);
                cmd.arg(&value::node(node)).arg(value::generation_id(generation));
                Expected::Done
            }
            Request::Forget { node, generation } => {
                let cmd = self.call(Script::Forget, &[nodes, meta]);
                cmd.arg(&value::node(node)).arg(value::generation_id(generation));
                Expected::Done
            }
            Request::RaiseFloor { nodes: ids, generation, epoch } => {
                let cmd = self.call(Script::RaiseFloor, &[nodes, meta]);
                cmd.arg(value::generation_id(generation)).arg(&value::number(epoch));
                for node in ids {
                    cmd.arg(&value::node(node));
                }
                Expected::Done
            }
            Request::Read(user) => {
                self.call(Script::Read, &[meta, records]).arg(user.as_str());
                Expected::Record(user)
            }
            Request::Write(write) => self.write(names, *write),
            Request::Scan { from, except, lingering } => {
                let cmd = self.call(Script::Scan, &[meta, records]);
                cmd.arg(from.map_or(0, |from| from.0)).arg(PAGE).arg(u8::from(lingering));
                for node in except {
                    cmd.arg(&node.bits().to_be_bytes()[..]);
                }
                Expected::Page
            }
            Request::ReadOverrides => {
                self.call(Script::ReadOverrides, &[meta, overrides]);
                Expected::Overrides
            }
            Request::WriteOverrides(request) => {
                let OverridesRequest { user, overrides: of_user, generation, node, epoch, expected, version } =
                    *request;
                let cmd = self.call(Script::WriteOverrides, &[meta, overrides, nodes]);
                cmd.arg(user.as_str()).arg(value::generation_id(generation)).arg(floor(node));
                cmd.arg(&value::number(epoch)).arg(value::version(expected)).arg(value::version(version));
                cmd.arg(overrides_value(of_user));
                Expected::Overrides
            }
            Request::RestoreOverrides { generation, version, overrides: all } => {
                let cmd = self.call(Script::RestoreOverrides, &[meta, overrides, nodes]);
                cmd.arg(value::generation_id(generation)).arg(value::version(version));
                for (user, overrides) in all {
                    cmd.arg(user.as_str()).arg(overrides_value(overrides));
                }
                Expected::Overrides
            }
        };
        self.cmd.write_packed_command(out);
        expected
    }

    fn write(&mut self, names: &BucketNames, write: WriteRequest) -> Expected {
        let WriteRequest { user, generation, node, epoch, expected, overrides, record, ended, closed, tell, hints } =
            write;
        let has_more = !(ended.is_empty() && closed.is_empty() && tell.is_empty() && hints.is_empty());
        let inboxes: Vec<_> = ended.iter().chain(&closed).map(|session| names.inbox(session.node())).collect();
        let mut keys = vec![names.meta.as_str(), &names.records];
        if has_more {
            keys.push(&names.nodes);
            keys.extend(inboxes.iter().map(String::as_str));
        }
        let script = if overrides.is_some() { Script::Admit } else { Script::Write };
        let cmd = self.call(script, &keys);
        cmd.arg(user.as_str()).arg(value::generation_id(generation)).arg(floor(node)).arg(&value::number(epoch));
        cmd.arg(expected.map_or(Vec::new(), |stamp| stamp.0.to_be_bytes().to_vec()));
        cmd.arg(overrides.map(value::version).unwrap_or_default());
        cmd.arg(record.as_ref().map_or(Vec::new(), |(stamp, record)| value::record(*stamp, record)));
        if has_more {
            cmd.arg(ended.len());
            for session in ended {
                let of = session.node();
                cmd.arg(&value::node(of)).arg(value::inbox_member(session, &user)).arg(names.channel(of));
            }
            cmd.arg(closed.len());
            for session in closed {
                cmd.arg(value::inbox_member(session, &user));
            }
            for node in tell {
                cmd.arg(names.channel(node)).arg(value::changed(&user));
            }
            for hint in hints {
                cmd.arg(names.channel(hint.session.node())).arg(value::hint(hint));
            }
        }
        Expected::Written(user, generation, record)
    }
}

/// The field of the meta with the floor of a node.
fn floor(node: NodeId) -> Vec<u8> {
    [&b"floor "[..], &value::node(node)].concat()
}

fn overrides_value(overrides: UserOverrides) -> Vec<u8> {
    if overrides.is_empty() { Vec::new() } else { overrides_bytes::encode(overrides) }
}
