//! Which connections come in at all, before anybody is asked who they are.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use core::net::IpAddr;
use core::num::{NonZeroU32, NonZeroUsize};
use core::ops::Bound;

use super::client_prefix::ClientPrefix;
use super::exceeded::ConnectionLimitExceeded;
use crate::time::Timestamp;
use crate::token_bucket::TokenBucket;

/// Counts the connections of one process, and turns away those that are too many or come too fast.
///
/// A connection is a [`Permit`] here. It begins with [`ConnectionLimiter::enter`], is told apart from others by its
/// [`ClientPrefix`] in [`ConnectionLimiter::identify`] and no longer waits after [`ConnectionLimiter::admit`]. [`ConnectionLimiter::leave`] takes it back.
///
/// ```
/// use core::num::NonZeroUsize;
/// use session_core::{Door, DoorBounds, Time, TurnedAway};
///
/// let (ada, bob) = ("192.0.2.1".parse().unwrap(), "2001:db8::b0b".parse().unwrap());
/// let (connections, per_address) = (NonZeroUsize::new(2), NonZeroUsize::new(1));
/// let mut door = Door::new(DoorBounds { connections, per_address, ..DoorBounds::default() });
/// let now = Time::default();
///
/// let mut first = door.enter().unwrap();
/// assert_eq!(door.identify(&mut first, ada, now), Ok(()));
/// let mut second = door.enter().unwrap();
/// let crowd = TurnedAway::TooManyOfAddress { network: ada.into() };
/// assert_eq!(door.identify(&mut second, ada, now), Err(crowd));
/// assert_eq!(door.enter().unwrap_err(), TurnedAway::TooMany, "the second is being told why, and is still there");
///
/// door.leave(second);
/// let mut third = door.enter().unwrap();
/// assert_eq!(door.identify(&mut third, bob, now), Ok(()));
/// door.admit(&mut third);
/// assert_eq!((door.connections(), door.waiting()), (2, 1));
/// ```
///
/// # What always holds
///
/// - Each count is the number of visits that were not given back, so it is never negative and never drifts. A visit
///   that is lost, not given back, is counted for ever.
/// - No count is above a bound that was in force all the time.
/// - In no second are more than twice [`ConnectionLimits::arrivals_per_address`] visits of one network identified, while that
///   bound is in force, and no faster than that in the long run: what is saved up is one second's worth.
/// - Whoever leaves makes room at once. Whoever was turned away has used up nothing.
/// - A network is remembered while it has connections, and up to a second longer. Sweeps forget it, a few steps with
///   each arrival: no more than about twice as many are kept as were to be remembered at once.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limits: ConnectionLimits,
    connections: usize,
    unauthenticated: usize,
    /// Each network that is in use, and some that no longer are.
    clients: BTreeMap<ClientPrefix, Usage>,
    /// The sweep goes on behind this one.
    swept: Option<ClientPrefix>,
    /// The latest time it was told.
    now: Timestamp,
}

/// How many may come in. Each bound is off while it is `None`. The default is no bound at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionLimits {
    /// Connections in all.
    pub connections: Option<NonZeroUsize>,
    /// Connections that wait: accepted, but not authenticated.
    pub unauthenticated: Option<NonZeroUsize>,
    /// Connections of one address, or rather of its [`ClientPrefix`].
    pub per_client: Option<NonZeroUsize>,
    /// New connections of one address, or rather of its [`ClientPrefix`], in a second. So many at once may come after a
    /// second without any.
    pub rate_per_client: Option<NonZeroU32>,
}

/// One connection's place behind a [`ConnectionLimiter`]. Give it back with [`ConnectionLimiter::leave`], to the door it is from: one that is
/// dropped instead is counted for ever.
#[derive(Debug)]
#[must_use = "the door counts it until it is given back"]
pub struct Permit {
    /// Whose connections it counts among; nobody's, until it is identified.
    client: Option<ClientPrefix>,
    is_unauthenticated: bool,
}

impl Permit {
    /// Where it comes from, if it was identified and not turned away.
    #[must_use]
    pub const fn client(&self) -> Option<ClientPrefix> {
        self.client
    }
}

/// What one network has used up.
#[derive(Debug, Default)]
struct Usage {
    connections: usize,
    arrivals: TokenBucket,
}

impl Usage {
    /// Whether it has all that a network may have, as one that never came.
    fn is_unused(&self, rate: Option<NonZeroU32>, now: Timestamp) -> bool {
        self.connections == 0 && rate.is_none_or(|rate| self.arrivals.is_full(rate, now))
    }
}

impl ConnectionLimiter {
    /// How many networks are looked at with each arrival, whether they are still to be remembered.
    const SWEEP_STEPS: usize = 4;

    /// Nobody is inside, and these bounds are in force.
    #[must_use]
    pub const fn new(bounds: ConnectionLimits) -> Self {
        let now = Timestamp::from_epoch(core::time::Duration::ZERO);
        Self { limits: bounds, connections: 0, unauthenticated: 0, clients: BTreeMap::new(), swept: None, now }
    }

