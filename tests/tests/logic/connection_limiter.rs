//! The door: which connections come in at all.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use session_core::{ClientPrefix, ConnectionLimitExceeded, ConnectionLimiter, ConnectionLimits, Permit, Timestamp};

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_millis(millis))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Zero is no bound.
fn bounds(connections: usize, waiting: usize, per_address: usize, arrivals_per_address: u32) -> ConnectionLimits {
    ConnectionLimits {
        connections: NonZeroUsize::new(connections),
        unauthenticated: NonZeroUsize::new(waiting),
        per_client: NonZeroUsize::new(per_address),
        rate_per_client: NonZeroU32::new(arrivals_per_address),
    }
}

/// What an owner can see: (connections, waiting, networks).
fn seen(door: &ConnectionLimiter) -> (usize, usize, usize) {
    (door.connections(), door.unauthenticated(), door.tracked_clients())
}

/// A connection that comes in directly, if it is let.
fn arrive(door: &mut ConnectionLimiter, address: IpAddr, now: Timestamp) -> Result<Permit, ConnectionLimitExceeded> {
    let mut visit = door.acquire()?;
    match door.identify(&mut visit, address, now) {
        Ok(()) => Ok(visit),
        Err(turned_away) => {
            door.release(visit);
            Err(turned_away)
        }
    }
}

#[test]
fn without_bounds_everybody_comes_in() {
    let mut door = ConnectionLimiter::new(ConnectionLimits::default());
    let visits: Vec<_> = (0..10_000).map(|_| arrive(&mut door, address("192.0.2.1"), at(0)).unwrap()).collect();
    assert_eq!(seen(&door), (10_000, 10_000, 1));
    visits.into_iter().for_each(|visit| door.release(visit));
    assert_eq!(seen(&door), (0, 0, 0));
}

#[test]
fn so_many_connections_come_in_and_one_more_when_one_has_left() {
    let mut door = ConnectionLimiter::new(bounds(2, 0, 0, 0));
    let mut first = door.acquire().unwrap();
    let second = door.acquire().unwrap();
    assert_eq!(door.acquire().unwrap_err(), ConnectionLimitExceeded::Total);
    door.authenticated(&mut first);
    assert_eq!(door.acquire().unwrap_err(), ConnectionLimitExceeded::Total, "one that no longer waits is still there");
    for visit in [first, second] {
        door.release(visit);
        let _next = door.acquire().unwrap();
        assert_eq!(door.acquire().unwrap_err(), ConnectionLimitExceeded::Total);
    }
    assert_eq!(seen(&door), (2, 2, 0), "and one that is lost is counted for ever");
}

#[test]
fn so_many_connections_wait_and_one_more_when_one_is_admitted_or_has_left() {
    let mut door = ConnectionLimiter::new(bounds(0, 2, 0, 0));
    let mut first = door.acquire().unwrap();
    let second = door.acquire().unwrap();
    assert_eq!(door.acquire().unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    door.authenticated(&mut first);
    door.authenticated(&mut first);
    assert_eq!(seen(&door), (2, 1, 0), "it is admitted once");
    let third = door.acquire().unwrap();
    assert_eq!(door.acquire().unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    door.release(first);
    assert_eq!(door.acquire().unwrap_err(), ConnectionLimitExceeded::Unauthenticated, "it did not wait");
    door.release(second);
    let fourth = door.acquire().unwrap();
    assert_eq!(door.acquire().unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    for visit in [third, fourth] {
        door.release(visit);
    }
    assert_eq!(seen(&door), (0, 0, 0));
}

#[test]
fn so_many_connections_of_one_address_come_in_and_others_are_not_affected() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 2, 0));
    let network = ClientPrefix::from(address("192.0.2.1"));
    let too_many = ConnectionLimitExceeded::PerClient { client: network };
    let first = arrive(&mut door, address("192.0.2.1"), at(0)).unwrap();
    let mut second = arrive(&mut door, address("::ffff:192.0.2.1"), at(0)).unwrap();
    assert_eq!((first.client(), second.client()), (Some(network), Some(network)));
    door.authenticated(&mut second);
    assert_eq!(arrive(&mut door, address("192.0.2.1"), at(0)).unwrap_err(), too_many);
    let other = arrive(&mut door, address("192.0.2.2"), at(0)).unwrap();
    assert_eq!(seen(&door), (3, 2, 2));
    for visit in [first, second] {
        door.release(visit);
        let _next = arrive(&mut door, address("192.0.2.1"), at(0)).unwrap();
        assert_eq!(arrive(&mut door, address("192.0.2.1"), at(0)).unwrap_err(), too_many);
    }
    door.release(other);
    assert_eq!(seen(&door), (2, 2, 1));
}

