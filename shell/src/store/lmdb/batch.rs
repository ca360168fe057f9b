//! One batch of commands in one transaction. All of it is written, or nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use heed::RwTxn;
use session_core::ledger::{self, StoreCommand};
use session_core::ledger::{EndedSession, Outcome, RecordError, SessionHint, SessionStatus, StoreError, UserRecord};
use session_core::{SessionId, UserId};

use super::apply_context::ApplyContext;
use super::ballast_file::BallastFile;
use super::environment::{Environment, Uncommitted};
use super::records::{self, StoredRecord};
use super::sweep::{FirstPass, SweepPosition, SweepStep};

/// Room for a record of some sessions. A longer one takes more.
const RECORD_BYTES: usize = 256;

/// Sessions of one user that lost their slots.
pub(super) type EndedOfUser = (UserId, Vec<EndedSession>);

/// The result of a batch that is in the store.
#[derive(Debug)]
pub(super) struct BatchResult {
    /// One for each command, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// Sessions that lost their slots to another session's command, in the order of the commands.
    pub(super) ended: Vec<EndedOfUser>,
    /// Lingering sessions that lost their slots.
    pub(super) displaced: Vec<EndedOfUser>,
    /// What other sessions may want to know.
    pub(super) hints: Vec<SessionHint>,
    /// Whether a record may have been left with a slot that lingers.
    pub(super) lingers: bool,
    /// How far the sweep has come, if it took a step.
    pub(super) sweep: Option<SweepPosition>,
    /// The key of a record that cannot be read and is kept, and why. Its user's commands are rejected.
    pub(super) unreadable: Option<(Vec<u8>, RecordError)>,
    /// The sessions that had lapsed and are removed, with the keys of their records.
    pub(super) lapsed: Vec<(Vec<u8>, SessionId)>,
}

/// Why a batch is not in the store.
#[derive(Debug)]
pub(super) enum BatchError {
    /// Nothing of it was applied.
    NotApplied(heed::Error),
    /// The commit failed, and it may have been applied. Outcomes that depend on it are [`Outcome::Unknown`]. The sessions may
    /// have lost their slots, and must end.
    InDoubt(heed::Error, Vec<Outcome>, Vec<EndedOfUser>),
}

impl From<heed::Error> for BatchError {
    fn from(error: heed::Error) -> Self {
        Self::NotApplied(error)
    }
}

/// Applies the commands in order, with one read and at most one write for each user, and takes a step of the sweep.
///
/// Acquires are rejected with `refuse_acquires`, or if only the room is left that releases need. On a full disk that is the
/// room in the file.
pub(super) fn apply(
    environment: &Environment,
    context: ApplyContext<'_>,
    commands: &[&StoreCommand],
    refuse_acquires: Option<StoreError>,
    disk_is_full: bool,
    sweep: Option<SweepStep<'_>>,
    first_pass: &mut FirstPass,
) -> Result<BatchResult, BatchError> {
    let mut txn = environment.write()?;
    let refuse_acquires = match refuse_acquires {
        None if is_nearly_full(environment, &txn, disk_is_full)? => Some(StoreError::Full),
        other => other,
    };

    let mut users = BatchUsers::default();
    let mut outcomes = Vec::with_capacity(commands.len());
    let mut ended = Vec::new();
    let mut unreadable = None;
    let mut lapsed = Vec::new();
    let mut displaced = Vec::new();
    let mut hints = Vec::new();
    for &command in commands {
        let id = command.user();
        let user = users.get_or_read(id, || BatchUser::read(environment, &txn, id))?;
        outcomes.push(match (command, refuse_acquires, user) {
            (_, _, Err(error)) => {
                // One that was left behind is about to be removed by the sweep.
                let key = id.as_str().as_bytes();
                if !first_pass.is_left_behind(key) {
                    unreadable = Some((key.to_vec(), *error));
                }
                Outcome::Rejected(StoreError::Failed)
            }
            (StoreCommand::Acquire { .. }, Some(error), Ok(_)) => Outcome::Rejected(error),
            (
                StoreCommand::Acquire { .. }
                | StoreCommand::Release { .. }
                | StoreCommand::Linger { .. }
                | StoreCommand::CountSlots { .. }
                | StoreCommand::ListSessions { .. }
                | StoreCommand::EndSessions { .. }
                | StoreCommand::Renew { .. },
                _,
                Ok(user),
            ) => {
                let policy = context.policy.for_user(id);
                let result = ledger::apply(id, &mut user.now, command, &policy, |node| context.liveness(node));
                hints.extend(result.hints);
                if !result.ended.is_empty() {
                    ended.push((id.clone(), result.ended));
                }
                let key = || id.as_str().as_bytes().to_vec();
                lapsed.extend(result.lapsed.into_iter().map(|session| (key(), session)));
                if !result.displaced.is_empty() {
                    displaced.push((id.clone(), result.displaced));
                }
                result.outcome
            }
        });
    }

    let mut changed = false;
    let mut lingers = false;
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    for (id, user) in users.iter() {
        if let Ok(user) = user
            && user.is_changed()
        {
            changed = true;
            lingers |= user.now.sessions().iter().any(|session| session.status != SessionStatus::Live);
            first_pass.wrote(id.as_str().as_bytes());
            user.write(environment, &mut txn, id, &mut bytes)?;
        }
    }
    let sweep = match sweep {
        None => None,
        Some(step) => {
            let swept = step.run(environment, context, first_pass, &mut txn)?;
            changed |= swept.changed > 0;
            lingers |= swept.lingers;
            unreadable = unreadable.or(swept.unreadable);
            lapsed.extend(swept.lapsed);
            Some(swept.position)
        }
    };
    if changed {
        match environment.commit(txn) {
            Ok(()) => {}
            Err(Uncommitted::NotApplied(error)) => return Err(BatchError::NotApplied(error)),
            Err(Uncommitted::InDoubt(error)) => {
                mark_unknown(&mut outcomes, commands, &users);
                return Err(BatchError::InDoubt(error, outcomes, ended));
            }
        }
    }
    Ok(BatchResult { outcomes, ended, lingers, sweep, unreadable, lapsed, displaced, hints })
}

