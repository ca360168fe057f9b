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
pub(super) enum Purpose {
    /// A slot.
    Slot,
    /// A slot that is to be taken up again.
    Resume,
    /// An answer.
    Query,
}

/// A command of a session that the store has not answered yet. Not the command itself, which is larger than all else that
/// there is of an idle session's way to the store.
pub(super) struct PendingCommand {
    pub(super) purpose: Purpose,
    pub(super) id: CommandId,
    /// When nobody waits for the answer any longer.
    pub(super) deadline: Timestamp,
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
    pub(super) fn submit(&self, command: StoreCommand, mailbox: &Arc<Mailbox>) -> PendingCommand {
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
    pub(super) fn release(&self, release: StoreCommand) {
        let (accounts, asked) = (Arc::clone(&self.shared), release.clone());
        self.store.submit(release, Completion::new(move |outcome| accounts.log_outcome(&asked, &outcome)));
    }

    /// Records that an acquire was not answered in time: the session may or may not have a slot.
    pub(super) fn acquire_timed_out(&self, user: &UserId, session: SessionId, purpose: Purpose) {
        let is_resume = purpose == Purpose::Resume;
        self.shared.update(|tracker, now| tracker.acquire_timed_out(user, session, is_resume, now));
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