#[test]
fn ipv6_addresses_of_one_64_count_together() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 1, 0));
    let _first = arrive(&mut door, address("2001:db8::1"), at(0)).unwrap();
    assert!(arrive(&mut door, address("2001:db8::ffff:0:0:1"), at(0)).is_err());
    assert!(arrive(&mut door, address("2001:db8:0:1::1"), at(0)).is_ok());
}

#[test]
fn so_many_of_one_address_arrive_at_once_and_then_at_their_pace() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 0, 4));
    let (ada, network) = (address("192.0.2.1"), ClientPrefix::from(address("192.0.2.1")));
    let too_fast =
        |millis| ConnectionLimitExceeded::Rate { client: network, retry_after: Duration::from_millis(millis) };
    let mut arrivals = |now: u64, expected: &[Result<(), ConnectionLimitExceeded>]| {
        for &expected in expected {
            // That they leave at once does not make it slower.
            let arrived = arrive(&mut door, ada, at(now)).map(|visit| door.release(visit));
            assert_eq!(arrived, expected, "at {now} ms");
        }
        let other = arrive(&mut door, address("192.0.2.2"), at(now)).unwrap();
        door.release(other);
    };
    let (come, wait) = (Ok(()), |millis| Err(too_fast(millis)));
    arrivals(1000, &[come, come, come, come, wait(250), wait(250)]);
    arrivals(1100, &[wait(150)]);
    arrivals(1249, &[wait(1)]);
    arrivals(1250, &[come, wait(250)]);
    arrivals(1999, &[come, come, wait(1)]);
    arrivals(2000, &[come, wait(250)]);
    arrivals(2750, &[come, come, come, wait(250)]);
    arrivals(9000, &[come, come, come, come, wait(250)]);
}

#[test]
fn when_to_come_again_is_exact() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 0, 7));
    let ada = address("192.0.2.1");
    let mut now = at(5);
    for _ in 0..100 {
        let turned_away =
            (0..=7).find_map(|_| arrive(&mut door, ada, now).map(|visit| door.release(visit)).err()).unwrap();
        let wait = turned_away.retry_after();
        assert!(!wait.is_zero() && wait <= SECOND / 7 + NANOSECOND, "{wait:?}");
        let early = now + (wait - NANOSECOND);
        let expected = ConnectionLimitExceeded::Rate { client: ada.into(), retry_after: NANOSECOND };
        assert_eq!(arrive(&mut door, ada, early).unwrap_err(), expected);
        now = now + wait;
        let visit = arrive(&mut door, ada, now).unwrap();
        door.release(visit);
    }
}

#[test]
fn whoever_is_turned_away_uses_nothing_up_but_its_own_place() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 1, 2));
    let (ada, network) = (address("192.0.2.1"), ClientPrefix::from(address("192.0.2.1")));
    let inside = arrive(&mut door, ada, at(0)).unwrap();
    let mut turned_away = door.acquire().unwrap();
    for _ in 0..5 {
        let told = door.identify(&mut turned_away, ada, at(0));
        assert_eq!(
            told,
            Err(ConnectionLimitExceeded::PerClient { client }),
            "before the pace, of which it uses nothing"
        );
    }
    assert_eq!((turned_away.client(), seen(&door)), (None, (2, 2, 1)));
    door.release(inside);
    assert_eq!(door.identify(&mut turned_away, ada, at(0)), Ok(()), "room is made at once");
    let mut third = door.acquire().unwrap();
    assert_eq!(door.identify(&mut third, ada, at(0)), Err(ConnectionLimitExceeded::PerClient { client }));
    door.release(turned_away);
    for _ in 0..5 {
        let retry_after = SECOND / 2;
        assert_eq!(door.identify(&mut third, ada, at(0)), Err(ConnectionLimitExceeded::Rate { client, retry_after }));
    }
    assert_eq!(door.identify(&mut third, ada, at(500)), Ok(()));
    door.release(third);
    assert_eq!((door.connections(), door.unauthenticated()), (0, 0));
}