    /// Takes a connection in that was just accepted. It waits, and counts for no address yet.
    ///
    /// # Errors
    /// [`ConnectionLimitExceeded::TooMany`] or, if that does not apply, [`ConnectionLimitExceeded::TooManyWaiting`]: it is not counted.
    pub fn acquire(&mut self) -> Result<Permit, ConnectionLimitExceeded> {
        if is_reached(self.limits.connections, self.connections) {
            return Err(ConnectionLimitExceeded::Total);
        }
        if is_reached(self.limits.unauthenticated, self.unauthenticated) {
            return Err(ConnectionLimitExceeded::Unauthenticated);
        }
        self.connections += 1;
        self.unauthenticated += 1;
        Ok(Permit { client: None, is_unauthenticated: true })
    }

    /// Notes where a connection comes from, once that is known: at once for one that comes directly, after it was told
    /// for one that comes through a proxy. A visit that has been identified stays where it is.
    ///
    /// # Errors
    /// [`ConnectionLimitExceeded::TooManyOfAddress`] or, if that does not apply, [`ConnectionLimitExceeded::TooFast`]: nothing has changed. The
    /// visit is not identified; it keeps its place among all, and among those that wait, until it leaves.
    pub fn identify(
        &mut self,
        permit: &mut Permit,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), ConnectionLimitExceeded> {
        if permit.client.is_some() {
            return Ok(());
        }
        self.now = self.now.max(now);
        self.sweep();

        // No bound is zero, so one that is new here is not turned away and leaves nothing behind.
        let client = ClientPrefix::from(address);
        let usage = self.clients.entry(client).or_default();
        if is_reached(self.limits.per_client, usage.connections) {
            return Err(ConnectionLimitExceeded::PerClient { client });
        }
        if let Some(rate) = self.limits.rate_per_client {
            let taken = usage.arrivals.take(rate, self.now);
            taken.map_err(|retry_after| ConnectionLimitExceeded::Rate { client, retry_after })?;
        }
        usage.connections += 1;
        permit.client = Some(client);
        Ok(())
    }

    /// Notes that a connection is authenticated: it no longer waits. Once is enough.
    pub const fn authenticated(&mut self, permit: &mut Permit) {
        if permit.is_unauthenticated {
            permit.is_unauthenticated = false;
            self.unauthenticated -= 1;
        }
    }

    /// Takes a visit back: the connection is over.
    ///
    /// # Panics
    /// If the visit is from another door, and this one does not know its network.
    #[expect(clippy::needless_pass_by_value, reason = "whoever has left cannot leave again")]
    pub fn release(&mut self, permit: Permit) {
        let Permit { client, is_unauthenticated: waits } = permit;
        self.connections -= 1;
        self.unauthenticated -= usize::from(waits);
        let Some(client) = client else { return };
        let Entry::Occupied(mut usage) = self.clients.entry(client) else {
            unreachable!("a network that has connections is remembered");
        };
        usage.get_mut().connections -= 1;
        if usage.get().is_unused(self.limits.rate_per_client, self.now) {
            usage.remove();
        }
    }

    /// Puts other bounds in force. Whoever is inside stays, though they be too many.
    pub const fn set_limits(&mut self, bounds: ConnectionLimits) {
        self.limits = bounds;
    }

    /// The bounds in force.
    #[must_use]
    pub const fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// How many connections there are.
    #[must_use]
    pub const fn connections(&self) -> usize {
        self.connections
    }

    /// How many of them wait.
    #[must_use]
    pub const fn unauthenticated(&self) -> usize {
        self.unauthenticated
    }

    /// How many networks are remembered, which is what a door's memory depends on.
    #[must_use]
    pub fn tracked_clients(&self) -> usize {
        self.clients.len()
    }

    /// Goes on with forgetting the networks that are no longer in use.
    ///
    /// Why that keeps few: a sweep of `n` networks, and of those that come meanwhile, takes `n / 3` arrivals. Then none
    /// is left but those that were in use at its beginning, at most `m` say, and those that arrived since: `m + n / 3`.
    /// So `n` comes down to one and a half `m` where a sweep begins, and is `2 m` at most before it ends.
    fn sweep(&mut self) {
        let behind = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let mut ahead = self.clients.range((behind, Bound::Unbounded));
        let mut over = [None; Self::SWEEP_STEPS];
        for over in &mut over {
            let next = ahead.next();
            self.swept = next.map(|(&client, _)| client);
            let Some((_, usage)) = next else { break };
            if usage.is_unused(self.limits.rate_per_client, self.now) {
                *over = self.swept;
            }
        }
        for client in over.into_iter().flatten() {
            self.clients.remove(&client);
        }
    }
}

fn is_reached(bound: Option<NonZeroUsize>, count: usize) -> bool {
    bound.is_some_and(|bound| count >= bound.get())
}
