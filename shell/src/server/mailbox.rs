//! What the rest of the process has to tell one connection: an answer from the store, that its slot is gone, and that it is
//! time to go.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use session_core::connection_limiter::ClientPrefix;
use session_core::ledger::{EndReason, Outcome};

/// A connection's letter box. It is bounded by its shape: one answer, because at most one command of a session is
/// under way, one flag, and one word about how the slot was lost, which is lost once.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    answer: Answer,
    tickets: u32,
    draining: Draining,
    ended: Option<Box<EndReason>>,
    /// Where the connection comes from.
    from: Option<ClientPrefix>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
enum Answer {
    #[default]
    NotAwaited,
    Awaited(CommandId),
    Here(Outcome),
}

#[derive(Debug, Default)]
enum Draining {
    #[default]
    No,
    ToTell,
    Told,
}

/// Tells the answer to one command from a late answer to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandId(u32);

/// What the connection finds in its mailbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Notification {
    /// The server is going down. Comes once.
    Draining,
    /// The session's slot is gone.
    Ended(EndReason),
    /// The answer to the command under way.
    Stored(Outcome),
}

impl Mailbox {
    /// Notes where the connection comes from, once that is known.
    pub fn set_client(&self, network: ClientPrefix) {
        self.lock().from = Some(network);
    }

    /// Where the connection comes from, if that is known.
    #[must_use]
    pub fn client(&self) -> Option<ClientPrefix> {
        self.lock().from
    }

    /// Begins to await an answer. An earlier one that has not come is no longer awaited.
    pub fn begin_command(&self) -> CommandId {
        let mut inner = self.lock();
        inner.tickets = inner.tickets.wrapping_add(1);
        let id = CommandId(inner.tickets);
        inner.answer = Answer::Awaited(id);
        id
    }

    /// Delivers an answer. False if nobody awaits it any more.
    ///
    /// If it is, it is noted first, by `note`: whoever fetches it may submit another command at once, and what became of
    /// this one must be known by then. `note` is called under the mailbox's lock.
    #[must_use]
    pub fn deliver_outcome(&self, id: CommandId, outcome: Outcome, note: impl FnOnce(&Outcome)) -> bool {
        let mut inner = self.lock();
        match inner.answer {
            Answer::Awaited(awaited) if awaited == id => {
                note(&outcome);
                inner.answer = Answer::Here(outcome);
                wake(inner);
                true
            }
            Answer::Awaited(_) | Answer::Here(_) | Answer::NotAwaited => false,
        }
    }

    /// Stops awaiting an answer. False if it has come: then it is still to be fetched.
    #[must_use]
    pub fn cancel_wait(&self, id: CommandId) -> bool {
        let mut inner = self.lock();
        match inner.answer {
            Answer::Awaited(awaited) if awaited == id => {
                inner.answer = Answer::NotAwaited;
                true
            }
            Answer::Awaited(_) | Answer::Here(_) | Answer::NotAwaited => false,
        }
    }

    /// Tells the connection, once, that the server is going down.
    pub fn drain(&self) {
        let mut inner = self.lock();
        if matches!(inner.draining, Draining::No) {
            inner.draining = Draining::ToTell;
            wake(inner);
        }
    }

    /// Tells the connection that its session's slot is gone.
    pub fn end(&self, ending: EndReason) {
        let mut inner = self.lock();
        inner.ended.get_or_insert_with(|| Box::new(ending));
        wake(inner);
    }

    /// The next thing to know: that the slot is gone first, the answer last, which may be the grant of that very slot.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Notification> {
        let mut inner = self.lock();
        if let Some(ending) = inner.ended.take() {
            return Poll::Ready(Notification::Ended(*ending));
        }
        if matches!(inner.draining, Draining::ToTell) {
            inner.draining = Draining::Told;
            return Poll::Ready(Notification::Draining);
        }
        if matches!(inner.answer, Answer::Here(_))
            && let Answer::Here(outcome) = mem::take(&mut inner.answer)
        {
            return Poll::Ready(Notification::Stored(outcome));
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single assignment, so a poisoned mailbox is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes outside the lock, so that whoever is woken does not run into it.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = mem::take(&mut inner.waker);
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::testing::counting_waker;

    fn poll(mailbox: &Mailbox) -> Poll<Notification> {
        mailbox.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_reaches_only_who_awaits_it() {
        let mailbox = Mailbox::default();
        let first = mailbox.begin_command();
        assert!(mailbox.cancel_wait(first));
        let note = |_: &Outcome| panic!("nor noted");
        assert!(!mailbox.deliver_outcome(first, Outcome::Denied(None), note), "a late answer is not delivered");
        let second = mailbox.begin_command();
        assert!(!mailbox.deliver_outcome(first, Outcome::Denied(None), |_| {}), "nor taken for the next one");
        assert!(!mailbox.cancel_wait(first), "which is still awaited");
        assert_eq!(poll(&mailbox), Poll::Pending);
        let is_locked = || mailbox.0.try_lock().is_err();
        let noted = |_: &Outcome| assert!(is_locked(), "it is noted before anybody can fetch it");
        assert!(mailbox.deliver_outcome(second, Outcome::Released, noted));
        assert!(!mailbox.cancel_wait(second), "what has come cannot be given up");
        assert!(!mailbox.deliver_outcome(second, Outcome::Denied(None), |_| {}), "nor come twice");
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::Released)));
        assert_eq!(poll(&mailbox), Poll::Pending);
    }

    #[test]
    fn the_drain_is_told_once_and_first() {
        let mailbox = Mailbox::default();
        let id = mailbox.begin_command();
        assert!(mailbox.deliver_outcome(id, Outcome::Denied(None), |_| {}));
        mailbox.drain();
        mailbox.drain();
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Draining));
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::Denied(None))));
        mailbox.drain();
        assert_eq!(poll(&mailbox), Poll::Pending);
    }

    #[test]
    fn whoever_waits_is_woken_by_what_there_is_to_fetch() {
        let mailbox = Mailbox::default();
        let (waker, wakes) = counting_waker();
        let is_woken = |act: &dyn Fn()| {
            assert_eq!(mailbox.poll(&mut Context::from_waker(&waker)), Poll::Pending);
            let before = wakes();
            act();
            wakes() > before
        };
        let (late, id) = (mailbox.begin_command(), mailbox.begin_command());
        assert!(!is_woken(&|| assert!(!mailbox.deliver_outcome(late, Outcome::Denied(None), |_| {}))));
        assert!(is_woken(&|| assert!(mailbox.deliver_outcome(id, Outcome::Denied(None), |_| {}))));
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::Denied(None))));
        assert!(is_woken(&|| mailbox.drain()));
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Draining));
        assert!(!is_woken(&|| mailbox.drain()));
    }
}
