//! The answer that a store owes for one command.

use std::fmt;

use session_core::ledger::Outcome;

use super::failure::StoreFailure;

/// Answers one command or one update, exactly once, on any thread.
///
/// Dropped without an answer it gives [`Unanswered::unanswered`]. So a caller never waits in vain, even if the store panics.
pub struct Completion<T: Unanswered>(Option<Box<dyn FnOnce(T) + Send>>);

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

impl<T: Unanswered> Completion<T> {
    /// Calls `answer` on the store's thread. It must be quick and must not block.
    pub fn new(answer: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// A completion, and the future of its answer. Dropping the future does not undo the command.
    pub fn channel() -> (Self, impl Future<Output = T> + Send)
    where
        T: Send + 'static,
    {
        let (sender, receiver) = smol::channel::bounded(1);
        let completion = Self::new(move |answer| {
            // Fails if the future was dropped.
            let _unread = sender.try_send(answer);
        });
        (completion, async move { receiver.recv().await.unwrap_or_else(|_| T::unanswered()) })
    }

    /// Gives the answer.
    pub fn answer(mut self, answer: T) {
        self.give(answer);
    }

    fn give(&mut self, answer: T) {
        if let Some(give) = self.0.take() {
            give(answer);
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
}
