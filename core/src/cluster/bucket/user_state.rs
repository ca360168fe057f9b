//! What a node does for one user: the commands of its sessions are folded into one change of the user's record.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;

use super::own_session::{CallId, Grant, OwnSession};
use crate::cluster::shared_store::{Stamp, StoredRecord};
use crate::id::{NodeId, SessionId, UserId};
use crate::ledger::{
    AdmissionPolicy, ApplyResult, EndedSession, LeavingSession, Liveness, Outcome, SessionHint, SessionRecord,
    SessionStatus, StoreCommand, StoreError, UserRecord, apply, remove_lapsed,
};
use crate::time::Timestamp;

/// The commands of one user's sessions on this node, and what is known of the record.
#[derive(Debug, Default)]
pub(super) struct UserState {
    /// The commands that are not decided yet, in their order.
    pub queue: Vec<Call>,
    /// The user's sessions on this node.
    pub sessions: BTreeMap<SessionId, OwnSession>,
    /// Sessions of this node that are not served any more: to take out of those who are leaving.
    pub closed: BTreeSet<SessionId>,
    /// Sessions that were told, were lost before they were in the store again, and linger.
    pub lost: Vec<SessionRecord>,
    /// The record as it was last read or written.
    pub known: Option<KnownRecord>,
    /// The request that is not answered yet.
    pub under_way: Option<UnderWay>,
    /// Whether the record has to be read again: it has changed, or may have.
    pub must_read: bool,
    /// Whether it has to be read again even after the request that is under way.
    pub is_hinted: bool,
    /// Whether it may have entries that nobody stands behind. It is looked at once a look at the nodes is later than the record.
    pub must_tidy: bool,
}

/// A command to decide.
#[derive(Debug)]
pub(super) struct Call {
    pub id: CallId,
    pub command: StoreCommand,
    /// Whether a write that applied it was sent, and may have arrived.
    pub may_be_applied: bool,
}

/// A record, and when it was read.
#[derive(Debug, Clone)]
pub(super) struct KnownRecord {
    pub record: StoredRecord,
    /// The number of the last beat that was sent before.
    pub read_after: u64,
}

/// A request about the record.
#[derive(Debug)]
pub(super) enum UnderWay {
    Read,
    Write(Box<Decision>),
}

/// What a fold decided. It counts once the store has written the record, or has said that it had not to change.
#[derive(Debug)]
pub(super) struct Decision {
    /// The record on which it is based.
    pub expected: Option<Stamp>,
    /// The record as decided.
    pub record: UserRecord,
    pub is_changed: bool,
    pub decided: Vec<(Call, ApplyResult)>,
    /// Sessions that lost their slots, and are leaving from now on.
    pub leaving: Vec<SessionId>,
    /// Sessions whose end is acknowledged.
    pub closed: Vec<SessionId>,
    /// Sessions that are asserted to be in the record.
    pub asserted: Vec<SessionId>,
    /// Whether sessions that were leaving are gone.
    pub has_left: bool,
    pub hints: Vec<SessionHint>,
    /// Sessions that had lapsed, and are removed.
    pub lapsed: Vec<SessionId>,
    /// Whether it could tell all entries that nobody stands behind.
    pub is_tidy: bool,
}

/// What a fold has to know beside the record.
pub(super) struct FoldContext<'a> {
    pub user: &'a UserId,
    pub policy: &'a AdmissionPolicy,
    pub now: Timestamp,
    /// The number of the beat that showed the nodes.
    pub looked: u64,
    pub liveness: &'a dyn Fn(NodeId) -> Liveness,
    pub is_own: &'a dyn Fn(NodeId) -> bool,
}

/// What the caller of a [`Bucket`](super::Bucket) has to do for a user.
#[derive(Debug, Default)]
pub(super) struct UserActions {
    pub outcomes: Vec<(CallId, Outcome)>,
    pub ended: Vec<EndedSession>,
    pub lapsed: Vec<SessionId>,
    pub displaced: Vec<EndedSession>,
    pub hints: Vec<SessionHint>,
}

impl Decision {
    /// Whether any of it depends on the policy.
    pub(super) fn depends_on_policy(&self) -> bool {
        self.decided.iter().any(|(call, _)| !call.command.is_release())
    }
}

