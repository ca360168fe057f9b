//! Release every slot of this process, also when the store's answers are lost.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::id::{ResumeKey, SessionId, UserId};
use crate::ledger::{KnownToken, Outcome, StoreCommand, StoreError};
use crate::time::Timestamp;

/// Tracks the slots of one process until the store confirms that they are released.
///
/// An acquire whose answer was lost may have taken a slot, and a release may fail. Both leave a *pending release*. The
/// tracker retries it with backoff until the store confirms it.
///
/// A session's command goes through the tracker twice. [`ReleaseTracker::begin`] gives a [`Ticket`] before the command is
/// submitted. [`ReleaseTracker::answered`] takes the ticket with the store's answer,
/// [`ReleaseTracker::in_doubt`] after a timeout, and [`ReleaseTracker::withdrawn`] if the store had not begun to apply the
/// command by then. Answers may come in any order.
///
/// An acquire that showed a resume token and got no answer leaves a pending [`StoreCommand::Linger`] with that token, not a
/// release. A release would take the slot from its client because the store was slow. If the slot has another token, which
/// no client has, the ledger releases it.
///
/// ```
/// use session_core::ledger::{Outcome, StoreCommand};
/// use session_core::release_tracker::ReleaseTracker;
/// use session_core::{NodeId, Timestamp, UserId};
///
/// let (user, session, now) = (UserId::parse("ada").unwrap(), NodeId::new(7).session(1), Timestamp::default());
/// let acquire = StoreCommand::Acquire { user: user.clone(), session, limit: None, at: now, options: None };
///
/// let mut tracker = ReleaseTracker::new(1000);
/// let ticket = tracker.begin(&acquire).unwrap();
/// // The store did not answer in time.
/// tracker.in_doubt(&ticket, now);
/// assert!(!tracker.is_settled(session));
///
/// let retry_at = tracker.deadline().unwrap();
/// let release = tracker.next_retry(retry_at).unwrap();
/// assert_eq!(release, StoreCommand::Release { user, session });
/// let ticket = tracker.begin(&release).unwrap();
/// tracker.answered(&ticket, &Outcome::Released, retry_at);
/// assert!(tracker.is_settled(session));
/// ```
///
/// # What always holds
///
/// - A session that may have a slot in the store is tracked.
/// - Its release is pending, unless its connection still holds the slot or has submitted a release that is not answered.
/// - At most `capacity` sessions are tracked. The place for a pending release is reserved before the acquire is submitted.
#[derive(Debug)]
pub struct ReleaseTracker {
    capacity: usize,
    sessions: BTreeMap<SessionId, SlotState>,
    /// The pending releases that wait for their next try: exactly those in [`SlotState::Waiting`].
    schedule: BTreeSet<(Timestamp, SessionId)>,
    /// The number of sessions in [`SlotState::Trying`].
    trying: usize,
}

/// A command that was submitted to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    user: UserId,
    session: SessionId,
    call: Call,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Acquire,
    Release,
    Linger(LostClient),
    /// A command that takes and gives no slot.
    Query,
}

impl Ticket {
    /// The ticket of an acquire.
    #[must_use]
    pub const fn acquire(user: UserId, session: SessionId) -> Self {
        Self { user, session, call: Call::Acquire }
    }

    /// The user of the command.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        &self.user
    }

    /// The session that asks.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Whether the command asks for a slot.
    #[must_use]
    pub const fn is_acquire(&self) -> bool {
        matches!(self.call, Call::Acquire)
    }
}

impl From<&StoreCommand> for Ticket {
    fn from(command: &StoreCommand) -> Self {
        let call = match command {
            StoreCommand::Acquire { .. } => Call::Acquire,
            StoreCommand::Release { .. } => Call::Release,
            StoreCommand::Linger { at, token, .. } => Call::Linger(LostClient { at: *at, token: token.clone() }),
            StoreCommand::CountSlots { .. }
            | StoreCommand::ListSessions { .. }
            | StoreCommand::EndSessions { .. }
            | StoreCommand::Renew { .. } => Call::Query,
        };
        Self { user: command.user().clone(), session: command.session(), call }
    }
}

