//! The writer of `live/`, and the threads that use it in turns.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use session_core::ledger::{Outcome, StoreCommand};

use super::queue::{Queue, TakeResult};
use super::writer::Writer;
use crate::runtime::supervisor::PartGuard;
use crate::store::completion::Completion;

/// Applies commands on the thread that submits them, or on the store's own thread. The [`Queue`] says whose turn it is.
pub(super) struct SharedWriter {
    queue: Arc<Queue>,
    /// Locked only by who has the turn, so nobody waits for this lock. `None` once the queue is closed and empty.
    writer: Mutex<Option<Writer>>,
}

impl SharedWriter {
    pub(super) fn new(queue: Arc<Queue>, writer: Writer) -> Self {
        Self { queue, writer: Mutex::new(Some(writer)) }
    }

    /// Applies the command now, or queues it if another thread is at work. Then also applies what others queue meanwhile, within
    /// bounds.
    pub(super) fn submit(&self, command: StoreCommand, completion: Completion<Outcome>) {
        let Some(first) = self.queue.push_or_begin_turn(command, completion) else { return };
        let panics = FailPendingOnDrop::new(&self.queue);
        let began = Instant::now();
        let mut batch = VecDeque::from([first]);
        for batches in 1.. {
            let max = self.with_writer(|writer| {
                writer.serve(&mut batch);
                writer.batch()
            });
            if !self.queue.end_turn(&mut batch, max, batches, began.elapsed()) {
                break;
            }
        }
        panics.disarm();
    }

    /// The work of the store's thread, until the queue is closed and empty. Then it closes the environment.
    pub(super) fn run(&self, guard: &PartGuard) {
        let panics = FailPendingOnDrop::new(&self.queue);
        let (mut commands, mut queries) = (VecDeque::new(), Vec::new());
        let (mut timeout, mut max) = self.with_writer(|writer| (writer.wait_timeout(), writer.batch()));
        loop {
            guard.round();
            match self.queue.take(&mut commands, &mut queries, max, Some(timeout)) {
                TakeResult::Batch | TakeResult::Nothing => {}
                TakeResult::Closed => break,
            }
            (timeout, max) = self.with_writer(|writer| {
                writer.serve_and_sweep(&mut commands);
                writer.answer(queries.drain(..));
                (writer.wait_timeout(), writer.batch())
            });
        }
        drop(self.lock().take());
        panics.disarm();
    }

    fn with_writer<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> T {
        work(self.lock().as_mut().expect("nobody has the turn once the queue is closed and empty"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Writer>> {
        // If it has, the store's thread panics here, too, and that ends the process.
        self.writer.lock().expect("no thread has panicked while it applied commands")
    }
}

/// Fails all pending commands if the thread that has the turn panics, and wakes the store's thread.
struct FailPendingOnDrop<'a>(Option<&'a Queue>);

impl<'a> FailPendingOnDrop<'a> {
    const fn new(queue: &'a Queue) -> Self {
        Self(Some(queue))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for FailPendingOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.0 {
            queue.fail_all();
        }
    }
}

#[cfg(test)]
mod tests;
