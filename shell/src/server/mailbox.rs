//! What other tasks and threads tell one connection: a store outcome, the loss of its slot, a hint, the server's drain.

use std::mem;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use session_core::ledger::{EndReason, Hint, Outcome};

/// The mailbox of one connection. Its size is constant: it holds at most one outcome, one flag for a cut and one for the drain, one
/// end reason and one hint. That is enough, because a session has at most one pending command and loses its slot once, and the more urgent hint
/// includes the other.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    /// See [`Mailbox::is_gone`].
    is_gone: AtomicBool,
    /// See [`Mailbox::is_cut`].
    is_cut: AtomicBool,
    /// The id of the last command and, in the lowest two bits, who has decided about it: [`OPEN`], [`CLAIMED`] or
    /// [`WITHDRAWN`]. The store decides without the lock.
    claim: AtomicU32,
}

/// The store has not begun to apply the command, and the connection waits.
const OPEN: u32 = 0;
/// The store has begun to apply the command.
const CLAIMED: u32 = 1;
/// The connection stopped waiting before the store began. The store never applies the command.
const WITHDRAWN: u32 = 2;

#[derive(Debug, Default)]
struct Inner {
    is_cut: bool,
    command: CommandState,
    drain: DrainState,
    end_reason: Option<Box<EndReason>>,
    hint: Option<Hint>,
    client_address: Option<IpAddr>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
enum CommandState {
    #[default]
    None,
    Pending(CommandId),
    /// The outcome has come. It is a grant of which the client must not be told yet.
    Held(Outcome),
    Done(Outcome),
}

#[derive(Debug, Default)]
enum DrainState {
    #[default]
    Running,
    Draining,
    Notified,
}

/// The id of one command. It tells the outcome of that command from the late outcome of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandId(u32);

impl CommandId {
    const fn with(self, decision: u32) -> u32 {
        self.0 << 2 | decision
    }
}

/// How the wait for an outcome ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitEnd {
    /// The outcome has come. [`Mailbox::poll`] returns it, or will when a held grant is released.
    Answered,
    /// The store had not begun to apply the command. It never does.
    Withdrawn,
    /// The store has begun. The command may have been applied, or may be yet.
    InDoubt,
}

/// What a connection finds in its mailbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Notification {
    /// The server may not serve the session any more.
    Cut,
    /// The server drains. Comes once.
    Draining,
    /// The session has lost its slot.
    Ended(EndReason),
    /// The outcome of the pending command.
    Stored(Outcome),
    /// A hint of the store.
    Hinted(Hint),
}

impl Mailbox {
    /// Records the address of the connection's client.
    pub fn set_client_address(&self, address: IpAddr) {
        self.lock().client_address = Some(address);
    }

    /// The address of the connection's client, if it is known.
    #[must_use]
    pub fn client_address(&self) -> Option<IpAddr> {
        self.lock().client_address
    }

    /// Starts to wait for the outcome of a new command. The mailbox no longer waits for an earlier one.
    pub fn begin_command(&self) -> CommandId {
        let mut inner = self.lock();
        let last = self.claim.load(Ordering::Relaxed) >> 2;
        let id = CommandId(last.wrapping_add(1) & (u32::MAX >> 2));
        self.claim.store(id.with(OPEN), Ordering::Release);
        inner.command = CommandState::Pending(id);
        id
    }

    /// The store begins to apply the command. False if the connection has stopped waiting for it: then the store must not.
    #[must_use]
    pub fn claim(&self, id: CommandId) -> bool {
        self.decide(id, CLAIMED)
    }

