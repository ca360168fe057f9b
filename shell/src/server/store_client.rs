//! Submits ledger commands to the store, applies the timeout, holds grants back, and retries releases until the store
//! confirms them.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use session_core::ledger::{Outcome, StoreCommand};
use session_core::release_tracker::{ReleaseTracker, Ticket};
use session_core::{SessionId, Timestamp, UserId};

use crate::runtime::clock::Clock;
use crate::runtime::deadline_timer::DeadlineTimer;
use crate::server::mailbox::{CommandId, Mailbox};
use crate::server::registry::Registry;
use crate::store::{Caller, Completion, Store, StoreHealth};

/// The way of all sessions of this process to the store. A late outcome becomes [`Outcome::Unknown`], and a command that
/// the store has not begun by then is withdrawn. [`ReleaseTracker`] decides which releases are retried, and when. The
/// [`Registry`] knows which grants must wait for sessions that are leaving.
pub struct StoreClient {
    store: Arc<dyn Store>,
    /// How long the store may take to answer.
    store_timeout: Duration,
    shared: Arc<Shared>,
}

/// What completions of the store change. They run on a thread of the store, so they must not keep the store alive.
struct Shared {
    clock: Clock,
    registry: Arc<Registry>,
    inner: Mutex<Inner>,
}

struct Inner {
    tracker: ReleaseTracker,
    /// The task in [`StoreClient::retry`]. It is woken when the next retry is due at another time.
    retry_waker: Option<Waker>,
}

/// A session that waits for the outcome of its command.
struct WaitingSession {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    id: CommandId,
    ticket: Ticket,
}

impl Caller<Outcome> for WaitingSession {
    fn claim(&self) -> bool {
        self.mailbox.claim(self.id)
    }

    fn answer(self: Box<Self>, outcome: Outcome) {
        let Self { shared, mailbox, id, ticket } = *self;
        shared.deliver(outcome, id, &ticket, &mailbox);
    }
}

/// A session's command that the store has not answered yet. The command itself is not kept, to save memory: it is larger
/// than the rest of a `SlotGuard`.
pub(super) struct PendingCommand {
    /// Whether it asks for a slot.
    pub(super) is_acquire: bool,
    pub(super) id: CommandId,
    /// When the wait for the outcome ends. `None` if the outcome has come and is a grant that is held back.
    pub(super) deadline: Option<Timestamp>,
}