/// The users of a batch. Most batches have one.
#[derive(Default)]
struct BatchUsers<'a> {
    /// Where each is in `users`. The records lie apart, because a node of the tree has room for eleven values.
    positions: BTreeMap<&'a UserId, usize>,
    users: Vec<Result<BatchUser, RecordError>>,
}

impl<'a> BatchUsers<'a> {
    fn get(&self, id: &UserId) -> Option<&Result<BatchUser, RecordError>> {
        self.positions.get(id).map(|&position| &self.users[position])
    }

    fn get_or_read(
        &mut self,
        id: &'a UserId,
        read: impl FnOnce() -> heed::Result<Result<BatchUser, RecordError>>,
    ) -> heed::Result<&mut Result<BatchUser, RecordError>> {
        let position = match self.positions.entry(id) {
            Entry::Occupied(position) => *position.get(),
            Entry::Vacant(vacant) => {
                self.users.push(read()?);
                *vacant.insert(self.users.len() - 1)
            }
        };
        Ok(&mut self.users[position])
    }

    /// In the order of the keys in the store.
    fn iter(&self) -> impl Iterator<Item = (&'a UserId, &Result<BatchUser, RecordError>)> {
        self.positions.iter().map(|(&id, &position)| (id, &self.users[position]))
    }
}

/// A user's record before the batch, and after the commands so far.
struct BatchUser {
    before: StoredRecord,
    now: UserRecord,
}

impl BatchUser {
    fn read(environment: &Environment, txn: &RwTxn<'_>, id: &UserId) -> heed::Result<Result<Self, RecordError>> {
        let before = records::read(environment, txn, id.as_str().as_bytes())?;
        Ok(before.map(|before| Self { now: before.record.clone(), before }))
    }

    fn is_changed(&self) -> bool {
        self.before.record != self.now
    }

    fn write(
        &self,
        environment: &Environment,
        txn: &mut RwTxn<'_>,
        id: &UserId,
        bytes: &mut Vec<u8>,
    ) -> heed::Result<()> {
        records::write(environment, txn, id.as_str().as_bytes(), &self.before, &self.now, bytes)
    }
}

/// Whether an acquire would be rejected because what room there is left is for releases.
pub(super) fn has_no_room(environment: &Environment, disk_is_full: bool) -> heed::Result<bool> {
    is_nearly_full(environment, &environment.write()?, disk_is_full)
}

/// Whether only the reserve for releases is left. LMDB copies a page to change it, so even a delete needs room. The reserve
/// is the last tenth of the map, and on a full disk as many pages of the file as the ballast file has.
fn is_nearly_full(environment: &Environment, txn: &RwTxn<'_>, disk_is_full: bool) -> heed::Result<bool> {
    let used = environment.used_pages(txn)?;
    let file_is_full = || used + BallastFile::BYTES / 4096 >= environment.file_pages();
    Ok(used >= Environment::room_for_acquires(environment.map_pages()) || disk_is_full && file_is_full())
}

