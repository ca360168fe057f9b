//! What must hold, as clients see it.

use std::collections::{BTreeMap, BTreeSet};

use session_core::cluster::{BucketKeys, NodeEntry};
use session_core::ledger::{CountBy, SlotLimit};
use session_core::{NodeId, SessionId, UserId};

use super::applied::settled;
use super::machine::{Client, ClientState};
use super::world::World;

impl World {
    /// Checks what must hold at every moment.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if let Some(broken) = self.shards.iter().find_map(|shard| shard.broken.clone()) {
            return Err(broken);
        }
        // Of each user, how many are served, and who was told last.
        let mut served: BTreeMap<&UserId, (Vec<&Client>, &Client)> = BTreeMap::new();
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
                    let (all, last) = served.entry(&client.user).or_insert((Vec::new(), client));
                    all.push(client);
                    if client.told > last.told {
                        *last = client;
                    }
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
        // Since the last one was told, there can only be fewer.
        let slots = |clients: &[&Client]| match self.settings.policy.count_by {
            CountBy::Sessions => clients.len(),
            CountBy::Devices => {
                let devices = clients.iter().filter_map(|client| client.device.as_ref()).collect::<BTreeSet<_>>();
                devices.len() + clients.iter().filter(|client| client.device.is_none()).count()
            }
        };
        match served.into_iter().find(|(_, (all, last))| slots(all) > last.limit as usize) {
            Some((user, (all, last))) => {
                Err(format!("overrun: {} of {user}'s slots are in use, of {}", slots(&all), last.limit))
            }
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
        self.check_ended()?;
        let mut held = BTreeSet::new();
        for (number, data) in self.shards.iter().flat_map(|shard| &shard.primary) {
            held.append(&mut settled(*number, data)?);
            let mut gone = data.nodes().filter(|(_, entry)| !matches!(entry, NodeEntry::Beats(_)));
            if self.settings.forgets
                && let Some((node, entry)) = gone.next()
            {
                return Err(format!("remembered: {node} is {entry:?} in bucket {number}"));
            }
            let is_alive = |of: NodeId| data.nodes().any(|(node, _)| node == of);
            if self.settings.forgets
                && let Some(node) = data.floors().map(|(node, _)| node).find(|node| !is_alive(*node))
            {
                return Err(format!("remembered: the floor of {node} in bucket {number}"));
            }
            for user in data.users() {
                let limit = data.overrides(user).limit.map(SlotLimit::slots);
                if self.operator.certain(user).is_some_and(|certain| certain != limit) {
                    return Err(format!("override: the limit of {user} is {limit:?}"));
                }
            }
        }
        match (held.difference(&told).next(), told.difference(&held).next()) {
            (Some(session), _) => Err(format!("leak: session {session} has a slot and no socket")),
            (_, Some(session)) => Err(format!("missing: session {session} has a socket and no slot")),
            (None, None) => Ok(()),
        }
    }
}