    /// Decides about a command, unless that was done before. Whether this decision stands.
    fn decide(&self, id: CommandId, decision: u32) -> bool {
        let (from, to) = (id.with(OPEN), id.with(decision));
        match self.claim.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(current) => current == to,
        }
    }

    /// Delivers an outcome. False if the mailbox does not wait for it any more.
    ///
    /// Before it delivers, it calls `record` under the mailbox's lock. The connection may submit its next command as soon
    /// as it has the outcome, and this outcome must be recorded by then.
    #[must_use]
    pub fn deliver_outcome(&self, id: CommandId, outcome: Outcome, record: impl FnOnce(&Outcome)) -> bool {
        let Some(mut inner) = self.lock_waiting_for(id) else { return false };
        record(&outcome);
        inner.command = CommandState::Done(outcome);
        wake(inner);
        true
    }

    /// As [`Mailbox::deliver_outcome`], but [`Mailbox::poll`] returns the outcome only after [`Mailbox::release_grant`].
    #[must_use]
    pub fn hold_grant(&self, id: CommandId, grant: Outcome, record: impl FnOnce(&Outcome)) -> bool {
        let Some(mut inner) = self.lock_waiting_for(id) else { return false };
        record(&grant);
        inner.command = CommandState::Held(grant);
        true
    }

    /// Delivers the grant that is held, if there is one.
    pub fn release_grant(&self) {
        let mut inner = self.lock();
        if matches!(inner.command, CommandState::Held(_))
            && let CommandState::Held(grant) = mem::take(&mut inner.command)
        {
            inner.command = CommandState::Done(grant);
            wake(inner);
        }
    }

    /// Records that the connection's client is served no more: it was told so, or the socket is gone.
    pub(super) fn set_gone(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }

    /// Whether the connection's client is served no more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }

    /// Stops waiting for an outcome, and withdraws the command if the store has not begun to apply it.
    #[must_use]
    pub fn end_wait(&self, id: CommandId) -> WaitEnd {
        let Some(mut inner) = self.lock_waiting_for(id) else { return WaitEnd::Answered };
        inner.command = CommandState::None;
        if self.decide(id, WITHDRAWN) { WaitEnd::Withdrawn } else { WaitEnd::InDoubt }
    }

    /// Withdraws a command that the store has not begun to apply. If it has begun, the mailbox still waits for the outcome.
    #[must_use]
    pub fn withdraw(&self, id: CommandId) -> bool {
        let Some(mut inner) = self.lock_waiting_for(id) else { return false };
        let is_withdrawn = self.decide(id, WITHDRAWN);
        if is_withdrawn {
            inner.command = CommandState::None;
        }
        is_withdrawn
    }

    /// Tells the connection that the server drains. Only the first call has an effect.
    pub fn drain(&self) {
        let mut inner = self.lock();
        if matches!(inner.drain, DrainState::Running) {
            inner.drain = DrainState::Draining;
            wake(inner);
        }
    }

    /// Whether the connection has been told to end at once and without a word.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Tells the connection to end at once and without a word.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        let mut inner = self.lock();
        inner.is_cut = true;
        wake(inner);
    }

    /// Tells the connection that its session has lost its slot.
    pub fn end(&self, reason: EndReason) {
        let mut inner = self.lock();
        inner.end_reason.get_or_insert_with(|| Box::new(reason));
        wake(inner);
    }

    /// Passes on a hint.
    pub fn hint(&self, hint: Hint) {
        let mut inner = self.lock();
        if inner.hint != Some(Hint::Turn) {
            inner.hint = Some(hint);
            wake(inner);
        }
    }

    /// The next notification: a cut first, then the loss of the slot, an outcome after it, which may be the grant of that very slot. A
    /// hint comes last.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Notification> {
        let mut inner = self.lock();
        if mem::take(&mut inner.is_cut) {
            return Poll::Ready(Notification::Cut);
        }
        if let Some(reason) = inner.end_reason.take() {
            return Poll::Ready(Notification::Ended(*reason));
        }
        if matches!(inner.drain, DrainState::Draining) {
            inner.drain = DrainState::Notified;
            return Poll::Ready(Notification::Draining);
        }
        if matches!(inner.command, CommandState::Done(_))
            && let CommandState::Done(outcome) = mem::take(&mut inner.command)
        {
            return Poll::Ready(Notification::Stored(outcome));
        }
        if let Some(hint) = inner.hint.take() {
            return Poll::Ready(Notification::Hinted(hint));
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The lock, if the mailbox waits for the outcome of this command.
    fn lock_waiting_for(&self, id: CommandId) -> Option<MutexGuard<'_, Inner>> {
        let inner = self.lock();
        match inner.command {
            CommandState::Pending(pending) if pending == id => Some(inner),
            CommandState::Pending(_) | CommandState::Held(_) | CommandState::Done(_) | CommandState::None => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single assignment, so a poisoned mailbox is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the connection after the lock is released, because the connection takes the lock first.
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
    fn outcome_is_delivered_only_to_its_command() {
        let mailbox = Mailbox::default();
        let first = mailbox.begin_command();
        assert_eq!(mailbox.end_wait(first), WaitEnd::Withdrawn);
        let record = |_: &Outcome| panic!("a late outcome must not be recorded");
        assert!(!mailbox.deliver_outcome(first, Outcome::Denied(None), record), "a late outcome is dropped");
        let second = mailbox.begin_command();
        assert!(
            !mailbox.deliver_outcome(first, Outcome::Denied(None), |_| {}),
            "a late outcome is not that of the next command"
        );
        assert_eq!(mailbox.end_wait(first), WaitEnd::Answered, "the mailbox waits for the second command");
        assert_eq!(poll(&mailbox), Poll::Pending);
        let is_locked = || mailbox.inner.try_lock().is_err();
        let record = |_: &Outcome| assert!(is_locked(), "recorded before the connection can poll it");
        assert!(mailbox.deliver_outcome(second, Outcome::Released, record));
        assert_eq!(mailbox.end_wait(second), WaitEnd::Answered, "a delivered outcome stays");
        assert!(!mailbox.deliver_outcome(second, Outcome::Denied(None), |_| {}), "an outcome is delivered once");
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::Released)));
        assert_eq!(poll(&mailbox), Poll::Pending);
    }

    #[test]
    fn held_grant_comes_after_its_release_and_the_loss_first() {
        let mailbox = Mailbox::default();
        let id = mailbox.begin_command();
        mailbox.release_grant();
        assert!(mailbox.hold_grant(id, Outcome::granted(1), |_| {}));
        assert_eq!(mailbox.end_wait(id), WaitEnd::Answered);
        assert!(!mailbox.withdraw(id), "the store has answered");
        assert!(!mailbox.deliver_outcome(id, Outcome::Unknown, |_| {}), "an outcome comes once");
        let (waker, wakes) = counting_waker();
        assert_eq!(mailbox.poll(&mut Context::from_waker(&waker)), Poll::Pending);
        mailbox.end(EndReason::ByOperator);
        mailbox.release_grant();
        assert_eq!(wakes(), 1, "one notification wakes it for both");
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Ended(EndReason::ByOperator)));
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::granted(1))));
        mailbox.release_grant();
        assert_eq!(poll(&mailbox), Poll::Pending);

        let id = mailbox.begin_command();
        assert!(mailbox.hold_grant(id, Outcome::granted(1), |_| {}));
        assert_eq!(mailbox.poll(&mut Context::from_waker(&waker)), Poll::Pending);
        mailbox.release_grant();
        assert_eq!(wakes(), 2);
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::granted(1))));
    }

    #[test]
    fn command_is_claimed_or_withdrawn_but_never_both() {
        let mailbox = Mailbox::default();
        let claimed = mailbox.begin_command();
        assert!(mailbox.claim(claimed) && mailbox.claim(claimed));
        assert!(!mailbox.withdraw(claimed), "the store has begun");
        assert_eq!(mailbox.end_wait(claimed), WaitEnd::InDoubt);
        assert!(!mailbox.deliver_outcome(claimed, Outcome::Released, |_| panic!("nobody waits")));
        let ways: [fn(&Mailbox, CommandId) -> bool; 2] =
            [Mailbox::withdraw, |mailbox, id| mailbox.end_wait(id) == WaitEnd::Withdrawn];
        for withdraw in ways {
            let withdrawn = mailbox.begin_command();
            assert!(withdraw(&mailbox, withdrawn) && !mailbox.claim(withdrawn));
            let next = mailbox.begin_command();
            assert!(!mailbox.claim(withdrawn), "a later command changes nothing");
            assert!(mailbox.claim(next) && mailbox.deliver_outcome(next, Outcome::Released, |_| {}));
            assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::Released)));
        }
    }

    #[test]
    fn command_ids_wrap_beside_the_decision() {
        let mailbox = Mailbox::default();
        mailbox.claim.store(u32::MAX, Ordering::Relaxed);
        let id = mailbox.begin_command();
        assert_eq!(id, CommandId(0));
        assert!(mailbox.claim(id));
    }

    #[test]
    fn drain_comes_once_and_before_the_outcome() {
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
    fn new_notifications_wake_the_connection() {
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

    #[test]
    fn hint_wakes_and_comes_after_the_outcome() {
        let mailbox = Mailbox::default();
        let (waker, wakes) = counting_waker();
        let hinted = |hint| Poll::Ready(Notification::Hinted(hint));
        assert_eq!(mailbox.poll(&mut Context::from_waker(&waker)), Poll::Pending);
        mailbox.hint(Hint::Changed);
        assert_eq!((wakes(), poll(&mailbox), poll(&mailbox)), (1, hinted(Hint::Changed), Poll::Pending));

        // The answer to a command may be older than a hint that comes meanwhile.
        let id = mailbox.begin_command();
        mailbox.hint(Hint::Turn);
        assert_eq!(poll(&mailbox), hinted(Hint::Turn));
        mailbox.hint(Hint::Turn);
        assert!(mailbox.deliver_outcome(id, Outcome::Denied(None), |_| {}));
        mailbox.drain();
        mailbox.end(EndReason::ByOperator);
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Ended(EndReason::ByOperator)));
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Draining));
        assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::Denied(None))));
        assert_eq!((poll(&mailbox), poll(&mailbox)), (hinted(Hint::Turn), Poll::Pending));
    }

    #[test]
    fn turn_includes_a_change_in_either_order() {
        for hints in [[Hint::Turn, Hint::Changed], [Hint::Changed, Hint::Turn]] {
            let mailbox = Mailbox::default();
            hints.into_iter().for_each(|hint| mailbox.hint(hint));
            assert_eq!(poll(&mailbox), Poll::Ready(Notification::Hinted(Hint::Turn)), "{hints:?}");
            assert_eq!(poll(&mailbox), Poll::Pending);
        }
    }
}