/// Marks what is unknown after a failed commit: the outcomes of commands on records that were to be written. Rejections, and
/// answers about unchanged records, stay certain.
fn mark_unknown(outcomes: &mut [Outcome], commands: &[&StoreCommand], users: &BatchUsers<'_>) {
    for (outcome, command) in outcomes.iter_mut().zip(commands) {
        let was_to_be_written = matches!(users.get(command.user()), Some(Ok(user)) if user.is_changed());
        if was_to_be_written && !matches!(outcome, Outcome::Rejected(_)) {
            *outcome = Outcome::Unknown;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use std::time::Duration;

    use session_core::Timestamp;
    use session_core::ledger::{AcquireOptions, AdmissionPolicy, KnownToken, SlotLimit};

    use super::super::environment::Durability;
    use super::super::testing::{NODE, acquire, acquire_with, granted, lookup, release, resumable, user};
    use super::*;
    use crate::store::shared::SharedPolicy;

    #[test]
    fn full_disk_keeps_the_last_pages_for_releases() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
        let policy = SharedPolicy::new(AdmissionPolicy::new(SlotLimit::new(1).unwrap()), HashMap::new());
        let context =
            ApplyContext { node: NODE, started_at: Timestamp::default(), now: Timestamp::default(), policy: &policy };
        let serve = |command: StoreCommand, disk_is_full| {
            let result = apply(&environment, context, &[&command], None, disk_is_full, None, &mut FirstPass::new());
            result.unwrap().outcomes.remove(0)
        };
        let left = || environment.file_pages() - environment.used_pages(&environment.write().unwrap()).unwrap();
        let name = |number: u64| format!("{number:0>200}");
        for number in 0..3000 {
            assert_eq!(serve(acquire(&name(number), number), false), granted(1));
        }
        for number in 0..2000 {
            assert_eq!(serve(release(&name(number), number), true), Outcome::Released);
        }
        assert!(left() > 100, "{} pages are free in the file", left());
        let mut number = 0;
        while serve(acquire(&name(number), number), true) == granted(1) {
            number += 1;
        }
        assert!((60..=64).contains(&left()), "{} pages are left for releases", left());
        let full = Outcome::Rejected(StoreError::Full);
        let commands = [acquire("new", 1), lookup("new", 1), release(&name(0), 0)];
        let outcomes = commands.map(|command| serve(command, true));
        assert_eq!(outcomes, [full, Outcome::Counted { slots: 0 }, Outcome::Released]);
        assert_eq!(serve(acquire("new", 1), false), granted(1));
    }

    /// The slots of a user lapse, and the first in line has not asked yet.
    #[test]
    fn sweep_keeps_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
        let one = AdmissionPolicy::new(SlotLimit::new(1).unwrap());
        let policy = SharedPolicy::new(AdmissionPolicy { linger: Duration::from_secs(10), ..one }, HashMap::new());
        let at = |second| Timestamp::from_epoch(Duration::from_secs(second));
        let serve = |second, command: &StoreCommand, is_swept: bool| {
            let context = ApplyContext { node: NODE, started_at: at(0), now: at(second), policy: &policy };
            let sweep = is_swept.then_some(SweepStep { from: &SweepPosition::Start, records: 10 });
            apply(&environment, context, &[command], None, false, sweep, &mut FirstPass::new()).unwrap()
        };
        let waits = || AcquireOptions { waits: true, ..AcquireOptions::default() };
        let (user, session, token) = (user("ada"), NODE.session(1), KnownToken::Granted);
        drop(serve(1, &acquire_with("ada", session, at(1), resumable()), false));
        for number in [2, 3] {
            drop(serve(2, &acquire_with("ada", NODE.session(number), at(2), waits()), false));
        }
        drop(serve(3, &StoreCommand::Linger { user, session, at: at(3), token }, false));
        drop(serve(13, &acquire("bob", 1), true));
        let newcomer = serve(13, &acquire("ada", 9), false);
        assert_eq!(newcomer.outcomes, [Outcome::Denied(None)], "the slot is that of the first in line");
        let first = serve(14, &acquire_with("ada", NODE.session(2), at(14), waits()), false);
        assert!(matches!(first.outcomes[..], [Outcome::Granted { .. }]), "{first:?}");
    }
}
