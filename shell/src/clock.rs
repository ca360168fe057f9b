//! The one clock of a process, by which alarms go off.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use session_core::Time;
use smol::Timer;

mod alarm;

pub(crate) use alarm::Alarm;
use alarm::Alarms;

/// Tells the time as the core wants it: it never decreases.
///
/// The real one reads the wall clock once and then adds what has passed, so corrections of the wall clock are not seen.
/// The other stands still until somebody turns its [`Dial`], which is how a simulation has time under its thumb.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Source,
    alarms: Arc<Alarms>,
}

#[derive(Debug, Clone)]
enum Source {
    Real { origin: Time, started: Instant },
    Dial(Arc<Dial>),
}

impl Clock {
    /// The real clock, from now on. Its alarms go off while somebody [rings](Clock::ring) them.
    #[must_use]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let source = Source::Real { origin: Time::from_epoch(since_epoch), started: Instant::now() };
        Self { source, alarms: Arc::default() }
    }

    /// A clock that shows what its dial is set to. Nobody rings its alarms: whoever turns the dial polls what waits for
    /// them.
    #[must_use]
    pub fn by_dial(dial: Arc<Dial>) -> Self {
        let alarms = Arc::clone(&dial.alarms);
        Self { source: Source::Dial(dial), alarms }
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Time {
        match &self.source {
            Source::Real { origin, started } => *origin + started.elapsed(),
            Source::Dial(dial) => dial.now(),
        }
    }

    /// Waits until `time`.
    pub async fn wait_until(&self, time: Time) {
        let mut alarm = Alarm::new(self.clone());
        while self.now() < time {
            poll_fn(|cx| alarm.poll(Some(time), cx)).await;
        }
    }

    /// Wakes whoever has set an alarm to a time that has come. Never ends.
    ///
    /// One timer serves all alarms, and is touched only for one that is earlier than all others. A timer for each costs
    /// a wake of the thread that waits for events whenever one is set.
    pub async fn ring(&self) {
        let mut timer = Timer::never();
        poll_fn(|cx| {
            loop {
                for waker in self.alarms.due(self.now()) {
                    waker.wake();
                }
                timer = self.timer_at(self.alarms.first(cx.waker()));
                if Pin::new(&mut timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn timer_at(&self, time: Option<Time>) -> Timer {
        let at = match (&self.source, time) {
            (Source::Real { origin, started }, Some(time)) => started.checked_add(time.since(*origin)),
            (Source::Dial(_), Some(_)) | (Source::Real { .. } | Source::Dial(_), None) => None,
        };
        // What no Instant can hold lies centuries ahead.
        at.map_or_else(Timer::never, Timer::at)
    }
}

/// What a simulated clock shows.
#[derive(Debug, Default)]
pub struct Dial {
    now: Mutex<Time>,
    alarms: Arc<Alarms>,
}

impl Dial {
    /// Turns the clock to a time, unless that is past.
    pub fn turn_to(&self, time: Time) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = time.max(*now);
    }

    /// The earliest time that an alarm is set to.
    #[must_use]
    pub fn next_alarm(&self) -> Option<Time> {
        self.alarms.next()
    }

    fn now(&self) -> Time {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::or;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn at(second: u64) -> Time {
        Time::from_epoch(Duration::from_secs(second))
    }

    #[test]
    fn an_alarm_goes_off_when_the_dial_is_turned_past_it_and_once() {
        let dial = Arc::<Dial>::default();
        let mut alarm = Alarm::new(Clock::by_dial(dial.clone()));
        let mut poll = |deadline| alarm.poll(deadline, &mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(None), Poll::Pending);
        assert_eq!(poll(Some(at(5))), Poll::Pending);
        // A later deadline does not move it, an earlier one does.
        assert_eq!((poll(Some(at(9))), dial.next_alarm()), (Poll::Pending, Some(at(5))));
        assert_eq!((poll(Some(at(3))), dial.next_alarm()), (Poll::Pending, Some(at(3))));
        dial.turn_to(at(4));
        assert_eq!((poll(Some(at(3))), dial.next_alarm()), (Poll::Ready(()), None));
        assert_eq!((poll(Some(at(9))), dial.next_alarm()), (Poll::Pending, Some(at(9))));
        drop(alarm);
        assert_eq!(dial.next_alarm(), None);
    }

    #[test]
    fn a_real_alarm_goes_off_by_itself() {
        let clock = Clock::start();
        let until = clock.now() + Duration::from_millis(5);
        let mut alarm = Alarm::new(clock.clone());
        let far = Some(Time::from_epoch(Duration::MAX));
        assert_eq!(alarm.poll(far, &mut Context::from_waker(Waker::noop())), Poll::Pending);
        let waiting = async {
            poll_fn(|cx| alarm.poll(Some(until), cx)).await;
            assert!(clock.now() >= until, "and not at the first time it was set to");
            clock.wait_until(until + Duration::from_millis(1)).await;
            assert!(clock.now() >= until + Duration::from_millis(1));
            clock.wait_until(Time::default()).await;
        };
        let ringing = async {
            clock.ring().await;
            panic!("it never ends");
        };
        smol::block_on(or(ringing, waiting));
    }

    #[test]
    fn a_wait_ends_when_its_time_has_come_and_not_before() {
        let dial = Arc::<Dial>::default();
        let clock = Clock::by_dial(dial.clone());
        let mut wait = pin!(clock.wait_until(at(5)));
        let mut poll = || wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        dial.turn_to(at(4));
        assert!(poll().is_pending());
        dial.turn_to(at(5));
        assert!(poll().is_ready());
    }
}
