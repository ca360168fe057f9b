//! How sessions learn that the store took their slot away.

use std::fmt;
use std::sync::{Arc, OnceLock};

use session_core::ledger::{EndReason, EndedSession, SessionHint};
use session_core::{NodeId, SessionId, UserId};

use crate::runtime::events::log_event;

/// Notifies the sessions of this process that lost their slots.
///
/// A store delivers only sessions of its own node ([`Store::node`](super::api::Store::node)): the process that holds the
/// connection ends it. If a session of another node loses its slot, that node's store delivers it there.
pub trait SessionNotifier: Send + Sync {
    /// Notifies each of these sessions of one user. Quick: the store calls it where it applies commands.
    ///
    /// The store calls it in the order in which it applied the commands, and before it answers the command that took the
    /// slots, or any later command of that user. So the notifier knows who is leaving before another session is told that
    /// it is in.
    ///
    /// A session may have ended already. It may even still hold its slot, if the store could not tell whether a commit
    /// succeeded; the session then ends all the same and releases the slot.
    fn notify(&self, user: &UserId, ended: Vec<EndedSession>);

    /// Ends these sessions at once and without a word: another node may free their slots now. Quick. They need no release. Only a
    /// store that servers share calls this.
    fn cut(&self, _sessions: &[SessionId]) {}

    /// From now on new sessions have this node id. Only a store that servers share calls this.
    fn joins(&self, _node: NodeId) {}

    /// Passes these hints on. The store calls it once the command that they come from is applied, or may be. Quick, and in no
    /// order with answers: a session takes a hint at any time.
    fn hint(&self, hints: Vec<SessionHint>);
}

/// The notifier of a store, once it is set.
#[derive(Clone, Default)]
pub(super) struct NotifierSlot(Arc<OnceLock<Arc<dyn SessionNotifier>>>);

impl NotifierSlot {
    pub(super) fn set(&self, notifier: Arc<dyn SessionNotifier>) {
        let is_first = self.0.set(notifier).is_ok();
        debug_assert!(is_first, "a store has one notifier");
    }

    pub(super) fn notify(&self, user: &UserId, ended: Vec<EndedSession>) {
        if let Some(notifier) = self.0.get().filter(|_| !ended.is_empty()) {
            notifier.notify(user, ended);
        }
    }

    pub(super) fn cut(&self, sessions: &[SessionId]) {
        if let Some(notifier) = self.0.get().filter(|_| !sessions.is_empty()) {
            notifier.cut(sessions);
        }
    }

    pub(super) fn joins(&self, node: NodeId) {
        if let Some(notifier) = self.0.get() {
            notifier.joins(node);
        }
    }

    pub(super) fn hint(&self, hints: Vec<SessionHint>) {
        if let Some(notifier) = self.0.get().filter(|_| !hints.is_empty()) {
            notifier.hint(hints);
        }
    }
}

impl fmt::Debug for NotifierSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "NotifierSlot(set)" } else { "NotifierSlot(empty)" })
    }
}

/// Logs that a lingering session lost its slot. Nobody else would: it has no connection.
pub(super) fn log_displaced(user: &UserId, session: SessionId, reason: &EndReason) {
    log_event!(session_evicted {
        user,
        session: display(session),
        client_address: None::<&str>,
        reason: display(reason.message()),
    });
}

/// Logs that a slot has lapsed. Nobody has to be told.
pub(super) fn log_lapsed(user: &UserId, session: SessionId) {
    log_event!(slot_lapsed { user, session: display(session) });
}
