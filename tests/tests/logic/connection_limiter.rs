//! The connection limiter: total, unauthenticated, per client, and rate.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use session_core::connection_limiter::{
    ClientPrefix, ClientUsage, ConnectionLimitExceeded, ConnectionLimiter, ConnectionLimits, Permit, Work,
};
use session_core::{Timestamp, UserId};
use tests::values::{NANOSECOND, address, at_milli as at, connection_limits as limits};

const SECOND: Duration = Duration::from_secs(1);

/// The public counts: (connections, unauthenticated, tracked clients).
fn counts(limiter: &ConnectionLimiter) -> (usize, usize, usize) {
    (limiter.connections(), limiter.unauthenticated(), limiter.tracked_clients())
}

/// Acquires and identifies a connection. Releases it if a limit is exceeded.
fn connect(
    limiter: &mut ConnectionLimiter,
    address: IpAddr,
    now: Timestamp,
) -> Result<Permit, ConnectionLimitExceeded> {
    let mut permit = limiter.acquire()?;
    match limiter.identify(&mut permit, address, now) {
        Ok(()) => Ok(permit),
        Err(exceeded) => {
            limiter.release(permit);
            Err(exceeded)
        }
    }
}

#[test]
fn unlimited_limiter_accepts_every_connection() {
    let mut limiter = ConnectionLimiter::new(ConnectionLimits::default());
    let permits: Vec<_> = (0..10_000).map(|_| connect(&mut limiter, address("192.0.2.1"), at(0)).unwrap()).collect();
    assert_eq!(counts(&limiter), (10_000, 10_000, 1));
    permits.into_iter().for_each(|permit| limiter.release(permit));
    assert_eq!(counts(&limiter), (0, 0, 0));
}

#[test]
fn total_limit_frees_with_each_release() {
    let mut limiter = ConnectionLimiter::new(limits(2, 0, 0, 0));
    let mut first = limiter.acquire().unwrap();
    let second = limiter.acquire().unwrap();
    assert_eq!(limiter.acquire().unwrap_err(), ConnectionLimitExceeded::Total);
    limiter.authenticated(&mut first);
    assert_eq!(
        limiter.acquire().unwrap_err(),
        ConnectionLimitExceeded::Total,
        "an authenticated connection still counts"
    );
    for permit in [first, second] {
        limiter.release(permit);
        let _next = limiter.acquire().unwrap();
        assert_eq!(limiter.acquire().unwrap_err(), ConnectionLimitExceeded::Total);
    }
    assert_eq!(counts(&limiter), (2, 2, 0), "a permit that is not released stays counted");
}

#[test]
fn unauthenticated_limit_frees_on_authentication_or_release() {
    let mut limiter = ConnectionLimiter::new(limits(0, 2, 0, 0));
    let mut first = limiter.acquire().unwrap();
    let second = limiter.acquire().unwrap();
    assert_eq!(limiter.acquire().unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    limiter.authenticated(&mut first);
    limiter.authenticated(&mut first);
    assert_eq!(counts(&limiter), (2, 1, 0), "authenticated twice counts once");
    let third = limiter.acquire().unwrap();
    assert_eq!(limiter.acquire().unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    limiter.release(first);
    assert_eq!(
        limiter.acquire().unwrap_err(),
        ConnectionLimitExceeded::Unauthenticated,
        "it was authenticated already"
    );
    limiter.release(second);
    let fourth = limiter.acquire().unwrap();
    assert_eq!(limiter.acquire().unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    for permit in [third, fourth] {
        limiter.release(permit);
    }
    assert_eq!(counts(&limiter), (0, 0, 0));
}

#[test]
fn per_client_limit_leaves_other_clients_alone() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 2, 0));
    let client = ClientPrefix::from(address("192.0.2.1"));
    let too_many = ConnectionLimitExceeded::PerClient { client };
    let first = connect(&mut limiter, address("192.0.2.1"), at(0)).unwrap();
    let mut second = connect(&mut limiter, address("::ffff:192.0.2.1"), at(0)).unwrap();
    assert_eq!((first.client(), second.client()), (Some(client), Some(client)));
    limiter.authenticated(&mut second);
    assert_eq!(connect(&mut limiter, address("192.0.2.1"), at(0)).unwrap_err(), too_many);
    let other = connect(&mut limiter, address("192.0.2.2"), at(0)).unwrap();
    assert_eq!(counts(&limiter), (3, 2, 2));
    for permit in [first, second] {
        limiter.release(permit);
        let _next = connect(&mut limiter, address("192.0.2.1"), at(0)).unwrap();
        assert_eq!(connect(&mut limiter, address("192.0.2.1"), at(0)).unwrap_err(), too_many);
    }
    limiter.release(other);
    assert_eq!(counts(&limiter), (2, 2, 1));
}

