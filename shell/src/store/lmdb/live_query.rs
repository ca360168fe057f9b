//! Questions to the thread that owns `live/`: a page of sessions, and how it is doing.

use session_core::UserId;
use session_core::ledger::{self, StoreError, UserRecord};

use super::apply_context::ApplyContext;
use super::environment::Environment;
use super::records::{self, Position, ReadRecord};
use crate::runtime::events::log_event;
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::pages::{Page, PageRequest, SessionPageBuilder, StoredSession};

/// How many records one page looks at, at most. Commands wait meanwhile.
const MAX_RECORDS: usize = 1024;

/// A question, and whom to answer.
#[derive(Debug)]
pub(super) enum LiveQuery {
    /// A page of one user's sessions, or of all.
    ListSessions(Option<UserId>, PageRequest, Completion<Result<Page<StoredSession>, StoreFailure>>),
    /// How it is doing.
    Health(Completion<Result<LiveHealth, StoreFailure>>),
}

/// How the thread that owns `live/` is doing.
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
            Self::ListSessions(.., completion) => completion.answer(Err(failure)),
            Self::Health(completion) => completion.answer(Err(failure)),
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
    listed.map_err(|error| {
        log_event!(sessions_not_listed { error: display(error) });
        StoreFailure::Rejected(StoreError::Failed)
    })
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
