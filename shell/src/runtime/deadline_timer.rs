//! One timer for all deadlines of a task.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use session_core::Timestamp;

use super::clock::Clock;
use super::timer_queue::Key;

/// One alarm for all deadlines of a task.
///
/// Deadlines move with every message, mostly to later, so it is left where it is and looks again when it goes off: only
/// an earlier one, such as that of a question to the store, touches the queue.
#[derive(Debug)]
pub(crate) struct DeadlineTimer {
    clock: Clock,
    set: Option<(Key, Waker)>,
}

impl DeadlineTimer {
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, set: None }
    }

    /// Ready when `deadline` has passed, and perhaps before.
    pub(crate) fn poll(&mut self, deadline: Option<Timestamp>, cx: &mut Context<'_>) -> Poll<()> {
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

    fn set_to(&mut self, time: Timestamp, cx: &Context<'_>) -> Timestamp {
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

impl Drop for DeadlineTimer {
    fn drop(&mut self) {
        self.unset();
    }
}

impl Clock {
    /// Waits until `time`.
    pub async fn wait_until(&self, time: Timestamp) {
        let mut timer = DeadlineTimer::new(self.clone());
        while self.now() < time {
            poll_fn(|cx| timer.poll(Some(time), cx)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;
    use std::time::Duration;

    use super::super::clock::ManualClock;
    use super::super::testing::sleeper;
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(second))
    }

    #[test]
    fn an_alarm_is_left_alone_for_a_later_deadline_but_not_for_another_task() {
        let mut timer = DeadlineTimer::new(Clock::manual(Arc::<ManualClock>::default()));
        let ((one, wakes_one), (other, wakes_other)) = (sleeper(), sleeper());
        let mut key = |second, waker| {
            assert_eq!(timer.poll(Some(at(second)), &mut Context::from_waker(waker)), Poll::Pending);
            timer.set.as_ref().map(|&(key, _)| key)
        };
        let set = key(5, &one);
        assert_eq!([key(5, &one), key(9, &one)], [set; 2]);
        assert_eq!(key(3, &one).unwrap().0, at(3));
        assert_eq!(key(9, &other).unwrap().0, at(3));
        timer.clock.alarms.due(at(3)).into_iter().for_each(Waker::wake);
        assert_eq!((wakes_one(), wakes_other()), (0, 1));
    }
}
