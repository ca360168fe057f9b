//! Every ledger command of this process passes here on its way to the store, and every slot is seen back.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use session_core::ledger::Command;
use session_core::{Debts, Outcome, SessionId, Time, UserId};

use crate::clock::{Alarm, Clock};
use crate::mailbox::{Mailbox, Ticket};
use crate::store::{Done, Store};

/// Puts [`Debts`] between the sessions and the store: answers that come too late become [`Outcome::Unknown`], and
/// releases that fail are tried again until they are confirmed.
pub struct Custody {
    store: Arc<dyn Store>,
    /// How long an answer may take.
    store_timeout: Duration,
    accounts: Arc<Accounts>,
}

/// What the store's answers change. They come on the store's own thread, so this must not keep the store alive.
struct Accounts {
    clock: Clock,
    inner: Mutex<Inner>,
}

struct Inner {
    debts: Debts,
    /// Wakes [`Custody::retry`], which may have to look earlier than it meant to.
    retry: Option<Waker>,
}

/// A command of a session that the store has not answered yet.
struct UnderWay {
    command: Command,
    ticket: Ticket,
    /// When nobody waits for the answer any longer.
    until: Time,
}

impl Custody {
    /// The way to this store. An answer may take `store_timeout`; so many sessions at once as there is room for may hold,
    /// or wait for, a slot.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, store_timeout: Duration, room: usize) -> Arc<Self> {
        let inner = Mutex::new(Inner { debts: Debts::new(room), retry: None });
        Arc::new(Self { store, store_timeout, accounts: Arc::new(Accounts { clock, inner }) })
    }

    /// The clock of the process.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.accounts.clock
    }

    /// Submits a command. Its answer goes to the mailbox, perhaps before this returns.
    fn submit(&self, command: Command, mailbox: &Arc<Mailbox>) -> UnderWay {
        let until = self.accounts.clock.now() + self.store_timeout;
        let ticket = mailbox.await_answer();
        let reserved = self.accounts.lock().debts.before(&command);
        match reserved {
            Ok(()) => {
                let (accounts, mailbox, asked) = (Arc::clone(&self.accounts), Arc::clone(mailbox), command.clone());
                let done = Done::new(move |outcome| {
                    // Whoever ends the wait, the store here or the clock in `give_up`, takes note of it: never both.
                    if mailbox.deliver(ticket, outcome) {
                        accounts.note(&asked, outcome);
                    }
                });
                self.store.submit(command.clone(), done);
            }
            Err(cause) => {
                let delivered = mailbox.deliver(ticket, Outcome::Rejected(cause));
                debug_assert!(delivered, "the answer was awaited a moment ago");
            }
        }
        UnderWay { command, ticket, until }
    }

    /// Ends the wait for an answer: false if it has come meanwhile.
    fn give_up(&self, under_way: &UnderWay, mailbox: &Mailbox) -> bool {
        let late = mailbox.give_up(under_way.ticket);
        if late {
            self.accounts.note(&under_way.command, Outcome::Unknown);
        }
        late
    }

    /// Hands a release over for good: nobody else needs to see to it.
    fn release(&self, release: Command) {
        let (accounts, asked) = (Arc::clone(&self.accounts), release.clone());
        self.store.submit(release, Done::new(move |outcome| accounts.note(&asked, outcome)));
    }

    /// Tries owed releases again when they are due. Never ends.
    pub async fn retry(self: Arc<Self>) {
        let mut alarm = Alarm::new(self.accounts.clock.clone());
        loop {
            let accounts = &*self.accounts;
            let now = accounts.clock.now();
            while let Some(release) = { accounts.lock().debts.due(now) } {
                self.release(release);
            }
            let deadline = accounts.lock().debts.deadline();
            poll_fn(|cx| {
                let mut inner = accounts.lock();
                if inner.debts.deadline() != deadline {
                    return Poll::Ready(());
                }
                inner.retry = Some(cx.waker().clone());
                drop(inner);
                alarm.poll(deadline, cx)
            })
            .await;
        }
    }

    /// How many releases the store has not confirmed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.accounts.lock().debts.owed()
    }

    /// How many sessions hold, or may hold, a slot.
    #[must_use]
    pub fn held(&self) -> usize {
        self.accounts.lock().debts.held()
    }
}

