//! What a replay has met, so that a test can tell what it has not.

use std::fmt;

use session_core::cluster::{BucketKeys, Request, WriteRequest};
use session_core::ledger::UserRecord;

use crate::cluster_simulation::{Coverage, Event};

/// What a replay has met.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests and faults, as those of the simulation are counted.
    pub coverage: Coverage,
    /// Answers that were compared with those of the reference.
    pub compared: u64,
    /// Requests that were applied, and whose answers are lost.
    pub unanswered: u64,
    /// Calls of scripts that the Redis had forgotten.
    pub not_loaded: u64,
    /// Requests that the Redis refused because it has no memory left.
    pub out_of_memory: u64,
    /// Writes that gave a session a slot.
    pub admitted: u64,
    /// Writes that took a slot from a session, for another one or by an operator.
    pub ended: u64,
    /// Writes by which a session gave its slot up.
    pub released: u64,
    /// Writes by which a slot went to another session of its client.
    pub resumed: u64,
    /// Writes by which a slot began to linger.
    pub lingers: u64,
    /// Writes that acknowledged the end of a session at another node's wish.
    pub acknowledged: u64,
    /// Writes that added a session again that the Redis had forgotten.
    pub restored: u64,
    /// Messages that subscribers have received, and that were those of the reference.
    pub messages: u64,
    /// Times at which all keys were compared.
    pub snapshots: u64,
    /// Keys of buckets in them.
    pub compared_buckets: u64,
}

impl Report {
    /// A write was applied to this record.
    pub(super) fn wrote(&mut self, before: &UserRecord, write: &WriteRequest, keys: &BucketKeys) {
        let after = keys.record(&write.user);
        let was_there = |session| before.session(session).is_some();
        let slots = |record: &UserRecord| record.sessions().iter().map(|entry| entry.slot).collect::<Vec<_>>();
        let (old, new) = (slots(before), slots(&after));
        for entry in after.sessions().iter().filter(|entry| !was_there(entry.session)) {
            match (old.contains(&entry.slot), keys.is_open()) {
                (true, _) => self.resumed += 1,
                (false, true) => self.admitted += 1,
                (false, false) => self.restored += 1,
            }
        }
        for entry in before.sessions().iter().filter(|entry| after.session(entry.session).is_none()) {
            match (after.is_leaving(entry.session), new.contains(&entry.slot)) {
                (true, _) => self.ended += 1,
                (false, false) => self.released += 1,
                (false, true) => {}
            }
        }
        let lingering = |record: &UserRecord| {
            record.sessions().iter().filter(|entry| entry.status.lingers_until().is_some()).count()
        };
        self.lingers += u64::from(lingering(&after) > lingering(before));
        self.acknowledged += u64::from(!write.closed.is_empty());
    }

    /// How often this has happened.
    #[must_use]
    pub fn count(&self, event: Event) -> u64 {
        self.coverage.counts().find(|(of, _)| *of == event).map_or(0, |(_, count)| count)
    }

    /// The record that this request may write, as it is before. Empty if it writes none.
    pub(super) fn record_before(request: &Request, keys: &BucketKeys) -> UserRecord {
        if let Request::Write(write) = request { keys.record(&write.user) } else { UserRecord::default() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (event, count) in self.coverage.counts() {
            write!(f, "{event:?} {count}, ")?;
        }
        writeln!(f, "{} answers compared, {} lost", self.compared, self.unanswered)?;
        writeln!(
            f,
            "sessions: {} admitted, {} released, {} ended by others, {} acknowledged, {} lingering, {} resumed, {} restored",
            self.admitted, self.released, self.ended, self.acknowledged, self.lingers, self.resumed, self.restored
        )?;
        write!(
            f,
            "{} messages compared, {} snapshots of {} buckets, {} calls of forgotten scripts, {} out of memory",
            self.messages, self.snapshots, self.compared_buckets, self.not_loaded, self.out_of_memory
        )
    }
}
