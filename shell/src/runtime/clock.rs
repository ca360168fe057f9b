//! The one clock of a process, by which alarms go off.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use session_core::{Timestamp, UnixSeconds};
use smol::Timer;

use crate::runtime::timer_queue::TimerQueue;

/// Tells the time as the core wants it: it never decreases.
///
/// The real one reads the wall clock once and then adds what has passed, so corrections of the wall clock are not seen:
/// what must follow the wall clock asks for it by name. The other stands still until somebody turns its [`ManualClock`], which is how a simulation has time under its thumb.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Source,
    pub(super) alarms: Arc<TimerQueue>,
}

#[derive(Debug, Clone)]
enum Source {
    Real { origin: Timestamp, started: Instant, unix_seconds: Arc<WallClock> },
    Dial(Arc<ManualClock>),
}

/// How far the wall clock is ahead of the time, in milliseconds, when it was last looked at.
#[derive(Debug, Default)]
struct WallClock(AtomicI64);

impl Clock {
    /// The real clock, from now on. Its alarms go off while somebody [rings](Clock::ring) them.
    #[must_use]
    pub fn start() -> Self {
        let (origin, started) = (Timestamp::from_epoch(wall_time()), Instant::now());
        let source = Source::Real { origin, started, unix_seconds: Arc::default() };
        Self { source, alarms: Arc::default() }
    }

    /// A clock that shows what its dial is set to. Nobody rings its alarms: whoever turns the dial polls what waits for
    /// them.
    #[must_use]
    pub fn manual(manual_clock: Arc<ManualClock>) -> Self {
        let alarms = Arc::clone(&manual_clock.alarms);
        Self { source: Source::Dial(manual_clock), alarms }
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::Real { origin, started, .. } => *origin + started.elapsed(),
            Source::Dial(manual_clock) => manual_clock.now(),
        }
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn unix_seconds(&self) -> UnixSeconds {
        let since_epoch = match &self.source {
            Source::Real { .. } => wall_time(),
            Source::Dial(manual_clock) => {
                let millis = i128::from(manual_clock.now().millis()) + i128::from(manual_clock.wall_ahead());
                Duration::from_millis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX))
            }
        };
        UnixSeconds::from_unix_seconds(since_epoch.as_secs())
    }

    /// When the wall clock will show `wall`, unless it is corrected before.
    #[must_use]
    pub fn time_of(&self, unix_seconds: UnixSeconds) -> Timestamp {
        let ahead = match &self.source {
            Source::Real { unix_seconds, .. } => unix_seconds.0.load(Ordering::Relaxed),
            Source::Dial(manual_clock) => manual_clock.wall_ahead(),
        };
        let millis = i128::from(unix_seconds.unix_seconds()) * 1000 - i128::from(ahead);
        Timestamp::from_epoch(Duration::from_millis(u64::try_from(millis.max(0)).unwrap_or(u64::MAX)))
    }

    /// Whether the wall clock shows `wall`, or later. This one looks at it.
    #[must_use]
    pub fn has_passed(&self, unix_seconds: UnixSeconds) -> bool {
        let has_come = match &self.source {
            Source::Real { .. } => wall_time() >= Duration::from_secs(unix_seconds.unix_seconds()),
            Source::Dial(_) => self.time_of(unix_seconds) <= self.now(),
        };
        // It was set back: whoever asks because of `time_of` is not to be told the same again at once. That it was set
        // forward is left to be found by `watch_wall`, since others have to hear of it, too.
        if !has_come && self.time_of(unix_seconds) <= self.now() {
            self.poll_wall_clock();
        }
        has_come
    }

    /// Looks at the wall clock once a second, and has everybody who waits look again when it was corrected. Never ends.
    pub async fn watch_wall(&self) {
        loop {
            Timer::after(Self::WALL_POLL_INTERVAL).await;
            if self.poll_wall_clock() {
                tracing::info!("the wall clock was corrected");
                self.alarms.wake_all();
            }
        }
    }

    /// How long a correction of the wall clock forwards may go unnoticed.
    const WALL_POLL_INTERVAL: Duration = Duration::from_secs(1);

    /// Whether the wall clock was corrected since this was last asked.
    fn poll_wall_clock(&self) -> bool {
        /// Less is the time between looking at the one clock and at the other.
        const NOISE_MILLIS: u64 = 10;

        let Source::Real { unix_seconds, .. } = &self.source else { return false };
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        // Rounded down: what is due at a time of the wall clock has come when an alarm for it goes off.
        let ahead = millis(wall_time()) - millis(self.now().since_epoch()) - 1;
        ahead.abs_diff(unix_seconds.0.swap(ahead, Ordering::Relaxed)) >= NOISE_MILLIS
    }

    /// Wakes whoever has set an alarm to a time that has come. Never ends.
    ///
    /// One timer serves all alarms, and is touched only for one that is earlier than all others. A timer for each costs
    /// a wake of the thread that waits for events whenever one is set.
    pub async fn run_timers(&self) {
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

    fn timer_at(&self, time: Option<Timestamp>) -> Timer {
        let at = match (&self.source, time) {
            (Source::Real { origin, started, .. }, Some(time)) => started.checked_add(time.since(*origin)),
            (Source::Dial(_), Some(_)) | (Source::Real { .. } | Source::Dial(_), None) => None,
        };
        // What no Instant can hold lies centuries ahead.
        at.map_or_else(Timer::never, Timer::at)
    }
}

