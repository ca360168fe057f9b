//! Holds the slot of one session, and releases it when dropped.

use std::sync::Arc;

use session_core::ledger::{Outcome, StoreCommand};
use session_core::{SessionId, Timestamp, UserId};

use crate::server::mailbox::{Mailbox, WaitEnd};
use crate::server::store_client::{PendingCommand, StoreClient};

/// Submits the commands of one session, and knows whether the session may hold a slot.
///
/// When dropped it releases that slot. So a connection that ends unexpectedly, for example by a panic, leaks no slot.
pub struct SlotGuard {
    store_client: Arc<StoreClient>,
    mailbox: Arc<Mailbox>,
    user: Option<UserId>,
    /// The user for whose slot the session waits in line.
    waits_for: Option<UserId>,
    pending: Option<PendingCommand>,
    /// What gives the slot up, once the client is served no more. Only if the store is shared: it knows nothing of this client.
    owed: Option<Box<StoreCommand>>,
    session: SessionId,
    /// Whether the client was told that it is in.
    is_told: bool,
    /// Whether the session has lost its slot.
    is_ended: bool,
}

impl SlotGuard {
    /// The guard of a session that holds no slot yet.
    #[must_use]
    pub fn new(store_client: Arc<StoreClient>, mailbox: Arc<Mailbox>, session: SessionId) -> Self {
        Self {
            store_client,
            mailbox,
            user: None,
            waits_for: None,
            pending: None,
            owed: None,
            session,
            is_told: false,
            is_ended: false,
        }
    }

    /// Submits the session's command.
    ///
    /// # Panics
    /// When another command is pending: a session has at most one.
    pub fn submit(&mut self, command: StoreCommand) {
        match &command {
            StoreCommand::Acquire { user, .. } => self.user = Some(user.clone()),
            StoreCommand::Release { .. } | StoreCommand::Linger { .. } => {
                (self.user, self.waits_for) = (None, None);
                if self.store_client.is_shared() && !self.is_gone() {
                    self.owed = Some(Box::new(command));
                } else {
                    self.store_client.release(command);
                }
                return;
            }
            StoreCommand::CountSlots { .. }
            | StoreCommand::ListSessions { .. }
            | StoreCommand::EndSessions { .. }
            | StoreCommand::Renew { .. } => {}
        }
        assert!(self.pending.is_none(), "a session has at most one pending command");
        self.pending = Some(self.store_client.submit(command, &self.mailbox));
    }