impl StoreClient {
    /// A client of this store, which must notify this registry. At most `max_tracked` sessions may hold or wait for a slot.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        clock: Clock,
        store_timeout: Duration,
        max_tracked: usize,
    ) -> Arc<Self> {
        let inner = Mutex::new(Inner { tracker: ReleaseTracker::new(max_tracked), retry_waker: None });
        Arc::new(Self { store, store_timeout, shared: Arc::new(Shared { clock, registry, inner }) })
    }

    /// The clock of the process.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// How long the store may take to answer.
    #[must_use]
    pub(super) const fn timeout(&self) -> Duration {
        self.store_timeout
    }

    /// The live connections of the process.
    pub(super) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Submits a command. Its outcome goes to the mailbox, perhaps before this returns.
    pub(super) fn submit(&self, command: StoreCommand, mailbox: &Arc<Mailbox>) -> PendingCommand {
        let deadline = self.shared.clock.now() + self.store_timeout;
        let is_acquire = matches!(command, StoreCommand::Acquire { .. });
        let id = mailbox.begin_command();
        let ticket = self.shared.lock().tracker.begin(&command);
        match ticket {
            Ok(ticket) => {
                let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(mailbox));
                let waiting = WaitingSession { shared, mailbox, id, ticket };
                self.store.submit(command, Completion::withdrawable(waiting));
            }
            Err(error) => {
                let delivered = mailbox.deliver_outcome(id, Outcome::Rejected(error), |_| {});
                debug_assert!(delivered, "the mailbox waits for this command");
            }
        }
        PendingCommand { is_acquire, id, deadline: Some(deadline) }
    }

    /// Submits a release or linger command. It is retried until the store confirms it.
    pub(super) fn release(&self, release: StoreCommand) {
        let (shared, ticket) = (Arc::clone(&self.shared), Ticket::from(&release));
        self.store.submit(release, Completion::new(move |outcome| shared.answered(&ticket, &outcome)));
    }

    /// Records that an acquire was not answered in time: the session may or may not have a slot.
    pub(super) fn acquire_in_doubt(&self, user: &UserId, session: SessionId) {
        let ticket = Ticket::acquire(user.clone(), session);
        self.shared.update(|tracker, now| tracker.in_doubt(&ticket, now));
    }

    /// Records that an acquire was withdrawn before the store began to apply it: the session has no slot.
    pub(super) fn acquire_withdrawn(&self, user: &UserId, session: SessionId) {
        let ticket = Ticket::acquire(user.clone(), session);
        self.shared.update(|tracker, now| tracker.withdrawn(&ticket, now));
    }

    /// Retries pending releases when they are due. Never ends.
    pub async fn retry(self: Arc<Self>) {
        let mut timer = DeadlineTimer::new(self.shared.clock.clone());
        loop {
            let shared = &*self.shared;
            let now = shared.clock.now();
            while let Some(release) = { shared.lock().tracker.next_retry(now) } {
                self.release(release);
            }
            let deadline = shared.lock().tracker.deadline();
            poll_fn(|cx| {
                let mut inner = shared.lock();
                if inner.tracker.deadline() != deadline {
                    return Poll::Ready(());
                }
                inner.retry_waker = Some(cx.waker().clone());
                drop(inner);
                timer.poll(deadline, cx)
            })
            .await;
        }
    }

    /// Whether the store has the last word on who is served: other processes serve its users, too.
    #[must_use]
    pub(super) fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// Whether a client may be told that it is in. Then it is told, with nothing in between.
    #[must_use = "if it is false, the client must not be told"]
    pub(super) fn tell(&self, user: &UserId, session: SessionId) -> bool {
        self.store.tell(user, session)
    }

    /// Whether this process may serve the sessions of this user now.
    #[must_use]
    pub(super) fn may_serve(&self, user: &UserId) -> bool {
        self.store.may_serve(user)
    }

    /// The client of a session that has lost its slot is served no more.
    pub(super) fn closed(&self, user: &UserId, session: SessionId) {
        self.store.closed(user, session);
    }

    /// How the store is doing.
    pub async fn health(&self) -> StoreHealth {
        self.store.health().await
    }

    /// The number of releases that the store has not confirmed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.lock().tracker.pending()
    }

    /// The number of sessions that hold, or may hold, a slot.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.shared.lock().tracker.tracked()
    }
}

impl Shared {
    /// Delivers an outcome, or holds it in the mailbox. Either this outcome or the end of the wait, in `SlotGuard`, is
    /// recorded: never both.
    fn deliver(&self, outcome: Outcome, id: CommandId, ticket: &Ticket, mailbox: &Mailbox) {
        let record = |outcome: &Outcome| self.answered(ticket, outcome);
        if matches!(outcome, Outcome::Granted { .. }) && self.registry.is_any_leaving() {
            // First the grant is held. Otherwise the registry could release it before it is there.
            if mailbox.hold_grant(id, outcome, record) && !self.registry.must_wait(ticket.user(), ticket.session()) {
                mailbox.release_grant();
            }
        } else {
            let _late = !mailbox.deliver_outcome(id, outcome, record);
        }
    }

    fn answered(&self, ticket: &Ticket, outcome: &Outcome) {
        self.update(|tracker, now| tracker.answered(ticket, outcome, now));
    }

    fn update(&self, change: impl FnOnce(&mut ReleaseTracker, Timestamp)) {
        let now = self.clock.now();
        let waker = {
            let mut inner = self.lock();
            let before = inner.tracker.deadline();
            change(&mut inner.tracker, now);
            if inner.tracker.deadline() == before { None } else { inner.retry_waker.take() }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // `ReleaseTracker` never panics, so a poisoned one is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
