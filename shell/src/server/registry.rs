//! The live connections of this process.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use session_core::connection_limiter::ClientPrefix;
use session_core::ledger::EndedSession;
use session_core::{NodeId, SessionId, UserId};

use crate::server::mailbox::Mailbox;
use crate::store::SessionNotifier;

/// Gives each connection its session id, keeps the mailboxes of live connections, and drains them all.
#[derive(Debug)]
pub struct Registry {
    node: NodeId,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_number: u64,
    mailboxes: BTreeMap<u64, Arc<Mailbox>>,
    /// The task in [`Registry::wait_until_empty`].
    empty_waker: Option<Waker>,
    /// The maximum number of live connections since [`Registry::wait_until_halved`] was last ready.
    peak: usize,
    /// The task in [`Registry::wait_until_halved`].
    halved_waker: Option<Waker>,
}

impl Inner {
    /// A smaller peak does not count: too little memory could be released.
    const HALVING_MIN: usize = 1024;

    fn is_halved(&self) -> bool {
        self.peak >= Self::HALVING_MIN && self.mailboxes.len() <= self.peak / 2
    }
}

/// The registration of one live connection. It ends when dropped.
#[derive(Debug)]
pub struct Registration {
    id: SessionId,
    mailbox: Arc<Mailbox>,
    registry: Arc<Registry>,
}

impl Registry {
    /// A registry of this node, without connections.
    #[must_use]
    pub fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self { node, inner: Mutex::default() })
    }

    /// Registers a connection under a number that this registry never used before.
    #[must_use]
    pub fn register(self: &Arc<Self>) -> Registration {
        let mailbox = Arc::<Mailbox>::default();
        let mut inner = self.lock();
        inner.last_number += 1;
        let number = inner.last_number;
        inner.mailboxes.insert(number, Arc::clone(&mailbox));
        inner.peak = inner.peak.max(inner.mailboxes.len());
        Registration { id: self.node.session(number), mailbox, registry: Arc::clone(self) }
    }

    /// Tells every connection that the server drains. Returns how many connections there are.
    pub fn drain(&self) -> usize {
        // After the lock is released: a woken connection takes it to unregister.
        let mailboxes: Vec<_> = self.lock().mailboxes.values().cloned().collect();
        mailboxes.iter().for_each(|mailbox| mailbox.drain());
        mailboxes.len()
    }

    /// The client of this session, if its connection is live in this process and its client is known.
    #[must_use]
    pub fn client_of(&self, session: SessionId) -> Option<ClientPrefix> {
        let mailbox = self.mailbox_of(session)?;
        mailbox.client()
    }

    fn mailbox_of(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        if session.node() == self.node { self.lock().mailboxes.get(&session.number()).cloned() } else { None }
    }

    /// The number of live connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().mailboxes.len()
    }

    /// Whether no connection is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no connection is live.
    pub async fn wait_until_empty(&self) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.mailboxes.is_empty() {
                return Poll::Ready(());
            }
            inner.empty_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until at most half of the peak is live. The peak is the maximum since this was last ready, and must be at
    /// least 1024.
    pub async fn wait_until_halved(&self) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.is_halved() {
                inner.peak = inner.mailboxes.len();
                return Poll::Ready(());
            }
            inner.halved_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No change of the map panics half-way, so a poisoned registry is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionNotifier for Registry {
    /// Tells sessions that live in this process. It ignores sessions of other processes, and those that have left.
    fn notify(&self, _user: &UserId, ended: Vec<EndedSession>) {
        for EndedSession { session, reason } in ended {
            // After the lock is released: a woken connection takes it to unregister.
            if let Some(mailbox) = self.mailbox_of(session) {
                mailbox.end(reason);
            }
        }
    }
}

impl Registration {
    /// The id of the connection's session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The connection's mailbox.
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.mailboxes.remove(&self.id.number());
        let empty_waker = if inner.mailboxes.is_empty() { inner.empty_waker.take() } else { None };
        let halved_waker = if inner.is_halved() { inner.halved_waker.take() } else { None };
        drop(inner);
        for waker in [empty_waker, halved_waker].into_iter().flatten() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;
    use crate::runtime::testing::counting_waker;

    #[test]
    fn registry_is_empty_after_the_last_connection() {
        let registry = Registry::new(NodeId::new(7));
        assert!(registry.is_empty());
        let (first, second) = (registry.register(), registry.register());
        assert_eq!((first.id().number(), second.id().number(), registry.len()), (1, 2, 2));
        assert_eq!(registry.drain(), 2);
        let mut emptied = pin!(registry.wait_until_empty());
        let mut poll = || emptied.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        drop(first);
        assert!(poll().is_pending() && !registry.is_empty());
        drop(second);
        assert!(poll().is_ready() && registry.is_empty());
        assert_eq!(registry.register().id().number(), 3, "no number is used twice");
    }

    #[test]
    fn half_of_many_connections_leaving_is_reported() {
        let registry = Registry::new(NodeId::new(7));
        let halved = || pin!(registry.wait_until_halved()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut few: Vec<_> = (0..Inner::HALVING_MIN - 1).map(|_| registry.register()).collect();
        few.clear();
        assert!(!halved());

        let mut many: Vec<_> = (0..Inner::HALVING_MIN * 4).map(|_| registry.register()).collect();
        assert!(!halved());
        let (waker, wakes) = counting_waker();
        assert!(pin!(registry.wait_until_halved()).poll(&mut Context::from_waker(&waker)).is_pending());
        many.truncate(Inner::HALVING_MIN * 2 + 1);
        assert!(wakes() == 0 && !halved());
        assert!(pin!(registry.wait_until_halved()).poll(&mut Context::from_waker(&waker)).is_pending());
        many.truncate(Inner::HALVING_MIN * 2);
        assert!(wakes() > 0 && halved());
        assert!(!halved(), "the peak starts again");
        many.truncate(Inner::HALVING_MIN + 1);
        assert!(!halved());
        many.clear();
        assert!(halved());
        assert!(!halved());
    }
}
