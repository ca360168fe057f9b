//! What must hold, as clients see it.

use std::collections::{BTreeMap, BTreeSet};

use session_core::cluster::{BucketKeys, NodeEntry};
use session_core::{NodeId, SessionId, UserId};

use super::machine::ClientState;
use super::world::World;

impl World {
    /// Checks what must hold at every moment.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut served: BTreeMap<&UserId, u32> = BTreeMap::new();
        for machine in &self.machines {
            let clock = machine.clock(self.now);
            let Some(process) = &machine.process else { continue };
            for (number, bucket) in (0..).zip(&process.buckets) {
                if !bucket.may_serve(clock) {
                    continue;
                }
                let clients = process.clients.values().filter(|client| client.bucket == number && client.is_in());
                let mut is_serving = false;
                for client in clients {
                    *served.entry(&client.user).or_default() += 1;
                    is_serving = true;
                }
                let data = self.shards[usize::from(number) % self.shards.len()].primary.get(&number);
                let mut nodes = data.into_iter().flat_map(BucketKeys::nodes);
                let is_own = |node: NodeId| bucket.membership().ids().any(|own| own == node);
                if is_serving && nodes.any(|(node, entry)| matches!(entry, NodeEntry::Dead(_)) && is_own(node)) {
                    return Err(format!("buried: a node that serves clients of bucket {number}"));
                }
            }
        }
        let limit = self.settings.policy.limit.slots();
        match served.into_iter().find(|(_, served)| *served > limit) {
            Some((user, served)) => Err(format!("overrun: {served} of {user}'s clients are in, of {limit}")),
            None => Ok(()),
        }
    }

    /// Checks what must hold once all is quiet: the records equal the sockets.
    pub(super) fn check_settled(&self) -> Result<(), String> {
        let mut told: BTreeSet<SessionId> = BTreeSet::new();
        for machine in &self.machines {
            let Some(process) = &machine.process else { continue };
            for (session, client) in &process.clients {
                match client.state {
                    ClientState::Told => {
                        told.insert(*session);
                    }
                    ClientState::InLine => {}
                    other => return Err(format!("stuck: session {session} is {other:?}")),
                }
            }
            if let Some((call, bucket)) = process.unanswered.first_key_value() {
                return Err(format!("unanswered: {call:?} of bucket {bucket}"));
            }
            for bucket in &process.buckets {
                if !bucket.may_serve(machine.clock(self.now)) {
                    return Err("stuck: a node has not joined".to_owned());
                }
            }
        }
        let mut held = BTreeSet::new();
        for (number, data) in self.shards.iter().flat_map(|shard| &shard.primary) {
            if !data.is_open() {
                return Err(format!("stuck: the gate of bucket {number} is closed"));
            }
            if data.in_inboxes() > 0 {
                return Err(format!("leak: an inbox of bucket {number}"));
            }
            for user in data.users() {
                let record = data.record(user);
                if !record.leaving().is_empty() {
                    return Err(format!("leak: {:?} are leaving for ever", record.leaving()));
                }
                held.extend(
                    record
                        .sessions()
                        .iter()
                        .filter(|entry| entry.status.lingers_until().is_none())
                        .map(|entry| entry.session),
                );
            }
        }
        match (held.difference(&told).next(), told.difference(&held).next()) {
            (Some(session), _) => Err(format!("leak: session {session} has a slot and no socket")),
            (_, Some(session)) => Err(format!("missing: session {session} has a socket and no slot")),
            (None, None) => Ok(()),
        }
    }
}
