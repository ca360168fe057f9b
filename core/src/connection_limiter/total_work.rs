//! The work of all clients together.

use core::num::NonZeroU32;
use core::time::Duration;

use super::work::Work;
use crate::time::Timestamp;

/// The work of all clients together, against a rate. While they cause more, the rate of each client is lowered to a share.
///
/// It is the same share for all. So a client that causes little loses nothing, and those that cause most lose most. The share
/// falls while the work of a tenth of a second exceeds the rate, and rises again while it does not.
#[derive(Debug)]
pub(super) struct TotalWork {
    /// When the current window ends.
    window_end: Timestamp,
    /// The work of the current window, in bytes.
    done: u64,
    /// Of [`TotalWork::WHOLE`].
    share: u32,
}

impl TotalWork {
    const WINDOWS_PER_SECOND: u64 = 10;
    const WINDOW: Duration = Duration::from_millis(1000 / Self::WINDOWS_PER_SECOND);
    const WHOLE: u32 = 1 << 16;
    /// A client may always cause this share of its rate, however much all cause.
    const MIN: u32 = Self::WHOLE / 256;
    /// After this many windows without work the share is whole again.
    const WINDOWS_TO_WHOLE: u128 = 50;
    /// In a window that exceeds the rate, the share falls to this at most.
    const MAX_FALL: u32 = 2;

    pub(super) const fn new() -> Self {
        Self { window_end: Timestamp::from_epoch(Duration::ZERO), done: 0, share: Self::WHOLE }
    }

    /// Adds work that all clients together may cause at this rate.
    pub(super) fn add(&mut self, work: Work, rate: NonZeroU32, now: Timestamp) {
        if self.window_end <= now {
            self.end_window(rate);
            let empty = now.since(self.window_end).as_millis() / Self::WINDOW.as_millis();
            for _ in 0..empty.min(Self::WINDOWS_TO_WHOLE) {
                self.end_window(rate);
            }
            self.window_end = now + Self::WINDOW;
        }
        self.done += u64::from(work.bytes());
    }

    fn end_window(&mut self, rate: NonZeroU32) {
        let allowed = u64::from(rate.get()) / Self::WINDOWS_PER_SECOND;
        let done = core::mem::take(&mut self.done);
        let share = u64::from(self.share);
        let next = if done > allowed {
            (share * allowed / done).max(share / u64::from(Self::MAX_FALL))
        } else {
            share + share / 8
        };
        let next = next.clamp(u64::from(Self::MIN), u64::from(Self::WHOLE));
        self.share = u32::try_from(next).expect("at most the whole");
    }

    /// The share of a client's rate.
    pub(super) fn share_of(&self, rate: NonZeroU32) -> NonZeroU32 {
        let share = u64::from(rate.get()) * u64::from(self.share) / u64::from(Self::WHOLE);
        u32::try_from(share).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    /// The share that each client has of its own rate, in percent, rounded up.
    pub(super) const fn percent(&self) -> u32 {
        (self.share * 100).div_ceil(Self::WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_millis(millis))
    }

    /// Work at a multiple of the rate, one piece every ten milliseconds.
    fn add(total: &mut TotalWork, times: u32, millis: core::ops::Range<u64>) {
        for now in millis.step_by(10) {
            total.add(Work::traffic(times * 1000, 0), RATE, at(now));
        }
    }

    #[test]
    fn share_is_whole_up_to_the_rate() {
        let mut total = TotalWork::new();
        add(&mut total, 1, 0..10_000);
        assert_eq!((total.percent(), total.share_of(RATE)), (100, RATE));
    }

    #[test]
    fn share_falls_to_what_is_allowed_and_rises_again() {
        let mut total = TotalWork::new();
        add(&mut total, 4, 0..310);
        assert!((12..=25).contains(&total.percent()), "{}", total.percent());
        add(&mut total, 1000, 310..5000);
        assert_eq!((total.percent(), total.share_of(RATE).get()), (1, RATE.get() / 256));
        total.add(Work::default(), RATE, at(7000));
        assert!((1..100).contains(&total.percent()));
        total.add(Work::default(), RATE, at(12_000));
        assert_eq!(total.percent(), 100);
        total.add(Work::default(), RATE, Timestamp::from_epoch(Duration::MAX));
        total.add(Work::default(), RATE, Timestamp::from_epoch(Duration::MAX));
        assert_eq!(total.share_of(NonZeroU32::MIN), NonZeroU32::MIN);
    }
}
