//! The connection limiter against a naive model: lists of connections and of arrivals.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use session_core::connection_limiter::{
    ClientPrefix, ClientUsage, ConnectionLimitExceeded, ConnectionLimiter, ConnectionLimits, Permit,
};
use session_core::{Timestamp, UserId};
use tests::values::{NANOSECOND, address, connection_limits as limits};

const SECOND: Duration = Duration::from_secs(1);

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn limiter_does_what_the_model_does(
        first in any_limits(0..5_u32),
        steps in vec(step(any_limits(0..5_u32)), 0..200),
    ) {
        let mut pair = LimiterAndModel::new(first);
        steps.iter().for_each(|step| pair.step(step));
        pair.release_all();
    }

    /// With one constant rate and no other limit, the model decides every arrival exactly.
    #[test]
    fn rate_is_kept_exactly(rate in 1..6_u32, steps in vec(step(Just(limits(0, 0, 0, 0))), 0..200)) {
        let mut pair = LimiterAndModel::new(limits(0, 0, 0, rate));
        for step in steps {
            match step {
                Step::SetLimits(_) => {}
                Step::Acquire
                | Step::Identify(..)
                | Step::Arrive(_)
                | Step::Authenticate(_)
                | Step::IdentifyUser(..)
                | Step::Release(_)
                | Step::Pass(_)
                | Step::WaitRetryAfter(_) => pair.step(&step),
            }
        }
    }
}

/// One step in the life of a limiter.
#[derive(Debug, Clone)]
enum Step {
    Acquire,
    /// A connection is identified by one of [`ADDRESSES`], perhaps again.
    Identify(prop::sample::Index, usize),
    /// A new connection is identified at once.
    Arrive(usize),
    Authenticate(prop::sample::Index),
    /// The user of a connection is known: one of [`USERS`], perhaps another than before.
    IdentifyUser(prop::sample::Index, usize),
    Release(prop::sample::Index),
    /// This many nanoseconds pass.
    Pass(u64),
    /// The last `retry_after` passes, or a nanosecond less.
    WaitRetryAfter(bool),
    SetLimits(ConnectionLimits),
}

/// Addresses, and the number of the client prefix of each.
const ADDRESSES: [(&str, usize); 7] = [
    ("192.0.2.1", 0),
    ("::ffff:192.0.2.1", 0),
    ("192.0.2.2", 1),
    ("2001:db8::1", 2),
    ("2001:db8::ffff:ffff:ffff:ffff", 2),
    ("2001:db8:0:1::1", 3),
    ("::1", 4),
];

const USERS: [&str; 4] = ["ada", "bob", "cleo", "dan"];

fn user(number: usize) -> UserId {
    UserId::parse(USERS[number]).unwrap()
}

fn any_limits(rate: impl Strategy<Value = u32>) -> impl Strategy<Value = ConnectionLimits> {
    (0..8_usize, 0..6_usize, 0..4_usize, rate, 0..4_usize).prop_map(|(all, unauthenticated, per, rate, per_user)| {
        ConnectionLimits { per_user: NonZeroUsize::new(per_user), ..limits(all, unauthenticated, per, rate) }
    })
}

fn step(change: impl Strategy<Value = ConnectionLimits>) -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let address = || 0..ADDRESSES.len();
    let moment = prop_oneof![Just(1), 1..2_000_u64, 1..400_000_000_u64, 1..3_000_000_000_u64, Just(1_000_000_000)];
    prop_oneof![
        2 => Just(Step::Acquire),
        4 => (index(), address()).prop_map(|(index, address)| Step::Identify(index, address)),
        8 => address().prop_map(Step::Arrive),
        2 => index().prop_map(Step::Authenticate),
        4 => (index(), 0..USERS.len()).prop_map(|(index, user)| Step::IdentifyUser(index, user)),
        8 => index().prop_map(Step::Release),
        4 => moment.prop_map(Step::Pass),
        2 => any::<bool>().prop_map(Step::WaitRetryAfter),
        1 => change.prop_map(Step::SetLimits),
    ]
}

#[derive(Debug, Clone, Copy, Default)]
struct ModelPermit {
    is_authenticated: bool,
    /// The number of its client.
    client: Option<usize>,
    /// The number of its user.
    user: Option<usize>,
}

/// What a [`ConnectionLimiter`] does, by lists that are searched from the beginning each time.
struct Model {
    limits: ConnectionLimits,
    permits: Vec<ModelPermit>,
    /// Each arrival under a rate limit: its client, its time, and the number of rate changes before it.
    arrivals: Vec<(usize, Duration, usize)>,
    rate_changes: usize,
    now: Duration,
}

/// Whether one more arrival is within the rate.
enum RateCheck {
    Within,
    /// Too fast for this long.
    TooFast(Duration),
    /// Undecided: the rate has changed since the latest arrivals.
    Unclear,
}

impl Model {
    fn count(&self, which: impl Fn(&ModelPermit) -> bool) -> usize {
        self.permits.iter().filter(|&permit| which(permit)).count()
    }