/// What is known of a session that may have a slot.
#[derive(Debug)]
enum SlotState {
    /// Its connection holds the slot, or acquires it, and will release it. With the key of the resume token that the acquire
    /// showed, and whether it may be in line, where an answer that takes nothing leaves it.
    Held { shown: Option<Box<ResumeKey>>, is_in_line: bool },
    /// Its release is pending and will be retried at this time.
    Waiting(PendingRelease, Timestamp),
    /// Its release is pending and has been submitted again.
    Trying(PendingRelease),
}

#[derive(Debug)]
struct PendingRelease {
    user: UserId,
    /// The client that may resume the slot, if it may.
    lost: Option<LostClient>,
    tries: u32,
}

/// What [`StoreCommand::Linger`] says of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LostClient {
    at: Timestamp,
    token: KnownToken,
}

impl ReleaseTracker {
    /// The number of releases that are retried at the same time. It keeps retries from filling the store's queue.
    pub const MAX_UNDER_WAY: usize = 64;

    const FIRST_BACKOFF: Duration = Duration::from_millis(50);

    /// The longest pause between two tries of one release. Once a store works again, each pending release is retried
    /// within this time, plus the time that [`ReleaseTracker::MAX_UNDER_WAY`] at a time take.
    pub const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

    /// A tracker for at most `capacity` sessions that hold, or may hold, a slot at the same time.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, sessions: BTreeMap::new(), schedule: BTreeSet::new(), trying: 0 }
    }

    /// Registers a command before it is submitted. For an acquire this reserves the place of a pending release.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] for an acquire over the capacity. It must not be submitted.
    pub fn begin(&mut self, command: &StoreCommand) -> Result<Ticket, StoreError> {
        let ticket = Ticket::from(command);
        if ticket.is_acquire() {
            let is_known = self.sessions.contains_key(&ticket.session);
            if !is_known && self.sessions.len() >= self.capacity {
                return Err(StoreError::Overloaded);
            }
            let shown = command.shown_key().map(Box::new);
            let new = SlotState::Held { shown: None, is_in_line: false };
            if let SlotState::Held { shown: last, .. } = self.sessions.entry(ticket.session).or_insert(new) {
                *last = shown;
            }
        }
        Ok(ticket)
    }

    /// Takes the store's answer to a command.
    pub fn answered(&mut self, ticket: &Ticket, outcome: &Outcome, now: Timestamp) {
        match (&ticket.call, outcome) {
            (Call::Query, _) | (Call::Acquire, Outcome::Granted { .. }) => {}
            // A session in line may be denied something else, and stays.
            (Call::Acquire, Outcome::Denied(Some(usage))) if usage.is_in_line() => {}
            (Call::Acquire, Outcome::Waiting(_)) => {
                if let Some(SlotState::Held { is_in_line, .. }) = self.sessions.get_mut(&ticket.session) {
                    *is_in_line = true;
                }
            }
            // It is in line as before.
            (Call::Acquire, Outcome::Rejected(_)) if self.is_in_line(ticket.session) => {}
            (Call::Acquire, Outcome::Denied(_) | Outcome::Rejected(_))
            | (Call::Release | Call::Linger(_), Outcome::Released) => self.settle(ticket.session),
            // An answer that does not fit the command is worth no more than none.
            (Call::Acquire | Call::Release | Call::Linger(_), _) => self.in_doubt(ticket, now),
        }
    }

    /// The wait for the answer has ended, and the store may have begun to apply the command. The outcome counts as
    /// [`Outcome::Unknown`]. For a command that the store has certainly not begun see [`ReleaseTracker::withdrawn`].
    pub fn in_doubt(&mut self, ticket: &Ticket, now: Timestamp) {
        let lost = match &ticket.call {
            Call::Query => return,
            Call::Acquire => match self.sessions.get_mut(&ticket.session) {
                Some(SlotState::Held { shown, .. }) => {
                    shown.take().map(|key| LostClient { at: now, token: KnownToken::Shown(key) })
                }
                Some(SlotState::Waiting(..) | SlotState::Trying(_)) | None => None,
            },
            Call::Release => None,
            Call::Linger(lost) => Some(lost.clone()),
        };
        self.schedule_release(&ticket.user, ticket.session, lost, now);
    }

    /// The command was withdrawn before the store began to apply it. So it is certainly not applied.
    pub fn withdrawn(&mut self, ticket: &Ticket, now: Timestamp) {
        match &ticket.call {
            // The place is still there. A session that goes on gives it up itself, and one whose wait has ended does not.
            Call::Acquire if self.is_in_line(ticket.session) => self.in_doubt(ticket, now),
            Call::Acquire => self.settle(ticket.session),
            Call::Query => {}
            // The slot is still there.
            Call::Release | Call::Linger(_) => self.in_doubt(ticket, now),
        }
    }

    /// The next release to retry, if one is due. It is under way until [`ReleaseTracker::answered`] or
    /// [`ReleaseTracker::in_doubt`] says what became of it.
    pub fn next_retry(&mut self, now: Timestamp) -> Option<StoreCommand> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let (_, session) = self.schedule.pop_first()?;
        let Some(SlotState::Waiting(pending, _)) = self.sessions.remove(&session) else {
            unreachable!("the schedule has exactly the releases that wait");
        };
        let user = pending.user.clone();
        let release = match pending.lost.clone() {
            None => StoreCommand::Release { user, session },
            Some(LostClient { at, token }) => StoreCommand::Linger { user, session, at, token },
        };
        self.sessions.insert(session, SlotState::Trying(pending));
        self.trying += 1;
        Some(release)
    }

    /// When [`ReleaseTracker::next_retry`] will have a release. May change with every call.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.trying >= Self::MAX_UNDER_WAY {
            return None;
        }
        self.schedule.first().map(|&(at, _)| at)
    }

    /// Whether the release of this session is pending, waiting or under way again.
    #[must_use]
    pub fn is_pending(&self, session: SessionId) -> bool {
        matches!(self.sessions.get(&session), Some(SlotState::Waiting(..) | SlotState::Trying(_)))
    }

    /// Whether this session certainly has no slot.
    #[must_use]
    pub fn is_settled(&self, session: SessionId) -> bool {
        !self.sessions.contains_key(&session)
    }

    /// The number of pending releases. A release that was submitted for the first time is not pending, so a shutdown waits for
    /// [`ReleaseTracker::tracked`] instead.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.schedule.len() + self.trying
    }

    /// The number of sessions that hold, or may hold, a slot. A shutdown waits until it is 0.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.sessions.len()
    }

    fn settle(&mut self, session: SessionId) {
        match self.sessions.remove(&session) {
            Some(SlotState::Waiting(_, at)) => {
                self.schedule.remove(&(at, session));
            }
            Some(SlotState::Trying(_)) => self.trying -= 1,
            Some(SlotState::Held { .. }) | None => {}
        }
    }

    /// Whether the session has a place in line, which its connection will give up.
    fn is_in_line(&self, session: SessionId) -> bool {
        matches!(self.sessions.get(&session), Some(SlotState::Held { is_in_line: true, .. }))
    }

    /// Schedules the next try. A settled session has no slot, whatever a late answer says: the store applies its commands
    /// in order, and the release was the last.
    fn schedule_release(&mut self, user: &UserId, session: SessionId, lost: Option<LostClient>, now: Timestamp) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let tries = match state {
            SlotState::Held { .. } => 0,
            SlotState::Trying(pending) => {
                self.trying -= 1;
                pending.tries
            }
            SlotState::Waiting(..) => return,
        };
        let backoff = Self::FIRST_BACKOFF.saturating_mul(1 << tries.min(16)).min(Self::LONGEST_BACKOFF);
        let at = now + backoff;
        let pending = PendingRelease { user: user.clone(), lost, tries: tries.saturating_add(1) };
        *state = SlotState::Waiting(pending, at);
        self.schedule.insert((at, session));
    }
}
