//! Hold a grant back until those who lost their slots before it are served no more.

use alloc::collections::{BTreeMap, BTreeSet, btree_map};
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{SessionId, UserId};
use crate::time::Timestamp;

/// Decides when the client of a granted session may be told.
///
/// A store takes a slot from one session and gives it to another in a single step. But the first session still has its
/// socket, and its client still believes that it is in. If the second client were told at once, more clients than the limit
/// would be in. So a grant is told only when every session of that user that lost its slot before the grant is *gone*: its
/// client was told so by a close frame, or its socket is gone.
///
/// It must be every such session, not only those that the grant itself evicted. Otherwise: *a* is in. *b* evicts *a* and waits
/// for it. *c* evicts *b*. No client was ever told of *b*, so *b* is gone at once, and *c* would be told while *a* is in.
///
/// One tracker serves one process. It knows only sessions that are leaving or waiting. While there are none, a grant is told
/// at once, and [`LeavingTracker::is_empty`] is all that a server has to ask.
///
/// ```
/// use session_core::leaving_tracker::LeavingTracker;
/// use session_core::{NodeId, Timestamp, UserId};
///
/// let (ada, node, now) = (UserId::parse("ada").unwrap(), NodeId::new(7), Timestamp::default());
/// let [a, b, c] = [1, 2, 3].map(|number| node.session(number));
///
/// let mut leaving = LeavingTracker::default();
/// // The store grants a slot to `a`, and the server tells its client.
/// assert!(!leaving.must_wait(&ada, a));
/// // `b` evicts `a`, and `c` evicts `b`.
/// let cut_at = leaving.slot_lost(&ada, a, now);
/// assert!(leaving.must_wait(&ada, b));
/// leaving.slot_lost(&ada, b, now);
/// assert!(leaving.must_wait(&ada, c));
/// // `b` is gone: its client was never told that it is in, and is now told that it is not. Its own answer is passed on, so
/// // that it gives up the slot.
/// assert_eq!(leaving.gone(b), [b]);
/// // The server has written EVICTED and the close frame to `a`, or cut its socket at `cut_at`.
/// assert_eq!(leaving.gone(a), [c]);
/// assert!(leaving.is_empty());
/// # assert_eq!(cut_at, now + LeavingTracker::CUT_AFTER);
/// ```
///
/// # How to use it
///
/// - When the store takes a session's slot ([`EndedSession`](crate::ledger::EndedSession)), call
///   [`LeavingTracker::slot_lost`] before the store's answer to that command, or to any later one, is passed on. Then pass on
///   [`Event::Ended`](crate::session::Event::Ended).
/// - When the server itself closes a session that has a slot, or asks for one, call `slot_lost` before the session's release
///   is submitted. A silent peer, an expired token, a violation and a shutdown are such closes. BYE is none: the client
///   itself says that it is out.
/// - When the store grants a slot, ask [`LeavingTracker::must_wait`], unless the session is gone already. If the grant must
///   wait, keep the store's answer. The session goes on waiting for the store, but its timeout no longer applies.
/// - When a session's close frame has been written to its socket, its socket is gone, or its client has said BYE, call
///   [`LeavingTracker::gone`], and pass on the answers that it names. The session itself must have learned of its end before.
/// - Cut the socket of a session that is not gone at the time that `slot_lost` returned.
///
/// # What always holds
///
/// - A grant waits for no session that lost its slot after it, except for its own. A session that has lost its slot can be
///   closed whether or not its own grant is held back. So no grant waits in a circle, and none waits longer than
///   [`LeavingTracker::CUT_AFTER`].
/// - Users do not wait for each other.
/// - The grants of a user are told in the order in which they were granted.
/// - There is at most one entry for a live connection.
#[derive(Debug, Default)]
pub struct LeavingTracker {
    /// How many slots were lost so far.
    losses: u64,
    sessions: BTreeMap<SessionId, Entry>,
    /// The users with sessions that are leaving.
    users: BTreeMap<UserId, Queue>,
}

