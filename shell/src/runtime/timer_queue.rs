//! The timers of a process in one queue, ordered by time. It knows no clock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use session_core::Timestamp;

/// The times that timers are set to, and the tasks that they wake.
#[derive(Debug, Default)]
pub(super) struct TimerQueue(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    timers: BTreeMap<Key, Waker>,
    last_number: u64,
    /// The task that runs the timers, and the time it sleeps until; with `None` it sleeps without end. A timer that is set
    /// to an earlier time wakes it.
    runner: Option<(Waker, Option<Timestamp>)>,
}

/// A time, and a number that distinguishes timers of the same time.
pub(super) type Key = (Timestamp, u64);

impl TimerQueue {
    /// Removes the timers that are due, and returns their tasks.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Waker> {
        let mut queue = self.lock();
        let mut due = Vec::new();
        while let Some(first) = queue.timers.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        due
    }

    /// Wakes every task that has set a timer. The timers stay.
    pub(super) fn wake_all(&self) {
        // After the lock is released: a woken task takes it.
        let wakers: Vec<_> = self.lock().timers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The earliest time. Wakes `runner` when a timer is set to an earlier one.
    pub(super) fn first(&self, runner: &Waker) -> Option<Timestamp> {
        let mut queue = self.lock();
        let first = queue.timers.first_key_value().map(|(&(time, _), _)| time);
        queue.runner = Some((runner.clone(), first));
        first
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.lock().timers.first_key_value().map(|(&(time, _), _)| time)
    }

    /// Sets a timer that wakes this task.
    pub(super) fn set(&self, time: Timestamp, waker: Waker) -> Key {
        let mut queue = self.lock();
        queue.last_number += 1;
        let key = (time, queue.last_number);
        queue.timers.insert(key, waker);
        let runner = queue.runner.take_if(|(_, until)| until.is_none_or(|until| time < until));
        drop(queue);
        if let Some((runner, _)) = runner {
            runner.wake();
        }
        key
    }

    /// Removes a timer.
    pub(super) fn unset(&self, key: Key) {
        self.lock().timers.remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change is one operation on the map, so a poisoned queue is still consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::testing::counting_waker;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(second))
    }

    #[test]
    fn due_timers_are_removed() {
        let timers = TimerQueue::default();
        let wakers = [4, 5, 5, 6].map(|second| {
            let (waker, wakes) = counting_waker();
            timers.set(at(second), waker);
            wakes
        });
        timers.due(at(5)).into_iter().for_each(Waker::wake);
        assert_eq!(wakers.map(|wakes| wakes()), [1, 1, 1, 0]);
        assert_eq!(timers.next(), Some(at(6)));
    }

    #[test]
    fn runner_is_woken_once_for_an_earlier_time() {
        let timers = TimerQueue::default();
        let (runner, wakes) = counting_waker();
        let set = |second| {
            timers.set(at(second), Waker::noop().clone());
            wakes()
        };
        assert_eq!(timers.first(&runner), None);
        assert_eq!([set(5), set(4)], [1, 1]);
        assert_eq!(timers.first(&runner), Some(at(4)));
        assert_eq!([set(5), set(4), set(3), set(2)], [1, 1, 2, 2]);
    }
}