    /// The user whose slot the session holds or asks for.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// When the wait for the pending command ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.pending.as_ref()?.deadline
    }

    /// Ends the wait, after [`SlotGuard::deadline`]. True if it ended without an outcome: then the session takes
    /// [`Outcome::Unknown`]. False if the outcome has come meanwhile: then the mailbox returns it, perhaps only after those
    /// who lost their slots before are gone.
    ///
    /// The store never applies a command whose wait ended before it began.
    pub fn end_wait(&mut self) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        pending.deadline = None;
        let wait_end = self.mailbox.end_wait(pending.id);
        if pending.is_acquire
            && let Some(user) = &self.user
        {
            match wait_end {
                WaitEnd::Withdrawn => self.store_client.acquire_withdrawn(user, self.session),
                WaitEnd::InDoubt => self.store_client.acquire_in_doubt(user, self.session),
                WaitEnd::Answered => {}
            }
        }
        wait_end != WaitEnd::Answered
    }

    /// Withdraws the pending acquire, if the store has not begun to apply it. Then the session certainly has no slot, and
    /// no outcome will come. Otherwise false, and the outcome still comes.
    #[must_use]
    pub fn withdraw_acquire(&mut self) -> bool {
        let is_withdrawn =
            self.pending.as_ref().is_some_and(|pending| pending.is_acquire && self.mailbox.withdraw(pending.id));
        if is_withdrawn {
            self.pending = None;
            if let Some(user) = self.user.take() {
                self.store_client.acquire_withdrawn(&user, self.session);
            }
        }
        is_withdrawn
    }

    /// The client's session is about to be closed by the server. If it has a slot, or asks for one, it is leaving from now on.
    /// Returns when to cut its socket. Before the slot is given up.
    #[must_use]
    pub fn leave(&self) -> Option<Timestamp> {
        let registry = self.store_client.registry();
        self.user.as_ref().map(|user| registry.slot_lost(user, self.session, &self.mailbox))
    }

    /// The client is served no more: it was told so, or its socket is gone.
    pub fn gone(&mut self) {
        self.store_client.registry().gone(self.session, &self.mailbox);
        self.give_up();
    }

    /// The session has lost its slot.
    pub fn ended(&mut self) {
        self.is_ended = true;
        if self.is_gone() {
            self.give_up();
        }
    }

    /// Tells a shared store that the client is served no more.
    fn give_up(&mut self) {
        if let Some(command) = self.owed.take() {
            self.store_client.release(*command);
        }
        if self.is_ended
            && let Some(user) = &self.user
        {
            self.store_client.closed(user, self.session);
        }
    }

    /// The session was granted a slot, and its client is about to be told. False if it must not be: then the slot is given up, and
    /// the session takes the grant for a rejection.
    #[must_use = "if it is false, the client must not be told"]
    pub fn tell(&mut self) -> bool {
        let Some(user) = &self.user else { return true };
        self.is_told = self.store_client.tell(user, self.session);
        if !self.is_told {
            self.store_client.release(StoreCommand::Release { user: user.clone(), session: self.session });
        }
        self.is_told
    }

    /// Whether anything may be sent to the client now.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        if !self.is_told || self.is_gone() {
            return true;
        }
        let owes = self.owed.as_ref().map(|command| command.user());
        let user = self.user.as_ref().or(owes);
        !self.mailbox.is_cut() && user.is_none_or(|user| self.store_client.may_serve(user))
    }

    /// Whether [`SlotGuard::gone`] was called.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.mailbox.is_gone()
    }

    /// Records the outcome of the pending command. Returns the user of an acquire that was not granted.
    pub fn answered(&mut self, outcome: &Outcome) -> Option<UserId> {
        let is_acquire = self.pending.take()?.is_acquire;
        if is_acquire {
            match outcome {
                Outcome::Waiting(_) => self.waits_for.clone_from(&self.user),
                Outcome::Denied(Some(usage)) if usage.is_in_line() => {}
                // Certainly not applied: it waits on, if it waits.
                Outcome::Rejected(_) => {}
                Outcome::Granted { .. }
                | Outcome::Denied(_)
                | Outcome::Released
                | Outcome::Counted { .. }
                | Outcome::Listed(_)
                | Outcome::Ended { .. }
                | Outcome::NotRenewed(_)
                | Outcome::Unknown => self.waits_for = None,
            }
        }
        // After such an outcome the session has no slot, or `ReleaseTracker` releases it.
        self.user.take_if(|_| is_acquire && !matches!(outcome, Outcome::Granted { .. }))
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if let Some(command) = self.owed.take() {
            self.store_client.release(*command);
        }
        if self.withdraw_acquire() && self.waits_for.is_none() {
            return;
        }
        if let Some(user) = self.user.take().or(self.waits_for.take()) {
            self.store_client.release(StoreCommand::Release { user, session: self.session });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use session_core::NodeId;
    use session_core::leaving_tracker::LeavingTracker;
    use session_core::ledger::{AcquireOptions, AdmissionPolicy, EndReason, LinePlace, SlotLimit, WhenFull};

    use super::*;
    use crate::runtime::clock::{Clock, ManualClock};
    use crate::server::mailbox::Notification;
    use crate::server::registry::{Registration, Registry};
    use crate::store::{MemoryStore, Store as _};

    #[test]
    fn held_grant_does_not_time_out() {
        let (node, manual) = (NodeId::new(1), Arc::<ManualClock>::default());
        let user = UserId::parse("ada").unwrap();
        let policy =
            AdmissionPolicy { when_full: WhenFull::EvictOldest, ..AdmissionPolicy::new(SlotLimit::new(1).unwrap()) };
        let store = Arc::new(MemoryStore::with_policy(node, policy));
        let clock = Clock::manual(Arc::clone(&manual));
        let registry = Registry::new(node, clock.clone());
        store.set_notifier(Arc::<Registry>::clone(&registry));
        let store_client = StoreClient::new(store, Arc::clone(&registry), clock, Duration::from_secs(1), 9);
        let [old, new] = [(); 2].map(|()| registry.register());
        let next = |of: &Registration| of.mailbox().poll(&mut Context::from_waker(Waker::noop()));
        let mut guards =
            [&old, &new].map(|of| SlotGuard::new(Arc::clone(&store_client), Arc::clone(of.mailbox()), of.id()));
        for (guard, of) in guards.iter_mut().zip([&old, &new]) {
            let (user, session) = (user.clone(), of.id());
            let at = Timestamp::default();
            guard.submit(StoreCommand::Acquire { user, session, limit: None, at, options: None });
        }
        assert_eq!(next(&old), Poll::Ready(Notification::Ended(EndReason::TakenOver(None))));
        assert_eq!(next(&old), Poll::Ready(Notification::Stored(Outcome::granted(1))));
        assert_eq!(next(&new), Poll::Pending);

        let [old_guard, new_guard] = &mut guards;
        let deadline = new_guard.deadline().unwrap();
        manual.set(deadline);
        assert!(!new_guard.end_wait(), "the store has answered");
        assert_eq!((new_guard.deadline(), store_client.pending()), (None, 0));
        assert_eq!(next(&new), Poll::Pending);
        assert_eq!(old_guard.leave(), Some(Timestamp::default() + LeavingTracker::CUT_AFTER));
        old_guard.gone();
        assert_eq!(next(&new), Poll::Ready(Notification::Stored(Outcome::granted(1))));
    }

    #[test]
    fn dropped_guard_releases_its_slot_after_any_command() {
        let node = NodeId::new(1);
        let (user, session) = (UserId::parse("ada").unwrap(), node.session(1));
        let store = Arc::new(MemoryStore::new(node, SlotLimit::new(1).unwrap()));
        let clock = Clock::manual(Arc::default());
        let registry = Registry::new(node, clock.clone());
        let store_client = StoreClient::new(store, registry, clock, Duration::from_secs(1), 1);
        let mailbox = Arc::<Mailbox>::default();
        let mut guard = SlotGuard::new(Arc::clone(&store_client), Arc::clone(&mailbox), session);
        let acquire =
            StoreCommand::Acquire { user: user.clone(), session, limit: None, at: Timestamp::default(), options: None };
        for command in [acquire, StoreCommand::CountSlots { user, session, at: Timestamp::default() }] {
            guard.submit(command);
            let Poll::Ready(Notification::Stored(outcome)) = mailbox.poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("the memory store answers at once");
            };
            assert_eq!(guard.answered(&outcome), None, "the acquire was granted");
        }
        assert_eq!(store_client.tracked(), 1);
        drop(guard);
        assert_eq!(store_client.tracked(), 0);
    }

    #[test]
    fn dropped_guard_of_a_session_in_line_releases() {
        let node = NodeId::new(1);
        let user = UserId::parse("ada").unwrap();
        let store = Arc::new(MemoryStore::new(node, SlotLimit::new(1).unwrap()));
        let clock = Clock::manual(Arc::default());
        let registry = Registry::new(node, clock.clone());
        let store_client = StoreClient::new(store, registry, clock, Duration::from_secs(1), 9);
        let ask = |number| {
            let mailbox = Arc::<Mailbox>::default();
            let mut guard = SlotGuard::new(Arc::clone(&store_client), Arc::clone(&mailbox), node.session(number));
            let options = Some(Box::new(AcquireOptions { waits: true, ..AcquireOptions::default() }));
            let (user, session, at) = (user.clone(), node.session(number), Timestamp::default());
            guard.submit(StoreCommand::Acquire { user, session, limit: None, at, options });
            let Poll::Ready(Notification::Stored(outcome)) = mailbox.poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("the memory store answers at once");
            };
            drop(guard.answered(&outcome));
            (guard, outcome)
        };
        let place = |outcome| if let Outcome::Waiting(usage) = outcome { Some(usage.line) } else { None };
        let (_holder, granted) = ask(1);
        assert!(matches!(granted, Outcome::Granted { .. }));
        let (first, outcome) = ask(2);
        assert_eq!((place(outcome), store_client.tracked()), (Some(LinePlace::At(1)), 2));
        let (second, outcome) = ask(3);
        assert_eq!((place(outcome), first.user(), store_client.tracked()), (Some(LinePlace::At(2)), None, 3));
        drop(first);
        assert_eq!(store_client.tracked(), 2);
        let (third, outcome) = ask(4);
        assert_eq!(place(outcome), Some(LinePlace::At(2)), "the first left the line");
        drop((second, third));
        assert_eq!((store_client.tracked(), store_client.pending()), (1, 0));
    }

    /// Sessions of one user take one another's place on several threads, and end in every order.
    #[test]
    fn limit_is_kept_and_nobody_is_left_whatever_the_order() {
        const LIMIT: u32 = 2;
        let node = NodeId::new(1);
        let user = UserId::parse("ada").unwrap();
        let policy = AdmissionPolicy {
            when_full: WhenFull::EvictOldest,
            ..AdmissionPolicy::new(SlotLimit::new(LIMIT).unwrap())
        };
        let store = Arc::new(MemoryStore::with_policy(node, policy));
        let clock = Clock::start();
        let registry = Registry::new(node, clock.clone());
        store.set_notifier(Arc::<Registry>::clone(&registry));
        let store_client = StoreClient::new(store, Arc::clone(&registry), clock, Duration::from_secs(60), 99);
        // How many were told that they are in, and are served.
        let served = AtomicU32::new(0);
        let live_once = |random: &mut fastrand::Rng| {
            let (mut is_served, mut is_ended) = (false, false);
            let registration = registry.register();
            let mut guard =
                SlotGuard::new(Arc::clone(&store_client), Arc::clone(registration.mailbox()), registration.id());
            let (user, session, at) = (user.clone(), registration.id(), Timestamp::default());
            guard.submit(StoreCommand::Acquire { user, session, limit: None, at, options: None });
            let mut patience = if random.bool() { 50_000_000 } else { random.usize(..50) };
            while patience > 0 {
                match registration.mailbox().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Pending => {
                        assert_ne!(patience, 10_000_000, "it waits in vain");
                        std::thread::yield_now();
                    }
                    Poll::Ready(Notification::Stored(outcome)) => {
                        assert_eq!(guard.answered(&outcome), None);
                        patience = patience.min(random.usize(..50));
                        if !is_ended {
                            is_served = true;
                            assert!(served.fetch_add(1, Ordering::SeqCst) < LIMIT, "more than the limit were told");
                        }
                    }
                    Poll::Ready(Notification::Ended(_) | Notification::Draining | Notification::Cut) => {
                        is_ended = true;
                        patience = random.usize(..3);
                    }
                    Poll::Ready(Notification::Hinted(_)) => unreachable!("nobody waits or watches"),
                }
                patience = patience.saturating_sub(1);
            }
            let mut gone = || {
                served.fetch_sub(u32::from(mem::take(&mut is_served)), Ordering::SeqCst);
            };
            let is_leaving = random.bool();
            if is_leaving {
                let _cut_at = guard.leave();
            }
            if random.bool() {
                gone();
                guard.gone();
            }
            if random.bool() {
                gone();
                drop(registration);
                drop(guard);
            } else {
                if !is_leaving {
                    gone();
                }
                drop(guard);
                gone();
                drop(registration);
            }
        };
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let live_once = &live_once;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    (0..2000).for_each(|_| live_once(&mut random));
                });
            }
        });
        assert_eq!((registry.is_any_leaving(), store_client.tracked()), (false, 0));
    }
}
