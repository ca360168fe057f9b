//! Where connections come in: the bounds on them, kept by [`session_core::Door`] and shared by all.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use session_core::{ClientPrefix, ConnectionLimitExceeded, ConnectionLimiter, ConnectionLimits, Permit};

use crate::runtime::clock::Clock;
use crate::runtime::log::LogRateLimiter;

/// Counts connections and turns away those that are too many.
#[derive(Debug)]
pub struct SharedConnectionLimiter {
    clock: Clock,
    door: Mutex<ConnectionLimiter>,
    log: LogRateLimiter,
    refused: LogRateLimiter,
}

/// One connection's place. It leaves when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    doorway: Arc<SharedConnectionLimiter>,
    /// There until it is dropped.
    visit: Option<Permit>,
}

impl SharedConnectionLimiter {
    /// Nobody is inside.
    #[must_use]
    pub fn new(bounds: ConnectionLimits, clock: Clock) -> Arc<Self> {
        let (log, refused) = (LogRateLimiter::default(), LogRateLimiter::default());
        Arc::new(Self { clock, door: Mutex::new(ConnectionLimiter::new(bounds)), log, refused })
    }

    /// Takes in a connection that was just accepted, from this address if it is known already.
    ///
    /// # Errors
    /// Why it may not come in. Nobody counts it.
    pub fn acquire(self: &Arc<Self>, address: Option<IpAddr>) -> Result<ConnectionPermit, ConnectionLimitExceeded> {
        let mut door = self.lock();
        let entered = door.acquire().and_then(|mut visit| match address {
            None => Ok(visit),
            Some(address) => match door.identify(&mut visit, address, self.clock.now()) {
                Ok(()) => Ok(visit),
                Err(turned_away) => {
                    door.release(visit);
                    Err(turned_away)
                }
            },
        });
        drop(door);
        match entered {
            Ok(visit) => Ok(ConnectionPermit { doorway: Arc::clone(self), visit: Some(visit) }),
            Err(turned_away) => Err(self.log_exceeded(turned_away)),
        }
    }

    /// Puts other bounds in force. Whoever is inside stays.
    pub fn set_limits(&self, bounds: ConnectionLimits) {
        self.lock().set_limits(bounds);
    }

    /// How many connections there are, and how many of them are not authenticated.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let door = self.lock();
        (door.connections(), door.unauthenticated())
    }

    /// Takes note of a request that was answered with a refusal, because of this header with this value.
    fn log_refused_header(&self, header: &'static str, value: Option<&[u8]>) {
        /// Whoever asks chooses how long it is.
        const SHOWN_BYTES: usize = 100;

        if let Some(suppressed) = self.refused.check() {
            let value = value.map(|value| String::from_utf8_lossy(&value[..value.len().min(SHOWN_BYTES)]));
            tracing::info!(
                header,
                value = value.as_deref(),
                suppressed,
                "refused a request that this server is not for"
            );
        }
    }

    fn log_exceeded(&self, turned_away: ConnectionLimitExceeded) -> ConnectionLimitExceeded {
        if let Some(suppressed) = self.log.check() {
            let bound = match turned_away {
                ConnectionLimitExceeded::Total => "max_connections",
                ConnectionLimitExceeded::Unauthenticated => "max_unauthenticated",
                ConnectionLimitExceeded::PerClient { .. } => "max_connections_per_address",
                ConnectionLimitExceeded::Rate { .. } => "max_connection_rate",
            };
            let hint = match turned_away {
                ConnectionLimitExceeded::PerClient { .. } | ConnectionLimitExceeded::Rate { .. } => {
                    "; if that is a proxy of yours, name it in trusted_proxies and have it say for whom it asks"
                }
                ConnectionLimitExceeded::Total | ConnectionLimitExceeded::Unauthenticated => "",
            };
            tracing::warn!(bound, suppressed, "turned a connection away: {turned_away}{hint}");
        }
        turned_away
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionLimiter> {
        // Its counts change only once all is decided, so a poisoned door is still whole.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Notes where the connection comes from, now that it is known. Once is enough.
    ///
    /// # Errors
    /// Why it may not stay. It is still counted, among all, until it leaves.
    pub fn identify(&mut self, address: IpAddr) -> Result<(), ConnectionLimitExceeded> {
        let Self { doorway, visit: Some(visit) } = self else { return Ok(()) };
        let identified = doorway.lock().identify(visit, address, doorway.clock.now());
        identified.map_err(|turned_away| doorway.log_exceeded(turned_away))
    }

    /// Takes note of a request of this connection that was refused because of a header.
    pub(crate) fn log_refused_header(&self, header: &'static str, value: Option<&[u8]>) {
        self.doorway.log_refused_header(header, value);
    }

    /// Where it comes from, if that is known and it was not turned away.
    #[must_use]
    pub fn client(&self) -> Option<ClientPrefix> {
        self.visit.as_ref().and_then(Permit::client)
    }

    /// Notes that the connection is authenticated.
    pub fn authenticated(&mut self) {
        if let Self { doorway, visit: Some(visit) } = self {
            doorway.lock().authenticated(visit);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(visit) = self.visit.take() {
            self.doorway.lock().release(visit);
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
        let doorway = SharedConnectionLimiter::new(bounds, Clock::manual(Arc::default()));
        let (ada, bob) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut first = doorway.acquire(Some(ada)).unwrap();
        assert!(matches!(doorway.acquire(Some(ada)), Err(ConnectionLimitExceeded::PerClient { .. })));
        assert_eq!(doorway.counts(), (1, 1));
        first.authenticated();
        first.authenticated();
        assert_eq!(doorway.counts(), (1, 0));
        let mut through_a_proxy = doorway.acquire(None).unwrap();
        assert!(through_a_proxy.identify(ada).is_err());
        assert_eq!(doorway.counts(), (2, 1));
        assert_eq!(through_a_proxy.identify(bob), Ok(()));
        drop(first);
        assert_eq!(doorway.counts(), (1, 1));
        assert!(doorway.acquire(Some(bob)).is_err() && doorway.acquire(Some(ada)).is_ok());
        doorway.set_limits(ConnectionLimits::default());
        assert!(doorway.acquire(Some(bob)).is_ok());
        drop(through_a_proxy);
        assert_eq!(doorway.counts(), (0, 0));
    }
}
