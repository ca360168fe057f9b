//! The bounded queue of commands for the thread that applies them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session_core::ledger::StoreCommand;
use session_core::ledger::{Outcome, StoreError};

use super::live_query::LiveQuery;
use crate::store::completion::Completion;

/// How many queries may wait. Only operators ask them.
const MAX_QUERIES: usize = 64;

/// A command, and its completion.
pub(super) type QueuedCommand = (StoreCommand, Completion<Outcome>);

/// First in, first out, at most `capacity` commands.
///
/// The capacity does not apply to two kinds of command. Releases: an acquire submitted after a release must find the slot
/// free, and there are never more releases than granted slots. Commands of the process itself, such as an operator's: an
/// operator must be able to end the sessions that fill the queue. There are few of those at a time.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Notified when the queue stops being empty, and when it is closed.
    ready: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct Inner {
    commands: VecDeque<QueuedCommand>,
    queries: Vec<LiveQuery>,
    open: bool,
}

/// What [`Queue::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TakeResult {
    /// Commands, at least one.
    Batch,
    /// None in time, or a query came.
    Nothing,
    /// None, and there will be none.
    Closed,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        let inner = Inner { commands: VecDeque::new(), queries: Vec::new(), open: true };
        Self { inner: Mutex::new(inner), ready: Condvar::new(), capacity }
    }

    /// Queues the command, or rejects it at once.
    pub(super) fn push(&self, command: StoreCommand, completion: Completion<Outcome>) {
        let is_own = command.session().number() == 0;
        let capacity = if command.is_release() || is_own { usize::MAX } else { self.capacity };
        let mut inner = self.lock();
        let error = if !inner.open {
            StoreError::Failed
        } else if inner.commands.len() >= capacity {
            StoreError::Overloaded
        } else {
            inner.commands.push_back((command, completion));
            let was_empty = inner.commands.len() == 1;
            drop(inner);
            if was_empty {
                self.ready.notify_one();
            }
            return;
        };
        // Not under the lock: the completion may submit the next command.
        drop(inner);
        completion.answer(Outcome::Rejected(error));
    }

    /// Queues a query, or rejects it at once. Queries do not count against the capacity.
    pub(super) fn ask(&self, query: LiveQuery) {
        let mut inner = self.lock();
        let error = if !inner.open {
            StoreError::Failed
        } else if inner.queries.len() >= MAX_QUERIES {
            StoreError::Overloaded
        } else {
            inner.queries.push(query);
            drop(inner);
            self.ready.notify_one();
            return;
        };
        drop(inner);
        query.reject(error);
    }

    /// Whether an acquire would be rejected for want of room.
    pub(super) fn is_full(&self) -> bool {
        self.lock().commands.len() >= self.capacity
    }

    /// Moves up to `max` commands into `batch`, and the queries into `queries`; both are empty. Waits for one, at most for
    /// `timeout` if there is one.
    pub(super) fn take(
        &self,
        batch: &mut VecDeque<QueuedCommand>,
        queries: &mut Vec<LiveQuery>,
        max: usize,
        timeout: Option<Duration>,
    ) -> TakeResult {
        let mut inner = self.lock();
        let idle = |inner: &mut Inner| inner.commands.is_empty() && inner.queries.is_empty() && inner.open;
        inner = match timeout {
            None => self.ready.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.ready.wait_timeout_while(inner, time, idle).unwrap_or_else(PoisonError::into_inner).0,
        };
        std::mem::swap(&mut inner.queries, queries);
        if inner.commands.is_empty() {
            let is_over = !inner.open && queries.is_empty();
            return if is_over { TakeResult::Closed } else { TakeResult::Nothing };
        }
        if inner.commands.len() <= max {
            std::mem::swap(&mut inner.commands, batch);
        } else {
            batch.extend(inner.commands.drain(..max));
        }
        TakeResult::Batch
    }

    /// Takes no more commands. Those in the queue can still be taken out.
    pub(super) fn close(&self) {
        self.lock().open = false;
        self.ready.notify_all();
    }

    /// Takes no more commands, and rejects those in the queue.
    pub(super) fn fail_all(&self) {
        self.close();
        let (commands, queries) = {
            let mut inner = self.lock();
            (std::mem::take(&mut inner.commands), std::mem::take(&mut inner.queries))
        };
        reject(commands, StoreError::Failed);
        queries.into_iter().for_each(|query| query.reject(StoreError::Failed));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rejects each command.
pub(super) fn reject(commands: impl IntoIterator<Item = QueuedCommand>, error: StoreError) {
    for (_, completion) in commands {
        completion.answer(Outcome::Rejected(error));
    }
}

/// Fails all pending commands if the writer thread panics.
pub(super) struct FailPendingOnDrop(Arc<Queue>);

impl FailPendingOnDrop {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self(queue)
    }
}

impl Drop for FailPendingOnDrop {
    fn drop(&mut self) {
        self.0.fail_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{OutcomeChannel, acquire, lookup, release};
    use super::*;

    #[test]
    fn full_queue_takes_releases_and_process_commands_only() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        for number in 1..=9 {
            queue.push(acquire("ada", number), answers.completion());
        }
        assert_eq!(answers.now(), [Outcome::Rejected(StoreError::Overloaded)]);
        for number in 0..100 {
            queue.push(release("ada", number), answers.completion());
        }
        assert_eq!(answers.now(), []);
        queue.push(lookup("ada", 1), answers.completion());
        queue.push(acquire("ada", 1), answers.completion());
        assert_eq!(answers.now(), vec![Outcome::Rejected(StoreError::Overloaded); 2]);
        queue.push(lookup("ada", 0), answers.completion());
        assert_eq!(answers.now(), [], "the process itself is heard");
    }

    #[test]
    fn batches_keep_order_and_bound() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        let submitted = [acquire("ada", 1), release("ada", 1), acquire("ada", 2)];
        for command in submitted.clone() {
            queue.push(command, answers.completion());
        }
        let mut taken = Vec::new();
        let mut batch = VecDeque::new();
        for expected in [2, 1] {
            assert_eq!(queue.take(&mut batch, &mut Vec::new(), 2, None), TakeResult::Batch);
            assert_eq!(batch.len(), expected);
            taken.extend(batch.drain(..).map(|(command, _)| command));
        }
        assert_eq!(taken, submitted);
        assert_eq!(queue.take(&mut batch, &mut Vec::new(), 2, Some(Duration::ZERO)), TakeResult::Nothing);
    }

    #[test]
    fn closed_queue_hands_out_its_commands_and_rejects_others() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        queue.push(acquire("ada", 1), answers.completion());
        queue.close();
        queue.push(release("ada", 1), answers.completion());
        assert_eq!(answers.now(), [Outcome::Rejected(StoreError::Failed)]);
        let mut batch = VecDeque::new();
        assert_eq!(queue.take(&mut batch, &mut Vec::new(), 8, None), TakeResult::Batch);
        assert_eq!(batch.len(), 1);
        batch.clear();
        assert_eq!(answers.now(), [Outcome::Unknown]);
        assert_eq!(queue.take(&mut batch, &mut Vec::new(), 8, None), TakeResult::Closed);
    }

    #[test]
    fn failed_queue_rejects_pending_commands() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        queue.push(acquire("ada", 1), answers.completion());
        queue.fail_all();
        assert_eq!(answers.now(), [Outcome::Rejected(StoreError::Failed)]);
    }
}
