//! Alarms: one ordered queue of them for a whole process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use session_core::Timestamp;

/// What alarms are set to, and whom they wake.
#[derive(Debug, Default)]
pub(super) struct TimerQueue(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    set: BTreeMap<Key, Waker>,
    last: u64,
    /// Who rings them, to be woken for an alarm that is earlier than what they wait for: [`None`] is for ever.
    ringer: Option<(Waker, Option<Timestamp>)>,
}

/// The number tells alarms for the same time apart.
pub(super) type Key = (Timestamp, u64);

impl TimerQueue {
    /// Takes out those whose time has come.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Waker> {
        let mut queue = self.lock();
        let mut due = Vec::new();
        while let Some(first) = queue.set.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        due
    }

    /// Has everybody who has set one look again.
    pub(super) fn wake_all(&self) {
        // Not under the lock, which whoever is woken needs.
        let wakers: Vec<_> = self.lock().set.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The earliest time. Wakes `ringer` once there is an earlier one.
    pub(super) fn first(&self, ringer: &Waker) -> Option<Timestamp> {
        let mut queue = self.lock();
        let first = queue.set.first_key_value().map(|(&(time, _), _)| time);
        queue.ringer = Some((ringer.clone(), first));
        first
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.lock().set.first_key_value().map(|(&(time, _), _)| time)
    }

    pub(super) fn set(&self, time: Timestamp, waker: Waker) -> Key {
        let mut queue = self.lock();
        queue.last += 1;
        let key = (time, queue.last);
        queue.set.insert(key, waker);
        let ringer = queue.ringer.take_if(|(_, waits)| waits.is_none_or(|until| time < until));
        drop(queue);
        if let Some((ringer, _)) = ringer {
            ringer.wake();
        }
        key
    }

    pub(super) fn unset(&self, key: Key) {
        self.lock().set.remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change is a single operation of the map, so a poisoned one is still whole.
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
    fn those_whose_time_has_come_are_taken_out_and_no_other() {
        let alarms = TimerQueue::default();
        let wakers = [4, 5, 5, 6].map(|second| {
            let (waker, wakes) = counting_waker();
            alarms.set(at(second), waker);
            wakes
        });
        alarms.due(at(5)).into_iter().for_each(Waker::wake);
        assert_eq!(wakers.map(|wakes| wakes()), [1, 1, 1, 0]);
        assert_eq!(alarms.next(), Some(at(6)));
    }

    #[test]
    fn who_rings_is_woken_once_and_only_for_an_earlier_time() {
        let alarms = TimerQueue::default();
        let (ringer, wakes) = counting_waker();
        let set = |second| {
            alarms.set(at(second), Waker::noop().clone());
            wakes()
        };
        assert_eq!(alarms.first(&ringer), None);
        assert_eq!([set(5), set(4)], [1, 1]);
        assert_eq!(alarms.first(&ringer), Some(at(4)));
        assert_eq!([set(5), set(4), set(3), set(2)], [1, 1, 2, 2]);
    }
}
