//! The live connections of this process.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use session_core::leaving_tracker::LeavingTracker;
use session_core::ledger::{EndedSession, SessionHint};
use session_core::{NodeId, SessionId, Timestamp, UserId};

use crate::runtime::clock::Clock;
use crate::server::mailbox::Mailbox;
use crate::store::SessionNotifier;

/// Gives each connection its session id, keeps the mailboxes of live connections, and drains them all. Knows which of them
/// are leaving, and releases the grants that wait for those ([`LeavingTracker`]).
#[derive(Debug)]
pub struct Registry {
    clock: Clock,
    inner: Mutex<Inner>,
    /// Whether `Inner::leaving` is not empty. While nobody is leaving, a grant and the end of a connection take no lock for it.
    is_any_leaving: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    /// The node id of new sessions.
    node: NodeId,
    last_number: u64,
    mailboxes: BTreeMap<u64, (NodeId, Arc<Mailbox>)>,
    /// Sessions of `mailboxes`.
    leaving: LeavingTracker,
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

    fn mailbox_of(&self, session: SessionId) -> Option<&Arc<Mailbox>> {
        let (node, mailbox) = self.mailboxes.get(&session.number())?;
        (*node == session.node()).then_some(mailbox)
    }

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
    pub fn new(node: NodeId, clock: Clock) -> Arc<Self> {
        let inner = Inner {
            node,
            last_number: 0,
            mailboxes: BTreeMap::new(),
            leaving: LeavingTracker::default(),
            empty_waker: None,
            peak: 0,
            halved_waker: None,
        };
        Arc::new(Self { clock, inner: Mutex::new(inner), is_any_leaving: AtomicBool::new(false) })
    }

    /// Registers a connection under a number that this registry never used before.
    #[must_use]
    pub fn register(self: &Arc<Self>) -> Registration {
        let mailbox = Arc::<Mailbox>::default();
        let mut inner = self.lock();
        inner.last_number += 1;
        let number = inner.last_number;
        let node = inner.node;
        inner.mailboxes.insert(number, (node, Arc::clone(&mailbox)));
        inner.peak = inner.peak.max(inner.mailboxes.len());
        Registration { id: node.session(number), mailbox, registry: Arc::clone(self) }
    }

    /// Tells every connection that the server drains. Returns how many connections there are.
    pub fn drain(&self) -> usize {
        // After the lock is released: a woken connection takes it to unregister.
        let mailboxes: Vec<_> = self.lock().mailboxes.values().map(|(_, mailbox)| Arc::clone(mailbox)).collect();
        mailboxes.iter().for_each(|mailbox| mailbox.drain());
        mailboxes.len()
    }

    /// The address of this session's client, if its connection is live in this process and the address is known.
    #[must_use]
    pub fn client_address(&self, session: SessionId) -> Option<IpAddr> {
        self.mailbox_of(session)?.client_address()
    }

    fn mailbox_of(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        self.lock().mailbox_of(session).cloned()
    }

    /// A session lost its slot, or is about to give it up while its client is still served. Returns when to cut its socket.
    pub(super) fn slot_lost(&self, user: &UserId, session: SessionId, mailbox: &Mailbox) -> Timestamp {
        let now = self.clock.now();
        let mut inner = self.lock();
        let cut_at = inner.leaving.slot_lost(user, session, now);
        self.is_any_leaving.store(true, Ordering::SeqCst);
        // `gone` sets the one and then reads the other. So it finds that somebody is leaving, or it is seen here.
        if mailbox.is_gone() {
            self.release_grants(inner, session);
        }
        cut_at
    }

    /// Whether the client of this session, which was granted a slot, must not be told yet. Then the grant must be held in the
    /// session's mailbox before this is called; [`Registry::gone`] releases it.
    pub(super) fn must_wait(&self, user: &UserId, session: SessionId) -> bool {
        let mut inner = self.lock();
        // Nobody would release the grant of a session that is gone, and its client will not be told.
        let is_served = inner.mailbox_of(session).is_some_and(|mailbox| !mailbox.is_gone());
        is_served && inner.leaving.must_wait(user, session)
    }

    /// Whether any session is leaving. Otherwise no grant must wait.
    pub(super) fn is_any_leaving(&self) -> bool {
        self.is_any_leaving.load(Ordering::SeqCst)
    }

    /// The client of this session is served no more: it was told so, or its socket is gone. Releases the grants that waited
    /// for this.
    pub(super) fn gone(&self, session: SessionId, mailbox: &Mailbox) {
        mailbox.set_gone();
        if self.is_any_leaving() {
            self.release_grants(self.lock(), session);
        }
    }