#[test]
fn ipv6_addresses_of_one_64_count_together() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 1, 0));
    let _first = connect(&mut limiter, address("2001:db8::1"), at(0)).unwrap();
    assert!(connect(&mut limiter, address("2001:db8::ffff:0:0:1"), at(0)).is_err());
    assert!(connect(&mut limiter, address("2001:db8:0:1::1"), at(0)).is_ok());
}

#[test]
fn rate_allows_a_burst_and_then_refills() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 0, 4));
    let (ada, client) = (address("192.0.2.1"), ClientPrefix::from(address("192.0.2.1")));
    let too_fast = |millis| ConnectionLimitExceeded::Rate { client, retry_after: Duration::from_millis(millis) };
    let mut arrivals = |now: u64, expected: &[Result<(), ConnectionLimitExceeded>]| {
        for &expected in expected {
            // Released connections count towards the rate.
            let arrived = connect(&mut limiter, ada, at(now)).map(|permit| limiter.release(permit));
            assert_eq!(arrived, expected, "at {now} ms");
        }
        let other = connect(&mut limiter, address("192.0.2.2"), at(now)).unwrap();
        limiter.release(other);
    };
    let (accepted, wait) = (Ok(()), |millis| Err(too_fast(millis)));
    arrivals(1000, &[accepted, accepted, accepted, accepted, wait(250), wait(250)]);
    arrivals(1100, &[wait(150)]);
    arrivals(1249, &[wait(1)]);
    arrivals(1250, &[accepted, wait(250)]);
    arrivals(1999, &[accepted, accepted, wait(1)]);
    arrivals(2000, &[accepted, wait(250)]);
    arrivals(2750, &[accepted, accepted, accepted, wait(250)]);
    arrivals(9000, &[accepted, accepted, accepted, accepted, wait(250)]);
}

#[test]
fn retry_after_is_exact() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 0, 7));
    let ada = address("192.0.2.1");
    let mut now = at(5);
    for _ in 0..100 {
        let exceeded =
            (0..=7).find_map(|_| connect(&mut limiter, ada, now).map(|permit| limiter.release(permit)).err()).unwrap();
        let wait = exceeded.retry_after();
        assert!(!wait.is_zero() && wait <= SECOND / 7 + NANOSECOND, "{wait:?}");
        let early = now + (wait - NANOSECOND);
        let expected = ConnectionLimitExceeded::Rate { client: ada.into(), retry_after: NANOSECOND };
        assert_eq!(connect(&mut limiter, ada, early).unwrap_err(), expected);
        now = now + wait;
        let permit = connect(&mut limiter, ada, now).unwrap();
        limiter.release(permit);
    }
}

