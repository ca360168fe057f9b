//! Alarms: one ordered queue of them for a whole process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use session_core::Time;

use super::Clock;

/// What alarms are set to, and whom they wake.
#[derive(Debug, Default)]
pub(super) struct Alarms(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    set: BTreeMap<Key, Waker>,
    last: u64,
    /// Who rings them, to be woken for an alarm that is earlier than what they wait for: [`None`] is for ever.
    ringer: Option<(Waker, Option<Time>)>,
}

/// The number tells alarms for the same time apart.
type Key = (Time, u64);

impl Alarms {
    /// Takes out those whose time has come.
    pub(super) fn due(&self, now: Time) -> Vec<Waker> {
        let mut queue = self.lock();
        let mut due = Vec::new();
        while let Some(first) = queue.set.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        due
    }

    /// The earliest time. Wakes `ringer` once there is an earlier one.
    pub(super) fn first(&self, ringer: &Waker) -> Option<Time> {
        let mut queue = self.lock();
        let first = queue.set.first_key_value().map(|(&(time, _), _)| time);
        queue.ringer = Some((ringer.clone(), first));
        first
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<Time> {
        self.lock().set.first_key_value().map(|(&(time, _), _)| time)
    }

    fn set(&self, time: Time, waker: Waker) -> Key {
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

    fn unset(&self, key: Key) {
        self.lock().set.remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change is a single operation of the map, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One alarm for all deadlines of a task.
///
/// Deadlines move with every message, mostly to later, so it is left where it is and looks again when it goes off: a
/// busy connection does not touch the queue at all.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    set: Option<(Key, Waker)>,
}

impl Alarm {
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, set: None }
    }

    /// Ready when `deadline` has passed, and perhaps before.
    pub(crate) fn poll(&mut self, deadline: Option<Time>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let time = match &self.set {
            Some(((time, _), waker)) if *time <= deadline && waker.will_wake(cx.waker()) => *time,
            Some(((time, _), _)) => self.set_to(deadline.min(*time), cx),
            None => self.set_to(deadline, cx),
        };
        if self.clock.now() < time {
            return Poll::Pending;
        }
        self.unset();
        Poll::Ready(())
    }

    fn set_to(&mut self, time: Time, cx: &Context<'_>) -> Time {
        self.unset();
        self.set = Some((self.clock.alarms.set(time, cx.waker().clone()), cx.waker().clone()));
        time
    }

    fn unset(&mut self) {
        if let Some((key, _)) = self.set.take() {
            self.clock.alarms.unset(key);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.unset();
    }
}
