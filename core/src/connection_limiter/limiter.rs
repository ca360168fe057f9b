//! Counts connections and refuses those over a limit.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::sync::Arc;
use core::mem;
use core::net::IpAddr;
use core::num::{NonZeroU32, NonZeroUsize};
use core::ops::Bound;

use super::client_prefix::ClientPrefix;
use super::exceeded::ConnectionLimitExceeded;
use super::total_work::TotalWork;
use super::user_counts::UserCounts;
use super::work::{Work, WorkBudget};
use crate::id::UserId;
use crate::time::Timestamp;
use crate::token_bucket::TokenBucket;

/// Counts the connections of one process and refuses those that exceed a limit.
///
/// An accepted connection gets a [`Permit`] from [`ConnectionLimiter::acquire`]. [`ConnectionLimiter::identify`] counts it
/// for its client, [`ConnectionLimiter::authenticated`] ends its unauthenticated time, or
/// [`ConnectionLimiter::identify_user`] does, where credentials prove their users. [`ConnectionLimiter::charge`] counts its
/// [`Work`], [`ConnectionLimiter::release`] gives the permit back. [`PermitGuard`](super::PermitGuard) releases it when dropped.
///
/// ```
/// use core::num::NonZeroUsize;
/// use session_core::Timestamp;
/// use session_core::connection_limiter::{ConnectionLimitExceeded, ConnectionLimiter, ConnectionLimits};
///
/// let (ada, bob) = ("192.0.2.1".parse().unwrap(), "2001:db8::b0b".parse().unwrap());
/// let (connections, per_client) = (NonZeroUsize::new(2), NonZeroUsize::new(1));
/// let mut limiter = ConnectionLimiter::new(ConnectionLimits { connections, per_client, ..ConnectionLimits::default() });
/// let now = Timestamp::default();
///
/// let mut first = limiter.acquire().unwrap();
/// assert_eq!(limiter.identify(&mut first, ada, now), Ok(()));
/// let mut second = limiter.acquire().unwrap();
/// let exceeded = ConnectionLimitExceeded::PerClient { client: ada.into() };
/// assert_eq!(limiter.identify(&mut second, ada, now), Err(exceeded));
/// // The second connection is still open: it is being told why.
/// assert_eq!(limiter.acquire().unwrap_err(), ConnectionLimitExceeded::Total);
///
/// limiter.release(second);
/// let mut third = limiter.acquire().unwrap();
/// assert_eq!(limiter.identify(&mut third, bob, now), Ok(()));
/// limiter.authenticated(&mut third);
/// assert_eq!((limiter.connections(), limiter.unauthenticated()), (2, 1));
/// ```
///
/// # What always holds
///
/// - Each count is the number of permits that were not released. So it is never negative and never drifts. A permit that
///   is lost without a release counts forever.
/// - No count is above a limit that was in force all the time. With [`ConnectionLimits::per_user`], a connection counts for
///   its client until its user is known, and from then on for its user. So users who authenticate do not fill the bound of
///   their address.
/// - In the long run at most [`ConnectionLimits::rate_per_client`] permits of one client are identified per second. In any
///   one second at most twice that, because the token bucket saves up one second's worth.
/// - A client whose connections pause when [`ConnectionLimiter::charge`] tells them to causes, in the long run, at most
///   [`ConnectionLimits::work_per_client`] per second. Each of its connections does one more piece of work at most before
///   it pauses. They pause the longer the later they come, so each gets its turn.
/// - While all clients together cause more than [`ConnectionLimits::work`], the share of each falls until they do not. A client
///   that causes less than its share is never told to pause.
/// - A released permit makes room at once. A refused connection uses up nothing.
/// - A client is remembered while it has connections, and until its work is paid: up to a second longer, or a minute after
///   much work. Each arrival sweeps a few clients. So the map holds at most about twice the clients that had to be
///   remembered at once. A user is remembered while it has connections.
#[derive(Debug)]
pub struct ConnectionLimiter {
    limits: ConnectionLimits,
    connections: usize,
    unauthenticated: usize,
    /// Each client that has to be remembered, and some that the sweep has not reached.
    clients: BTreeMap<ClientPrefix, Usage>,
    users: UserCounts,
    /// Where the sweep continues.
    swept: Option<ClientPrefix>,
    work: TotalWork,
    /// The latest time seen.
    now: Timestamp,
}

