//! When keys are fetched from their provider.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use session_core::Timestamp;
use shell::auth::RefreshSchedule;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_millis(millis))
}

/// A schedule whose fetch has just begun, at 0.
fn fetching() -> RefreshSchedule {
    let mut schedule = RefreshSchedule::due(at(0));
    assert_eq!(schedule.next(), Some(at(0)));
    assert!(schedule.begin(at(0)) && schedule.next().is_none() && !schedule.begin(at(0)));
    schedule
}

#[test]
fn set_is_refreshed_before_it_expires() {
    for (lifetime, random, next) in [
        (Some(1000), 0.0, 800_000),
        (Some(1000), 1.0, 900_000),
        (None, 0.0, 240_000),
        // The provider's word counts within bounds.
        (Some(0), 0.0, 48_000),
        (Some(59), 0.0, 48_000),
        (Some(61), 0.0, 48_800),
        (Some(86_400), 1.0, 77_760_000),
        (Some(31_536_000), 1.0, 77_760_000),
    ] {
        let mut schedule = fetching();
        assert_eq!(schedule.succeeded(at(0), lifetime.map(seconds), random), None);
        assert_eq!(schedule.next(), Some(at(next)), "{lifetime:?}");
        assert_eq!(RefreshSchedule::fetched(at(0), lifetime.map(seconds), random).next(), Some(at(next)));
        assert!(!schedule.begin(at(next - 1)) && schedule.begin(at(next)));
    }
}

#[test]
fn failed_fetches_are_retried_ever_later() {
    let mut schedule = fetching();
    let mut now = 0;
    let mut reports = Vec::new();
    for (fetches, wait) in [1, 2, 4, 8, 16, 32, 60, 60, 60].into_iter().enumerate() {
        if let Some(failing) = schedule.failed(at(now), 1.0) {
            assert_eq!((failing.since, failing.fetches as usize), (at(0), fetches + 1));
            reports.push(now);
        }
        now += wait * 1000;
        assert_eq!(schedule.next(), Some(at(now)), "after {fetches}");
        assert!(schedule.begin(at(now)));
    }
    assert_eq!(reports, [0, 63_000, 123_000, 183_000], "once a minute");
    let ended = schedule.succeeded(at(now), None, 0.0).expect("an end of the failures");
    assert_eq!((ended.since, ended.fetches), (at(0), 9));
    assert!(schedule.begin(at(now + 240_000)));
    assert!(schedule.failed(at(now + 240_000), 0.0).is_some_and(|failing| failing.fetches == 1), "it begins anew");
    assert_eq!(schedule.next(), Some(at(now + 240_750)), "a little earlier, at random");
}

#[test]
fn unknown_keys_bring_a_fetch_forward() {
    let mut schedule = fetching();
    assert_eq!(schedule.unknown_key(at(5)), at(5), "the fetch that is under way may bring it");
    schedule.succeeded(at(10), None, 0.0);
    // Not sooner than a second after the last one began, whoever asks.
    assert_eq!((schedule.unknown_key(at(10)), schedule.next()), (at(1000), Some(at(1000))));
    let mut begun = Vec::new();
    for now in (0..60_000).step_by(50).map(|now| now + 11) {
        let begins = schedule.unknown_key(at(now));
        assert!(begins >= at(now));
        if schedule.begin(at(now)) {
            begun.push(now / 1000);
            schedule.succeeded(at(now), None, 0.0);
        }
    }
    assert_eq!(begun, [1, 2, 3, 11, 21, 31, 41, 51], "three soon, and then one each ten seconds");
}

#[test]
fn unknown_key_after_an_operators_fetch_waits_no_longer() {
    let mut schedule = fetching();
    schedule.succeeded(at(10), None, 0.0);
    for begins in [1000, 2000, 3000] {
        assert_eq!(schedule.unknown_key(at(begins - 500)), at(begins));
        assert!(schedule.begin(at(begins)));
        schedule.succeeded(at(begins), None, 0.0);
    }
    assert_eq!(schedule.unknown_key(at(3000)), at(11_000));
    // The operator's fetch takes the place of that one.
    schedule.refresh(at(3500));
    assert!(schedule.begin(at(4000)));
    schedule.succeeded(at(4000), None, 0.0);
    assert_eq!(schedule.unknown_key(at(4000)), at(14_000));
}

#[test]
fn unknown_key_never_puts_a_fetch_off() {
    let mut schedule = RefreshSchedule::due(at(0));
    for _ in 0..10 {
        assert_eq!((schedule.unknown_key(at(0)), schedule.next()), (at(0), Some(at(0))));
    }
    assert!(schedule.begin(at(0)));
    schedule.failed(at(0), 0.0);
    assert_eq!(schedule.unknown_key(at(1)), at(750), "the retry comes sooner");
    assert_eq!(schedule.next(), Some(at(750)));
}

