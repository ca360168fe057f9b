//! Asks the writer which users hold slots: with ordinary count commands, a few at a time.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use session_core::ledger::Outcome;
use session_core::ledger::StoreCommand;
use session_core::{NodeId, SessionId, UserId};

use crate::runtime::clock::Clock;
use crate::store::completion::Completion;
use crate::store::lmdb::queue::Queue;

/// How many counts are in the queue at once: few beside the commands of a batch.
const GROUP: usize = 32;

/// How long all answers may take. Users without an answer by then are left to the next pass.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the writer through its queue.
#[derive(Debug)]
pub(in crate::store::lmdb) struct SlotQuery {
    queue: Arc<Queue>,
    /// No connection has this id: their numbers begin at 1.
    session: SessionId,
    clock: Clock,
    timeout: Duration,
}

/// The answers. A user in neither list has none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SlotQueryResult {
    pub(super) with_slots: Vec<UserId>,
    pub(super) without: Vec<UserId>,
}

impl SlotQuery {
    pub(in crate::store::lmdb) fn new(queue: Arc<Queue>, node: NodeId, clock: Clock) -> Self {
        Self { queue, session: node.session(0), clock, timeout: TIMEOUT }
    }

    /// Asks about these users and waits for the answers.
    pub(super) fn run(&self, users: &[UserId]) -> SlotQueryResult {
        let mut result = SlotQueryResult::default();
        let deadline = Instant::now() + self.timeout;
        let (sender, receiver) = channel();
        for group in users.chunks(GROUP) {
            for user in group {
                let (sender, about) = (sender.clone(), user.clone());
                let completion = Completion::new(move |outcome| {
                    // Fails if the answer comes too late.
                    drop(sender.send((about, outcome)));
                });
                let lookup =
                    StoreCommand::CountSlots { user: user.clone(), session: self.session, at: self.clock.now() };
                self.queue.push(lookup, completion);
            }
            for _ in group {
                match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok((user, Outcome::Counted { slots: 0 })) => result.without.push(user),
                    Ok((user, Outcome::Counted { .. })) => result.with_slots.push(user),
                    Ok((
                        _,
                        Outcome::Rejected(_)
                        | Outcome::Unknown
                        | Outcome::Granted { .. }
                        | Outcome::Denied(_)
                        | Outcome::Waiting(_)
                        | Outcome::Listed(_)
                        | Outcome::Ended { .. }
                        | Outcome::NotRenewed(_)
                        | Outcome::Released,
                    )) => {}
                    Err(_) => return result,
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::thread;

    use session_core::ledger::StoreError;

    use super::*;
    use crate::store::lmdb::queue::TakeResult;
    use crate::store::lmdb::testing::{self, NODE, user};

    fn slot_query(capacity: usize) -> (SlotQuery, Arc<Queue>) {
        let queue = Arc::new(Queue::new(capacity));
        (SlotQuery::new(Arc::clone(&queue), NODE, Clock::start()), queue)
    }

    #[test]
    fn query_sorts_users_by_slots_and_omits_unanswered() {
        let (slot_query, queue) = slot_query(8);
        let asked = ["ada", "bob", "eve", "joe", "sue"].map(user);
        let found = |slots| Outcome::Counted { slots };
        let outcomes = [found(0), found(2), Outcome::Unknown, Outcome::Rejected(StoreError::Failed), found(0)];
        let writer = thread::spawn(move || {
            for outcome in outcomes {
                let mut batch = VecDeque::new();
                assert_eq!(queue.take(&mut batch, &mut Vec::new(), 1, None), TakeResult::Batch);
                batch.pop_front().unwrap().1.answer(outcome);
            }
            queue.close();
        });
        let result = slot_query.run(&asked);
        writer.join().unwrap();
        let [ada, bob, _, _, sue] = asked.clone();
        assert_eq!(result, SlotQueryResult { with_slots: vec![bob], without: vec![ada, sue] });
        assert_eq!(slot_query.run(&asked), SlotQueryResult::default(), "the writer is gone");
    }

    #[test]
    fn query_counts_few_users_at_once() {
        let (slot_query, queue) = slot_query(GROUP);
        let asked: Vec<_> = (0..100).map(|number| user(&format!("user {number}"))).collect();
        let writer = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                let mut batch = VecDeque::new();
                while queue.take(&mut batch, &mut Vec::new(), 100, None) == TakeResult::Batch {
                    batch.drain(..).for_each(|(_, completion)| completion.answer(Outcome::Counted { slots: 0 }));
                }
            }
        });
        assert_eq!(slot_query.run(&asked), SlotQueryResult { with_slots: vec![], without: asked });
        queue.close();
        writer.join().unwrap();
    }

    #[test]
    fn query_stops_waiting_after_its_timeout() {
        let (mut slot_query, queue) = slot_query(100);
        assert_eq!(slot_query.timeout, TIMEOUT);
        slot_query.timeout = Duration::ZERO;
        let asked: Vec<_> = (0..100).map(|number| user(&format!("user {number}"))).collect();
        let start = Instant::now();
        assert_eq!(slot_query.run(&asked), SlotQueryResult::default());
        assert!(start.elapsed() < testing::TIMEOUT);
        let mut batch = VecDeque::new();
        assert_eq!(queue.take(&mut batch, &mut Vec::new(), 100, None), TakeResult::Batch);
        assert_eq!(batch.len(), GROUP, "no other users are asked about meanwhile");
        // Late answers are dropped.
        batch.drain(..).for_each(|(_, completion)| completion.answer(Outcome::Counted { slots: 0 }));
    }
}
