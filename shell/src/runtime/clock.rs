//! The clock of a process: monotonic time, the wall clock, and the timers that wait for them.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use session_core::{Timestamp, UnixSeconds};
use smol::Timer;

use crate::runtime::events::log_event;
use crate::runtime::timer_queue::TimerQueue;

/// The time for the core: it never decreases.
///
/// The real clock reads the wall clock once, at its start, and adds the time that has passed since, on Linux with the time in
/// which the machine was suspended. So it does not follow corrections of the wall clock; [`Clock::unix_seconds`] and [`Clock::has_passed`] do. The manual clock changes only when
/// its [`ManualClock`] is set: a simulation uses it.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Source,
    pub(super) timers: Arc<TimerQueue>,
}

#[derive(Debug, Clone)]
enum Source {
    Real { origin: Timestamp, started: Duration, wall_clock: Arc<WallClock> },
    Manual(Arc<ManualClock>),
}

/// How far the wall clock was ahead of [`Clock::now`] when it was last read, in milliseconds.
#[derive(Debug, Default)]
struct WallClock(AtomicI64);

impl Clock {
    /// A real clock that starts now. Its timers fire while [`Clock::run_timers`] runs.
    #[must_use]
    pub fn start() -> Self {
        let (origin, started) = (Timestamp::from_epoch(wall_time()), since_boot());
        let source = Source::Real { origin, started, wall_clock: Arc::default() };
        Self { source, timers: Arc::default() }
    }