impl UserState {
    /// Whether nothing is left to do or to know.
    pub(super) fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.under_way.is_none() && !self.must_read && !self.must_tidy && !self.has_work()
    }

    /// Whether nothing is left to do until something happens.
    pub(super) fn is_settled(&self) -> bool {
        let is_read = self.under_way.is_none() && !self.must_read && !self.must_tidy;
        is_read && !self.has_work() && !self.has_grants()
    }

    /// Whether there is a command to decide that depends on the policy.
    pub(super) fn needs_policy(&self) -> bool {
        self.queue.iter().any(|call| !call.command.is_release())
    }

    /// Whether the record may have to change for the node's own sessions.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.closed.is_empty() || self.must_restore()
    }

    /// Whether entries that nobody stands behind can be told from others. `looked` is the number of the beat that showed the nodes.
    pub(super) fn can_tidy(&self, looked: u64) -> bool {
        self.must_tidy && self.known.as_ref().is_some_and(|known| looked > known.read_after)
    }

    /// The stamp of the record, if there is one.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.known.as_ref().and_then(|known| known.record.as_ref()).map(|(stamp, _)| *stamp)
    }

    pub(super) fn must_restore(&self) -> bool {
        !self.lost.is_empty() || self.sessions.values().any(OwnSession::must_be_restored)
    }

    /// Whether a session waits for others to leave.
    pub(super) fn has_grants(&self) -> bool {
        self.sessions.values().any(|session| matches!(session, OwnSession::Granted(_)))
    }

    /// Whether anything is kept for sessions of this node id.
    pub(super) fn concerns(&self, node: NodeId) -> bool {
        let under_way = match &self.under_way {
            Some(UnderWay::Write(decision)) => decision.decided.as_slice(),
            Some(UnderWay::Read) | None => &[],
        };
        let calls = self.queue.iter().chain(under_way.iter().map(|(call, _)| call));
        let asked = calls.map(|call| call.command.session());
        self.sessions.keys().chain(&self.closed).copied().chain(asked).any(|session| session.node() == node)
    }

    /// Whether to write without reading first. Most users who sign in have no record, or one that was read a moment ago. And a store
    /// that has forgotten something may have forgotten the record, or has all that is to be restored: either way one request is enough.
    pub(super) fn may_guess(&self) -> bool {
        let is_acquire = |call: &Call| matches!(call.command, StoreCommand::Acquire { .. }) && !call.may_be_applied;
        self.known.is_some() || self.must_restore() || self.queue.first().is_some_and(is_acquire)
    }

    /// Takes a command out of the queue, if it has never been sent.
    pub(super) fn withdraw(&mut self, id: CallId) -> bool {
        let is_it = |call: &Call| call.id == id && !call.may_be_applied;
        let Some(at) = self.queue.iter().position(is_it) else { return false };
        let Call { command, .. } = self.queue.remove(at);
        if matches!(command, StoreCommand::Acquire { .. }) {
            self.denied(command.session());
        }
        true
    }

    /// Rejects the commands that must not be decided now.
    pub(super) fn refuse(
        &mut self,
        is_refused: impl Fn(&StoreCommand) -> bool,
        error: StoreError,
        actions: &mut UserActions,
    ) {
        let refused = self.queue.extract_if(.., |call| is_refused(&call.command)).collect::<Vec<_>>();
        for Call { id, command, may_be_applied } in refused {
            let is_acquire = matches!(command, StoreCommand::Acquire { .. });
            let outcome = if may_be_applied { Outcome::Unknown } else { Outcome::Rejected(error) };
            match (is_acquire, may_be_applied) {
                (true, true) => self.in_doubt(command.session()),
                (true, false) => self.denied(command.session()),
                (false, _) => {}
            }
            actions.outcomes.push((id, outcome));
        }
    }

    /// Folds all commands into one change of the record, and takes them out of the queue.
    pub(super) fn fold(&mut self, context: &FoldContext<'_>) -> Decision {
        let FoldContext { user, policy, now, looked, liveness, is_own } = *context;
        let is_tidy = self.can_tidy(looked);
        let (expected, before) = match self.known.as_ref().and_then(|known| known.record.as_ref()) {
            Some((stamp, record)) => (Some(*stamp), record.clone()),
            None => (None, UserRecord::default()),
        };
        let mut record = before.clone();
        let closed: Vec<_> = self.closed.iter().copied().collect();
        let leaving_before = record.leaving().len();
        let is_gone = |session: SessionId| liveness(session.node()) != Liveness::Alive;
        record.leaving_mut().retain(|leaving| !self.closed.contains(&leaving.session) && !is_gone(leaving.session));
        let has_left = record.leaving().len() < leaving_before;
        let mut lapsed = remove_lapsed(&mut record, now, liveness);
        // What this node does not know, it does not serve: a release was lost with what the store forgot.
        // A session that gives its slot up still has it until the command is applied.
        let asks: BTreeSet<_> = self.queue.iter().map(|call| call.command.session()).collect();
        let is_known = |session: SessionId| {
            !is_own(session.node()) || self.sessions.contains_key(&session) || asks.contains(&session)
        };
        record.sessions_mut().retain(|entry| entry.status != SessionStatus::Live || is_known(entry.session));
        record.waiting_mut().retain(|waiter| is_known(waiter.session));
        let mut asserted = Vec::new();
        for (&session, own) in &self.sessions {
            if let OwnSession::Told { entry, is_asserted: false } = own {
                asserted.extend(record.restore((**entry).clone()).then_some(session));
            }
        }
        for entry in &self.lost {
            asserted.extend(record.restore(entry.clone()).then_some(entry.session));
        }
        let (mut decided, mut leaving, mut hints) = (Vec::new(), Vec::new(), Vec::new());
        let mut granted = BTreeSet::new();
        for call in mem::take(&mut self.queue) {
            let session = call.command.session();
            let is_full = record.leaving().len() >= UserRecord::MAX_LEAVING / 2;
            let is_acquire = matches!(call.command, StoreCommand::Acquire { .. });
            let result = if is_full && !call.command.is_release() {
                refuse(Outcome::Rejected(StoreError::Overloaded))
            } else if is_acquire && (record.is_leaving(session) || self.closed.contains(&session)) {
                // A write whose answer was lost had granted it a slot, and another session has taken that; or it has given it up.
                refuse(Outcome::Unknown)
            } else {
                apply(user, &mut record, &call.command, policy, liveness)
            };
            let is_asking = matches!(self.sessions.get(&session), Some(OwnSession::Asking { .. }));
            if is_asking && matches!(result.outcome, Outcome::Granted { .. }) {
                granted.insert(session);
            }
            for EndedSession { session, reason } in &result.ended {
                // Who was granted a slot in this very change was not told, nor is it in the store.
                if !granted.remove(session) {
                    record.leaving_mut().push(LeavingSession { session: *session, reason: reason.clone() });
                    leaving.push(*session);
                }
            }
            hints.extend(result.hints.iter().copied());
            lapsed.extend(result.lapsed.iter().copied());
            decided.push((call, result));
        }
        record.forget_if_empty();
        let is_changed = record != before;
        Decision { expected, record, is_changed, decided, leaving, closed, asserted, has_left, hints, lapsed, is_tidy }
    }

    /// The change was not made: its commands have to be decided again.
    pub(super) fn undo(&mut self, decision: Decision, may_be_applied: bool) {
        let undone = decision.decided.into_iter().map(|(call, _)| {
            let may_be_applied = call.may_be_applied || may_be_applied;
            Call { may_be_applied, ..call }
        });
        self.queue.splice(..0, undone);
    }

    /// The change was made. Grants wait for all who are leaving now.
    pub(super) fn commit(&mut self, decision: Decision, is_own: &dyn Fn(NodeId) -> bool, actions: &mut UserActions) {
        let Decision { record, decided, closed, asserted, hints, lapsed, is_tidy, .. } = decision;
        self.must_tidy &= !is_tidy;
        actions.lapsed.extend(lapsed);
        for session in closed {
            self.closed.remove(&session);
        }
        for session in asserted {
            self.lost.retain(|entry| entry.session != session);
            if let Some(OwnSession::Told { is_asserted, .. }) = self.sessions.get_mut(&session) {
                *is_asserted = true;
            }
        }
        actions.hints.extend(hints.into_iter().filter(|hint| is_own(hint.session.node())));
        let waits_for: Vec<_> = record.leaving().iter().map(|leaving| leaving.session).collect();
        for (call, ApplyResult { outcome, ended, displaced, .. }) in decided {
            actions.displaced.extend(displaced);
            // In the order of the commands. Those that other nodes end are found in the record.
            for ended in ended {
                let is_leaving = record.is_leaving(ended.session);
                let Some(own) = self.sessions.get_mut(&ended.session) else { continue };
                match own {
                    // Granted a slot in this very change.
                    OwnSession::Granted(grant) if !is_leaving => {
                        actions.outcomes.append(&mut grant.answers);
                        actions.ended.push(ended);
                        *own = OwnSession::Ended;
                    }
                    OwnSession::Ready(_) | OwnSession::Told { .. } => {
                        actions.ended.push(ended);
                        *own = OwnSession::Ended;
                    }
                    OwnSession::Granted(_) | OwnSession::Asking { .. } | OwnSession::Ended => {}
                }
            }
            let session = call.command.session();
            let is_acquire = matches!(call.command, StoreCommand::Acquire { .. });
            let own = self.sessions.get_mut(&session);
            if is_acquire && let Some(OwnSession::Granted(grant)) = own {
                grant.answers.push((call.id, outcome));
                continue;
            }
            // If it is not kept any more, and has not given up, an earlier acquire of this very change was denied.
            let is_asking = match own {
                Some(own) => matches!(own, OwnSession::Asking { .. }),
                None => !self.closed.contains(&session),
            };
            if is_acquire && is_asking {
                match &outcome {
                    Outcome::Granted { .. } => {
                        let grant = Grant { waits_for: waits_for.clone(), answers: [(call.id, outcome)].into() };
                        self.sessions.insert(session, OwnSession::Granted(Box::new(grant)));
                        continue;
                    }
                    Outcome::Denied(Some(usage)) | Outcome::Waiting(usage) if usage.is_in_line() => {
                        self.sessions.insert(session, OwnSession::Asking { is_in_line: true });
                    }
                    Outcome::Rejected(_) => self.denied(session),
                    Outcome::Unknown => self.in_doubt(session),
                    Outcome::Denied(_)
                    | Outcome::Waiting(_)
                    | Outcome::Released
                    | Outcome::Counted { .. }
                    | Outcome::Listed(_)
                    | Outcome::Ended { .. }
                    | Outcome::NotRenewed(_) => {
                        self.sessions.remove(&session);
                    }
                }
            }
            actions.outcomes.push((call.id, outcome));
        }
    }

    /// An acquire of this session was not applied. If it is in line, it stays there.
    fn denied(&mut self, session: SessionId) {
        if let Some(OwnSession::Asking { is_in_line: false }) = self.sessions.get(&session) {
            self.sessions.remove(&session);
        }
    }

    /// Nobody knows whether the session has a slot. It has to be released. If it was granted one before it asked again, it has that.
    fn in_doubt(&mut self, session: SessionId) {
        if let Some(own @ OwnSession::Asking { .. }) = self.sessions.get_mut(&session) {
            *own = OwnSession::Ended;
        }
    }

    /// Looks at the record that was just read or written: who of this node has lost its slot, and who may be told.
    pub(super) fn look(
        &mut self,
        is_own: &dyn Fn(NodeId) -> bool,
        liveness: &dyn Fn(NodeId) -> Liveness,
        actions: &mut UserActions,
    ) {
        let empty = UserRecord::default();
        let record = self.known.as_ref().and_then(|known| known.record.as_ref()).map_or(&empty, |(_, record)| record);
        for LeavingSession { session, reason } in record.leaving() {
            if !is_own(session.node()) {
                continue;
            }
            let ended = EndedSession { session: *session, reason: reason.clone() };
            match self.sessions.remove(session) {
                // It was never told, so it is not served.
                None => {
                    self.closed.insert(*session);
                }
                Some(OwnSession::Asking { .. }) => {
                    self.closed.insert(*session);
                    self.sessions.insert(*session, OwnSession::Ended);
                    let is_its = |call: &mut Call| call.command.session() == *session && !call.command.is_release();
                    let unknown = self.queue.extract_if(.., is_its).map(|call| (call.id, Outcome::Unknown));
                    actions.outcomes.extend(unknown);
                }
                Some(OwnSession::Granted(grant)) => {
                    self.closed.insert(*session);
                    actions.ended.push(ended);
                    actions.outcomes.extend(grant.answers);
                }
                Some(OwnSession::Ready(_) | OwnSession::Told { .. }) => {
                    self.sessions.insert(*session, OwnSession::Ended);
                    actions.ended.push(ended);
                }
                Some(OwnSession::Ended) => {
                    self.sessions.insert(*session, OwnSession::Ended);
                }
            }
        }
        for (session, own) in &mut self.sessions {
            let Some(read) = record.session(*session) else { continue };
            match own {
                OwnSession::Told { entry, .. } | OwnSession::Ready(entry) => (**entry).clone_from(read),
                OwnSession::Granted(grant) => {
                    // Who was served by this node is closed before the store knows.
                    let is_open = |waits: &SessionId| record.is_leaving(*waits) && !self.closed.contains(waits);
                    grant.waits_for.retain(|waits| is_open(waits) && liveness(waits.node()) == Liveness::Alive);
                    if grant.waits_for.is_empty() {
                        actions.outcomes.append(&mut grant.answers);
                        *own = OwnSession::Ready(Box::new(read.clone()));
                    }
                }
                OwnSession::Asking { .. } | OwnSession::Ended => {}
            }
        }
    }

    /// The session gives up its slot, or has never had one: it is not served any more. `lingers`: its client may resume it.
    pub(super) fn close(&mut self, session: SessionId, lingers: bool, actions: &mut UserActions) {
        match self.sessions.remove(&session) {
            Some(OwnSession::Granted(grant)) => actions.outcomes.extend(unknown(*grant)),
            // It lingers once it is in the store again.
            Some(OwnSession::Told { entry, is_asserted: false }) if lingers => self.lost.push(*entry),
            Some(OwnSession::Asking { .. } | OwnSession::Ready(_) | OwnSession::Told { .. } | OwnSession::Ended)
            | None => {}
        }
        self.closed.insert(session);
    }

    /// Another generation is in force: what was read is worth nothing, and grants that were not told never are.
    pub(super) fn forget(&mut self, actions: &mut UserActions) {
        self.known = None;
        for own in self.sessions.values_mut() {
            match own {
                OwnSession::Granted(grant) => {
                    actions.outcomes.extend(grant.answers.iter().map(|(call, _)| (*call, Outcome::Unknown)));
                    *own = OwnSession::Ended;
                }
                OwnSession::Ready(_) => *own = OwnSession::Ended,
                OwnSession::Told { is_asserted, .. } => *is_asserted = false,
                OwnSession::Asking { .. } | OwnSession::Ended => {}
            }
        }
    }

    /// All sessions have ended with their node id, and every command is answered.
    pub(super) fn fence(self, actions: &mut UserActions) {
        let decided = match self.under_way {
            Some(UnderWay::Write(decision)) => decision.decided,
            Some(UnderWay::Read) | None => Vec::new(),
        };
        let sent = decided.into_iter().map(|(call, _)| Call { may_be_applied: true, ..call });
        for Call { id, command, may_be_applied } in sent.chain(self.queue) {
            // The slot of a fenced session lapses with its node id.
            let outcome = match (command.is_release(), may_be_applied) {
                (true, _) => Outcome::Released,
                (false, true) => Outcome::Unknown,
                (false, false) => Outcome::Rejected(StoreError::Failed),
            };
            actions.outcomes.push((id, outcome));
        }
        for own in self.sessions.into_values() {
            if let OwnSession::Granted(grant) = own {
                actions.outcomes.extend(unknown(*grant));
            }
        }
    }
}

/// What a session is told whose grant is not told.
fn unknown(grant: Grant) -> impl Iterator<Item = (CallId, Outcome)> {
    grant.answers.into_iter().map(|(call, _)| (call, Outcome::Unknown))
}

/// The result of a command that is not applied.
const fn refuse(outcome: Outcome) -> ApplyResult {
    ApplyResult { outcome, ended: Vec::new(), lapsed: Vec::new(), displaced: Vec::new(), hints: Vec::new() }
}
