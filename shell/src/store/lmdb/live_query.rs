//! Questions to the thread beside `live/`: a page of sessions, and how it is doing.

use std::ops::Bound;

use session_core::ledger::{self, StoreError, UserRecord};
use session_core::{Timestamp, UserId};

use super::apply_context::ApplyContext;
use super::environment::Environment;
use super::records::{self, Position, ReadRecord};
use crate::runtime::events::log_event;
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::pages::{Page, PageRequest, SessionPageBuilder, StoredSession};
use crate::store::usage::EnvironmentUsage;
use crate::store::user_slice::{UserRange, UserSlice};
use crate::store::user_state::SessionCounts;

/// How many records one page looks at, at most. Commands wait meanwhile.
const MAX_RECORDS: usize = 1024;

/// A question, and whom to answer.
#[derive(Debug)]
pub(super) enum LiveQuery {
    /// The first users of a range who hold slots.
    ListHolders(UserRange, Completion<Result<UserSlice<Holder>, StoreFailure>>),
    /// A page of one user's sessions, or of all.
    ListSessions(Option<UserId>, PageRequest, Completion<Result<Page<StoredSession>, StoreFailure>>),
    /// How it is doing.
    Health(Completion<Result<LiveHealth, StoreFailure>>),
    /// How much of the map is used.
    Usage(Completion<Result<EnvironmentUsage, StoreFailure>>),
}

/// What the sessions of a user say, who has at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) sessions: SessionCounts,
    /// When the first and the last of the sessions took its slot.
    pub(super) since: [Timestamp; 2],
}

/// How `live/` is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiveHealth {
    /// The environment does not open, and every command is rejected.
    pub(super) is_closed: bool,
    /// What room there is left is for releases.
    pub(super) is_full: bool,
    /// There was no room on the disk for the ballast file.
    pub(super) is_ballast_missing: bool,
    /// A user's record cannot be read.
    pub(super) has_unreadable: bool,
    /// The data directory is not where it was opened.
    pub(super) is_lost: bool,
}

impl LiveQuery {
    /// Answers that it was not looked up.
    pub(super) fn reject(self, error: StoreError) {
        let failure = StoreFailure::Rejected(error);
        match self {
            Self::ListHolders(_, completion) => completion.answer(Err(failure)),
            Self::ListSessions(.., completion) => completion.answer(Err(failure)),
            Self::Health(completion) => completion.answer(Err(failure)),
            Self::Usage(completion) => completion.answer(Err(failure)),
        }
    }
}

/// One page of the sessions that hold a slot now.
pub(super) fn list_sessions(
    environment: &Environment,
    context: ApplyContext<'_>,
    user: Option<&UserId>,
    request: &PageRequest,
) -> Result<Page<StoredSession>, StoreFailure> {
    let page = SessionPageBuilder::new(request)?;
    let listed = match user {
        Some(user) => list_of_user(environment, context, user, page),
        None => list_of_all(environment, context, page),
    };
    listed.map_err(|error| log_failure(&error))
}

/// The first users of a range who hold a slot now.
pub(super) fn list_holders(
    environment: &Environment,
    context: ApplyContext<'_>,
    range: &UserRange,
) -> Result<UserSlice<Holder>, StoreFailure> {
    holders_in(environment, context, range).map_err(|error| log_failure(&error))
}

fn holders_in(
    environment: &Environment,
    context: ApplyContext<'_>,
    range: &UserRange,
) -> heed::Result<UserSlice<Holder>> {
    let txn = environment.write()?;
    let mut slice = UserSlice { items: Vec::new(), end: None };
    let mut position = match range.start() {
        Bound::Excluded(user) => Position::behind(user),
        Bound::Included(prefix) => Position::at(prefix),
        Bound::Unbounded => Position::first(),
    };
    let mut last = None;
    let mut number = 0;
    while let Some((key, record)) = records::next(environment, &txn, &position)? {
        if range.is_behind(&key) {
            break;
        }
        if let Some(last) = last.take_if(|_| number >= MAX_RECORDS || slice.items.len() == range.limit) {
            slice.end = Some(last);
            break;
        }
        (position, number) = (Position::behind(&key), number + 1);
        let Some(user) = std::str::from_utf8(&key).ok().and_then(|id| UserId::parse(id).ok()) else { continue };
        let record = current(record, context);
        let times = || record.sessions().iter().map(|session| session.since);
        if let (Some(first), Some(latest)) = (times().min(), times().max()) {
            let holder = Holder { sessions: SessionCounts::of_record(&record), since: [first, latest] };
            slice.items.push((user.clone(), holder));
        }
        last = Some(user);
    }
    Ok(slice)
}