    fn acquire(&mut self) -> Option<ConnectionLimitExceeded> {
        if self.limits.connections.is_some_and(|most| self.permits.len() >= most.get()) {
            return Some(ConnectionLimitExceeded::Total);
        }
        if self.limits.unauthenticated.is_some_and(|most| self.count(|permit| !permit.is_authenticated) >= most.get()) {
            return Some(ConnectionLimitExceeded::Unauthenticated);
        }
        self.permits.push(ModelPermit::default());
        None
    }

    /// The arrivals of a client since its last pause of a second.
    fn latest(&self, client: usize) -> impl Iterator<Item = (Duration, usize)> {
        let mut next = self.now;
        let backwards = self.arrivals.iter().rev().filter(move |arrival| arrival.0 == client);
        backwards.map(|&(_, at, rate_changes)| (at, rate_changes)).take_while(move |&(at, _)| {
            let apart = next - at;
            next = at;
            apart < SECOND
        })
    }

    /// The rule: from any arrival to this one there are at most `rate` arrivals, and `rate` more per second in between.
    fn check_rate(&self, client: usize) -> RateCheck {
        let Some(rate) = self.limits.rate_per_client.map(|rate| u128::from(rate.get())) else {
            return RateCheck::Within;
        };
        if self.latest(client).any(|(_, rate_changes)| rate_changes != self.rate_changes) {
            return RateCheck::Unclear;
        }
        let wait = (2..).zip(self.latest(client)).map(|(count, (at, _)): (u128, _)| {
            let due_nanos = (count.saturating_sub(rate) * SECOND.as_nanos()).div_ceil(rate);
            due_nanos.saturating_sub((self.now - at).as_nanos())
        });
        match wait.max() {
            None | Some(0) => RateCheck::Within,
            Some(nanos) => RateCheck::TooFast(Duration::from_nanos(u64::try_from(nanos).unwrap())),
        }
    }

    fn identified(&mut self, index: usize, client: usize) {
        self.permits[index].client = Some(client);
        if self.limits.rate_per_client.is_some() {
            self.arrivals.push((client, self.now, self.rate_changes));
        }
    }
}

/// A limiter and its model.
struct LimiterAndModel {
    limiter: ConnectionLimiter,
    model: Model,
    permits: Vec<Permit>,
    last_wait: Duration,
}

impl LimiterAndModel {
    fn new(limits: ConnectionLimits) -> Self {
        let model = Model { limits, permits: Vec::new(), arrivals: Vec::new(), rate_changes: 0, now: Duration::ZERO };
        Self { limiter: ConnectionLimiter::new(limits), model, permits: Vec::new(), last_wait: Duration::ZERO }
    }

    fn step(&mut self, step: &Step) {
        let some = |index: &prop::sample::Index, of: &[Permit]| (!of.is_empty()).then(|| index.index(of.len()));
        match step {
            Step::Acquire => _ = self.acquire(),
            Step::Arrive(address) => {
                if self.acquire() {
                    self.identify(self.permits.len() - 1, *address);
                }
            }
            Step::Identify(index, address) => {
                if let Some(index) = some(index, &self.permits) {
                    self.identify(index, *address);
                }
            }
            Step::Authenticate(index) => {
                if let Some(index) = some(index, &self.permits) {
                    self.limiter.authenticated(&mut self.permits[index]);
                    self.model.permits[index].is_authenticated = true;
                }
            }
            Step::IdentifyUser(index, number) => {
                if let Some(index) = some(index, &self.permits) {
                    self.identify_user(index, *number);
                }
            }
            Step::Release(index) => {
                if let Some(index) = some(index, &self.permits) {
                    self.limiter.release(self.permits.swap_remove(index));
                    self.model.permits.swap_remove(index);
                }
            }
            Step::Pass(nanos) => self.model.now += Duration::from_nanos(*nanos),
            Step::WaitRetryAfter(whole) => {
                let early = if *whole { Duration::ZERO } else { NANOSECOND };
                self.model.now += self.last_wait.saturating_sub(early);
            }
            Step::SetLimits(limits) => {
                self.limiter.set_limits(*limits);
                self.model.rate_changes += usize::from(limits.rate_per_client != self.model.limits.rate_per_client);
                self.model.limits = *limits;
            }
        }
        self.check();
    }

    fn acquire(&mut self) -> bool {
        match (self.limiter.acquire(), self.model.acquire()) {
            (Ok(permit), None) => {
                self.permits.push(permit);
                true
            }
            (entered, expected) => {
                assert_eq!(entered.err(), expected);
                false
            }
        }
    }

