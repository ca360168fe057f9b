//! Every ledger command of this process passes here on its way to the store, and every slot is seen back.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use session_core::ledger::Outcome;
use session_core::ledger::StoreCommand;
use session_core::release_tracker::ReleaseTracker;
use session_core::{SessionId, Timestamp, UserId};

use crate::runtime::clock::Clock;
use crate::runtime::deadline_timer::DeadlineTimer;
use crate::server::mailbox::{CommandId, Mailbox};
use crate::store::{Completion, Store};

/// Puts [`ReleaseTracker`] between the sessions and the store: answers that come too late become [`Outcome::Unknown`], and
/// releases that fail are tried again until they are confirmed.
pub struct StoreClient {
    store: Arc<dyn Store>,
    /// How long an answer may take.
    store_timeout: Duration,
    shared: Arc<Shared>,
}

/// What the store's answers change. They come on the store's own thread, so this must not keep the store alive.
struct Shared {
    clock: Clock,
    inner: Mutex<Inner>,
}

struct Inner {
    tracker: ReleaseTracker,
    /// Wakes [`StoreClient::retry`], which may have to look earlier than it meant to.
    retry: Option<Waker>,
}

/// What a command under way is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A slot.
    Slot,
    /// A slot that is to be taken up again.
    Resume,
    /// An answer.
    Query,
}

/// A command of a session that the store has not answered yet. Not the command itself, which is larger than all else that
/// there is of an idle session's way to the store.
struct PendingCommand {
    purpose: Purpose,
    id: CommandId,
    /// When nobody waits for the answer any longer.
    deadline: Timestamp,
}

impl StoreClient {
    /// The way to this store. An answer may take `store_timeout`; so many sessions at once as there is room for may hold,
    /// or wait for, a slot.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, store_timeout: Duration, room: usize) -> Arc<Self> {
        let inner = Mutex::new(Inner { tracker: ReleaseTracker::new(room), retry: None });
        Arc::new(Self { store, store_timeout, shared: Arc::new(Shared { clock, inner }) })
    }

    /// The clock of the process.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Submits a command. Its answer goes to the mailbox, perhaps before this returns.
    fn submit(&self, command: StoreCommand, mailbox: &Arc<Mailbox>) -> PendingCommand {
        let until = self.shared.clock.now() + self.store_timeout;
        let purpose = match &command {
            StoreCommand::Acquire { options, .. }
                if options.as_ref().is_some_and(|options| options.resume.is_some()) =>
            {
                Purpose::Resume
            }
            StoreCommand::Acquire { .. } => Purpose::Slot,
            StoreCommand::Release { .. }
            | StoreCommand::Linger { .. }
            | StoreCommand::CountSlots { .. }
            | StoreCommand::ListSessions { .. }
            | StoreCommand::EndSessions { .. } => Purpose::Query,
        };
        let id = mailbox.begin_command();
        let reserved = self.shared.lock().tracker.reserve(&command);
        match reserved {
            Ok(()) => {
                let (accounts, mailbox, asked) = (Arc::clone(&self.shared), Arc::clone(mailbox), command.clone());
                let done = Completion::new(move |outcome| {
                    // Whoever ends the wait, the store here or the clock in `give_up`, takes note of it: never both.
                    let _late = !mailbox.deliver_outcome(id, outcome, |outcome| accounts.log_outcome(&asked, outcome));
                });
                self.store.submit(command, done);
            }
            Err(cause) => {
                let delivered = mailbox.deliver_outcome(id, Outcome::Rejected(cause), |_| {});
                debug_assert!(delivered, "the answer was awaited a moment ago");
            }
        }
        PendingCommand { purpose, id, deadline: until }
    }

    /// Hands over for good what gives a slot up: nobody else needs to see to it.
    fn release(&self, release: StoreCommand) {
        let (accounts, asked) = (Arc::clone(&self.shared), release.clone());
        self.store.submit(release, Completion::new(move |outcome| accounts.log_outcome(&asked, &outcome)));
    }

    /// Tries owed releases again when they are due. Never ends.
    pub async fn retry(self: Arc<Self>) {
        let mut timer = DeadlineTimer::new(self.shared.clock.clone());
        loop {
            let accounts = &*self.shared;
            let now = accounts.clock.now();
            while let Some(release) = { accounts.lock().tracker.next_retry(now) } {
                self.release(release);
            }
            let deadline = accounts.lock().tracker.deadline();
            poll_fn(|cx| {
                let mut inner = accounts.lock();
                if inner.tracker.deadline() != deadline {
                    return Poll::Ready(());
                }
                inner.retry = Some(cx.waker().clone());
                drop(inner);
                timer.poll(deadline, cx)
            })
            .await;
        }
    }

    /// How many releases the store has not confirmed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.lock().tracker.pending()
    }

    /// How many sessions hold, or may hold, a slot.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.shared.lock().tracker.tracked()
    }
}