#[test]
fn refused_connection_uses_only_its_own_permit() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 1, 2));
    let (ada, client) = (address("192.0.2.1"), ClientPrefix::from(address("192.0.2.1")));
    let inside = connect(&mut limiter, ada, at(0)).unwrap();
    let mut exceeded = limiter.acquire().unwrap();
    for _ in 0..5 {
        let refusal = limiter.identify(&mut exceeded, ada, at(0));
        assert_eq!(
            refusal,
            Err(ConnectionLimitExceeded::PerClient { client }),
            "the per-client limit is checked before the rate"
        );
    }
    assert_eq!((exceeded.client(), counts(&limiter)), (None, (2, 2, 1)));
    limiter.release(inside);
    assert_eq!(limiter.identify(&mut exceeded, ada, at(0)), Ok(()), "the released place is free at once");
    let mut third = limiter.acquire().unwrap();
    assert_eq!(limiter.identify(&mut third, ada, at(0)), Err(ConnectionLimitExceeded::PerClient { client }));
    limiter.release(exceeded);
    for _ in 0..5 {
        let retry_after = SECOND / 2;
        assert_eq!(
            limiter.identify(&mut third, ada, at(0)),
            Err(ConnectionLimitExceeded::Rate { client, retry_after })
        );
    }
    assert_eq!(limiter.identify(&mut third, ada, at(500)), Ok(()));
    limiter.release(third);
    assert_eq!((limiter.connections(), limiter.unauthenticated()), (0, 0));
}

#[test]
fn broadest_exceeded_limit_is_reported_first() {
    let mut limiter = ConnectionLimiter::new(limits(1, 1, 1, 1));
    let ada = address("192.0.2.1");
    let mut inside = connect(&mut limiter, ada, at(0)).unwrap();
    assert_eq!(connect(&mut limiter, ada, at(0)).unwrap_err(), ConnectionLimitExceeded::Total);
    limiter.set_limits(limits(2, 1, 1, 1));
    assert_eq!(connect(&mut limiter, ada, at(0)).unwrap_err(), ConnectionLimitExceeded::Unauthenticated);
    limiter.authenticated(&mut inside);
    assert_eq!(
        connect(&mut limiter, ada, at(0)).unwrap_err(),
        ConnectionLimitExceeded::PerClient { client: ada.into() }
    );
    limiter.set_limits(limits(2, 1, 2, 1));
    let too_fast = ConnectionLimitExceeded::Rate { client: ada.into(), retry_after: SECOND };
    assert_eq!(connect(&mut limiter, ada, at(0)).unwrap_err(), too_fast);
}

#[test]
fn permit_is_identified_once() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 1, 1));
    let mut permit = connect(&mut limiter, address("192.0.2.1"), at(0)).unwrap();
    for again in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(limiter.identify(&mut permit, address(again), at(0)), Ok(()));
        assert_eq!(permit.client(), Some(address("192.0.2.1").into()));
    }
    assert_eq!(counts(&limiter), (1, 1, 1));
    assert!(connect(&mut limiter, address("192.0.2.2"), at(0)).is_ok(), "the second address used nothing");
}

#[test]
fn lowered_limit_keeps_existing_connections() {
    let mut limiter = ConnectionLimiter::new(limits(4, 0, 4, 0));
    let ada = address("192.0.2.1");
    let mut permits: Vec<_> = (0..4).map(|_| connect(&mut limiter, ada, at(0)).unwrap()).collect();
    let outcomes = |limiter: &mut ConnectionLimiter, permits: &mut Vec<Permit>| {
        let mut outcomes = Vec::new();
        while let Some(permit) = permits.pop() {
            limiter.release(permit);
            outcomes.push(connect(limiter, ada, at(0)).map(|permit| limiter.release(permit)));
        }
        outcomes
    };
    for (lower, exceeded) in [
        (limits(2, 0, 0, 0), ConnectionLimitExceeded::Total),
        (limits(0, 2, 0, 0), ConnectionLimitExceeded::Unauthenticated),
        (limits(0, 0, 2, 0), ConnectionLimitExceeded::PerClient { client: ada.into() }),
    ] {
        limiter.set_limits(lower);
        assert_eq!((limiter.limits(), limiter.connections()), (lower, 4));
        assert_eq!(connect(&mut limiter, ada, at(0)).unwrap_err(), exceeded);
        assert_eq!(outcomes(&mut limiter, &mut permits), [Err(exceeded), Err(exceeded), Ok(()), Ok(())]);
        limiter.set_limits(ConnectionLimits::default());
        permits.extend((0..4).map(|_| connect(&mut limiter, ada, at(0)).unwrap()));
    }
}

