//! The connections that live.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use session_core::connection_limiter::ClientPrefix;
use session_core::ledger::EndedSession;
use session_core::{NodeId, SessionId};

use crate::server::mailbox::Mailbox;
use crate::store::SessionNotifier;

/// Names connections, knows those that live, and tells them all to end.
#[derive(Debug)]
pub struct Registry {
    node: NodeId,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    mailboxes: BTreeMap<u64, Arc<Mailbox>>,
    /// Who waits for the last to leave.
    waiting: Option<Waker>,
    /// The most connections that lived at once since [`Registry::halved`] was last ready.
    most: usize,
    /// Who waits for that.
    halving: Option<Waker>,
}

impl Inner {
    /// Fewer are not worth a look.
    const HALVING_MIN: usize = 1024;

    fn is_halved(&self) -> bool {
        self.most >= Self::HALVING_MIN && self.mailboxes.len() <= self.most / 2
    }
}

/// A connection's place in the registry: gone when dropped.
#[derive(Debug)]
pub struct Registration {
    id: SessionId,
    mailbox: Arc<Mailbox>,
    registry: Arc<Registry>,
}

impl Registry {
    /// Nobody yet, on this node.
    #[must_use]
    pub fn new(node: NodeId) -> Arc<Self> {
        Arc::new(Self { node, inner: Mutex::default() })
    }

    /// Takes a connection in, under a number that was never used before.
    #[must_use]
    pub fn register(self: &Arc<Self>) -> Registration {
        let mailbox = Arc::<Mailbox>::default();
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.mailboxes.insert(number, Arc::clone(&mailbox));
        inner.most = inner.most.max(inner.mailboxes.len());
        Registration { id: self.node.session(number), mailbox, registry: Arc::clone(self) }
    }

    /// Tells every connection to end; how many those are.
    pub fn drain(&self) -> usize {
        // Not under the lock, which whoever is woken needs to leave.
        let mailboxes: Vec<_> = self.lock().mailboxes.values().cloned().collect();
        mailboxes.iter().for_each(|mailbox| mailbox.drain());
        mailboxes.len()
    }

    /// Where the connection of this session comes from, if it lives here and that is known.
    #[must_use]
    pub fn client_of(&self, session: SessionId) -> Option<ClientPrefix> {
        let mailbox = self.mailbox_of(session)?;
        mailbox.client()
    }

    fn mailbox_of(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        if session.node() == self.node { self.lock().mailboxes.get(&session.number()).cloned() } else { None }
    }

    /// How many connections live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().mailboxes.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until none does.
    pub async fn wait_until_empty(&self) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.mailboxes.is_empty() {
                return Poll::Ready(());
            }
            inner.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until half of the connections have left, of the most there were since this was last ready, if those were
    /// more than a thousand.
    pub async fn wait_until_halved(&self) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.is_halved() {
                inner.most = inner.mailboxes.len();
                return Poll::Ready(());
            }
            inner.halving = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No operation on the map panics half way, so a poisoned one is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionNotifier for Registry {
    /// Tells those that live here. Of others' sessions it knows nothing, nor of those that have left.
    fn notify(&self, ended: Vec<EndedSession>) {
        for EndedSession { session, reason: how } in ended {
            // Not under the lock, which whoever is woken needs to leave.
            if let Some(mailbox) = self.mailbox_of(session) {
                mailbox.end(how);
            }
        }
    }
}

impl Registration {
    /// The connection's session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Where the process tells the connection what it must know.
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.mailboxes.remove(&self.id.number());
        let waiting = if inner.mailboxes.is_empty() { inner.waiting.take() } else { None };
        let halving = if inner.is_halved() { inner.halving.take() } else { None };
        drop(inner);
        for waker in [waiting, halving].into_iter().flatten() {
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
    fn it_knows_who_is_there_until_the_last_has_left() {
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
    fn it_tells_when_half_of_many_have_left() {
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
        assert!(!halved(), "it counts from there");
        many.truncate(Inner::HALVING_MIN + 1);
        assert!(!halved());
        many.clear();
        assert!(halved());
        assert!(!halved());
    }
}
