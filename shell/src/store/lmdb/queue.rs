//! The bounded queue of commands for `live/`, and whose turn it is to apply them.
//!
//! A thread that submits a command while nobody applies any gets the turn: it applies the command itself, and then what others
//! have queued meanwhile. So a command that comes alone waits for no other thread and wakes none. The store's own thread takes
//! its turn for queries and the sweep, and when a caller hands over to it: after a few batches, because callers have other work,
//! and for a while after a slow one, because a disk that stalls must not stop the callers.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use session_core::ledger::StoreCommand;
use session_core::ledger::{Outcome, StoreError};

use super::live_query::LiveQuery;
use crate::store::completion::Completion;

/// How many queries may wait. Only operators ask them.
const MAX_QUERIES: usize = 64;

/// A command, and its completion.
pub(super) type QueuedCommand = (StoreCommand, Completion<Outcome>);

/// How many batches a caller applies in one turn.
const CALLER_BATCHES: usize = 4;

/// A caller's turn that takes this long is slow: longer than a busy machine keeps a thread from a processor. For some time
/// after it only the store's thread applies commands.
const SLOW_TURN: Duration = Duration::from_millis(100);
const CALLERS_PAUSE: Duration = Duration::from_secs(1);

/// First in, first out, at most `capacity` commands.
///
/// The capacity does not apply to two kinds of command. Releases: an acquire submitted after a release must find the slot
/// free, and there are never more releases than granted slots. Commands of the process itself, such as an operator's: an
/// operator must be able to end the sessions that fill the queue. There are few of those at a time.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Notified when there may be work for the store's thread.
    ready: Condvar,
    capacity: usize,
    /// [`SLOW_TURN`].
    slow_turn: Duration,
}

#[derive(Debug)]
struct Inner {
    commands: VecDeque<QueuedCommand>,
    queries: Vec<LiveQuery>,
    open: bool,
    turn: Turn,
    /// Whether the store's thread waits for a caller to hand over.
    is_wanted: bool,
    /// Until when callers get no turn.
    callers_pause_until: Option<Instant>,
}