#[test]
fn changed_rate_applies_from_the_next_arrival() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 0, 5));
    let ada = address("192.0.2.1");
    let arrivals = |limiter: &mut ConnectionLimiter, now| {
        let accepted = std::iter::from_fn(|| connect(limiter, ada, at(now)).ok().map(|permit| limiter.release(permit)));
        accepted.take(100).count()
    };
    assert_eq!(arrivals(&mut limiter, 0), 5);
    limiter.set_limits(limits(0, 0, 0, 2));
    assert_eq!([0, 499, 500, 999, 1000].map(|now| arrivals(&mut limiter, now)), [0, 0, 1, 0, 1]);
    limiter.set_limits(limits(0, 0, 0, 10));
    assert_eq!([1000, 1100, 2000].map(|now| arrivals(&mut limiter, now)), [8, 1, 9]);
    limiter.set_limits(limits(0, 0, 0, 0));
    assert_eq!(arrivals(&mut limiter, 2000), 100);
}

#[test]
fn backward_clock_counts_as_standing_still() {
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 0, 2));
    let ada = address("192.0.2.1");
    let mut accepted = |now| connect(&mut limiter, ada, at(now)).map(|permit| limiter.release(permit)).is_ok();
    assert_eq!([5000, 0, 0, 5000, 5499, 0, 5500].map(&mut accepted), [true, true, false, false, false, false, true]);
}

#[test]
fn client_is_forgotten_once_its_bucket_is_full() {
    let (ada, bob) = (address("192.0.2.1"), address("192.0.2.2"));
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 0, 2));
    let first = connect(&mut limiter, ada, at(0)).unwrap();
    let second = connect(&mut limiter, ada, at(1000)).unwrap();
    limiter.release(first);
    limiter.release(second);
    assert_eq!(counts(&limiter), (0, 0, 1), "the bucket is not full yet");
    let third = connect(&mut limiter, bob, at(1499)).unwrap();
    assert_eq!(counts(&limiter), (1, 1, 2));
    let fourth = connect(&mut limiter, bob, at(1500)).unwrap();
    assert_eq!(counts(&limiter), (2, 2, 1), "an arrival removes expired clients");
    limiter.set_limits(limits(0, 0, 1, 0));
    limiter.release(third);
    assert_eq!(counts(&limiter), (1, 1, 1));
    limiter.release(fourth);
    assert_eq!(counts(&limiter), (0, 0, 0), "without a rate no client is remembered");
}

/// An address in the /64 of this number.
fn nth(number: u64) -> IpAddr {
    Ipv6Addr::from(u128::from(number) << 64).into()
}

/// An attacker with a large network uses each /64 of it once.
#[test]
fn flood_of_networks_leaves_few_tracked_clients() {
    const PER_SECOND: usize = 1000;
    // In order, and in an order where each is far from the one before.
    for order in [|number: u64| number, u64::reverse_bits] {
        let (mut limiter, mut most) = (ConnectionLimiter::new(limits(0, 0, 0, 1)), 0);
        for number in 0..500_000 {
            let permit = connect(&mut limiter, nth(order(number)), at(number)).unwrap();
            limiter.release(permit);
            most = most.max(limiter.tracked_clients());
        }
        assert!((PER_SECOND..=2 * PER_SECOND + 2).contains(&most), "{most}");
    }
}

