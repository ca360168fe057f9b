//! The answer that a store owes for one command.

use std::fmt;

use session_core::ledger::Outcome;

use super::failure::StoreFailure;

/// Answers one command or one update, exactly once, on any thread.
///
/// Dropped without an answer it gives [`Unanswered::unanswered`]. So a caller never waits in vain, even if the store panics.
pub struct Completion<T: Unanswered>(Option<Box<dyn Caller<T>>>);

/// Who waits for the answer, and may stop waiting.
pub trait Caller<T>: Send {
    /// The store begins to apply the command. False if the caller has withdrawn the command: then it must not be applied.
    ///
    /// From the moment this returns true the caller cannot withdraw the command any more. Quick, and takes no lock: the
    /// store calls it for each command.
    fn claim(&self) -> bool;

    /// Takes the answer, on the thread that applied the command: perhaps the caller's, and perhaps before the call that submitted
    /// it returns. Quick, and must not block.
    fn answer(self: Box<Self>, answer: T);
}

/// What a [`Completion`] answers if the store drops it.
pub trait Unanswered {
    /// An answer that promises nothing: the command may be applied or not.
    fn unanswered() -> Self;
}

impl Unanswered for Outcome {
    fn unanswered() -> Self {
        Self::Unknown
    }
}

impl<T> Unanswered for Result<T, StoreFailure> {
    fn unanswered() -> Self {
        Err(StoreFailure::InDoubt)
    }
}

/// A caller that never withdraws its command.
struct Patient<F>(F);

impl<T, F: FnOnce(T) + Send> Caller<T> for Patient<F> {
    fn claim(&self) -> bool {
        true
    }

    fn answer(self: Box<Self>, answer: T) {
        (self.0)(answer);
    }
}

/// A caller that withdraws its command by dropping the receiver.
struct Receiver<T>(smol::channel::Sender<T>);

impl<T: Send> Caller<T> for Receiver<T> {
    fn claim(&self) -> bool {
        !self.0.is_closed()
    }

    fn answer(self: Box<Self>, answer: T) {
        // Fails if the future was dropped.
        let _unread = self.0.try_send(answer);
    }
}

impl<T: Unanswered> Completion<T> {
    /// Calls `answer` on the thread that applied the command. It must be quick and must not block. The command cannot be
    /// withdrawn.
    pub fn new(answer: impl FnOnce(T) + Send + 'static) -> Self {
        Self::withdrawable(Patient(answer))
    }

    /// A completion whose caller may withdraw the command.
    pub fn withdrawable(caller: impl Caller<T> + 'static) -> Self {
        Self(Some(Box::new(caller)))
    }

    /// A completion, and the future of its answer. Dropping the future withdraws a session's command that the store has
    /// not begun to apply. It undoes nothing.
    pub fn channel() -> (Self, impl Future<Output = T> + Send)
    where
        T: Send + 'static,
    {
        let (sender, receiver) = smol::channel::bounded(1);
        let completion = Self::withdrawable(Receiver(sender));
        (completion, async move { receiver.recv().await.unwrap_or_else(|_| T::unanswered()) })
    }

    /// Asks whether to apply the command. A store asks once, just before it begins. False if the caller has withdrawn the
    /// command: then the store does not apply it, and nobody waits for an answer.
    #[must_use]
    pub fn claim(&mut self) -> bool {
        let is_wanted = self.0.as_ref().is_some_and(|caller| caller.claim());
        if !is_wanted {
            self.0 = None;
        }
        is_wanted
    }

    /// Gives the answer.
    pub fn answer(mut self, answer: T) {
        self.give(answer);
    }

    fn give(&mut self, answer: T) {
        if let Some(caller) = self.0.take() {
            caller.answer(answer);
        }
    }
}

impl<T: Unanswered> Drop for Completion<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.give(T::unanswered());
        }
    }
}

impl<T: Unanswered> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}

#[cfg(test)]
mod tests {
    use session_core::ledger::StoreError;

    use super::*;

    #[test]
    fn dropped_completion_answers_that_nothing_is_known() {
        let (completion, answer) = Completion::<Outcome>::channel();
        drop(completion);
        assert_eq!(smol::block_on(answer), Outcome::Unknown);
        let (completion, answer) = Completion::<Result<(), StoreFailure>>::channel();
        drop(completion);
        assert_eq!(smol::block_on(answer), Err(StoreFailure::InDoubt));
    }

    #[test]
    fn answer_is_given_once_and_may_be_unread() {
        let failure = StoreFailure::Rejected(StoreError::Full);
        let (completion, answer) = Completion::<Result<(), _>>::channel();
        completion.answer(Err(failure));
        assert_eq!(smol::block_on(answer), Err(failure));
        let (completion, answer) = Completion::<Outcome>::channel();
        drop(answer);
        completion.answer(Outcome::Released);
    }

    #[test]
    fn withdrawn_command_is_not_claimed_and_gets_no_answer() {
        let (mut completion, answer) = Completion::<Outcome>::channel();
        assert!(completion.claim());
        drop(answer);
        completion.answer(Outcome::Released);
        let (mut completion, answer) = Completion::<Outcome>::channel();
        drop(answer);
        assert!(!completion.claim() && completion.0.is_none());
        let mut patient = Completion::<Outcome>::new(drop);
        assert!(patient.claim());
    }
}
