//! What a connection costs the server, and how much of it one client may cause.

use core::num::NonZeroU32;
use core::ops::AddAssign;
use core::time::Duration;

use crate::time::Timestamp;

/// Work that a connection causes, measured in bytes of traffic.
///
/// Bytes are not all that costs. A read, a message and a session that the store looks at take processor time even if they
/// are empty. So each counts as the bytes that take about as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Work(u32);

impl Work {
    /// What a read counts, and what a message counts.
    const KIB: u32 = 1024;
    /// One frame, also an empty one that ends no message.
    const FRAME: u32 = 64;
    /// One session of the user's record. The store decodes all of them to answer, even if the client sees only a few.
    const SLOT: u32 = 64;
    /// A denial does not always say how many slots the user has. So this stands for 64 of them.
    const DENIAL: u32 = 64 * Self::SLOT;
    /// A denial costs this much more than the one before it.
    const DENIAL_STEP: u32 = 1024;
    /// The denials after which a further one costs no more.
    const MAX_DENIALS: u8 = 16;

    /// Bytes of traffic, in one direction or both, and the reads that they took. Each read counts as 1 KiB.
    #[must_use]
    pub const fn traffic(bytes: u32, reads: u32) -> Self {
        Self(bytes.saturating_add(reads.saturating_mul(Self::KIB)))
    }

    /// Frames that were received, whole messages or parts: 64 bytes each. Their bytes count as [`Work::traffic`].
    #[must_use]
    pub const fn frames(frames: u32) -> Self {
        Self(frames.saturating_mul(Self::FRAME))
    }

    /// One message, ping or pong: 1 KiB, whatever its size. Its bytes count as [`Work::traffic`].
    #[must_use]
    pub const fn message() -> Self {
        Self(Self::KIB)
    }

    /// What the store did for an answer about a user with this many slots: 64 bytes for each.
    #[must_use]
    pub const fn slots(slots: u32) -> Self {
        Self(slots.saturating_mul(Self::SLOT))
    }

    /// A denial to a connection that was denied this many times before, and granted nothing since: 4 KiB for the first, and
    /// 1 KiB more each time, up to 20 KiB.
    #[must_use]
    pub const fn denial(before: u8) -> Self {
        let before = if before < Self::MAX_DENIALS { before } else { Self::MAX_DENIALS };
        Self(Self::DENIAL + before as u32 * Self::DENIAL_STEP)
    }

    const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The work in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        *self = self.plus(other);
    }
}

/// The work of one client, against a rate. It is charged after it was done, so there can be a debt. The client is served
/// again when the debt is paid.
///
/// One second's worth is free after a pause of a second. The debt is kept as the time that it takes to pay, so a change of
/// the rate leaves nobody waiting longer than before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WorkBudget {
    /// When the budget is full again.
    full_at: Timestamp,
}

impl WorkBudget {
    const BURST: Duration = Duration::from_secs(1);
    /// No debt takes longer to pay than this. The rest is forgiven, so that one huge piece of work blocks no client for
    /// minutes.
    const MAX_DEBT: Duration = Duration::from_secs(60);
    /// No debt takes longer to pay because the rate is lowered for a while: it may rise again in a moment.
    const MAX_LOWERED_DEBT: Duration = Duration::from_secs(5);

    /// Charges work. Returns when the client may cause more, if not at once. `rate` is the client's own, `lowered` what it
    /// may cause at present.
    pub(super) fn charge(
        &mut self,
        work: Work,
        rate: NonZeroU32,
        lowered: NonZeroU32,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let full_at = |rate: NonZeroU32, max_debt| {
            let nanos = u64::from(work.0) * 1_000_000_000 / u64::from(rate.get());
            (self.full_at.max(now) + Duration::from_nanos(nanos)).min(now + Self::BURST + max_debt)
        };
        self.full_at = full_at(rate, Self::MAX_DEBT).max(full_at(lowered, Self::MAX_LOWERED_DEBT));
        let debt = self.full_at.since(now).checked_sub(Self::BURST)?;
        Some(now + debt).filter(|&at| at > now)
    }

    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_epoch(Duration::from_millis(millis))
    }

    fn charge_at(budget: &mut WorkBudget, bytes: u32, rate: u32, now: u64) -> Option<Timestamp> {
        let lowered = NonZeroU32::new(rate).unwrap();
        budget.charge(Work(bytes), RATE, lowered, at(now))
    }

    fn charge(budget: &mut WorkBudget, bytes: u32, now: u64) -> Option<Timestamp> {
        charge_at(budget, bytes, 1000, now)
    }

    #[test]
    fn second_of_work_is_free_and_more_is_owed() {
        let mut budget = WorkBudget::default();
        assert!(budget.is_full(at(5000)));
        assert_eq!(charge(&mut budget, 1000, 5000), None);
        assert_eq!(charge(&mut budget, 500, 5000), Some(at(5500)));
        assert_eq!(charge(&mut budget, 500, 5000), Some(at(6000)), "the later piece of work waits longer");
        assert_eq!(charge(&mut budget, 1, 6000), Some(at(6001)));
        assert_eq!(charge(&mut budget, 0, 6001), None);
        assert!(!budget.is_full(at(7000)) && budget.is_full(at(7001)));
    }

    #[test]
    fn long_run_keeps_the_rate() {
        let (mut budget, mut now, mut done) = (WorkBudget::default(), at(0), 0);
        while now < at(100_000) {
            done += 700;
            now = budget.charge(Work(700), RATE, RATE, now).unwrap_or(now);
        }
        assert!((100_000..=102_000).contains(&done), "{done}");
    }

    #[test]
    fn debt_is_bounded_and_a_lower_rate_does_not_raise_it() {
        let mut budget = WorkBudget::default();
        assert_eq!(charge(&mut budget, u32::MAX, 0), Some(at(60_000)));
        assert_eq!(budget.charge(Work(0), NonZeroU32::MIN, NonZeroU32::MIN, at(0)), Some(at(60_000)));
        let end = Timestamp::from_epoch(Duration::MAX);
        assert_eq!(
            budget.charge(Work(u32::MAX), NonZeroU32::MIN, NonZeroU32::MIN, end),
            None,
            "time has no room for a debt"
        );
    }

    #[test]
    fn lowered_rate_makes_work_dearer_up_to_a_bound() {
        let mut budget = WorkBudget::default();
        assert_eq!(charge_at(&mut budget, 500, 500, 0), None);
        assert_eq!(charge_at(&mut budget, 500, 250, 0), Some(at(2000)));
        assert_eq!(charge_at(&mut budget, 10_000, 1, 0), Some(at(12_000)), "as much as at its own rate");
        let mut budget = WorkBudget::default();
        assert_eq!(charge_at(&mut budget, 1000, 1, 0), Some(at(5000)));
    }

    #[test]
    fn denials_get_dearer_up_to_a_bound() {
        let cost = |before| Work::denial(before).bytes();
        assert_eq!([0, 1, 2, 15, 16, 17, u8::MAX].map(cost), [4096, 5120, 6144, 19_456, 20_480, 20_480, 20_480]);
    }
}
