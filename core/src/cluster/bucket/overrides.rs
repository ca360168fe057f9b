//! The overrides of a bucket's users, as a node knows them, and the changes that it is to make.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::own_session::CallId;
use crate::cluster::shared_store::{Generation, OverridesAnswer, OverridesRequest, OverridesVersion, Request, Stamp};
use crate::id::{NodeId, UserId};
use crate::ledger::{StoreError, UserOverrides};

/// The overrides of a bucket's users.
///
/// The store has them, with a version. Each node reads them whole when that is another one, so a sign-in does not pay for them. If
/// the store has forgotten some, each node that knows them writes them down again while the gate is closed. So a change that was
/// made lasts as long as the store, or one node that has read it.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// What is known, and its version. Nothing before the first read.
    known: Option<(OverridesVersion, BTreeMap<UserId, UserOverrides>)>,
    /// The changes to make, one after the other.
    changes: VecDeque<Change>,
    is_under_way: bool,
    /// Whether nothing is asked before the next beat.
    is_paused: bool,
    /// Whether the store may have others.
    must_read: bool,
    /// Whether the store had older ones.
    must_restore: bool,
}

#[derive(Debug)]
struct Change {
    call: CallId,
    user: UserId,
    overrides: UserOverrides,
    /// The version of the write that was sent last.
    attempt: Option<OverridesVersion>,
    /// Whether a write was sent that may still be applied.
    may_be_made: bool,
}

/// What became of a change of a user's overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverridesOutcome {
    /// It is in force at every node.
    Set {
        /// The user's overrides before.
        before: UserOverrides,
    },
    /// It was not made.
    Rejected(StoreError),
    /// It may have been made, or may still be, as long as nobody makes another change.
    Unknown,
}

/// Who asks, for a request to write.
pub(super) struct Writer {
    pub generation: Generation,
    pub node: NodeId,
    pub epoch: u64,
    /// A stamp that no other write has.
    pub stamp: Stamp,
}

impl Overrides {
    /// The overrides of a user.
    pub(super) fn of(&self, user: &UserId) -> UserOverrides {
        self.known.as_ref().and_then(|(_, all)| all.get(user)).copied().unwrap_or_default()
    }

    /// All of them, if they are known.
    pub(super) fn all(&self) -> Option<&BTreeMap<UserId, UserOverrides>> {
        self.known.as_ref().map(|(_, all)| all)
    }

    /// The version that is known.
    pub(super) fn version(&self) -> Option<OverridesVersion> {
        self.known.as_ref().map(|(version, _)| *version)
    }

    /// Whether this node has read the version that it last saw in the store.
    pub(super) const fn is_current(&self) -> bool {
        self.known.is_some() && !self.must_read
    }

    /// The store has this version.
    pub(super) fn saw(&mut self, version: OverridesVersion) {
        self.must_read |= self.version() != Some(version);
    }

    /// Adds a change.
    pub(super) fn change(&mut self, call: CallId, user: UserId, overrides: UserOverrides) {
        self.changes.push_back(Change { call, user, overrides, attempt: None, may_be_made: false });
    }

    /// The number of changes that are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.changes.len()
    }

    /// Another generation is in force: the store may have forgotten some of them. No change is made any more.
    pub(super) fn begin_again(&mut self) -> Vec<(CallId, OverridesOutcome)> {
        (self.is_under_way, self.must_read, self.must_restore) = (false, true, false);
        let outcome = |change: Change| {
            let rejected = OverridesOutcome::Rejected(StoreError::Failed);
            (change.call, change.attempt.map_or(rejected, |_| OverridesOutcome::Unknown))
        };
        self.changes.drain(..).map(outcome).collect()
    }

    /// What to ask for next, if anything. Changes have to wait until the node `may_admit`.
    pub(super) fn next_request(&mut self, may_admit: bool, writer: impl FnOnce() -> Writer) -> Option<Request> {
        if self.is_under_way || self.is_paused {
            return None;
        }
        let request = match &self.known {
            Some((version, all)) if self.must_restore => {
                let overrides = all.iter().map(|(user, overrides)| (user.clone(), *overrides)).collect();
                Request::RestoreOverrides { generation: writer().generation.id, version: *version, overrides }
            }
            Some((expected, _)) if !self.must_read => {
                let change = self.changes.front_mut().filter(|_| may_admit)?;
                let Writer { generation, node, epoch, stamp } = writer();
                let version = OverridesVersion {
                    generation: generation.number.max(expected.generation),
                    number: expected.number + 1,
                    stamp,
                };
                change.attempt = Some(version);
                Request::WriteOverrides(Box::new(OverridesRequest {
                    user: change.user.clone(),
                    overrides: change.overrides,
                    generation: generation.id,
                    node,
                    epoch,
                    expected: *expected,
                    version,
                }))
            }
            _ => Request::ReadOverrides,
        };
        self.is_under_way = true;
        Some(request)
    }

    /// The request gets no answer that counts. If it is a write, it may have been applied, or may be later: but only as long as
    /// nobody else makes a change, so the change can be made again.
    pub(super) fn lost(&mut self) {
        if let Some(change) = self.changes.front_mut() {
            change.may_be_made |= change.attempt.is_some();
        }
        (self.is_under_way, self.must_read, self.is_paused) = (false, true, true);
    }

    /// The store certainly did not apply the request. If it is a write, the change is given up. Whatever else it is, it is asked again
    /// after the next beat.
    pub(super) fn failed(&mut self, error: StoreError) -> Option<(CallId, OverridesOutcome)> {
        (self.is_under_way, self.is_paused) = (false, true);
        let is_write = |change: &Change| change.attempt.is_some() && self.is_current() && !self.must_restore;
        self.changes.front().filter(|change| is_write(change))?;
        let Change { call, may_be_made, .. } = self.changes.pop_front()?;
        let outcome = if may_be_made { OverridesOutcome::Unknown } else { OverridesOutcome::Rejected(error) };
        Some((call, outcome))
    }

    /// The answer to a beat came, or there is another connection: what was in the way may be gone.
    pub(super) const fn go_on(&mut self) {
        self.is_paused = false;
    }

    /// The answer came, in the generation in force. Returns what became of a change.
    pub(super) fn came(&mut self, answer: OverridesAnswer) -> Option<(CallId, OverridesOutcome)> {
        let OverridesAnswer { version, all, .. } = answer;
        self.is_under_way = false;
        let is_older = self.version().is_some_and(|known| version < known);
        // If the store did not take what it had forgotten, others have gone on without that.
        self.must_restore = is_older && !self.must_restore;
        if self.must_restore {
            return None;
        }
        // A write that was refused although nothing has changed: the others take this node for dead. The next beat says so.
        let was_sent = self.changes.front().is_some_and(|change| change.attempt.is_some());
        self.is_paused = was_sent && self.version() == Some(version);
        let outcome = self.outcome(version);
        (self.known, self.must_read) = (Some((version, all.into_iter().collect())), false);
        outcome
    }

    /// What became of the change that was sent, now that the store has this version.
    fn outcome(&mut self, version: OverridesVersion) -> Option<(CallId, OverridesOutcome)> {
        self.changes.front().filter(|change| change.attempt == Some(version))?;
        let Change { call, user, .. } = self.changes.pop_front()?;
        Some((call, OverridesOutcome::Set { before: self.of(&user) }))
    }
}