    fn release_grants(&self, mut inner: MutexGuard<'_, Inner>, gone: SessionId) {
        let ready = inner.leaving.gone(gone);
        self.is_any_leaving.store(!inner.leaving.is_empty(), Ordering::SeqCst);
        let mailboxes: Vec<_> = ready.iter().filter_map(|session| inner.mailbox_of(*session).cloned()).collect();
        // After the lock is released: a woken connection takes it to unregister.
        drop(inner);
        mailboxes.iter().for_each(|mailbox| mailbox.release_grant());
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
    fn notify(&self, user: &UserId, ended: Vec<EndedSession>) {
        for EndedSession { session, reason } in ended {
            if let Some(mailbox) = self.mailbox_of(session) {
                self.slot_lost(user, session, &mailbox);
                mailbox.end(reason);
            }
        }
    }

    /// Ends connections of this process at once.
    fn cut(&self, sessions: &[SessionId]) {
        let mailboxes: Vec<_> = {
            let inner = self.lock();
            sessions.iter().filter_map(|session| inner.mailbox_of(*session).cloned()).collect()
        };
        mailboxes.iter().for_each(|mailbox| mailbox.cut());
    }

    fn joins(&self, node: NodeId) {
        self.lock().node = node;
    }

    /// Passes hints on to sessions of this process, as [`SessionNotifier::notify`].
    fn hint(&self, hints: Vec<SessionHint>) {
        for SessionHint { session, hint } in hints {
            if let Some(mailbox) = self.mailbox_of(session) {
                mailbox.hint(hint);
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
        self.registry.gone(self.id, &self.mailbox);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use session_core::ledger::{EndReason, Hint, Outcome};

    use super::*;
    use crate::runtime::testing::counting_waker;
    use crate::server::mailbox::Notification;

    #[test]
    fn registry_is_empty_after_the_last_connection() {
        let registry = Registry::new(NodeId::new(7), Clock::manual(Arc::default()));
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
    fn hint_reaches_the_sessions_of_this_node_that_are_there() {
        let node = NodeId::new(7);
        let registry = Registry::new(node, Clock::manual(Arc::default()));
        let [first, second, gone] = [(); 3].map(|()| registry.register());
        let (gone, elsewhere) = (gone.id(), NodeId::new(8).session(first.id().number()));
        let hints =
            [(gone, Hint::Turn), (elsewhere, Hint::Turn), (first.id(), Hint::Changed), (second.id(), Hint::Turn)];
        registry.hint(hints.map(|(session, hint)| SessionHint { session, hint }).to_vec());
        assert_eq!(next(first.mailbox()), Poll::Ready(Notification::Hinted(Hint::Changed)));
        assert_eq!(next(second.mailbox()), Poll::Ready(Notification::Hinted(Hint::Turn)));
        assert_eq!([&first, &second].map(|of| next(of.mailbox())), [Poll::Pending, Poll::Pending]);
    }

    /// A session that waits for the store, with a mailbox that holds its grant if it must wait.
    fn grant(registry: &Registry, user: &UserId, to: &Registration) -> bool {
        let id = to.mailbox().begin_command();
        assert!(to.mailbox().hold_grant(id, Outcome::granted(1), |_| {}));
        registry.must_wait(user, to.id())
    }

    fn next(mailbox: &Mailbox) -> Poll<Notification> {
        mailbox.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn grant_is_released_when_those_before_are_gone() {
        let registry = Registry::new(NodeId::new(7), Clock::manual(Arc::default()));
        let ada = UserId::parse("ada").unwrap();
        let [first, second, newcomer, late] = [(); 4].map(|()| registry.register());
        assert!(!registry.is_any_leaving() && !registry.must_wait(&ada, newcomer.id()));
        let ended = |registration: &Registration| {
            registry.notify(&ada, vec![EndedSession { session: registration.id(), reason: EndReason::ByOperator }]);
        };
        ended(&first);
        ended(&second);
        assert!(registry.is_any_leaving());
        assert!(grant(&registry, &ada, &newcomer));
        assert_eq!(next(newcomer.mailbox()), Poll::Pending);
        registry.gone(first.id(), first.mailbox());
        assert_eq!(next(newcomer.mailbox()), Poll::Pending);
        // The end of the connection is enough.
        drop(second);
        assert_eq!(next(newcomer.mailbox()), Poll::Ready(Notification::Stored(Outcome::granted(1))));
        assert!(!registry.is_any_leaving());

        // A session that is gone already is not leaving, whatever the store says of it later.
        ended(&first);
        assert!(first.mailbox().is_gone() && !registry.is_any_leaving());
        assert_eq!(next(first.mailbox()), Poll::Ready(Notification::Ended(EndReason::ByOperator)));
        // Its own grant does not wait.
        ended(&late);
        assert!(!grant(&registry, &ada, &first));
        assert!(grant(&registry, &ada, &newcomer));
        // A client that left while it waited learns of the grant, to give the slot up.
        registry.gone(newcomer.id(), newcomer.mailbox());
        assert_eq!(next(newcomer.mailbox()), Poll::Ready(Notification::Stored(Outcome::granted(1))));
        assert!(registry.is_any_leaving());
        drop(late);
        assert!(!registry.is_any_leaving());
    }

    /// The store notifies on one thread while it answers on another.
    #[test]
    fn grant_does_not_overtake_the_notice_that_its_slot_is_lost() {
        let registry = Registry::new(NodeId::new(7), Clock::manual(Arc::default()));
        let ada = UserId::parse("ada").unwrap();
        let [first, second] = [(); 2].map(|()| registry.register());
        registry.slot_lost(&ada, first.id(), first.mailbox());
        registry.slot_lost(&ada, second.id(), second.mailbox());
        assert!(grant(&registry, &ada, &second));
        registry.gone(first.id(), first.mailbox());
        assert_eq!(next(second.mailbox()), Poll::Pending);
        second.mailbox().end(EndReason::ByOperator);
        assert_eq!(next(second.mailbox()), Poll::Ready(Notification::Ended(EndReason::ByOperator)));
        registry.gone(second.id(), second.mailbox());
        assert_eq!(next(second.mailbox()), Poll::Ready(Notification::Stored(Outcome::granted(1))));
        assert!(!registry.is_any_leaving());
    }

    #[test]
    fn half_of_many_connections_leaving_is_reported() {
        let registry = Registry::new(NodeId::new(7), Clock::manual(Arc::default()));
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