#[derive(Debug)]
struct Entry {
    user: UserId,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Its grant is held back.
    Waiting {
        /// How many slots had been lost when it was granted its own.
        losses: u64,
    },
    /// It lost its slot.
    Leaving {
        /// How many slots had been lost before.
        loss: u64,
        cut_at: Timestamp,
        /// Whether its grant is held back, until it is gone.
        is_held: bool,
    },
}

/// The sessions of one user. They are in `LeavingTracker::sessions` as well.
#[derive(Debug, Default)]
struct Queue {
    /// The losses of those that are leaving. At least one.
    leaving: BTreeSet<u64>,
    /// Those that wait, with the number of losses before the grant.
    waiting: BTreeSet<(u64, SessionId)>,
}

impl LeavingTracker {
    /// How long a session that lost its slot may keep its socket.
    ///
    /// To be told, its client needs only to take some hundred bytes. A client that reads has room for them in its receive
    /// window, so they are written at once. A client that has not made room for so long does not read, or is lost. A second
    /// is enough for one lost segment to be sent again, and no longer than a newcomer may be kept waiting.
    pub const CUT_AFTER: Duration = Duration::from_secs(1);

    /// A session lost its slot, or is about to give it up while its client is still served. Returns when to cut its socket.
    /// A session loses its slot once; further calls return the same time.
    pub fn slot_lost(&mut self, user: &UserId, session: SessionId, now: Timestamp) -> Timestamp {
        let waits = match self.sessions.get(&session) {
            Some(&Entry { state: State::Leaving { cut_at, .. }, .. }) => return cut_at,
            Some(&Entry { state: State::Waiting { losses }, .. }) => Some(losses),
            None => None,
        };
        let queue = self.users.entry(user.clone()).or_default();
        let is_held = waits.is_some_and(|losses| queue.waiting.remove(&(losses, session)));
        let (loss, cut_at) = (self.losses, now + Self::CUT_AFTER);
        queue.leaving.insert(loss);
        self.losses += 1;
        let state = State::Leaving { loss, cut_at, is_held };
        self.sessions.insert(session, Entry { user: user.clone(), state });
        cut_at
    }

    /// A session was granted a slot. Returns whether its client must not be told yet: then [`LeavingTracker::gone`] names the
    /// session when it is time.
    ///
    /// A session that has lost the slot already must wait too, until it is gone itself. It may not have learned of the loss
    /// yet, and would tell its client. Afterwards it learns of the grant, to give the slot up.
    #[must_use]
    pub fn must_wait(&mut self, user: &UserId, session: SessionId) -> bool {
        let Some(queue) = self.users.get_mut(user) else { return false };
        match self.sessions.entry(session) {
            btree_map::Entry::Vacant(entry) => {
                let losses = self.losses;
                queue.waiting.insert((losses, session));
                entry.insert(Entry { user: user.clone(), state: State::Waiting { losses } });
            }
            btree_map::Entry::Occupied(mut entry) => {
                if let State::Leaving { is_held, .. } = &mut entry.get_mut().state {
                    *is_held = true;
                }
            }
        }
        true
    }

    /// The session's client was told by a close frame, or its socket is gone. Returns the sessions whose held answers must be
    /// passed on now: this session itself if its answer is held, then those that waited only for this session, in the order
    /// of their grants.
    #[must_use]
    pub fn gone(&mut self, session: SessionId) -> Vec<SessionId> {
        let mut ready = Vec::new();
        let Some(Entry { user, state }) = self.sessions.remove(&session) else { return ready };
        let Some(queue) = self.users.get_mut(&user) else {
            unreachable!("a session waits only while another one of its user is leaving");
        };
        let is_held = match state {
            State::Waiting { losses } => queue.waiting.remove(&(losses, session)),
            State::Leaving { loss, is_held, .. } => {
                queue.leaving.remove(&loss);
                is_held
            }
        };
        if is_held {
            ready.push(session);
        }
        let first_loss = queue.leaving.first().copied();
        while let Some(&(losses, waits)) = queue.waiting.first()
            && first_loss.is_none_or(|loss| losses <= loss)
        {
            queue.waiting.remove(&(losses, waits));
            self.sessions.remove(&waits);
            ready.push(waits);
        }
        if queue.leaving.is_empty() {
            self.users.remove(&user);
        }
        ready
    }

    /// Whether no session is leaving. Then none waits either.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}