#[test]
fn of_several_reasons_the_one_that_concerns_all_is_told_first() {
    let mut door = ConnectionLimiter::new(bounds(1, 1, 1, 1));
    let ada = address("192.0.2.1");
    let mut inside = arrive(&mut door, ada, at(0)).unwrap();
    assert_eq!(arrive(&mut door, ada, at(0)).unwrap_err(), ConnectionLimitExceeded::Total);
    door.set_limits(bounds(2, 1, 1, 1));
    assert_eq!(arrive(&mut door, ada, at(0)).unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    door.authenticated(&mut inside);
    assert_eq!(arrive(&mut door, ada, at(0)).unwrap_err(), ConnectionLimitExceeded::PerClient { client: ada.into() });
    door.set_limits(bounds(2, 1, 2, 1));
    let too_fast = ConnectionLimitExceeded::Rate { client: ada.into(), retry_after: SECOND };
    assert_eq!(arrive(&mut door, ada, at(0)).unwrap_err(), too_fast);
}

#[test]
fn a_visit_is_identified_once() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 1, 1));
    let mut visit = arrive(&mut door, address("192.0.2.1"), at(0)).unwrap();
    for again in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(door.identify(&mut visit, address(again), at(0)), Ok(()));
        assert_eq!(visit.client(), Some(address("192.0.2.1").into()));
    }
    assert_eq!(seen(&door), (1, 1, 1));
    assert!(arrive(&mut door, address("192.0.2.2"), at(0)).is_ok(), "nothing of the other was used up");
}

#[test]
fn under_lower_bounds_those_inside_stay_and_nobody_enters_until_they_are_fewer() {
    let mut door = ConnectionLimiter::new(bounds(4, 0, 4, 0));
    let ada = address("192.0.2.1");
    let mut visits: Vec<_> = (0..4).map(|_| arrive(&mut door, ada, at(0)).unwrap()).collect();
    let outcomes = |door: &mut ConnectionLimiter, visits: &mut Vec<Permit>| {
        let mut outcomes = Vec::new();
        while let Some(visit) = visits.pop() {
            door.release(visit);
            outcomes.push(arrive(door, ada, at(0)).map(|visit| door.release(visit)));
        }
        outcomes
    };
    for (lower, turned_away) in [
        (bounds(2, 0, 0, 0), ConnectionLimitExceeded::Total),
        (bounds(0, 2, 0, 0), ConnectionLimitExceeded::Unauthenticated),
        (bounds(0, 0, 2, 0), ConnectionLimitExceeded::PerClient { client: ada.into() }),
    ] {
        door.set_limits(lower);
        assert_eq!((door.limits(), door.connections()), (lower, 4));
        assert_eq!(arrive(&mut door, ada, at(0)).unwrap_err(), turned_away);
        assert_eq!(outcomes(&mut door, &mut visits), [Err(turned_away), Err(turned_away), Ok(()), Ok(())]);
        door.set_limits(ConnectionLimits::default());
        visits.extend((0..4).map(|_| arrive(&mut door, ada, at(0)).unwrap()));
    }
}

