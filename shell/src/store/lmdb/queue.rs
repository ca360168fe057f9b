//! The bounded queue between whoever submits commands and the one thread that applies them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session_core::ledger::StoreCommand;
use session_core::ledger::{Outcome, StoreError};

use super::live_query::LiveQuery;
use crate::store::completion::Completion;

/// How many queries may wait: an operator's, so few.
const MAX_QUERIES: usize = 64;

/// A command and whom to answer.
pub(super) type QueuedCommand = (StoreCommand, Completion<Outcome>);

/// First in, first out, bounded: where `capacity` commands wait, no other is taken. What gives a slot up always
/// is, so that whoever acquires after it was submitted finds the slot free. There cannot be more of them than slots
/// that were granted. So is what the process asks for itself, which is no session's: an operator must be able to end those
/// who fill the queue. There are few at a time.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Told when the queue stops being empty, and when it is closed.
    ready: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct Inner {
    commands: VecDeque<QueuedCommand>,
    queries: Vec<LiveQuery>,
    open: bool,
}

/// What [`Queue::take`] came back with.
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
    pub(super) fn push(&self, command: StoreCommand, done: Completion<Outcome>) {
        let is_the_process = command.session().number() == 0;
        let room = if command.is_release() || is_the_process { usize::MAX } else { self.capacity };
        let mut inner = self.lock();
        let cause = if !inner.open {
            StoreError::Failed
        } else if inner.commands.len() >= room {
            StoreError::Overloaded
        } else {
            inner.commands.push_back((command, done));
            let was_empty = inner.commands.len() == 1;
            drop(inner);
            if was_empty {
                self.ready.notify_one();
            }
            return;
        };
        // The answer is a stranger's code: it may well submit the next command.
        drop(inner);
        done.answer(Outcome::Rejected(cause));
    }

    /// Queues a query, or rejects it at once. Queries wait for no room among the commands, and take none.
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

    /// The queries that wait.
    pub(super) fn take_queries(&self) -> Vec<LiveQuery> {
        std::mem::take(&mut self.lock().queries)
    }

    /// Whether an acquire would be rejected for want of room.
    pub(super) fn is_full(&self) -> bool {
        self.lock().commands.len() >= self.capacity
    }

    /// Moves up to `most` commands into `batch`, which is empty. Waits for one, but at most for `patience` if there
    /// is any.
    pub(super) fn take(
        &self,
        batch: &mut VecDeque<QueuedCommand>,
        most: usize,
        patience: Option<Duration>,
    ) -> TakeResult {
        let mut inner = self.lock();
        let idle = |inner: &mut Inner| inner.commands.is_empty() && inner.queries.is_empty() && inner.open;
        inner = match patience {
            None => self.ready.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.ready.wait_timeout_while(inner, time, idle).unwrap_or_else(PoisonError::into_inner).0,
        };
        if inner.commands.is_empty() {
            let is_over = !inner.open && inner.queries.is_empty();
            return if is_over { TakeResult::Closed } else { TakeResult::Nothing };
        }
        if inner.commands.len() <= most {
            std::mem::swap(&mut inner.commands, batch);
        } else {
            batch.extend(inner.commands.drain(..most));
        }
        TakeResult::Batch
    }

    /// Takes no more commands. Those in the queue can still be taken out.
    pub(super) fn close(&self) {
        self.lock().open = false;
        self.ready.notify_all();
    }

    /// Takes no more commands and rejects those in the queue: nobody will take them out.
    pub(super) fn fail_all(&self) {
        self.close();
        let left = std::mem::take(&mut self.lock().commands);
        reject(left, StoreError::Failed);
        self.take_queries().into_iter().for_each(|query| query.reject(StoreError::Failed));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers each that it was not applied.
pub(super) fn reject(commands: impl IntoIterator<Item = QueuedCommand>, cause: StoreError) {
    for (_, done) in commands {
        done.answer(Outcome::Rejected(cause));
    }
}

/// Sees to it that nobody queues for a writer that is gone, should it panic.
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
    fn a_full_queue_takes_releases_and_what_the_process_asks_and_nothing_else() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        for number in 1..=9 {
            queue.push(acquire("ada", number), answers.done());
        }
        assert_eq!(answers.now(), [Outcome::Rejected(StoreError::Overloaded)]);
        for number in 0..100 {
            queue.push(release("ada", number), answers.done());
        }
        assert_eq!(answers.now(), []);
        queue.push(lookup("ada", 1), answers.done());
        queue.push(acquire("ada", 1), answers.done());
        assert_eq!(answers.now(), vec![Outcome::Rejected(StoreError::Overloaded); 2]);
        queue.push(lookup("ada", 0), answers.done());
        assert_eq!(answers.now(), [], "the process itself is heard");
    }

    #[test]
    fn batches_keep_the_order_and_their_bound() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        let submitted = [acquire("ada", 1), release("ada", 1), acquire("ada", 2)];
        for command in submitted.clone() {
            queue.push(command, answers.done());
        }
        let mut taken = Vec::new();
        let mut batch = VecDeque::new();
        for expected in [2, 1] {
            assert_eq!(queue.take(&mut batch, 2, None), TakeResult::Batch);
            assert_eq!(batch.len(), expected);
            taken.extend(batch.drain(..).map(|(command, _)| command));
        }
        assert_eq!(taken, submitted);
        assert_eq!(queue.take(&mut batch, 2, Some(Duration::ZERO)), TakeResult::Nothing);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_rejects_the_rest() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        queue.push(acquire("ada", 1), answers.done());
        queue.close();
        queue.push(release("ada", 1), answers.done());
        assert_eq!(answers.now(), [Outcome::Rejected(StoreError::Failed)]);
        let mut batch = VecDeque::new();
        assert_eq!(queue.take(&mut batch, 8, None), TakeResult::Batch);
        assert_eq!(batch.len(), 1);
        batch.clear();
        assert_eq!(answers.now(), [Outcome::Unknown]);
        assert_eq!(queue.take(&mut batch, 8, None), TakeResult::Closed);
    }

    #[test]
    fn an_abandoned_queue_answers_what_it_has() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        queue.push(acquire("ada", 1), answers.done());
        queue.fail_all();
        assert_eq!(answers.now(), [Outcome::Rejected(StoreError::Failed)]);
    }
}
