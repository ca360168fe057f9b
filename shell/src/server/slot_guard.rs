//! One session's way to the store, which releases the session's slot when it is dropped.

use std::sync::Arc;

use session_core::ledger::{Outcome, StoreCommand};
use session_core::{SessionId, Timestamp, UserId};

use crate::server::mailbox::Mailbox;
use crate::server::store_client::{PendingCommand, Purpose, StoreClient};

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
            self.store_client.acquire_timed_out(user, self.session, under_way.purpose);
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
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use session_core::NodeId;
    use session_core::ledger::SlotLimit;

    use super::*;
    use crate::runtime::clock::Clock;
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