    fn identify(&mut self, index: usize, nth: usize) {
        let (address, number) = (address(ADDRESSES[nth].0), ADDRESSES[nth].1);
        let client = ClientPrefix::from(address);
        let identified =
            self.limiter.identify(&mut self.permits[index], address, Timestamp::from_epoch(self.model.now));
        if self.model.permits[index].client.is_some() {
            return assert_eq!(identified, Ok(()));
        }
        let by_user = self.model.limits.per_user.is_some();
        let of_address =
            self.model.count(|permit| permit.client == Some(number) && !(by_user && permit.user.is_some()));
        let counts_for_address = !(by_user && self.model.permits[index].user.is_some());
        if counts_for_address && self.model.limits.per_client.is_some_and(|most| of_address >= most.get()) {
            return assert_eq!(identified, Err(ConnectionLimitExceeded::PerClient { client }));
        }
        match self.model.check_rate(number) {
            RateCheck::Within => assert_eq!(identified, Ok(())),
            RateCheck::TooFast(retry_after) => {
                assert_eq!(identified, Err(ConnectionLimitExceeded::Rate { client, retry_after }))
            }
            RateCheck::Unclear => {
                let rate = self.model.limits.rate_per_client.unwrap().get();
                let longest = SECOND / rate + NANOSECOND;
                match identified {
                    Ok(()) => {}
                    Err(ConnectionLimitExceeded::Rate { retry_after, .. }) => {
                        assert!(retry_after <= longest, "{retry_after:?}")
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        match identified {
            Ok(()) => self.model.identified(index, number),
            Err(exceeded) => self.last_wait = exceeded.retry_after(),
        }
    }

    fn identify_user(&mut self, index: usize, number: usize) {
        let identified = self.limiter.identify_user(&mut self.permits[index], &user(number));
        let of_user = self.model.count(|permit| permit.user == Some(number));
        let permit = &mut self.model.permits[index];
        if permit.user != Some(number) && self.model.limits.per_user.is_some_and(|most| of_user >= most.get()) {
            return assert_eq!(identified, Err(ConnectionLimitExceeded::PerUser));
        }
        assert_eq!(identified, Ok(()));
        if permit.user != Some(number) {
            *permit = ModelPermit { user: Some(number), is_authenticated: true, ..*permit };
        }
    }

    /// Releases all connections. A second later the sweep of a few arrivals removes every other client.
    fn release_all(mut self) {
        self.model.permits.clear();
        self.permits.drain(..).for_each(|permit| self.limiter.release(permit));
        assert_eq!(self.limiter.tracked_users(), 0);
        self.step(&Step::Pass(1_000_000_000));
        self.step(&Step::SetLimits(limits(0, 0, 0, 100)));
        for _ in 0..3 {
            self.step(&Step::Arrive(0));
        }
        assert_eq!(self.limiter.tracked_clients(), 1);
    }

    fn check(&self) {
        let unauthenticated = self.model.count(|permit| !permit.is_authenticated);
        assert_eq!(
            (self.limiter.connections(), self.limiter.unauthenticated()),
            (self.model.permits.len(), unauthenticated)
        );
        let networks: Vec<_> = self.permits.iter().map(Permit::client).collect();
        let numbers = self.model.permits.iter().map(|permit| permit.client);
        let expected = numbers.map(|number| {
            number
                .map(|number| ADDRESSES.iter().find(|(_, nth)| *nth == number).unwrap().0)
                .map(address)
                .map(ClientPrefix::from)
        });
        assert_eq!(networks, expected.collect::<Vec<_>>());

        // Every client with a connection is tracked, and none that never connected.
        let inside = (0..5).filter(|&number| self.model.count(|permit| permit.client == Some(number)) > 0).count();
        assert!((inside..=5).contains(&self.limiter.tracked_clients()));

        // Every count is that of the lists, and nobody is tracked without a connection.
        let users = self.permits.iter().map(Permit::user);
        assert!(
            users.eq(self
                .model
                .permits
                .iter()
                .map(|permit| permit.user.map(user))
                .collect::<Vec<_>>()
                .iter()
                .map(Option::as_ref))
        );
        for (address_text, number) in ADDRESSES {
            let behind = |permit: &ModelPermit| permit.client == Some(number);
            let usage = ClientUsage {
                connections: self.model.count(behind),
                authenticated: self.model.count(|permit| behind(permit) && permit.is_authenticated),
                users: (0..USERS.len())
                    .filter(|&user| self.model.count(|permit| behind(permit) && permit.user == Some(user)) > 0)
                    .count(),
            };
            assert_eq!(self.limiter.usage_of(address(address_text).into()), usage);
        }
        let of_users: Vec<_> =
            (0..USERS.len()).map(|number| self.model.count(|permit| permit.user == Some(number))).collect();
        assert_eq!(
            (0..USERS.len()).map(|number| self.limiter.connections_of(&user(number))).collect::<Vec<_>>(),
            of_users
        );
        assert_eq!(self.limiter.tracked_users(), of_users.iter().filter(|&&count| count > 0).count());

        // At a constant rate no second has more than twice the rate. Checking the last second is enough.
        if let Some(rate) = self.model.limits.rate_per_client {
            for number in 0..5 {
                let lately = self.model.arrivals.iter().filter(|&&(client, at, rate_changes)| {
                    client == number && rate_changes == self.model.rate_changes && self.model.now - at <= SECOND
                });
                assert!(lately.count() <= 2 * rate.get() as usize);
            }
        }
    }
}
