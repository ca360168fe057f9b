//! The timer of one task, for whichever of its deadlines is first.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use session_core::Timestamp;

use crate::runtime::clock::Clock;
use crate::runtime::timer_queue::Key;

/// One timer for all deadlines of a task.
///
/// Deadlines change with every message, mostly to a later time. So the timer stays where it is for a later deadline, and
/// the task checks its deadline again when the timer fires. Only an earlier deadline, such as that of a store command,
/// changes the queue.
#[derive(Debug)]
pub(crate) struct DeadlineTimer {
    clock: Clock,
    set: Option<(Key, Waker)>,
}

impl DeadlineTimer {
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, set: None }
    }

    /// Ready when `deadline` has passed, and sometimes earlier.
    pub(crate) fn poll(&mut self, deadline: Option<Timestamp>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else {
            // One that was set before has woken the task for nothing, once.
            if self.set.as_ref().is_some_and(|((time, _), _)| *time <= self.clock.now()) {
                self.unset();
            }
            return Poll::Pending;
        };
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
        self.set = Some((self.clock.timers.set(time, cx.waker().clone()), cx.waker().clone()));
        time
    }

    fn unset(&mut self) {
        if let Some((key, _)) = self.set.take() {
            self.clock.timers.unset(key);
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
    use std::pin::pin;
    use std::sync::Arc;
    use std::time::Duration;

    use smol::future::or;

    use super::*;
    use crate::runtime::clock::ManualClock;
    use crate::runtime::testing::counting_waker;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(second))
    }

    #[test]
    fn timer_changes_for_another_task_or_earlier_deadline() {
        let mut timer = DeadlineTimer::new(Clock::manual(Arc::<ManualClock>::default()));
        let ((one, wakes_one), (other, wakes_other)) = (counting_waker(), counting_waker());
        let mut key = |second, waker| {
            assert_eq!(timer.poll(Some(at(second)), &mut Context::from_waker(waker)), Poll::Pending);
            timer.set.as_ref().map(|&(key, _)| key)
        };
        let set = key(5, &one);
        assert_eq!([key(5, &one), key(9, &one)], [set; 2]);
        assert_eq!(key(3, &one).unwrap().0, at(3));
        assert_eq!(key(9, &other).unwrap().0, at(3));
        timer.clock.timers.due(at(3)).into_iter().for_each(Waker::wake);
        assert_eq!((wakes_one(), wakes_other()), (0, 1));
    }

    #[test]
    fn timer_fires_once_after_its_time() {
        let manual_clock = Arc::<ManualClock>::default();
        let mut timer = DeadlineTimer::new(Clock::manual(manual_clock.clone()));
        let mut poll = |deadline| timer.poll(deadline, &mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(None), Poll::Pending);
        assert_eq!(poll(Some(at(5))), Poll::Pending);
        // A later deadline does not move it, an earlier one does.
        assert_eq!((poll(Some(at(9))), manual_clock.next_timer()), (Poll::Pending, Some(at(5))));
        assert_eq!((poll(Some(at(3))), manual_clock.next_timer()), (Poll::Pending, Some(at(3))));
        manual_clock.set(at(4));
        assert_eq!((poll(Some(at(3))), manual_clock.next_timer()), (Poll::Ready(()), None));
        assert_eq!((poll(Some(at(9))), manual_clock.next_timer()), (Poll::Pending, Some(at(9))));
        drop(timer);
        assert_eq!(manual_clock.next_timer(), None);
    }

    #[test]
    fn real_timer_fires_by_itself() {
        let clock = Clock::start();
        let until = clock.now() + Duration::from_millis(5);
        let mut timer = DeadlineTimer::new(clock.clone());
        let far = Some(Timestamp::from_epoch(Duration::MAX));
        assert_eq!(timer.poll(far, &mut Context::from_waker(Waker::noop())), Poll::Pending);
        let waiting = async {
            poll_fn(|cx| timer.poll(Some(until), cx)).await;
            assert!(clock.now() >= until, "the timer moved to the earlier deadline");
            clock.wait_until(until + Duration::from_millis(1)).await;
            assert!(clock.now() >= until + Duration::from_millis(1));
            clock.wait_until(Timestamp::default()).await;
        };
        let timers = async {
            clock.clone().run_timers().await;
            panic!("run_timers never ends");
        };
        smol::block_on(or(timers, waiting));
    }

    #[test]
    fn wait_ends_at_its_time() {
        let manual_clock = Arc::<ManualClock>::default();
        let clock = Clock::manual(manual_clock.clone());
        let mut wait = pin!(clock.wait_until(at(5)));
        let mut poll = || wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        manual_clock.set(at(4));
        assert!(poll().is_pending());
        manual_clock.set(at(5));
        assert!(poll().is_ready());
    }

    /// Otherwise its task would be woken for it again and again.
    #[test]
    fn timer_of_a_deadline_that_is_gone_fires_once() {
        let manual = Arc::<ManualClock>::default();
        let mut timer = DeadlineTimer::new(Clock::manual(Arc::clone(&manual)));
        let mut cx = Context::from_waker(Waker::noop());
        let deadline = Timestamp::default() + Duration::from_millis(50);
        assert!(timer.poll(Some(deadline), &mut cx).is_pending());
        assert!(timer.poll(None, &mut cx).is_pending());
        assert_eq!(manual.next_timer(), Some(deadline));
        manual.set(deadline);
        assert!(timer.poll(None, &mut cx).is_pending());
        assert_eq!(manual.next_timer(), None);
    }
}
