//! The thread that tells the other servers what this one is, and compares the format of the keys.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use redis::Connection;
use session_core::NodeId;
use session_core::cluster::GenerationId;

use super::about;
use super::format;
use super::link::LinkError;
use super::node::{BUCKETS, Node};
use crate::runtime::events::log_event;
use crate::runtime::supervisor::PartGuard;
use crate::store::nodes::NodeAbout;

/// How often the thread looks whether there is something to write.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often it writes if nothing has happened. That is a few commands each time: far fewer than beats.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long it waits for the store when the server stops.
const REMOVE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long it waits after an error.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Writes what this server says of itself, until it has left. Then removes that.
pub(super) fn run(node: &Node, guard: &PartGuard) {
    let mut writer = Writer { node, connection: None, written: None, retry_at: Instant::now(), has_failed: false };
    while !node.is_over() {
        guard.round();
        writer.write_if_due();
        thread::sleep(LOOK_INTERVAL);
    }
    if !node.is_abandoned() {
        // It expires otherwise.
        let _lost: Result<(), LinkError> = writer.remove();
    }
}

struct Writer<'a> {
    node: &'a Node,
    connection: Option<Connection>,
    written: Option<Written>,
    /// After an error.
    retry_at: Instant,
    /// Whether the last attempt failed, which is logged once.
    has_failed: bool,
}

/// When it was written, and what tells that it has to be written again.
struct Written {
    at: Instant,
    newest: NodeId,
    /// Under all of them.
    ids: BTreeSet<NodeId>,
    /// That of the first part: if there is another one, the store has lost something.
    generation: Option<GenerationId>,
}

impl Writer<'_> {
    fn write_if_due(&mut self) {
        let now = Instant::now();
        if now < self.retry_at {
            return;
        }
        let generation = self.node.cells()[0].look(|bucket| bucket.membership().generation().map(|of| of.id));
        let newest = self.node.context.node();
        let is_new = self.node.about.take_is_new();
        let is_written = self.written.as_ref().is_some_and(|written| {
            written.newest == newest
                && written.generation == generation
                && now.saturating_duration_since(written.at) < INTERVAL
        });
        if is_written && !is_new {
            return;
        }
        match self.write(newest) {
            Ok(ids) => {
                self.written = Some(Written { at: now, newest, ids, generation });
                self.has_failed = false;
            }
            Err(error) => {
                (self.connection, self.written) = (None, None);
                self.retry_at = now + RETRY_PAUSE;
                if !self.has_failed {
                    log_event!(node_not_described { error: display(&error) });
                }
                self.has_failed = true;
            }
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, LinkError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.node.locator.connect_to_first()?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Returns the ids under which it is written.
    fn write(&mut self, newest: NodeId) -> Result<BTreeSet<NodeId>, LinkError> {
        let node = self.node;
        let connection = self.connection()?;
        let conflict = format::conflict(connection, &node.locator.config().prefix, BUCKETS)?;
        let is_foreign = conflict.is_some();
        node.about.set_conflict(conflict);
        if is_foreign {
            // Nothing of this server belongs there.
            return Ok(BTreeSet::new());
        }
        let sessions = node.cells().iter().map(|cell| cell.look(|bucket| bucket.told_sessions())).sum();
        let Some(about) = node.about.with_sessions(&node.locator.config().node_name, sessions) else {
            return Ok(BTreeSet::new());
        };
        let ids: BTreeSet<_> = node.ids().into_iter().chain([newest]).collect();
        for &id in &ids {
            let renamed_to = (id != newest).then(|| newest.to_string());
            about::write(connection, &node.locator.config().prefix, id, &NodeAbout { renamed_to, ..about.clone() })?;
        }
        Ok(ids)
    }

    fn remove(&mut self) -> Result<(), LinkError> {
        // The store waits for this thread when it closes. What is not removed expires.
        let (Some(mut connection), Some(written)) = (self.connection.take(), self.written.take()) else {
            return Ok(());
        };
        connection.set_read_timeout(Some(REMOVE_TIMEOUT))?;
        let prefix = &self.node.locator.config().prefix;
        written.ids.iter().try_for_each(|id| about::remove(&mut connection, prefix, *id))
    }
}
