//! A permit that is released when it is dropped.

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::RefCell;
use core::net::IpAddr;

use super::client_prefix::ClientPrefix;
use super::exceeded::ConnectionLimitExceeded;
use super::limiter::{ConnectionLimiter, Permit};
use super::work::Work;
use crate::id::UserId;
use crate::time::Timestamp;

/// A [`ConnectionLimiter`] that several owners share: behind a mutex, or in a cell.
///
/// `RefCell<ConnectionLimiter>` implements it, and `&T`, `Rc<T>` and `Arc<T>` for a `T` that does. This crate has no mutex.
/// An application with threads implements it for a type of its own.
pub trait SharedLimiter {
    /// Calls `change` with exclusive access to the limiter.
    fn with<R>(&self, change: impl FnOnce(&mut ConnectionLimiter) -> R) -> R;
}

impl SharedLimiter for RefCell<ConnectionLimiter> {
    fn with<R>(&self, change: impl FnOnce(&mut ConnectionLimiter) -> R) -> R {
        change(&mut self.borrow_mut())
    }
}

macro_rules! shared_through {
    ($($pointer:ty),+) => {$(
        impl<T: SharedLimiter> SharedLimiter for $pointer {
            fn with<R>(&self, change: impl FnOnce(&mut ConnectionLimiter) -> R) -> R {
                T::with(self, change)
            }
        }
    )+};
}

shared_through!(&T, Rc<T>, Arc<T>);

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

    /// As [`ConnectionLimiter::acquire`] and [`ConnectionLimiter::identify`], for a client whose address is known. A
    /// connection that exceeds a limit is not counted.
    ///
    /// # Errors
    /// As there.
    pub fn acquire_for(limiter: L, address: IpAddr, now: Timestamp) -> Result<Self, ConnectionLimitExceeded> {
        let permit = limiter.with(|limiter| {
            let mut permit = limiter.acquire()?;
            match limiter.identify(&mut permit, address, now) {
                Ok(()) => Ok(permit),
                Err(exceeded) => {
                    limiter.release(permit);
                    Err(exceeded)
                }
            }
        })?;
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

    /// As [`ConnectionLimiter::identify_user`].
    ///
    /// # Errors
    /// As there.
    pub fn identify_user(&mut self, user: &UserId) -> Result<(), ConnectionLimitExceeded> {
        match &mut self.permit {
            Some(permit) if permit.user() != Some(user) => {
                self.limiter.with(|limiter| limiter.identify_user(permit, user))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// As [`ConnectionLimiter::authenticated`].
    pub fn authenticated(&mut self) {
        if let Some(permit) = self.permit.as_mut().filter(|permit| permit.is_unauthenticated()) {
            self.limiter.with(|limiter| limiter.authenticated(permit));
        }
    }

    /// Records work, and charges the client now and then. As [`Permit::record`] and [`ConnectionLimiter::charge`].
    pub fn charge(&mut self, work: Work, now: impl FnOnce(&L) -> Timestamp) -> Option<Timestamp> {
        let permit = self.permit.as_mut()?;
        if !permit.record(work) {
            return None;
        }
        let now = now(&self.limiter);
        self.limiter.with(|limiter| limiter.charge(permit, now))
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
