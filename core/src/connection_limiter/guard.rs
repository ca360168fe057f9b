//! A permit that is released when it is dropped.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::net::IpAddr;

use super::client_prefix::ClientPrefix;
use super::exceeded::ConnectionLimitExceeded;
use super::limiter::{ConnectionLimiter, Permit};
use crate::time::Timestamp;

/// A [`ConnectionLimiter`] that several owners share: behind a mutex, or in a cell.
///
/// `Rc<RefCell<ConnectionLimiter>>` and `&RefCell<ConnectionLimiter>` implement it. This crate has no mutex. An
/// application with threads implements it for a type of its own.
pub trait SharedLimiter {
    /// Calls `change` with exclusive access to the limiter.
    fn with<R>(&self, change: impl FnOnce(&mut ConnectionLimiter) -> R) -> R;
}

impl SharedLimiter for Rc<RefCell<ConnectionLimiter>> {
    fn with<R>(&self, change: impl FnOnce(&mut ConnectionLimiter) -> R) -> R {
        change(&mut self.borrow_mut())
    }
}

impl SharedLimiter for &RefCell<ConnectionLimiter> {
    fn with<R>(&self, change: impl FnOnce(&mut ConnectionLimiter) -> R) -> R {
        change(&mut self.borrow_mut())
    }
}

/// A [`Permit`] that releases itself when it is dropped, also on `?` and on a panic.
///
/// ```
/// use core::cell::RefCell;
/// use core::num::NonZeroUsize;
/// use session_core::connection_limiter::{ConnectionLimiter, ConnectionLimits, PermitGuard};
///
/// let limits = ConnectionLimits { connections: NonZeroUsize::new(1), ..ConnectionLimits::default() };
/// let limiter = RefCell::new(ConnectionLimiter::new(limits));
///
/// let first = PermitGuard::acquire(&limiter).unwrap();
/// assert!(PermitGuard::acquire(&limiter).is_err());
/// drop(first);
/// assert!(PermitGuard::acquire(&limiter).is_ok());
/// ```
#[derive(Debug)]
#[must_use = "dropping the guard releases the permit"]
pub struct PermitGuard<L: SharedLimiter> {
    limiter: L,
    /// `None` only while it is dropped.
    permit: Option<Permit>,
}

impl<L: SharedLimiter> PermitGuard<L> {
    /// As [`ConnectionLimiter::acquire`].
    ///
    /// # Errors
    /// As there.
    pub fn acquire(limiter: L) -> Result<Self, ConnectionLimitExceeded> {
        let permit = limiter.with(ConnectionLimiter::acquire)?;
        Ok(Self { limiter, permit: Some(permit) })
    }

    /// As [`ConnectionLimiter::identify`].
    ///
    /// # Errors
    /// As there.
    pub fn identify(&mut self, address: IpAddr, now: Timestamp) -> Result<(), ConnectionLimitExceeded> {
        let Some(permit) = &mut self.permit else { return Ok(()) };
        self.limiter.with(|limiter| limiter.identify(permit, address, now))
    }

    /// As [`ConnectionLimiter::authenticated`].
    pub fn authenticated(&mut self) {
        if let Some(permit) = &mut self.permit {
            self.limiter.with(|limiter| limiter.authenticated(permit));
        }
    }

    /// As [`Permit::client`].
    #[must_use]
    pub fn client(&self) -> Option<ClientPrefix> {
        self.permit.as_ref().and_then(Permit::client)
    }

    /// The limiter that the permit is from.
    #[must_use]
    pub const fn limiter(&self) -> &L {
        &self.limiter
    }
}

impl<L: SharedLimiter> Drop for PermitGuard<L> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.limiter.with(|limiter| limiter.release(permit));
        }
    }
}
