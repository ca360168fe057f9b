//! Where connections come in: the bounds on them, kept by [`session_core::ConnectionLimiter`] and shared by all.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use session_core::connection_limiter::{
    ClientPrefix, ConnectionLimitExceeded, ConnectionLimiter, ConnectionLimits, Permit,
};

use crate::runtime::clock::Clock;
use crate::runtime::log::LogRateLimiter;

/// Counts connections and turns away those that are too many.
#[derive(Debug)]
pub struct SharedConnectionLimiter {
    clock: Clock,
    limiter: Mutex<ConnectionLimiter>,
    log: LogRateLimiter,
}

/// One connection's place. It leaves when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    connection_limiter: Arc<SharedConnectionLimiter>,
    /// There until it is dropped.
    visit: Option<Permit>,
}

impl SharedConnectionLimiter {
    /// Nobody is inside.
    #[must_use]
    pub fn new(bounds: ConnectionLimits, clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, limiter: Mutex::new(ConnectionLimiter::new(bounds)), log: LogRateLimiter::default() })
    }

    /// Takes in a connection that was just accepted, from this address if it is known already.
    ///
    /// # Errors
    /// Why it may not come in. Nobody counts it.
    pub fn acquire(self: &Arc<Self>, address: Option<IpAddr>) -> Result<ConnectionPermit, ConnectionLimitExceeded> {
        let mut limiter = self.lock();
        let entered = limiter.acquire().and_then(|mut visit| match address {
            None => Ok(visit),
            Some(address) => match limiter.identify(&mut visit, address, self.clock.now()) {
                Ok(()) => Ok(visit),
                Err(exceeded) => {
                    limiter.release(visit);
                    Err(exceeded)
                }
            },
        });
        drop(limiter);
        match entered {
            Ok(visit) => Ok(ConnectionPermit { connection_limiter: Arc::clone(self), visit: Some(visit) }),
            Err(exceeded) => Err(self.log_exceeded(exceeded)),
        }
    }

    /// Puts other bounds in force. Whoever is inside stays.
    pub fn set_limits(&self, bounds: ConnectionLimits) {
        self.lock().set_limits(bounds);
    }

    /// How many connections there are, and how many of them are not authenticated.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let limiter = self.lock();
        (limiter.connections(), limiter.unauthenticated())
    }

    fn log_exceeded(&self, exceeded: ConnectionLimitExceeded) -> ConnectionLimitExceeded {
        if let Some(suppressed) = self.log.check() {
            let bound = match exceeded {
                ConnectionLimitExceeded::Total => "max_connections",
                ConnectionLimitExceeded::Unauthenticated => "max_unauthenticated",
                ConnectionLimitExceeded::PerClient { .. } => "max_connections_per_address",
                ConnectionLimitExceeded::Rate { .. } => "max_connection_rate",
            };
            let hint = match exceeded {
                ConnectionLimitExceeded::PerClient { .. } | ConnectionLimitExceeded::Rate { .. } => {
                    "; if that is a proxy of yours, name it in trusted_proxies and have it say for whom it asks"
                }
                ConnectionLimitExceeded::Total | ConnectionLimitExceeded::Unauthenticated => "",
            };
            tracing::warn!(bound, suppressed, "turned a connection away: {exceeded}{hint}");
        }
        exceeded
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionLimiter> {
        // Its counts change only once all is decided, so a poisoned door is still whole.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Notes where the connection comes from, now that it is known. Once is enough.
    ///
    /// # Errors
    /// Why it may not stay. It is still counted, among all, until it leaves.
    pub fn identify(&mut self, address: IpAddr) -> Result<(), ConnectionLimitExceeded> {
        let Self { connection_limiter, visit: Some(visit) } = self else { return Ok(()) };
        let identified = connection_limiter.lock().identify(visit, address, connection_limiter.clock.now());
        identified.map_err(|exceeded| connection_limiter.log_exceeded(exceeded))
    }

    /// Where it comes from, if that is known and it was not turned away.
    #[must_use]
    pub fn client(&self) -> Option<ClientPrefix> {
        self.visit.as_ref().and_then(Permit::client)
    }

    /// Notes that the connection is authenticated.
    pub fn authenticated(&mut self) {
        if let Self { connection_limiter, visit: Some(visit) } = self {
            connection_limiter.lock().authenticated(visit);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(visit) = self.visit.take() {
            self.connection_limiter.lock().release(visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn who_comes_is_counted_until_it_is_dropped_and_who_is_turned_away_is_not() {
        let bounds = ConnectionLimits { per_client: NonZeroUsize::new(1), ..ConnectionLimits::default() };
        let connection_limiter = SharedConnectionLimiter::new(bounds, Clock::manual(Arc::default()));
        let (ada, bob) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut first = connection_limiter.acquire(Some(ada)).unwrap();
        assert!(matches!(connection_limiter.acquire(Some(ada)), Err(ConnectionLimitExceeded::PerClient { .. })));
        assert_eq!(connection_limiter.counts(), (1, 1));
        first.authenticated();
        first.authenticated();
        assert_eq!(connection_limiter.counts(), (1, 0));
        let mut through_a_proxy = connection_limiter.acquire(None).unwrap();
        assert!(through_a_proxy.identify(ada).is_err());
        assert_eq!(connection_limiter.counts(), (2, 1));
        assert_eq!(through_a_proxy.identify(bob), Ok(()));
        drop(first);
        assert_eq!(connection_limiter.counts(), (1, 1));
        assert!(connection_limiter.acquire(Some(bob)).is_err() && connection_limiter.acquire(Some(ada)).is_ok());
        connection_limiter.set_limits(ConnectionLimits::default());
        assert!(connection_limiter.acquire(Some(bob)).is_ok());
        drop(through_a_proxy);
        assert_eq!(connection_limiter.counts(), (0, 0));
    }
}