/// The limits on connections. `None` is no limit, which is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionLimits {
    /// Connections in total.
    pub connections: Option<NonZeroUsize>,
    /// Connections that are accepted but not authenticated.
    pub unauthenticated: Option<NonZeroUsize>,
    /// Connections of one client, counted by [`ClientPrefix`].
    pub per_client: Option<NonZeroUsize>,
    /// New connections of one client per second. As many may come at once after a second without any.
    pub rate_per_client: Option<NonZeroU32>,
    /// [`Work`] of all connections of one client per second, in bytes. As much may come at once after a second without any.
    pub work_per_client: Option<NonZeroU32>,
    /// [`Work`] of all clients together per second, in bytes. While they cause more, each client may cause only a share of
    /// what it otherwise may, the same for all. A client without a limit of its own may cause this share of the total.
    pub work: Option<NonZeroU32>,
    /// Connections of one user, from all clients. With it a connection no longer counts for
    /// [`per_client`](ConnectionLimits::per_client) once [`ConnectionLimiter::identify_user`] has recorded its user.
    pub per_user: Option<NonZeroUsize>,
}

/// A connection that a [`ConnectionLimiter`] has counted. Give it back with [`ConnectionLimiter::release`]. A permit that is
/// dropped instead counts forever.
#[derive(Debug)]
#[must_use = "it counts until it is released"]
pub struct Permit {
    /// The client that it counts for. `None` until it is identified.
    client: Option<ClientPrefix>,
    /// The user that it counts for. `None` until it is identified.
    user: Option<Arc<UserId>>,
    is_unauthenticated: bool,
    /// Work that is not charged to the client yet.
    work: Work,
}

impl Permit {
    /// Work up to this is charged later, together with more. So a short session, or one that is idle, charges its client
    /// once, when its permit is released.
    const UNCHARGED: u32 = 8 * 1024;

    /// Records work. True if it is time for [`ConnectionLimiter::charge`].
    pub fn record(&mut self, work: Work) -> bool {
        self.work += work;
        self.work.bytes() > Self::UNCHARGED
    }

    /// The client, if the permit was identified.
    #[must_use]
    pub const fn client(&self) -> Option<ClientPrefix> {
        self.client
    }

    /// The user, if it was identified.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_deref()
    }

    /// Whether it still counts as unauthenticated.
    #[must_use]
    pub const fn is_unauthenticated(&self) -> bool {
        self.is_unauthenticated
    }
}

/// The connections of one client. If it is at its limit, this tells many users behind one address from an attacker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientUsage {
    /// Its connections.
    pub connections: usize,
    /// How many of them are authenticated.
    pub authenticated: usize,
    /// How many different users those connections have whose users are known.
    pub users: usize,
}

/// What one client has used up.
#[derive(Debug, Default)]
struct Usage {
    counts: ClientUsage,
    /// The connections whose users are known.
    of_users: usize,
    arrivals: TokenBucket,
    work: WorkBudget,
}

impl Usage {
    /// Whether the client has used up nothing, as one that never connected.
    fn is_unused(&self, rate: Option<NonZeroU32>, now: Timestamp) -> bool {
        self.counts.connections == 0
            && self.work.is_full(now)
            && rate.is_none_or(|rate| self.arrivals.is_full(rate, now))
    }
}

impl ConnectionLimiter {
    /// The number of clients that each arrival sweeps.
    const SWEEP_STEPS: usize = 4;

    /// A limiter without connections.
    #[must_use]
    pub const fn new(limits: ConnectionLimits) -> Self {
        let now = Timestamp::from_epoch(core::time::Duration::ZERO);
        Self {
            limits,
            connections: 0,
            unauthenticated: 0,
            clients: BTreeMap::new(),
            users: UserCounts::new(),
            swept: None,
            work: TotalWork::new(),
            now,
        }
    }

