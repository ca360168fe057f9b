//! Limits connections before authentication: in total, unauthenticated, per client and by rate.
//!
//! [`ConnectionLimiter`] of the core decides. This shares one among all connections, with a clock, and logs what exceeds.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use session_core::connection_limiter::{
    ClientPrefix, ConnectionLimitExceeded, ConnectionLimiter, ConnectionLimits, PermitGuard, SharedLimiter, Work,
};
use session_core::{Timestamp, UserId};

use crate::runtime::clock::Clock;
use crate::runtime::events::log_limited;
use crate::runtime::events::rate_limiter::LogRateLimiter;

/// For limits on one address.
const PROXY_HINT: &str = "if this is your proxy, add it to trusted_proxies and let it send the client's address";
/// For a full address whose connections belong to several users.
const USERS_HINT: &str = "if these users share the address, raise this bound, or set max_connections_per_user";

/// The limiter that all connections of a process share.
#[derive(Debug)]
pub struct SharedConnectionLimiter {
    clock: Clock,
    limiter: Mutex<ConnectionLimiter>,
    log: LogRateLimiter,
}

/// The name of the bound.
const fn bound(exceeded: ConnectionLimitExceeded) -> &'static str {
    match exceeded {
        ConnectionLimitExceeded::Total => "max_connections",
        ConnectionLimitExceeded::Unauthenticated => "max_unauthenticated",
        ConnectionLimitExceeded::PerClient { .. } => "max_connections_per_address",
        ConnectionLimitExceeded::Rate { .. } => "max_connection_rate",
        ConnectionLimitExceeded::PerUser => "max_connections_per_user",
    }
}

/// What the operator may do about it.
fn hint(exceeded: ConnectionLimitExceeded, users: Option<usize>, limits: ConnectionLimits) -> Option<&'static str> {
    match exceeded {
        // With a bound by user the users do not count for the address. It is full of others.
        ConnectionLimitExceeded::PerClient { .. }
            if limits.per_user.is_none() && users.is_some_and(|users| users > 1) =>
        {
            Some(USERS_HINT)
        }
        ConnectionLimitExceeded::PerClient { .. } | ConnectionLimitExceeded::Rate { .. } => Some(PROXY_HINT),
        ConnectionLimitExceeded::Total
        | ConnectionLimitExceeded::Unauthenticated
        | ConnectionLimitExceeded::PerUser => None,
    }
}

/// The permit of one connection. It is released when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    guard: PermitGuard<Arc<SharedConnectionLimiter>>,
    /// The client's whole address. The guard knows only the prefix that counts.
    address: Option<IpAddr>,
}

impl SharedConnectionLimiter {
    /// A limiter without connections.
    #[must_use]
    pub fn new(limits: ConnectionLimits, clock: Clock) -> Arc<Self> {
        let limiter = Mutex::new(ConnectionLimiter::new(limits));
        Arc::new(Self { clock, limiter, log: LogRateLimiter::new() })
    }

    /// Counts a connection that was just accepted. `address` is `None` as long as only a proxy knows the client.
    ///
    /// # Errors
    /// The limit that the connection would exceed. The connection is not counted.
    pub fn acquire(self: &Arc<Self>, address: Option<IpAddr>) -> Result<ConnectionPermit, ConnectionLimitExceeded> {
        let limiter = Arc::clone(self);
        let permit = match address {
            None => PermitGuard::acquire(limiter),
            Some(address) => PermitGuard::acquire_for(limiter, address, self.clock.now()),
        };
        permit.map(|guard| ConnectionPermit { guard, address }).map_err(|exceeded| self.log_exceeded(exceeded))
    }

