//! Three tabs hold all slots of their user, and a fourth one tries again and again, over a restart of the server.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::time::Duration;

use session_core::ledger::Resumption;
use session_core::ledger::{AcquireOptions, KnownToken, StoreCommand};
use session_core::ledger::{AdmissionPolicy, Outcome, WhenFull};
use session_core::{SessionId, Timestamp};

use super::one_user::*;

const TABS: u8 = 3;
/// When the tabs sign in, in milliseconds.
const START: u64 = 1_000_000;
const RESTARTS: u64 = 200;

/// Numbers that differ from seed to seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What becomes of the clients of one restart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Afterwards {
    /// How many tabs have their own slots back.
    own: u8,
    /// Whether the newcomer was ever admitted.
    is_newcomer_in: bool,
}

fn at_millis(millis: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_millis(millis))
}

fn acquire(
    harness: &mut UserHarness,
    policy: &AdmissionPolicy,
    session: SessionId,
    at: u64,
    shown: Option<u8>,
) -> Outcome {
    let options = AcquireOptions {
        resume: shown.map(key),
        // No client comes back a second time.
        new_resume_key: Some(key(u8::try_from(session.number()).unwrap_or(u8::MAX))),
        ..AcquireOptions::default()
    };
    let options = Some(Box::new(options));
    let acquire = StoreCommand::Acquire { user: user(), session, limit: None, at: at_millis(at), options };
    harness.apply_judged(policy, &acquire)
}

/// One restart. The server stops in good order or is killed; it is away for up to 50 seconds; the tabs come back in any order
/// within the grace, and the newcomer asks at once and does not wait for as long as it is told.
fn restart(policy: &AdmissionPolicy, seed: u64) -> Afterwards {
    let mut random = Random(seed);
    let mut harness = UserHarness::default();
    for tab in 1..=TABS {
        assert!(is_granted(&acquire(&mut harness, policy, id(tab.into()), START, None), tab.into()));
    }
    let stopped_at = START + 60_000;
    let lose = |harness: &mut UserHarness, tab: u8, at| {
        let token = KnownToken::Granted;
        harness.apply(policy, &StoreCommand::Linger { user: user(), session: id(tab.into()), at: at_millis(at), token })
    };
    // One tab may be about to reload its page.
    if random.below(2) == 0 {
        assert_eq!(lose(&mut harness, 1, stopped_at - random.below(3_000)), Outcome::Released);
    }
    if random.below(2) == 0 {
        (1..=TABS).for_each(|tab| drop(lose(&mut harness, tab, stopped_at + u64::from(tab))));
    }
    let started_at = stopped_at + 10 + random.below(50_000);
    harness.dead.insert(HERE, at_millis(started_at));
    let policy = AdmissionPolicy { serving_since: at_millis(started_at), ..*policy };

    // `None` is the newcomer.
    let mut requests: Vec<_> = (1..=TABS).map(|tab| (started_at + 1 + random.below(4_990), Some(tab))).collect();
    let pause = 20 + random.below(1_000);
    requests.extend((0..5_000 / pause).map(|attempt| (started_at + attempt * pause, None)));
    requests.sort_unstable();
    let mut afterwards = Afterwards::default();
    for (number, (at, tab)) in (100..).zip(requests) {
        if tab.is_none() && afterwards.is_newcomer_in {
            continue;
        }
        let outcome = acquire(&mut harness, &policy, THERE.session(number), at, tab);
        let is_resumed =
            matches!(&outcome, Outcome::Granted { grant: Some(grant), .. } if grant.resume == Resumption::Resumed);
        match tab {
            Some(_) => afterwards.own += u8::from(is_resumed),
            None => afterwards.is_newcomer_in |= !is_denied(&outcome),
        }
        if let (None, Outcome::Denied(usage)) = (tab, outcome) {
            // As soon as all are back, there is nothing to wait for.
            let free_at = usage.unwrap().free_at;
            assert_eq!(free_at.is_none(), afterwards.own == TABS);
            assert!(free_at.is_none_or(|free_at| free_at <= at_millis(started_at + 5_000)));
        }
    }
    afterwards
}

fn lingering_policy(grace: Duration) -> AdmissionPolicy {
    AdmissionPolicy { linger: Duration::from_secs(60), linger_grace: grace, ..policy(TABS.into()) }
}

#[test]
fn every_tab_has_its_own_slot_after_a_restart() {
    let policy = lingering_policy(Duration::from_secs(5));
    for seed in 0..RESTARTS {
        assert_eq!(restart(&policy, seed), Afterwards { own: TABS, is_newcomer_in: false }, "seed {seed}");
    }
}

/// Otherwise the test above shows nothing.
#[test]
fn newcomer_robs_tabs_without_a_grace() {
    let policy = lingering_policy(Duration::ZERO);
    let robbed = (0..RESTARTS).filter(|&seed| restart(&policy, seed).own < TABS).count();
    assert!(robbed as u64 > RESTARTS / 2, "{robbed}");
}

#[test]
fn evict_oldest_costs_one_tab_its_slot_in_a_restart() {
    let policy = lingering_policy(Duration::from_secs(5));
    let policy = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy };
    for seed in 0..RESTARTS {
        let mut random = Random(seed);
        let mut harness = UserHarness::default();
        (1..=TABS).for_each(|tab| drop(acquire(&mut harness, &policy, id(tab.into()), START, None)));
        let started_at = START + 1_000 + random.below(50_000);
        harness.dead.insert(HERE, at_millis(started_at));
        let policy = AdmissionPolicy { serving_since: at_millis(started_at), ..policy };
        // The newcomer asks once, before, between or after the tabs.
        let mut requests: Vec<_> = (1..=TABS).map(|tab| (random.below(4_990), Some(tab))).collect();
        requests.push((random.below(4_990), None));
        requests.sort_unstable();
        let (mut own, mut told) = (0, 0);
        for (number, (after, tab)) in (10..).zip(requests) {
            let outcome = acquire(&mut harness, &policy, THERE.session(number), started_at + after, tab);
            let Outcome::Granted { grant: Some(grant), .. } = outcome else { panic!("{outcome:?}") };
            own += u8::from(grant.resume == Resumption::Resumed);
            told += harness.notified().len();
        }
        assert!(own >= TABS - 1, "seed {seed}: {own}");
        assert_eq!(told, 1, "seed {seed}: of four clients with three slots, one hears of its end");
    }
}
