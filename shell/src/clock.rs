//! The one clock of a process, and the alarms that go off by it.

use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use session_core::Time;
use smol::Timer;

/// Tells the time as the core wants it: it never decreases.
///
/// The real one reads the wall clock once and then adds what has passed, so corrections of the wall clock are not seen.
/// The other stands still until somebody turns its [`Dial`], which is how a simulation has time under its thumb.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Real { origin: Time, started: Instant },
    Dial(Arc<Dial>),
}

impl Clock {
    /// The real clock, from now on.
    #[must_use]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(Source::Real { origin: Time::from_epoch(since_epoch), started: Instant::now() })
    }

    /// A clock that shows what its dial is set to.
    #[must_use]
    pub fn by_dial(dial: Arc<Dial>) -> Self {
        Self(Source::Dial(dial))
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::Real { origin, started } => *origin + started.elapsed(),
            Source::Dial(dial) => dial.lock().now,
        }
    }

    /// Waits until `time`.
    pub async fn wait_until(&self, time: Time) {
        let mut alarm = Alarm::new(self.clone());
        while self.now() < time {
            poll_fn(|cx| alarm.poll(Some(time), cx)).await;
        }
    }
}

/// What a simulated clock shows, and what waits for it.
#[derive(Debug, Default)]
pub struct Dial(Mutex<DialState>);

#[derive(Debug, Default)]
struct DialState {
    now: Time,
    /// How many alarms are set to each time.
    alarms: BTreeMap<Time, usize>,
}

impl Dial {
    /// Turns the clock to a time, unless that is past. Nobody is woken: whoever turns the dial polls what waits for it.
    pub fn turn_to(&self, time: Time) {
        let mut state = self.lock();
        state.now = state.now.max(time);
    }

    /// The earliest time that an alarm is set to.
    #[must_use]
    pub fn next_alarm(&self) -> Option<Time> {
        self.lock().alarms.first_key_value().map(|(&time, _)| time)
    }

    fn set(&self, time: Time) {
        *self.lock().alarms.entry(time).or_insert(0) += 1;
    }

    fn unset(&self, time: Time) {
        let mut state = self.lock();
        if let Some(alarms) = state.alarms.get_mut(&time) {
            *alarms -= 1;
            if *alarms == 0 {
                state.alarms.remove(&time);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, DialState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One timer for all deadlines of a task.
///
/// Deadlines move with every message, mostly to later, so it is left where it is and looks again when it goes off: a
/// busy connection does not touch the process's timer queue at all.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Clock,
    timer: Timer,
    set_to: Option<Time>,
}

impl Alarm {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, timer: Timer::never(), set_to: None }
    }

    /// Ready when `deadline` has passed, and perhaps before.
    pub(crate) fn poll(&mut self, deadline: Option<Time>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if self.set_to.is_none_or(|set_to| deadline < set_to) {
            self.set(deadline);
        }
        let gone_off = match &self.clock.0 {
            Source::Real { .. } => Pin::new(&mut self.timer).poll(cx).map(drop),
            Source::Dial(dial) if self.set_to.is_some_and(|set_to| set_to <= dial.lock().now) => Poll::Ready(()),
            Source::Dial(_) => Poll::Pending,
        };
        if gone_off.is_ready() {
            self.unset();
        }
        gone_off
    }

    fn set(&mut self, time: Time) {
        self.unset();
        match &self.clock.0 {
            Source::Real { origin, started } => {
                // A time that no Instant can hold lies centuries ahead: a year is late enough to look again.
                let far = || Instant::now() + Duration::from_secs(365 * 24 * 60 * 60);
                self.timer.set_at(started.checked_add(time.since(*origin)).unwrap_or_else(far));
            }
            Source::Dial(dial) => dial.set(time),
        }
        self.set_to = Some(time);
    }

    fn unset(&mut self) {
        if let (Some(time), Source::Dial(dial)) = (self.set_to.take(), &self.clock.0) {
            dial.unset(time);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.unset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

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
        smol::block_on(clock.wait_until(until));
        assert!(clock.now() >= until);
        smol::block_on(clock.wait_until(Time::default()));
    }
}