#[test]
fn operator_gets_a_fetch_that_begins_later() {
    let mut schedule = fetching();
    schedule.refresh(at(5));
    schedule.succeeded(at(10), None, 0.0);
    assert_eq!(schedule.next(), Some(at(1000)), "the one under way may have read the old set");
    assert!(schedule.begin(at(1000)));
    schedule.succeeded(at(1010), None, 0.0);
    assert_eq!(schedule.next(), Some(at(241_010)), "once");
    schedule.refresh(at(2000));
    assert_eq!(schedule.next(), Some(at(2000)));
}

/// What can happen, with the milliseconds until it does.
#[derive(Debug, Clone, Copy)]
enum Step {
    UnknownKey,
    Refresh,
    Succeeds(Option<u64>),
    Fails,
    Nothing,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        4 => Just(Step::UnknownKey),
        1 => Just(Step::Refresh),
        2 => prop::option::of(0..200_000_u64).prop_map(Step::Succeeds),
        2 => Just(Step::Fails),
        2 => Just(Step::Nothing),
    ];
    (prop_oneof![0..5_u64, 0..3000_u64, 0..100_000_u64], step)
}

proptest! {
    /// Whatever clients send, the provider is asked at a bounded rate, one fetch at a time, and asked again in time.
    #[test]
    fn provider_is_asked_in_time_and_not_too_often(steps in vec(step(), 1..300), random in 0.0..=1.0_f64) {
        let (mut schedule, mut now) = (RefreshSchedule::due(at(0)), 0);
        let (mut fetches, mut is_fetching): (Vec<u64>, bool) = (Vec::new(), false);
        let mut latest = Some(at(0));
        for (wait, step) in steps {
            now += wait;
            // The caller wakes when a fetch is due.
            let began = schedule.next().map(|due| due.max(at(fetches.last().copied().unwrap_or(0))));
            if let Some(due) = began && due <= at(now) {
                prop_assert!(!is_fetching && schedule.begin(due));
                fetches.push(due.millis());
                (is_fetching, latest) = (true, None);
            }
            match step {
                Step::UnknownKey => {
                    let begins = schedule.unknown_key(at(now));
                    prop_assert!(begins >= at(now));
                    prop_assert_eq!(is_fetching, schedule.next().is_none());
                    prop_assert!(is_fetching || schedule.next().is_some_and(|next| next <= begins), "it begins by then");
                    prop_assert!(begins.since(at(now)) <= RefreshSchedule::UNKNOWN_KEY_INTERVAL, "soon enough");
                }
                Step::Refresh => schedule.refresh(at(now)),
                Step::Succeeds(lifetime) if is_fetching => {
                    schedule.succeeded(at(now), lifetime.map(seconds), random);
                    let lifetime = lifetime.map_or(RefreshSchedule::DEFAULT_LIFETIME, seconds);
                    let lifetime = lifetime.clamp(RefreshSchedule::MIN_LIFETIME, RefreshSchedule::MAX_LIFETIME);
                    (is_fetching, latest) = (false, Some(at(now) + lifetime));
                }
                Step::Fails if is_fetching => {
                    schedule.failed(at(now), random);
                    (is_fetching, latest) = (false, Some(at(now) + RefreshSchedule::MAX_RETRY));
                }
                Step::Succeeds(_) | Step::Fails | Step::Nothing => {}
            }
            // It comes before the set expires, or soon after a failure.
            if let Some(latest) = latest {
                prop_assert!(schedule.next().is_some_and(|next| next <= latest), "{:?} {:?}", schedule, latest);
            }
        }
        // The shortest gap is that of the first retry.
        let gaps: Vec<_> = fetches.windows(2).map(|pair| pair[1] - pair[0]).collect();
        prop_assert!(gaps.iter().all(|&gap| gap >= 750), "{gaps:?}");
    }

    /// Clients that send nothing but unknown keys cause a burst, and then one fetch per interval.
    #[test]
    fn unknown_keys_cause_a_bounded_number_of_fetches(
        waits in vec(0..400_u64, 1..2000), took in 0..3000_u64, random in 0.0..=1.0_f64,
    ) {
        let (mut schedule, mut now, mut fetches) = (RefreshSchedule::due(at(0)), 0, 0_u64);
        let mut ends = None;
        for wait in waits {
            now += wait;
            if ends.is_some_and(|end| end <= now) {
                schedule.succeeded(at(now), Some(RefreshSchedule::MAX_LIFETIME), random);
                ends = None;
            }
            schedule.unknown_key(at(now));
            if schedule.begin(at(now)) {
                fetches += 1;
                ends = Some(now + took);
            }
        }
        // The first one is not asked for by a token.
        let burst = u64::from(RefreshSchedule::UNKNOWN_KEY_BURST);
        let interval = u64::try_from(RefreshSchedule::UNKNOWN_KEY_INTERVAL.as_millis()).expect("some seconds");
        prop_assert!(fetches <= 1 + burst + now / interval, "{} fetches in {} ms", fetches, now);
    }
}