impl Shared {
    fn log_outcome(&self, command: &StoreCommand, outcome: &Outcome) {
        self.update(|tracker, now| tracker.record(command, outcome, now));
    }

    fn update(&self, change: impl FnOnce(&mut ReleaseTracker, Timestamp)) {
        let now = self.clock.now();
        let waker = {
            let mut inner = self.lock();
            let before = inner.tracker.deadline();
            change(&mut inner.tracker, now);
            if inner.tracker.deadline() == before { None } else { inner.retry.take() }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // `ReleaseTracker` does not panic, whatever it is told, so a poisoned one is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session's way to the store.
///
/// It knows whether its session may hold a slot, and gives the slot back when it is dropped: a connection that ends
/// in a way nobody thought of leaks nothing.
pub struct SlotGuard {
    store_client: Arc<StoreClient>,
    mailbox: Arc<Mailbox>,
    user: Option<UserId>,
    pending: Option<PendingCommand>,
    session: SessionId,
}

impl SlotGuard {
    /// A session that holds nothing yet.
    #[must_use]
    pub fn new(store_client: Arc<StoreClient>, mailbox: Arc<Mailbox>, session: SessionId) -> Self {
        Self { store_client, mailbox, user: None, pending: None, session }
    }

    /// Submits the session's command.
    ///
    /// # Panics
    /// When another one is under way that is to be answered: a session has one at most.
    pub fn submit(&mut self, command: StoreCommand) {
        match &command {
            StoreCommand::Acquire { user, .. } => self.user = Some(user.clone()),
            StoreCommand::Release { .. } | StoreCommand::Linger { .. } => {
                self.user = None;
                return self.store_client.release(command);
            }
            StoreCommand::CountSlots { .. } | StoreCommand::ListSessions { .. } | StoreCommand::EndSessions { .. } => {}
        }
        assert!(self.pending.is_none(), "a session has one command under way at most");
        self.pending = Some(self.store_client.submit(command, &self.mailbox));
    }

    /// When the wait for the command under way ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.pending.as_ref().map(|under_way| under_way.deadline)
    }

    /// The time of [`SlotGuard::deadline`] has come. True if nobody waits for the answer any longer: then it is
    /// [`Outcome::Unknown`], and false if it has come meanwhile.
    pub fn expire(&self) -> bool {
        let Some(under_way) = &self.pending else { return false };
        let is_late = self.mailbox.cancel_wait(under_way.id);
        if is_late
            && under_way.purpose != Purpose::Query
            && let Some(user) = &self.user
        {
            let is_return = under_way.purpose == Purpose::Resume;
            self.store_client
                .shared
                .update(|tracker, now| tracker.acquire_timed_out(user, self.session, is_return, now));
        }
        is_late
    }

    /// Takes note of the answer to the command under way. If that was an acquire and was not granted, says whose.
    pub fn answered(&mut self, outcome: &Outcome) -> Option<UserId> {
        let is_acquire = self.pending.take()?.purpose != Purpose::Query;
        // Then the session has no slot, or `ReleaseTracker` sees to it.
        self.user.take_if(|_| is_acquire && !matches!(outcome, Outcome::Granted { .. }))
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if let Some(user) = self.user.take() {
            self.store_client.release(StoreCommand::Release { user, session: self.session });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use session_core::NodeId;
    use session_core::ledger::SlotLimit;

    use super::*;
    use crate::server::mailbox::Notification;
    use crate::store::MemoryStore;

    #[test]
    fn a_claim_that_is_dropped_gives_its_slot_back_whatever_was_asked_since() {
        let node = NodeId::new(1);
        let (user, session) = (UserId::parse("ada").unwrap(), node.session(1));
        let store = Arc::new(MemoryStore::new(node, SlotLimit::new(1).unwrap()));
        let store_client = StoreClient::new(store, Clock::manual(Arc::default()), Duration::from_secs(1), 1);
        let mailbox = Arc::<Mailbox>::default();
        let mut claim = SlotGuard::new(Arc::clone(&store_client), Arc::clone(&mailbox), session);
        let acquire =
            StoreCommand::Acquire { user: user.clone(), session, limit: None, at: Timestamp::default(), options: None };
        for command in [acquire, StoreCommand::CountSlots { user, session, at: Timestamp::default() }] {
            claim.submit(command);
            let Poll::Ready(Notification::Stored(outcome)) = mailbox.poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("this store answers at once");
            };
            assert_eq!(claim.answered(&outcome), None, "nobody was refused");
        }
        assert_eq!(store_client.tracked(), 1);
        drop(claim);
        assert_eq!(store_client.tracked(), 0);
    }
}
