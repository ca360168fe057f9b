//! Where slots are kept. A store knows the ledger's commands, outcomes and rule; it never sees a session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, EndedSession, Outcome, StoreCommand, StoreError, UserOverrides};

/// Keeps the users' records and applies [`session_core::ledger::apply`] to them, atomically for each user, under the
/// contract that the ledger's documentation states.
pub trait Store: Send + Sync {
    /// Submits a command and returns at once; it never waits for another command, a disk or a network.
    ///
    /// `done` is answered exactly once, from any thread, and perhaps before this returns. Commands of one session
    /// are applied in the order of these calls, or not at all.
    fn submit(&self, command: StoreCommand, done: CommandCompletion);

    /// Has those who lose their slots told by this. Once, before the first command.
    fn set_notifier(&self, router: Arc<dyn SessionNotifier>);

    /// Sets the terms on which users are admitted. They hold for every command that is submitted once this has returned,
    /// and may hold for those that wait. What they say of a user's own is of no account.
    fn set_policy(&self, policy: AdmissionPolicy);

    /// The terms in force for a user.
    fn policy_for(&self, user: &UserId) -> AdmissionPolicy;

    /// Changes what is kept of a user beside slots. `done` is answered exactly once, from any thread, when it is kept, or
    /// certainly is not, or nobody can tell: [`StoreError::Failed`] says neither. What is set holds from then on, and for every
    /// later start of a store that outlives its process.
    fn update_user(&self, user: UserId, update: UserUpdate, done: UpdateCompletion);

    /// Takes no more commands (they are rejected), applies those submitted, answers them, and closes.
    ///
    /// Waits at most `within` and returns whether it finished. Calling it again waits again.
    fn close(&self, within: Duration) -> bool;
}

/// What can be changed of what is kept of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserUpdate {
    /// What is set for this user alone is this.
    Set(UserOverrides),
    /// Nothing is known of the user any more: neither what was set, nor when it was seen.
    Forget,
}

/// Who waits for an [`UserUpdate`]. Dropped without an answer it answers [`StoreError::Failed`].
pub struct UpdateCompletion(Option<Box<Answer>>);

type Answer = dyn FnOnce(Result<(), StoreError>) + Send;

impl UpdateCompletion {
    /// Calls `answer` with what became of it.
    pub fn new(answer: impl FnOnce(Result<(), StoreError>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Gives the answer.
    pub fn answer(mut self, result: Result<(), StoreError>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl Drop for UpdateCompletion {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(StoreError::Failed));
        }
    }
}

impl fmt::Debug for UpdateCompletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Amended")
    }
}

/// Tells sessions that they have lost their slots.
pub trait SessionNotifier: Send + Sync {
    /// Tells each of these, wherever it is. Quick: it is called where commands are applied.
    fn notify(&self, ended: Vec<EndedSession>);
}

/// The answer that is owed to whoever submitted a command. Dropped without one, it answers [`Outcome::Unknown`], so
/// that not even a store that panics leaves anybody waiting.
pub struct CommandCompletion(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl CommandCompletion {
    /// Calls `answer` with the outcome, on the store's thread: it must be quick and must not block.
    pub fn new(answer: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Gives the answer.
    pub fn answer(mut self, outcome: Outcome) {
        self.give(outcome);
    }

    fn give(&mut self, outcome: Outcome) {
        if let Some(answer) = self.0.take() {
            answer(outcome);
        }
    }
}

impl Drop for CommandCompletion {
    fn drop(&mut self) {
        self.give(Outcome::Unknown);
    }
}

impl fmt::Debug for CommandCompletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}
