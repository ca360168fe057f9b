//! The thread that listens to what other nodes tell this one. Each message may be lost: it only makes things quick.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use session_core::NodeId;
use session_core::cluster::{BucketEvent, Published};

use super::command::channel;
use super::link::LinkError;
use super::node::{Node, RECONNECT_PAUSE};
use super::value;
use crate::runtime::supervisor::PartGuard;

/// How long it may take until a new id of this node is listened for.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// After which silence the connection is tried.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// Listens until the node has left.
pub(super) fn run(node: &Node, guard: &PartGuard) {
    while !node.is_over() {
        // What is wrong is said by the threads on whose connections more depends.
        let _lost: Result<(), LinkError> = listen(node, guard);
        if !node.is_over() {
            thread::sleep(RECONNECT_PAUSE);
        }
    }
}

fn listen(node: &Node, guard: &PartGuard) -> Result<(), LinkError> {
    let (server, mut connection) = node.locator.connect_to_any()?;
    let mut messages = connection.as_pubsub();
    messages.set_read_timeout(Some(LONGEST_WAIT))?;
    let mut listens = BTreeSet::<NodeId>::new();
    let mut heard_at = Instant::now();
    // A server that has no buckets any more may have left its cluster, or be cut off.
    while !node.is_over() && node.locator.servers().contains(&server) {
        guard.round();
        if heard_at.elapsed() > LONGEST_SILENCE {
            // A connection that was cut without a word is found out.
            messages.set_read_timeout(Some(node.locator.config().call_timeout))?;
            messages.ping::<()>()?;
            messages.set_read_timeout(Some(LONGEST_WAIT))?;
            heard_at = Instant::now();
        }
        let new: Vec<_> = node.ids().difference(&listens).copied().collect();
        if !new.is_empty() {
            messages.set_read_timeout(Some(node.locator.config().call_timeout))?;
            for id in new {
                messages.subscribe(channel(&node.locator.config().prefix, id))?;
                listens.insert(id);
            }
            messages.set_read_timeout(Some(LONGEST_WAIT))?;
        }
        let message = match messages.get_message() {
            Ok(message) => {
                heard_at = Instant::now();
                message
            }
            Err(error) if error.is_timeout() => continue,
            Err(error) => return Err(error.into()),
        };
        let of = message.get_channel_name().rsplit(':').next().and_then(|id| value::parse_node(id.as_bytes()));
        match of.and_then(|of| value::parse_message(of, message.get_payload_bytes())) {
            Some(Published::Changed(_, user)) => node.handle(node.cell_of(&user), BucketEvent::Hinted(user)),
            Some(Published::Session(hint)) => node.context.hint(vec![hint]),
            None => {}
        }
    }
    Ok(())
}