#[test]
fn another_pace_is_kept_from_the_next_arrival_on() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 0, 5));
    let ada = address("192.0.2.1");
    let arrivals = |door: &mut ConnectionLimiter, now| {
        let come = std::iter::from_fn(|| arrive(door, ada, at(now)).ok().map(|visit| door.release(visit)));
        come.take(100).count()
    };
    assert_eq!(arrivals(&mut door, 0), 5);
    door.set_limits(bounds(0, 0, 0, 2));
    assert_eq!([0, 499, 500, 999, 1000].map(|now| arrivals(&mut door, now)), [0, 0, 1, 0, 1]);
    door.set_limits(bounds(0, 0, 0, 10));
    assert_eq!([1000, 1100, 2000].map(|now| arrivals(&mut door, now)), [8, 1, 9]);
    door.set_limits(bounds(0, 0, 0, 0));
    assert_eq!(arrivals(&mut door, 2000), 100);
}

#[test]
fn a_clock_that_goes_back_is_taken_to_stand_still() {
    let mut door = ConnectionLimiter::new(bounds(0, 0, 0, 2));
    let ada = address("192.0.2.1");
    let mut come = |now| arrive(&mut door, ada, at(now)).map(|visit| door.release(visit)).is_ok();
    assert_eq!([5000, 0, 0, 5000, 5499, 0, 5500].map(&mut come), [true, true, false, false, false, false, true]);
}

#[test]
fn a_network_is_forgotten_with_its_last_connection_unless_its_pace_must_be_remembered() {
    let (ada, bob) = (address("192.0.2.1"), address("192.0.2.2"));
    let mut door = ConnectionLimiter::new(bounds(0, 0, 0, 2));
    let first = arrive(&mut door, ada, at(0)).unwrap();
    let second = arrive(&mut door, ada, at(1000)).unwrap();
    door.release(first);
    door.release(second);
    assert_eq!(seen(&door), (0, 0, 1), "half a second of it is missing yet");
    let third = arrive(&mut door, bob, at(1499)).unwrap();
    assert_eq!(seen(&door), (1, 1, 2));
    let fourth = arrive(&mut door, bob, at(1500)).unwrap();
    assert_eq!(seen(&door), (2, 2, 1), "an arrival sweeps away what is over");
    door.set_limits(bounds(0, 0, 1, 0));
    door.release(third);
    assert_eq!(seen(&door), (1, 1, 1));
    door.release(fourth);
    assert_eq!(seen(&door), (0, 0, 0), "without a pace nothing is to be remembered");
}

/// An address in the network of this number.
fn nth(number: u64) -> IpAddr {
    Ipv6Addr::from(u128::from(number) << 64).into()
}

/// An attacker who owns a large network, and uses each /64 of it once.
#[test]
fn a_flood_of_a_million_networks_leaves_few_behind() {
    const PER_SECOND: usize = 1000;
    // In order, and each far from the last, between those before.
    for order in [|number: u64| number, u64::reverse_bits] {
        let (mut door, mut most) = (ConnectionLimiter::new(bounds(0, 0, 0, 1)), 0);
        for number in 0..500_000 {
            let visit = arrive(&mut door, nth(order(number)), at(number)).unwrap();
            door.release(visit);
            most = most.max(door.tracked_clients());
        }
        assert!((PER_SECOND..=2 * PER_SECOND + 2).contains(&most), "{most}");
    }
}

/// Whoever comes again just before the sweep gets there is kept as long as possible.
#[test]
fn a_crowd_of_which_some_come_again_is_forgotten_all_the_same() {
    const AT_ONCE: usize = 100;
    let mut door = ConnectionLimiter::new(bounds(0, 0, 0, 1));
    for number in 0..100_000 {
        let visit = arrive(&mut door, nth(number), at(0)).unwrap();
        door.release(visit);
    }
    assert_eq!(door.tracked_clients(), 100_000, "so many at once are remembered");
    let mut most = 0;
    for round in 0..100_000 {
        let number = if round % 2 == 0 { round } else { 1_000_000 - round };
        let visit = arrive(&mut door, nth(number), at(1000 + 10 * round)).unwrap();
        door.release(visit);
        if round >= 50_000 {
            most = most.max(door.tracked_clients());
        }
    }
    assert!((AT_ONCE..=2 * AT_ONCE + 2).contains(&most), "{most}");
}

#[test]
fn a_visit_is_small() {
    assert!(size_of::<Permit>() <= 32, "{}", size_of::<Permit>());
}