fn log_failure(error: &heed::Error) -> StoreFailure {
    log_event!(sessions_not_listed { error: display(error) });
    StoreFailure::Rejected(StoreError::Failed)
}

fn list_of_user(
    environment: &Environment,
    context: ApplyContext<'_>,
    user: &UserId,
    mut page: SessionPageBuilder,
) -> heed::Result<Page<StoredSession>> {
    let txn = environment.write()?;
    let is_last = page.add(user, &current(records::read(environment, &txn, user.as_str().as_bytes())?, context));
    Ok(if is_last { page.finish() } else { page.finish_full() })
}

fn list_of_all(
    environment: &Environment,
    context: ApplyContext<'_>,
    mut page: SessionPageBuilder,
) -> heed::Result<Page<StoredSession>> {
    let txn = environment.write()?;
    let first = page.first_user().cloned();
    let mut position = first.map_or(Position::first(), |user| Position::at(user.as_str().as_bytes()));
    let mut last = None;
    let mut number = 0;
    while let Some((key, record)) = records::next(environment, &txn, &position)? {
        if let Some(last) = last.take_if(|_| number >= MAX_RECORDS) {
            return Ok(page.finish_after(&last));
        }
        (position, number) = (Position::behind(&key), number + 1);
        let Some(user) = std::str::from_utf8(&key).ok().and_then(|id| UserId::parse(id).ok()) else { continue };
        if !page.add(&user, &current(record, context)) {
            return Ok(page.finish_full());
        }
        last = Some(user);
    }
    Ok(page.finish())
}

/// A record without its lapsed sessions. One that cannot be read has no sessions: its user is refused.
fn current(record: ReadRecord, context: ApplyContext<'_>) -> UserRecord {
    let mut record = record.unwrap_or_default().record;
    ledger::remove_lapsed(&mut record, context.now, |node| context.liveness(node));
    record
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use session_core::NodeId;
    use session_core::ledger::{AdmissionPolicy, SessionRecord, SlotLimit};

    use super::super::environment::Durability;
    use super::super::testing::{NODE, user};
    use super::*;
    use crate::store::pages::UserFilter;
    use crate::store::shared::SharedPolicy;

    /// After a restart all records are of dead sessions, until they are swept.
    #[test]
    fn page_of_holders_looks_at_few_records() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::open(directory.path(), 4 << 20, Durability::Unsynced).unwrap();
        let mut txn = environment.write().unwrap();
        let mut bytes = Vec::new();
        for number in 0..MAX_RECORDS + 10 {
            let node = if number < MAX_RECORDS + 5 { NodeId::new(99) } else { NODE };
            let session = SessionRecord::new(node.session(1), Timestamp::default());
            UserRecord::from_sessions(vec![session]).unwrap().encode(&mut bytes);
            environment.records.put(&mut txn, format!("user {number:0>5}").as_bytes(), &bytes).unwrap();
        }
        environment.commit(txn).unwrap();
        let policy = SharedPolicy::new(AdmissionPolicy::new(SlotLimit::default()), HashMap::new());
        let context =
            ApplyContext { node: NODE, started_at: Timestamp::default(), now: Timestamp::default(), policy: &policy };
        let list = |after: Option<&UserId>| {
            let mut page = PageRequest::first(3);
            page.after = after.map(crate::store::pages::Cursor::after_user);
            let slice =
                list_holders(&environment, context, &UserRange::new(&UserFilter::default(), &page).unwrap()).unwrap();
            (slice.items.into_iter().map(|(user, _)| user.to_string()).collect::<Vec<_>>(), slice.end)
        };
        let end = user(&format!("user {:0>5}", MAX_RECORDS - 1));
        assert_eq!(list(None), (vec![], Some(end.clone())), "no more is looked at");
        let name = |number: usize| format!("user {:0>5}", MAX_RECORDS + number);
        assert_eq!(list(Some(&end)), (vec![name(5), name(6), name(7)], Some(user(&name(7)))));
        assert_eq!(list(Some(&user(&name(7)))), (vec![name(8), name(9)], None));
    }
}