    /// A clock that shows the time its [`ManualClock`] is set to. Its timers never fire: the caller that sets the time
    /// polls the waiting tasks.
    #[must_use]
    pub fn manual(manual_clock: Arc<ManualClock>) -> Self {
        let timers = Arc::clone(&manual_clock.timers);
        Self { source: Source::Manual(manual_clock), timers }
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::Real { origin, started, .. } => *origin + since_boot().saturating_sub(*started),
            Source::Manual(manual_clock) => manual_clock.now(),
        }
    }

    /// The time of the wall clock.
    #[must_use]
    pub fn unix_seconds(&self) -> UnixSeconds {
        let since_epoch = match &self.source {
            Source::Real { .. } => wall_time(),
            Source::Manual(manual_clock) => {
                let millis = i128::from(manual_clock.now().millis()) + i128::from(manual_clock.wall_ahead());
                Duration::from_millis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
            }
        };
        UnixSeconds::from_unix_seconds(since_epoch.as_secs())
    }

    /// When the wall clock will show `unix_seconds`, if it is not corrected before. Uses the last reading of the wall clock.
    #[must_use]
    pub fn time_of(&self, unix_seconds: UnixSeconds) -> Timestamp {
        let ahead = match &self.source {
            Source::Real { wall_clock, .. } => wall_clock.0.load(Ordering::Relaxed),
            Source::Manual(manual_clock) => manual_clock.wall_ahead(),
        };
        let millis = i128::from(unix_seconds.unix_seconds()) * 1000 - i128::from(ahead);
        Timestamp::from_epoch(Duration::from_millis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX)))
    }

    /// Whether the wall clock shows `unix_seconds` or later. Reads the wall clock.
    #[must_use]
    pub fn has_passed(&self, unix_seconds: UnixSeconds) -> bool {
        let has_passed = match &self.source {
            Source::Real { .. } => wall_time() >= Duration::from_secs(unix_seconds.unix_seconds()),
            Source::Manual(_) => self.time_of(unix_seconds) <= self.now(),
        };
        // The wall clock was set back. Without a new reading `time_of` would return the same past time, and the caller
        // would ask again at once. If it was set forward, `watch_wall_clock` finds it and wakes the other tasks, too.
        if !has_passed && self.time_of(unix_seconds) <= self.now() {
            self.poll_wall_clock();
        }
        has_passed
    }

    /// Reads the wall clock once a second. After a correction it wakes every task that waits for a timer. Never ends.
    pub async fn watch_wall_clock(self) {
        loop {
            Timer::after(Self::WALL_POLL_INTERVAL).await;
            if self.poll_wall_clock() {
                log_event!(clock_corrected {});
                self.timers.wake_all();
            }
        }
    }

    /// How long it may take to notice that the wall clock was set forward.
    const WALL_POLL_INTERVAL: Duration = Duration::from_secs(1);

    /// Reads the wall clock. True if it was corrected since the last reading.
    fn poll_wall_clock(&self) -> bool {
        /// A smaller difference is the time between reading one clock and the other.
        const NOISE_MILLIS: u64 = 10;

        let Source::Real { wall_clock, .. } = &self.source else { return false };
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        // Rounded down, so that a time of the wall clock has passed when its timer fires.
        let ahead = millis(wall_time()) - millis(self.now().since_epoch()) - 1;
        ahead.abs_diff(wall_clock.0.swap(ahead, Ordering::Relaxed)) >= NOISE_MILLIS
    }

    /// Wakes the tasks whose timers are due. Never ends.
    ///
    /// One system timer serves the whole queue, and changes only when an earlier timer is set. With a system timer for each
    /// task, every new timer would wake the thread that waits for events.
    pub async fn run_timers(self) {
        let mut timer = Timer::never();
        poll_fn(|cx| {
            loop {
                for waker in self.timers.due(self.now()) {
                    waker.wake();
                }
                timer = self.timer_at(self.timers.first(cx.waker()));
                if Pin::new(&mut timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn timer_at(&self, time: Option<Timestamp>) -> Timer {
        let at = match (&self.source, time) {
            (Source::Real { .. }, Some(time)) => Instant::now().checked_add(time.since(self.now())),
            (Source::Manual(_), Some(_)) | (Source::Real { .. } | Source::Manual(_), None) => None,
        };
        // A time that no Instant can hold is centuries ahead.
        at.map_or_else(Timer::never, Timer::at)
    }
}

/// Time that passes evenly, and also while the machine is suspended.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    // The system's times since boot are not negative.
    clock_gettime(ClockId::Boottime).try_into().unwrap_or_default()
}

/// Time that passes evenly.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

fn wall_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// The time of a manual clock, for simulations and tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<Timestamp>,
    /// How far the wall clock is ahead of `now`, in milliseconds.
    wall_ahead: AtomicI64,
    timers: Arc<TimerQueue>,
}

impl ManualClock {
    /// Sets the time. Does nothing if it has passed already.
    pub fn set(&self, time: Timestamp) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = time.max(*now);
    }

    /// Sets the wall clock ahead of the time by `millis`, or behind it. The caller wakes the tasks that wait.
    pub fn set_wall_ahead(&self, millis: i64) {
        self.wall_ahead.store(millis, Ordering::Relaxed);
    }

    /// The earliest time that a timer waits for.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wall_ahead(&self) -> i64 {
        self.wall_ahead.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use smol::future::or;

    use super::*;
    use crate::runtime::testing::counting_waker;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_secs(second))
    }

    #[test]
    fn wall_clock_times_follow_its_corrections() {
        let manual_clock = Arc::<ManualClock>::default();
        let clock = Clock::manual(manual_clock.clone());
        let noon = UnixSeconds::from_unix_seconds(100);
        manual_clock.set(at(40));
        assert_eq!((clock.time_of(noon), clock.has_passed(noon)), (at(100), false));
        manual_clock.set_wall_ahead(50_000);
        assert_eq!((clock.time_of(noon), clock.has_passed(noon)), (at(50), false));
        manual_clock.set(at(49) + Duration::from_millis(999));
        assert!(!clock.has_passed(noon));
        manual_clock.set(at(50));
        assert!(clock.has_passed(noon));
        manual_clock.set_wall_ahead(-1);
        assert_eq!(clock.time_of(noon), at(100) + Duration::from_millis(1));
        manual_clock.set_wall_ahead(i64::MAX);
        assert!(clock.has_passed(noon) && clock.time_of(noon) == Timestamp::default());
        manual_clock.set_wall_ahead(i64::MIN);
        assert!(!clock.has_passed(UnixSeconds::from_unix_seconds(0)));
        assert!(!clock.has_passed(UnixSeconds::from_unix_seconds(u64::MAX)));
    }

    #[test]
    fn real_wall_clock_is_read_again() {
        let clock = Clock::start();
        clock.poll_wall_clock();
        assert!(!clock.poll_wall_clock(), "it was not corrected");
        let Source::Real { wall_clock, .. } = &clock.source else { panic!("it is real") };
        wall_clock.0.store(60_000, Ordering::Relaxed);
        let soon = UnixSeconds::from_unix_seconds(wall_time().as_secs() + 5);
        assert!(clock.time_of(soon) < clock.now(), "the last reading is a minute ahead");
        assert!(clock.poll_wall_clock(), "a new reading finds the difference");
        let wait = clock.time_of(soon).since(clock.now());
        assert!(Duration::from_secs(3) < wait && wait < Duration::from_millis(5100), "{wait:?}");
        assert!(!clock.has_passed(soon) && clock.has_passed(UnixSeconds::from_unix_seconds(wall_time().as_secs() - 1)));
        // As if the wall clock had been set back a minute: `has_passed` reads it again, and `time_of` is right.
        wall_clock.0.store(60_000, Ordering::Relaxed);
        assert!(!clock.has_passed(soon) && clock.time_of(soon) > clock.now());
        // As if it had been set forward: `has_passed` leaves the correction to `poll_wall_clock`.
        wall_clock.0.store(-60_000, Ordering::Relaxed);
        assert!(clock.has_passed(UnixSeconds::from_unix_seconds(0)) && !clock.has_passed(soon));
        assert!(clock.poll_wall_clock());
    }

    #[test]
    fn wall_clock_correction_wakes_waiting_tasks() {
        let clock = Clock::start();
        let Source::Real { wall_clock, .. } = &clock.source else { panic!("it is real") };
        wall_clock.0.store(-60_000, Ordering::Relaxed);
        let (waker, wakes) = counting_waker();
        clock.timers.set(clock.now() + Duration::from_secs(3600), waker);
        let watch = async {
            clock.clone().watch_wall_clock().await;
            panic!("it never ends");
        };
        let two_polls = async {
            Timer::after(2 * Clock::WALL_POLL_INTERVAL).await;
        };
        smol::block_on(or(watch, two_polls));
        assert_eq!(wakes(), 1);
    }
}