fn wall_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// What a simulated clock shows.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<Timestamp>,
    /// How far the wall clock is ahead, in milliseconds.
    wall_ahead: AtomicI64,
    alarms: Arc<TimerQueue>,
}

impl ManualClock {
    /// Turns the clock to a time, unless that is past.
    pub fn set(&self, time: Timestamp) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = time.max(*now);
    }

    /// Sets the wall clock ahead of the time by so many milliseconds, or behind it. Whoever does wakes those who wait.
    pub fn set_wall_ahead(&self, millis: i64) {
        self.wall_ahead.store(millis, Ordering::Relaxed);
    }

    /// The earliest time that an alarm is set to.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.alarms.next()
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
    fn the_wall_clock_is_followed_where_it_is_asked_for_and_through_its_corrections() {
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
    fn the_real_wall_clock_is_looked_at() {
        let clock = Clock::start();
        clock.poll_wall_clock();
        assert!(!clock.poll_wall_clock(), "nobody has corrected it");
        let Source::Real { unix_seconds, .. } = &clock.source else { panic!("it is real") };
        unix_seconds.0.store(60_000, Ordering::Relaxed);
        let soon = UnixSeconds::from_unix_seconds(wall_time().as_secs() + 5);
        assert!(clock.time_of(soon) < clock.now(), "as if the wall clock were a minute ahead");
        assert!(clock.poll_wall_clock(), "that it is not is found out");
        let wait = clock.time_of(soon).since(clock.now());
        assert!(Duration::from_secs(3) < wait && wait < Duration::from_millis(5100), "{wait:?}");
        assert!(!clock.has_passed(soon) && clock.has_passed(UnixSeconds::from_unix_seconds(wall_time().as_secs() - 1)));
        // As if it had been set back a minute: whoever asks sees that, and waits for the right time.
        unix_seconds.0.store(60_000, Ordering::Relaxed);
        assert!(!clock.has_passed(soon) && clock.time_of(soon) > clock.now());
        // As if it had been set forward: whoever asks leaves that to be found.
        unix_seconds.0.store(-60_000, Ordering::Relaxed);
        assert!(clock.has_passed(UnixSeconds::from_unix_seconds(0)) && !clock.has_passed(soon));
        assert!(clock.poll_wall_clock());
    }

    #[test]
    fn a_correction_of_the_wall_clock_wakes_whoever_waits() {
        let clock = Clock::start();
        let Source::Real { unix_seconds, .. } = &clock.source else { panic!("it is real") };
        unix_seconds.0.store(-60_000, Ordering::Relaxed);
        let (waker, wakes) = counting_waker();
        clock.alarms.set(clock.now() + Duration::from_secs(3600), waker);
        let watching = async {
            clock.watch_wall().await;
            panic!("it never ends");
        };
        let enough = async {
            Timer::after(2 * Clock::WALL_POLL_INTERVAL).await;
        };
        smol::block_on(or(watching, enough));
        assert_eq!(wakes(), 1);
    }
}