/// A client that returns just before the sweep reaches it is tracked as long as possible.
#[test]
fn returning_clients_do_not_stop_the_sweep() {
    const AT_ONCE: usize = 100;
    let mut limiter = ConnectionLimiter::new(limits(0, 0, 0, 1));
    for number in 0..100_000 {
        let permit = connect(&mut limiter, nth(number), at(0)).unwrap();
        limiter.release(permit);
    }
    assert_eq!(limiter.tracked_clients(), 100_000, "all of them are tracked");
    let mut most = 0;
    for round in 0..100_000 {
        let number = if round % 2 == 0 { round } else { 1_000_000 - round };
        let permit = connect(&mut limiter, nth(number), at(1000 + 10 * round)).unwrap();
        limiter.release(permit);
        if round >= 50_000 {
            most = most.max(limiter.tracked_clients());
        }
    }
    assert!((AT_ONCE..=2 * AT_ONCE + 2).contains(&most), "{most}");
}

#[test]
fn permit_stays_small() {
    assert!(size_of::<Permit>() <= 32, "{}", size_of::<Permit>());
}

#[test]
fn authenticated_connections_count_for_their_client() {
    let mut limiter = ConnectionLimiter::new(ConnectionLimits::default());
    let (ada, bob) = (address("192.0.2.1"), address("192.0.2.2"));
    let mut permits: Vec<_> = (0..3).map(|_| limiter.acquire().unwrap()).collect();
    permits.iter_mut().for_each(|permit| limiter.identify(permit, ada, at(0)).unwrap());
    limiter.authenticated(&mut permits[0]);
    limiter.authenticated(&mut permits[0]);
    limiter.authenticated(&mut permits[1]);
    let usage = ClientUsage { connections: 3, authenticated: 2, users: 0 };
    assert_eq!([ada, bob].map(|client| limiter.usage_of(client.into())), [usage, ClientUsage::default()]);
    permits.into_iter().for_each(|permit| limiter.release(permit));
    assert_eq!(limiter.usage_of(ada.into()), ClientUsage::default());
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// Whether or not connections are bounded by user.
#[test]
fn full_address_knows_how_many_users_it_has() {
    for per_user in [None, NonZeroUsize::new(9)] {
        let mut limiter = ConnectionLimiter::new(ConnectionLimits { per_user, ..limits(0, 0, 6, 0) });
        let (office, home) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut permits: Vec<_> = (0..6).map(|_| connect(&mut limiter, office, at(0)).unwrap()).collect();
        for (permit, name) in permits.iter_mut().zip(["ada", "bob", "ada", "cleo"]) {
            limiter.identify_user(permit, &user(name)).unwrap();
        }
        let mut at_home = connect(&mut limiter, home, at(0)).unwrap();
        limiter.identify_user(&mut at_home, &user("ada")).unwrap();
        let usage = ClientUsage { connections: 6, authenticated: 4, users: 3 };
        assert_eq!(limiter.usage_of(office.into()), usage);
        assert_eq!(limiter.usage_of(home.into()), ClientUsage { connections: 1, authenticated: 1, users: 1 });
        limiter.release(permits.remove(0));
        assert_eq!(limiter.usage_of(office.into()).users, 3, "ada has another connection there");
        limiter.release(permits.remove(1));
        assert_eq!(limiter.usage_of(office.into()).users, 2);
        assert_eq!((limiter.connections_of(&user("ada")), limiter.tracked_users()), (1, 3));
        permits.into_iter().for_each(|permit| limiter.release(permit));
        limiter.release(at_home);
        assert_eq!((limiter.tracked_users(), counts(&limiter)), (0, (0, 0, 0)));
    }
}

#[test]
fn users_of_an_office_do_not_fill_its_address() {
    let office = address("192.0.2.1");
    let bounds = ConnectionLimits { per_user: NonZeroUsize::new(2), ..limits(0, 0, 10, 0) };
    let mut limiter = ConnectionLimiter::new(bounds);
    let mut permits = Vec::new();
    for number in 0..5000 {
        let mut permit = connect(&mut limiter, office, at(0)).unwrap();
        limiter.identify_user(&mut permit, &user(&number.to_string())).unwrap();
        permits.push(permit);
    }
    // Who shows no credential can fill no more than the bound of the address.
    let strangers: Vec<_> = (0..10).map(|_| connect(&mut limiter, office, at(0)).unwrap()).collect();
    let exceeded = ConnectionLimitExceeded::PerClient { client: office.into() };
    assert_eq!(connect(&mut limiter, office, at(0)).unwrap_err(), exceeded);
    strangers.into_iter().for_each(|permit| limiter.release(permit));
    permits.push(connect(&mut limiter, office, at(0)).unwrap());

    // Without the bound by user all count for the address again, and stay.
    limiter.set_limits(ConnectionLimits { per_user: None, ..bounds });
    assert_eq!(connect(&mut limiter, office, at(0)).unwrap_err(), exceeded);
    limiter.set_limits(bounds);
    permits.push(connect(&mut limiter, office, at(0)).unwrap());
    permits.into_iter().for_each(|permit| limiter.release(permit));
    assert_eq!((limiter.tracked_users(), counts(&limiter)), (0, (0, 0, 0)));
}

#[test]
fn user_at_the_bound_gets_no_further_connection() {
    let mut limiter =
        ConnectionLimiter::new(ConnectionLimits { per_user: NonZeroUsize::new(2), ..ConnectionLimits::default() });
    let mut permits: Vec<_> =
        (1..5).map(|last| connect(&mut limiter, IpAddr::from([192, 0, 2, last]), at(0)).unwrap()).collect();
    let (ada, bob) = (user("ada"), user("bob"));
    assert_eq!([0, 1].map(|index| limiter.identify_user(&mut permits[index], &ada)), [Ok(()); 2]);
    assert_eq!(limiter.identify_user(&mut permits[0], &ada), Ok(()), "it counts already");
    assert_eq!(limiter.identify_user(&mut permits[2], &ada), Err(ConnectionLimitExceeded::PerUser));
    assert_eq!((permits[2].user(), permits[2].is_unauthenticated()), (None, true));
    // A connection that goes on as another user makes room.
    assert_eq!(limiter.identify_user(&mut permits[1], &bob), Ok(()));
    assert_eq!(limiter.identify_user(&mut permits[2], &ada), Ok(()));
    assert_eq!(limiter.identify_user(&mut permits[1], &ada), Err(ConnectionLimitExceeded::PerUser));
    assert_eq!(permits[1].user(), Some(&bob));
    limiter.release(permits.remove(0));
    assert_eq!(limiter.identify_user(permits.last_mut().unwrap(), &ada), Ok(()));
    permits.into_iter().for_each(|permit| limiter.release(permit));
    assert_eq!((limiter.tracked_users(), limiter.unauthenticated()), (0, 0));
}

/// A limiter with an allowance of 10 KB a second for each client, and a permit of this address.
fn working(limiter: &mut ConnectionLimiter, from: &str) -> Permit {
    let mut permit = limiter.acquire().unwrap();
    limiter.identify(&mut permit, address(from), at(0)).unwrap();
    permit
}

#[test]
fn work_of_all_connections_of_a_client_counts_together() {
    let limits = ConnectionLimits { work_per_client: NonZeroU32::new(10_000), ..ConnectionLimits::default() };
    let mut limiter = ConnectionLimiter::new(limits);
    let [mut first, mut second] = [(); 2].map(|()| working(&mut limiter, "192.0.2.1"));
    let mut other = working(&mut limiter, "192.0.2.2");
    assert!(!first.record(Work::traffic(8192, 0)), "a little is charged later");
    assert!(first.record(Work::traffic(1808, 0)));
    assert_eq!(limiter.charge(&mut first, at(0)), None);
    assert!(second.record(Work::traffic(20_000, 0)));
    assert_eq!(limiter.charge(&mut second, at(0)), Some(at(2000)));
    assert!(other.record(Work::traffic(10_000, 0)));
    assert_eq!(limiter.charge(&mut other, at(0)), None);
    // The debt outlives the connections that caused it.
    [first, second, other].into_iter().for_each(|permit| limiter.release(permit));
    let mut next = working(&mut limiter, "192.0.2.1");
    assert_eq!(limiter.charge(&mut next, at(1000)), Some(at(2000)));
    assert_eq!(limiter.charge(&mut next, at(2000)), None);
    // What a short connection has not been charged yet is charged at its end.
    let mut short = working(&mut limiter, "192.0.2.1");
    assert!(!short.record(Work::traffic(5000, 0)));
    limiter.release(short);
    assert_eq!(limiter.charge(&mut next, at(2000)), Some(at(2500)));
    limiter.release(next);
    // A client is forgotten once it has paid.
    for milli in [3000, 4000, 9000] {
        let visitor = working(&mut limiter, "192.0.2.3");
        limiter.release(visitor);
        let mut visitor = limiter.acquire().unwrap();
        limiter.identify(&mut visitor, address("192.0.2.3"), at(milli)).unwrap();
        limiter.release(visitor);
    }
    assert_eq!(limiter.tracked_clients(), 0);
}

/// A client in a crowd that shares the total.
struct Worker {
    permit: Permit,
    /// What it causes in a tenth of a second if it need not pause.
    bytes: u32,
    paused_until: Timestamp,
    pauses: u32,
    done: u64,
}

/// What each does in a second.
fn work_for_a_second(limiter: &mut ConnectionLimiter, workers: &mut [Worker], second: u64) -> Vec<u64> {
    workers.iter_mut().for_each(|worker| worker.done = 0);
    for now in (second * 1000..(second + 1) * 1000).step_by(100).map(at) {
        for worker in &mut *workers {
            // In pieces, as a socket is read.
            for _ in 0..worker.bytes / 1000 {
                if worker.paused_until > now {
                    break;
                }
                worker.done += 1000;
                if worker.permit.record(Work::traffic(1000, 0))
                    && let Some(until) = limiter.charge(&mut worker.permit, now)
                {
                    worker.paused_until = until;
                    worker.pauses += 1;
                }
            }
        }
    }
    workers.iter().map(|worker| worker.done).collect()
}

#[test]
fn crowd_shares_the_total_and_light_clients_lose_nothing() {
    const BUSY: usize = 50;
    let limits = ConnectionLimits {
        work_per_client: NonZeroU32::new(1_000_000),
        work: NonZeroU32::new(10_000_000),
        ..ConnectionLimits::default()
    };
    let mut limiter = ConnectionLimiter::new(limits);
    let mut workers: Vec<_> = (0..=BUSY)
        .map(|number| Worker {
            permit: working(&mut limiter, &format!("192.0.2.{number}")),
            bytes: if number == BUSY { 10_000 } else { 1_000_000 },
            paused_until: at(0),
            pauses: 0,
            done: 0,
        })
        .collect();
    for second in 0..20 {
        let done = work_for_a_second(&mut limiter, &mut workers, second);
        assert_eq!((done[BUSY], workers[BUSY].pauses), (100_000, 0), "the light client causes what it wants");
        // The first seconds are free, and then the share has to be found.
        if second >= 5 {
            let total = done.iter().sum::<u64>();
            assert!((5_000_000..15_000_000).contains(&total), "{total} bytes in second {second}");
            assert!(limiter.work_share_percent() < 50);
        }
    }
    // Without the bound of the total there is no share.
    limiter.set_limits(ConnectionLimits { work: None, ..limits });
    assert_eq!(limiter.work_share_percent(), 100);
    limiter.set_limits(limits);
    // Once the others have stopped, the share is whole.
    workers.iter_mut().skip(1).for_each(|worker| worker.bytes = 0);
    let done: Vec<_> = (20..30).map(|second| work_for_a_second(&mut limiter, &mut workers, second)[0]).collect();
    assert_eq!(limiter.work_share_percent(), 100);
    assert!(done.iter().sum::<u64>() > 6_000_000, "{done:?}");
}