    /// Changes the limits. Connections that exceed them stay.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.lock().set_limits(limits);
    }

    /// The number of connections, and how many of them are not authenticated.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let limiter = self.lock();
        (limiter.connections(), limiter.unauthenticated())
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> ConnectionLimits {
        self.lock().limits()
    }

    /// The number of users whose connections are counted.
    #[must_use]
    pub fn tracked_users(&self) -> usize {
        self.lock().tracked_users()
    }

    fn log_exceeded(&self, exceeded: ConnectionLimitExceeded) -> ConnectionLimitExceeded {
        let usage = match exceeded {
            ConnectionLimitExceeded::PerClient { client } => Some(self.lock().usage_of(client)),
            ConnectionLimitExceeded::Total
            | ConnectionLimitExceeded::Unauthenticated
            | ConnectionLimitExceeded::Rate { .. }
            | ConnectionLimitExceeded::PerUser => None,
        };
        // Without tokens no user is known.
        let users = usage.map(|usage| usage.users).filter(|&users| users > 0);
        log_limited!(
            self.log,
            connection_refused {
                bound: bound(exceeded),
                reason: display(exceeded),
                connections: usage.map(|usage| usage.connections),
                authenticated: usage.map(|usage| usage.authenticated),
                users,
                hint: hint(exceeded, users, self.lock().limits()),
            }
        );
        exceeded
    }

    fn log_user_exceeded(&self, user: &UserId, client: Option<ClientPrefix>) {
        log_limited!(
            self.log,
            user_connection_refused {
                bound: bound(ConnectionLimitExceeded::PerUser),
                user,
                client: client.map(display),
                connections: self.lock().connections_of(user),
            }
        );
    }

    fn log_pause(&self, client: Option<ClientPrefix>) {
        log_limited!(
            self.log,
            client_slowed {
                bound: if self.lock().work_share_percent() < 100 {
                    "max_work_per_thread"
                } else {
                    "max_work_per_address"
                },
                client: client.map(display),
                share_percent: self.lock().work_share_percent(),
                hint: PROXY_HINT,
            }
        );
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionLimiter> {
        // The limiter changes its counts only after every decision, so a poisoned one is still consistent.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Records the client's address. A second call changes nothing.
    ///
    /// # Errors
    /// The limit that the connection exceeds. It stays counted in the total until it is dropped.
    pub fn identify(&mut self, address: IpAddr) -> Result<(), ConnectionLimitExceeded> {
        let now = self.guard.limiter().clock.now();
        self.guard.identify(address, now).map_err(|exceeded| self.guard.limiter().log_exceeded(exceeded))?;
        self.address.get_or_insert(address);
        Ok(())
    }

    /// The client, if its address is known and exceeded no limit.
    #[must_use]
    pub fn client(&self) -> Option<ClientPrefix> {
        self.guard.client()
    }

    /// The whole address of that client. An IPv6 address that stands for an IPv4 address is that one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address.map(|address| address.to_canonical())
    }

    /// Counts work of the connection. Returns the time until which it has to pause, if its client has caused more than it may.
    pub fn charge(&mut self, work: Work) -> Option<Timestamp> {
        let until = self.guard.charge(work, |limiter| limiter.clock.now())?;
        self.guard.limiter().log_pause(self.client());
        Some(until)
    }

    /// Counts the connection for the user whose credential the server has verified, and no longer as unauthenticated. A second
    /// call with the same user changes nothing.
    ///
    /// # Errors
    /// [`ConnectionLimitExceeded::PerUser`]: the connection counts as before, until it is dropped.
    pub fn identify_user(&mut self, user: &UserId) -> Result<(), ConnectionLimitExceeded> {
        let counted = self.guard.identify_user(user);
        if counted.is_err() {
            self.guard.limiter().log_user_exceeded(user, self.client());
        }
        counted
    }

    /// Records that the connection is authenticated.
    pub fn authenticated(&mut self) {
        self.guard.authenticated();
    }
}

impl SharedLimiter for SharedConnectionLimiter {
    fn with<R>(&self, change: impl FnOnce(&mut ConnectionLimiter) -> R) -> R {
        change(&mut self.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn permit_counts_until_dropped_and_refusal_counts_nothing() {
        let limits = ConnectionLimits { per_client: NonZeroUsize::new(1), ..ConnectionLimits::default() };
        let limiter = SharedConnectionLimiter::new(limits, Clock::manual(Arc::default()));
        let (ada, bob) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut first = limiter.acquire(Some(ada)).unwrap();
        assert!(matches!(limiter.acquire(Some(ada)), Err(ConnectionLimitExceeded::PerClient { .. })));
        assert_eq!(limiter.counts(), (1, 1));
        first.authenticated();
        first.authenticated();
        assert_eq!(limiter.counts(), (1, 0));
        let mut proxied = limiter.acquire(None).unwrap();
        assert!(proxied.identify(ada).is_err());
        assert_eq!(limiter.counts(), (2, 1));
        assert_eq!((proxied.address(), proxied.identify(bob)), (None, Ok(())));
        assert_eq!(proxied.address(), Some(bob));
        drop(first);
        assert_eq!(limiter.counts(), (1, 1));
        assert!(limiter.acquire(Some(bob)).is_err() && limiter.acquire(Some(ada)).is_ok());
        limiter.set_limits(ConnectionLimits::default());
        assert!(limiter.acquire(Some(bob)).is_ok());
        drop(proxied);
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[test]
    fn permit_keeps_the_whole_address() {
        let limiter = SharedConnectionLimiter::new(ConnectionLimits::default(), Clock::manual(Arc::default()));
        for (address, whole, counted) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let mut proxied = limiter.acquire(None).unwrap();
            proxied.identify(address).unwrap();
            proxied.identify(IpAddr::from([192, 0, 2, 9])).unwrap();
            for permit in [limiter.acquire(Some(address)).unwrap(), proxied] {
                assert_eq!(permit.address().unwrap().to_string(), whole);
                assert_eq!(permit.client().unwrap().to_string(), counted);
            }
        }
    }

    #[test]
    fn users_of_a_full_address_matter_unless_counted_apart() {
        let full = ConnectionLimitExceeded::PerClient { client: IpAddr::from([192, 0, 2, 1]).into() };
        let hint = |users, per_user| hint(full, users, ConnectionLimits { per_user, ..ConnectionLimits::default() });
        assert_eq!(
            [None, Some(1), Some(2)].map(|users| hint(users, None)),
            [PROXY_HINT, PROXY_HINT, USERS_HINT].map(Some)
        );
        assert_eq!(hint(Some(2), NonZeroUsize::new(4)), Some(PROXY_HINT));
    }
}