/// Whose turn it is to apply commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nobody's. Then no command is queued.
    Nobody,
    /// That of a thread which has submitted a command.
    Caller,
    /// That of the store's thread, which has not begun.
    Offered,
    /// That of the store's thread.
    StoreThread,
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
        let inner = Inner {
            commands: VecDeque::new(),
            queries: Vec::new(),
            open: true,
            turn: Turn::Nobody,
            is_wanted: false,
            callers_pause_until: None,
        };
        Self { inner: Mutex::new(inner), ready: Condvar::new(), capacity, slow_turn: SLOW_TURN }
    }

    /// A queue for which no turn is slow.
    #[cfg(test)]
    pub(super) fn without_clock(capacity: usize) -> Self {
        Self { slow_turn: Duration::MAX, ..Self::new(capacity) }
    }

    /// Queues a command for the store's thread, or rejects it at once.
    pub(super) fn push(&self, command: StoreCommand, completion: Completion<Outcome>) {
        if let Some((inner, queued)) = self.admit((command, completion)) {
            self.enqueue(inner, queued);
        }
    }

    /// As [`Queue::push`]. But if it is nobody's turn, the caller gets it, with the command: it applies it, and then calls
    /// [`Queue::end_turn`].
    #[must_use]
    pub(super) fn push_or_begin_turn(
        &self,
        command: StoreCommand,
        completion: Completion<Outcome>,
    ) -> Option<QueuedCommand> {
        let (mut inner, queued) = self.admit((command, completion))?;
        if inner.turn == Turn::Nobody && !inner.do_callers_pause() {
            inner.turn = Turn::Caller;
            return Some(queued);
        }
        self.enqueue(inner, queued);
        None
    }

    /// Ends a caller's turn, in which it has applied so many batches and which has taken so long. True if it goes on: then
    /// `batch`, which was empty, has the next commands.
    ///
    /// The caller has released the environment: if this is false, another thread may take the turn before it returns.
    #[must_use]
    pub(super) fn end_turn(
        &self,
        batch: &mut VecDeque<QueuedCommand>,
        max: usize,
        batches: usize,
        took: Duration,
    ) -> bool {
        let mut inner = self.lock();
        debug_assert_eq!(inner.turn, Turn::Caller, "only who has the turn ends it");
        let is_slow = took >= self.slow_turn;
        if is_slow {
            inner.callers_pause_until = Some(Instant::now() + CALLERS_PAUSE);
        }
        let has_more = !inner.commands.is_empty();
        if inner.is_wanted || has_more && (is_slow || batches >= CALLER_BATCHES) {
            inner.is_wanted = false;
            inner.turn = Turn::Offered;
            drop(inner);
            self.ready.notify_one();
            return false;
        }
        if has_more {
            inner.move_commands(batch, max);
        } else {
            inner.turn = Turn::Nobody;
        }
        has_more
    }

    /// The lock, if the command may be queued. Otherwise the command is rejected.
    fn admit(&self, queued: QueuedCommand) -> Option<(MutexGuard<'_, Inner>, QueuedCommand)> {
        let (command, completion) = queued;
        let is_own = command.session().number() == 0;
        let capacity = if command.is_release() || is_own { usize::MAX } else { self.capacity };
        let inner = self.lock();
        let error = if !inner.open {
            StoreError::Failed
        } else if inner.commands.len() >= capacity {
            StoreError::Overloaded
        } else {
            return Some((inner, (command, completion)));
        };
        // Not under the lock: the completion may submit the next command.
        drop(inner);
        completion.answer(Outcome::Rejected(error));
        None
    }

    fn enqueue(&self, mut inner: MutexGuard<'_, Inner>, queued: QueuedCommand) {
        inner.commands.push_back(queued);
        let is_offered = inner.turn == Turn::Nobody;
        if is_offered {
            inner.turn = Turn::Offered;
        }
        drop(inner);
        if is_offered {
            self.ready.notify_one();
        }
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

    /// The next turn of the store's thread, which ends with the next call. Moves up to `max` commands into `batch`, and the
    /// queries into `queries`; both are empty. Waits until there is one, at most for `timeout` if there is one, and until the
    /// caller whose turn it is has handed over.
    pub(super) fn take(
        &self,
        batch: &mut VecDeque<QueuedCommand>,
        queries: &mut Vec<LiveQuery>,
        max: usize,
        timeout: Option<Duration>,
    ) -> TakeResult {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut inner = self.lock();
        if inner.turn == Turn::StoreThread {
            inner.turn = if inner.commands.is_empty() { Turn::Nobody } else { Turn::Offered };
        }
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let is_due = left.is_some_and(|left| left.is_zero()) || !inner.queries.is_empty() || !inner.open;
            match inner.turn {
                Turn::Offered => break,
                Turn::Nobody if is_due => break,
                Turn::Nobody | Turn::Caller | Turn::StoreThread => {}
            }
            inner.is_wanted |= is_due;
            inner = match left {
                Some(left) if !is_due => self.ready.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
                Some(_) | None => self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
        inner.turn = Turn::StoreThread;
        inner.is_wanted = false;
        mem::swap(&mut inner.queries, queries);
        if inner.commands.is_empty() {
            let is_over = !inner.open && queries.is_empty();
            return if is_over { TakeResult::Closed } else { TakeResult::Nothing };
        }
        inner.move_commands(batch, max);
        TakeResult::Batch
    }

    /// Takes no more commands. Those in the queue can still be taken out.
    pub(super) fn close(&self) {
        self.lock().open = false;
        self.ready.notify_all();
    }

    /// Takes no more commands, and rejects those in the queue. Whoever had the turn has left work half done.
    pub(super) fn fail_all(&self) {
        let (commands, queries) = {
            let mut inner = self.lock();
            (inner.open, inner.turn) = (false, Turn::Nobody);
            (mem::take(&mut inner.commands), mem::take(&mut inner.queries))
        };
        self.ready.notify_all();
        reject(commands, StoreError::Failed);
        queries.into_iter().for_each(|query| query.reject(StoreError::Failed));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn do_callers_pause(&mut self) -> bool {
        // The clock is read only after a slow turn.
        self.callers_pause_until.take_if(|until| Instant::now() >= *until);
        self.callers_pause_until.is_some()
    }

    /// Moves up to `max` commands into `batch`, which is empty.
    fn move_commands(&mut self, batch: &mut VecDeque<QueuedCommand>, max: usize) {
        if self.commands.len() <= max {
            mem::swap(&mut self.commands, batch);
        } else {
            batch.extend(self.commands.drain(..max));
        }
    }
}

/// Rejects each command.
pub(super) fn reject(commands: impl IntoIterator<Item = QueuedCommand>, error: StoreError) {
    for (_, completion) in commands {
        completion.answer(Outcome::Rejected(error));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::testing::{OutcomeChannel, TIMEOUT, acquire, lookup, release};
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

    /// Asks for a turn with a command.
    fn begin(queue: &Queue, answers: &OutcomeChannel, number: u64) -> Option<QueuedCommand> {
        queue.push_or_begin_turn(acquire("ada", number), answers.completion())
    }

    fn no_queries() -> Vec<LiveQuery> {
        Vec::new()
    }

    #[test]
    fn turn_is_given_to_one_at_a_time() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        let mut batch = VecDeque::new();
        let begin = |number| begin(&queue, &answers, number);
        assert!(begin(1).is_some());
        assert!(begin(2).is_none() && begin(3).is_none());
        assert!(queue.end_turn(&mut batch, 1, 1, Duration::ZERO), "others have queued");
        assert_eq!(batch.drain(..).count(), 1);
        assert!(queue.end_turn(&mut batch, 1, 2, Duration::ZERO));
        batch.clear();
        assert!(!queue.end_turn(&mut batch, 1, 3, Duration::ZERO));
        assert!(begin(4).is_some());
        assert!(!queue.end_turn(&mut batch, 1, CALLER_BATCHES, Duration::ZERO), "nothing is left to hand over");
        queue.push(acquire("ada", 5), answers.completion());
        assert!(begin(6).is_none(), "it is offered to the store's thread");
        assert_eq!(queue.take(&mut batch, &mut no_queries(), 1, None), TakeResult::Batch);
        assert!(begin(7).is_none());
        batch.clear();
        for left in [1, 1] {
            assert_eq!(queue.take(&mut batch, &mut no_queries(), 1, None), TakeResult::Batch);
            assert_eq!(batch.drain(..).count(), left);
        }
        assert_eq!(queue.take(&mut batch, &mut no_queries(), 1, Some(Duration::ZERO)), TakeResult::Nothing);
        assert!(begin(8).is_none(), "its turn lasts until it takes again");
    }

    #[test]
    fn caller_hands_over_what_is_left_after_its_batches() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        let mut batch = VecDeque::new();
        let begin = |number| begin(&queue, &answers, number);
        assert!(begin(1).is_some() && begin(2).is_none());
        assert!(!queue.end_turn(&mut batch, 1, CALLER_BATCHES, Duration::ZERO));
        assert!(batch.is_empty() && begin(3).is_none());
        assert_eq!(queue.take(&mut batch, &mut no_queries(), 8, None), TakeResult::Batch);
        assert_eq!(batch.len(), 2);
    }

    #[test]
    fn slow_turn_keeps_callers_away_for_a_while() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        let mut batch = VecDeque::new();
        let begin = |number| begin(&queue, &answers, number);
        assert!(begin(1).is_some());
        assert!(!queue.end_turn(&mut batch, 1, 1, SLOW_TURN - Duration::from_nanos(1)));
        assert!(begin(2).is_some() && begin(3).is_none());
        assert!(!queue.end_turn(&mut batch, 1, 1, SLOW_TURN), "what is left is for the store's thread");
        assert_eq!(queue.take(&mut batch, &mut no_queries(), 8, None), TakeResult::Batch);
        batch.clear();
        let taken = |timeout| queue.take(&mut VecDeque::new(), &mut no_queries(), 8, Some(timeout));
        assert_eq!(taken(Duration::ZERO), TakeResult::Nothing);
        queue.lock().turn = Turn::Nobody;
        assert!(begin(4).is_none(), "a stall would hold up this caller, too");
        assert_eq!(taken(TIMEOUT), TakeResult::Batch);
        queue.lock().turn = Turn::Nobody;
        queue.lock().callers_pause_until = Some(Instant::now());
        assert!(begin(5).is_some(), "the pause is over");
    }

    #[test]
    fn waiting_thread_gets_the_turn_of_a_caller() {
        let queue = Queue::new(8);
        let answers = OutcomeChannel::default();
        assert!(queue.push_or_begin_turn(acquire("ada", 1), answers.completion()).is_some());
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let (mut batch, mut queries) = (VecDeque::new(), Vec::new());
                let taken = queue.take(&mut batch, &mut queries, 8, None);
                (taken, batch.len(), queries.len())
            });
            let (completion, _answer) = Completion::channel();
            queue.ask(LiveQuery::Usage(completion));
            queue.push(acquire("ada", 2), answers.completion());
            while !queue.lock().is_wanted {
                thread::yield_now();
            }
            assert!(!queue.end_turn(&mut VecDeque::new(), 8, 1, Duration::ZERO), "although more is queued");
            assert_eq!(thread.join().unwrap(), (TakeResult::Batch, 1, 1));
        });
    }
}
