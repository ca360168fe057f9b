//! Holds the slot of one session, and releases it when dropped.

use std::sync::Arc;

use session_core::ledger::{Outcome, StoreCommand};
use session_core::{SessionId, Timestamp, UserId};

use crate::server::mailbox::Mailbox;
use crate::server::store_client::{PendingCommand, Purpose, StoreClient};

/// Submits the commands of one session, and knows whether the session may hold a slot.
///
/// When dropped it releases that slot. So a connection that ends unexpectedly, for example by a panic, leaks no slot.
pub(super) struct SlotGuard {
    store_client: Arc<StoreClient>,
    mailbox: Arc<Mailbox>,
    user: Option<UserId>,
    pending: Option<PendingCommand>,
    session: SessionId,
}

impl SlotGuard {
    /// The guard of a session that holds no slot yet.
    pub(super) fn new(store_client: Arc<StoreClient>, mailbox: Arc<Mailbox>, session: SessionId) -> Self {
        Self { store_client, mailbox, user: None, pending: None, session }
    }

    /// Submits the session's command.
    ///
    /// # Panics
    /// When another command is pending: a session has at most one.
    pub(super) fn submit(&mut self, command: StoreCommand) {
        match &command {
            StoreCommand::Acquire { user, .. } => self.user = Some(user.clone()),
            StoreCommand::Release { .. } | StoreCommand::Linger { .. } => {
                self.user = None;
                return self.store_client.release(command);
            }
            StoreCommand::CountSlots { .. } | StoreCommand::ListSessions { .. } | StoreCommand::EndSessions { .. } => {}
        }
        assert!(self.pending.is_none(), "a session has at most one pending command");
        self.pending = Some(self.store_client.submit(command, &self.mailbox));
    }

    /// When the wait for the pending command ends.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.pending.as_ref().map(|pending| pending.deadline)
    }

    /// Ends the wait, after [`SlotGuard::deadline`]. True if it ended without an outcome: then the outcome is
    /// [`Outcome::Unknown`]. False if the outcome has come meanwhile.
    pub(super) fn expire(&self) -> bool {
        let Some(pending) = &self.pending else { return false };
        let timed_out = self.mailbox.cancel_wait(pending.id);
        if timed_out
            && pending.purpose != Purpose::Query
            && let Some(user) = &self.user
        {
            self.store_client.acquire_timed_out(user, self.session, pending.purpose);
        }
        timed_out
    }

    /// Records the outcome of the pending command. Returns the user of an acquire that was not granted.
    pub(super) fn answered(&mut self, outcome: &Outcome) -> Option<UserId> {
        let is_acquire = self.pending.take()?.purpose != Purpose::Query;
        // After such an outcome the session has no slot, or `ReleaseTracker` releases it.
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
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use session_core::ledger::AcquireOptions;
    use session_core::ledger::{AdmissionPolicy, SlotLimit};
    use session_core::{NodeId, ResumeKey};

    use super::*;
    use crate::runtime::clock::{Clock, ManualClock};
    use crate::server::mailbox::Notification;
    use crate::store::{CommandCompletion, MemoryStore, SessionNotifier, Store, UpdateCompletion, UserUpdate};

    #[test]
    fn dropped_guard_releases_its_slot_after_any_command() {
        let node = NodeId::new(1);
        let (user, session) = (UserId::parse("ada").unwrap(), node.session(1));
        let store = Arc::new(MemoryStore::new(node, SlotLimit::new(1).unwrap()));
        let store_client = StoreClient::new(store, Clock::manual(Arc::default()), Duration::from_secs(1), 1);
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

    /// A store that never answers.
    #[derive(Default)]
    struct SilentStore(Mutex<Vec<CommandCompletion>>);

    impl Store for SilentStore {
        fn submit(&self, _: StoreCommand, done: CommandCompletion) {
            self.0.lock().unwrap().push(done);
        }

        fn set_notifier(&self, _: Arc<dyn SessionNotifier>) {}

        fn set_policy(&self, _: AdmissionPolicy) {}

        fn policy_for(&self, _: &UserId) -> AdmissionPolicy {
            AdmissionPolicy::default()
        }

        fn update_user(&self, _: UserId, _: UserUpdate, done: UpdateCompletion) {
            done.answer(Ok(()));
        }

        fn close(&self, _: Duration) -> bool {
            true
        }
    }

    #[test]
    fn timed_out_acquire_releases_timed_out_resume_lingers() {
        let (user, session) = (UserId::parse("ada").unwrap(), NodeId::new(1).session(1));
        let deadline = Timestamp::default() + Duration::from_secs(1);
        let retry_at = deadline + Duration::from_millis(50);
        let resume = Some(ResumeKey::from_bytes([9; 32]));
        for (options, retry) in [
            (None, StoreCommand::Release { user: user.clone(), session }),
            (
                Some(AcquireOptions { new_resume_key: resume, ..AcquireOptions::default() }),
                StoreCommand::Release { user: user.clone(), session },
            ),
            (
                Some(AcquireOptions { resume, ..AcquireOptions::default() }),
                StoreCommand::Linger { user: user.clone(), session, at: deadline },
            ),
        ] {
            let manual_clock = Arc::<ManualClock>::default();
            let clock = Clock::manual(Arc::clone(&manual_clock));
            let store_client = StoreClient::new(Arc::<SilentStore>::default(), clock, Duration::from_secs(1), 1);
            let mut guard = SlotGuard::new(Arc::clone(&store_client), Arc::default(), session);
            let options = options.map(Box::new);
            guard.submit(StoreCommand::Acquire {
                user: user.clone(),
                session,
                limit: None,
                at: Timestamp::default(),
                options,
            });
            assert_eq!(guard.deadline(), Some(deadline));
            manual_clock.set(deadline);
            assert!(guard.expire());
            assert_eq!(store_client.next_retry(retry_at), Some(retry));
        }
    }
}