    /// Counts a connection that was just accepted. It is unauthenticated and counts for no client yet.
    ///
    /// # Errors
    /// [`ConnectionLimitExceeded::Total`] or [`ConnectionLimitExceeded::Unauthenticated`], in this order. The connection is
    /// not counted.
    pub fn acquire(&mut self) -> Result<Permit, ConnectionLimitExceeded> {
        if is_reached(self.limits.connections, self.connections) {
            return Err(ConnectionLimitExceeded::Total);
        }
        if is_reached(self.limits.unauthenticated, self.unauthenticated) {
            return Err(ConnectionLimitExceeded::Unauthenticated);
        }
        self.connections += 1;
        self.unauthenticated += 1;
        Ok(Permit { client: None, user: None, is_unauthenticated: true, work: Work::default() })
    }

    /// Counts the connection for its client. The caller calls it as soon as it knows the address: at once for a direct
    /// connection, after the proxy's header otherwise. Only the first call counts.
    ///
    /// # Errors
    /// [`ConnectionLimitExceeded::PerClient`] or [`ConnectionLimitExceeded::Rate`], in this order. The permit is not
    /// identified. It still counts in total and as unauthenticated, until it is released.
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

        // No limit is zero, so a new client is never refused and the entry is never left unused.
        let client = ClientPrefix::from(address);
        let usage = self.clients.entry(client).or_default();
        let (bound, count) = match (self.limits.per_user, &permit.user) {
            (None, _) => (self.limits.per_client, usage.counts.connections),
            (Some(_), None) => (self.limits.per_client, usage.counts.connections - usage.of_users),
            (Some(_), Some(_)) => (None, 0),
        };
        if is_reached(bound, count) {
            return Err(ConnectionLimitExceeded::PerClient { client });
        }
        if let Some(rate) = self.limits.rate_per_client {
            let taken = usage.arrivals.take(rate, self.now);
            taken.map_err(|retry_after| ConnectionLimitExceeded::Rate { client, retry_after })?;
        }
        usage.counts.connections += 1;
        usage.counts.authenticated += usize::from(!permit.is_unauthenticated);
        permit.client = Some(client);
        self.count_user_behind_client(permit);
        Ok(())
    }

    /// Counts the connection for its user, and no longer as unauthenticated. The caller calls it when it has verified a
    /// credential that proves the user, before it asks for a slot. A connection that is denied the slot still counts for
    /// its user.
    ///
    /// Where a client can name any user, nobody must call it: with [`ConnectionLimits::per_user`] the client would escape
    /// the bound of its address.
    ///
    /// Calling it again with the same user does nothing. With another user, the connection counts for that one from then on.
    ///
    /// # Errors
    /// [`ConnectionLimitExceeded::PerUser`]. Nothing has changed: the connection counts as before, until it is released.
    pub fn identify_user(&mut self, permit: &mut Permit, user: &UserId) -> Result<(), ConnectionLimitExceeded> {
        if permit.user() == Some(user) {
            return Ok(());
        }
        if is_reached(self.limits.per_user, self.users.connections(user)) {
            return Err(ConnectionLimitExceeded::PerUser);
        }
        self.forget_user(permit);
        permit.user = Some(self.users.add(user));
        self.count_user_behind_client(permit);
        self.authenticated(permit);
        Ok(())
    }

    /// If both are known, counts the user among those of the client.
    fn count_user_behind_client(&mut self, permit: &Permit) {
        let (Some(client), Some(user)) = (permit.client, &permit.user) else { return };
        let is_first = self.users.add_behind(client, user);
        if let Some(usage) = self.clients.get_mut(&client) {
            usage.of_users += 1;
            usage.counts.users += usize::from(is_first);
        }
    }

    /// Counts the connection for no user.
    fn forget_user(&mut self, permit: &mut Permit) {
        let Some(user) = permit.user.take() else { return };
        self.users.remove(&user);
        let Some(client) = permit.client else { return };
        let is_last = self.users.remove_behind(client, &user);
        if let Some(usage) = self.clients.get_mut(&client) {
            usage.of_users -= 1;
            usage.counts.users -= usize::from(is_last);
        }
    }

    /// The connection no longer counts as unauthenticated. Calling it again does nothing.
    pub fn authenticated(&mut self, permit: &mut Permit) {
        if !mem::replace(&mut permit.is_unauthenticated, false) {
            return;
        }
        self.unauthenticated -= 1;
        if let Some(usage) = permit.client.and_then(|client| self.clients.get_mut(&client)) {
            usage.counts.authenticated += 1;
        }
    }

    /// Charges the client for the work that [`Permit::record`] has recorded. Returns the time until which the connection has
    /// to pause, if the client has caused more than it may. It should not read until then, and may write. Its session must not
    /// take this for silence: see [`Session::put_off_deadline`](crate::session::Session::put_off_deadline).
    ///
    /// Work of a connection whose client is not known costs nothing.
    pub fn charge(&mut self, permit: &mut Permit, now: Timestamp) -> Option<Timestamp> {
        self.now = self.now.max(now);
        let work = mem::take(&mut permit.work);
        let (rate, lowered) = self.count_work(work)?;
        self.clients.get_mut(&permit.client?)?.work.charge(work, rate, lowered, self.now)
    }

    /// Counts work in total. Returns how much a client may cause, and how much at present, if there is any limit.
    fn count_work(&mut self, work: Work) -> Option<(NonZeroU32, NonZeroU32)> {
        let ConnectionLimits { work: total, work_per_client: per_client, .. } = self.limits;
        let Some(total) = total else { return per_client.map(|rate| (rate, rate)) };
        self.work.add(work, total, self.now);
        let rate = per_client.map_or(total, |rate| rate.min(total));
        Some((rate, self.work.share_of(rate)))
    }

    /// Releases a permit: the connection has ended. Work that is not charged yet is charged, at the latest time that the
    /// limiter has seen.
    ///
    /// # Panics
    /// If the permit is from another limiter that does not know its client.
    pub fn release(&mut self, mut permit: Permit) {
        self.forget_user(&mut permit);
        let Permit { client, user: _, is_unauthenticated: waits, work } = permit;
        self.connections -= 1;
        self.unauthenticated -= usize::from(waits);
        let rates = self.count_work(work);
        let Some(client) = client else { return };
        let Entry::Occupied(mut usage) = self.clients.entry(client) else {
            unreachable!("a client that has connections is remembered");
        };
        let left = usage.get_mut();
        left.counts.connections -= 1;
        left.counts.authenticated -= usize::from(!waits);
        if let Some((rate, lowered)) = rates {
            let _too_late_to_pause = left.work.charge(work, rate, lowered, self.now);
        }
        if usage.get().is_unused(self.limits.rate_per_client, self.now) {
            usage.remove();
        }
    }

    /// Changes the limits. Connections that exceed them stay.
    pub const fn set_limits(&mut self, limits: ConnectionLimits) {
        self.limits = limits;
    }

    /// The limits in force.
    #[must_use]
    pub const fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// The number of connections.
    #[must_use]
    pub const fn connections(&self) -> usize {
        self.connections
    }

    /// The number of connections that are not authenticated.
    #[must_use]
    pub const fn unauthenticated(&self) -> usize {
        self.unauthenticated
    }

    /// The connections of this client.
    #[must_use]
    pub fn usage_of(&self, client: ClientPrefix) -> ClientUsage {
        self.clients.get(&client).map(|usage| usage.counts).unwrap_or_default()
    }

    /// The number of connections of this user.
    #[must_use]
    pub fn connections_of(&self, user: &UserId) -> usize {
        self.users.connections(user)
    }

    /// The number of users remembered: those that have connections.
    #[must_use]
    pub fn tracked_users(&self) -> usize {
        self.users.len()
    }

    /// The share that each client has of the work that it may cause, in percent. Below 100 while all together cause more than
    /// [`ConnectionLimits::work`].
    #[must_use]
    pub const fn work_share_percent(&self) -> u32 {
        // Without a bound nothing moves the share.
        if self.limits.work.is_none() { 100 } else { self.work.percent() }
    }

    /// The number of clients remembered. The limiter's memory depends on it.
    #[must_use]
    pub fn tracked_clients(&self) -> usize {
        self.clients.len()
    }

    /// Continues to remove clients that are not in use.
    ///
    /// Why the map stays small: let `m` clients be in use and `n` in the map when a sweep begins. The sweep takes at most
    /// `n / 3` arrivals, the new clients included. Then at most `m + n / 3` are left. So `n` converges to `1.5 m` at the
    /// beginning of a sweep, and is at most `2 m` at its end.
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