impl Accounts {
    fn note(&self, command: &Command, outcome: Outcome) {
        let now = self.clock.now();
        let waker = {
            let mut inner = self.lock();
            let before = inner.debts.deadline();
            inner.debts.after(command, outcome, now);
            if inner.debts.deadline() == before { None } else { inner.retry.take() }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // `Debts` does not panic, whatever it is told, so a poisoned one is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session's way to the store.
///
/// It knows whether its session may hold a slot, and gives the slot back when it is dropped: a connection that ends
/// in a way nobody thought of leaks nothing.
pub struct Claim {
    custody: Arc<Custody>,
    mailbox: Arc<Mailbox>,
    held: Option<UserId>,
    under_way: Option<UnderWay>,
    session: SessionId,
}

impl Claim {
    /// A session that holds nothing yet.
    #[must_use]
    pub fn new(custody: Arc<Custody>, mailbox: Arc<Mailbox>, session: SessionId) -> Self {
        Self { custody, mailbox, held: None, under_way: None, session }
    }

    /// Submits the session's command.
    ///
    /// # Panics
    /// When another one is under way that is no release: a session has one at most.
    pub fn submit(&mut self, command: Command) {
        match &command {
            Command::Acquire { user, .. } => self.held = Some(user.clone()),
            Command::Release { .. } => {
                self.held = None;
                return self.custody.release(command);
            }
            Command::Lookup { .. } => {}
        }
        assert!(self.under_way.is_none(), "a session has one command under way at most");
        self.under_way = Some(self.custody.submit(command, &self.mailbox));
    }

    /// When the wait for the command under way ends.
    #[must_use]
    pub fn until(&self) -> Option<Time> {
        self.under_way.as_ref().map(|under_way| under_way.until)
    }

    /// The time of [`Claim::until`] has come. True if nobody waits for the answer any longer: then it is
    /// [`Outcome::Unknown`], and false if it has come meanwhile.
    pub fn give_up(&self) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| self.custody.give_up(under_way, &self.mailbox))
    }

    /// Takes note of the answer to the command under way, and says which that was.
    pub fn answered(&mut self, outcome: Outcome) -> Option<Command> {
        let command = self.under_way.take()?.command;
        if matches!(command, Command::Acquire { .. }) && !matches!(outcome, Outcome::Granted { .. }) {
            // The session has no slot, or `Debts` sees to it.
            self.held = None;
        }
        Some(command)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(user) = self.held.take() {
            self.custody.release(Command::Release { user, session: self.session });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use session_core::{Limit, NodeId};

    use super::*;
    use crate::mailbox::Mail;
    use crate::store::MemoryStore;

    #[test]
    fn a_claim_that_is_dropped_gives_its_slot_back_whatever_was_asked_since() {
        let node = NodeId::new(1);
        let (user, session) = (UserId::parse("ada").unwrap(), node.session(1));
        let store = Arc::new(MemoryStore::new(node, Limit::new(1).unwrap()));
        let custody = Custody::new(store, Clock::by_dial(Arc::default()), Duration::from_secs(1), 1);
        let mailbox = Arc::<Mailbox>::default();
        let mut claim = Claim::new(Arc::clone(&custody), Arc::clone(&mailbox), session);
        let acquire = Command::Acquire { user: user.clone(), session, limit: None, at: Time::default() };
        for command in [acquire, Command::Lookup { user, session }] {
            claim.submit(command.clone());
            let Poll::Ready(Mail::Stored(outcome)) = mailbox.poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("this store answers at once");
            };
            assert_eq!(claim.answered(outcome), Some(command));
        }
        assert_eq!(custody.held(), 1);
        drop(claim);
        assert_eq!(custody.held(), 0);
    }
}
