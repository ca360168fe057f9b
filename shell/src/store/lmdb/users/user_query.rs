//! Questions to the thread that owns `users/`: a page of users, and how it is doing.

use std::ops::Bound;

use session_core::UserId;
use session_core::ledger::StoreError;

use super::known_user::KnownUser;
use super::overrides::FIRST_USER;
use crate::runtime::events::log_event;
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::lmdb::environment::Environment;
use crate::store::pages::{Page, PageRequest, StoredUser, UserSeen, user_page};
use crate::store::shared::SharedPolicy;

/// A question, and whom to answer.
#[derive(Debug)]
pub(in crate::store::lmdb) enum UserQuery {
    /// A page of users.
    List(PageRequest, Completion<Result<Page<StoredUser>, StoreFailure>>),
    /// How it is doing.
    Health(Completion<Result<UsersHealth, StoreFailure>>),
}

/// How the thread that owns `users/` is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::lmdb) struct UsersHealth {
    /// The environment does not open: no user is noted, and no override can be set.
    pub(in crate::store::lmdb) is_closed: bool,
    /// New users are not noted: there is no room.
    pub(in crate::store::lmdb) is_full: bool,
}

impl UserQuery {
    /// Answers that it was not looked up.
    pub(super) fn reject(self, error: StoreError) {
        let failure = StoreFailure::Rejected(error);
        match self {
            Self::List(_, completion) => completion.answer(Err(failure)),
            Self::Health(completion) => completion.answer(Err(failure)),
        }
    }
}

/// One page of the users that are known or have overrides.
pub(super) fn list_users(
    environment: &Environment,
    policy: &SharedPolicy,
    request: &PageRequest,
) -> Result<Page<StoredUser>, StoreFailure> {
    let (after, limit) = (request.after_user()?, request.limit());
    // One more tells whether the page is the last.
    let known = known_after(environment, after.as_ref(), limit + 1).map_err(|error| {
        log_event!(users_not_listed { error: display(error) });
        StoreFailure::Rejected(StoreError::Failed)
    })?;
    Ok(user_page(limit, known, policy.overrides_after(after.as_ref())))
}

fn known_after(
    environment: &Environment,
    after: Option<&UserId>,
    limit: usize,
) -> heed::Result<Vec<(UserId, Option<UserSeen>)>> {
    let start = after.map_or(Bound::Included(FIRST_USER), |user| Bound::Excluded(user.as_str().as_bytes()));
    let txn = environment.write()?;
    let mut known = Vec::new();
    for entry in environment.records.range(&txn, &(start, Bound::Unbounded))? {
        let (key, bytes) = entry?;
        let Some(user) = std::str::from_utf8(key).ok().and_then(|id| UserId::parse(id).ok()) else { continue };
        // One that cannot be read may be of a later version: its user is known, and no more.
        let seen = KnownUser::decode(bytes).ok();
        known.push((user, seen.map(|user| UserSeen { first: user.first_seen, last: user.last_seen })));
        if known.len() == limit {
            break;
        }
    }
    Ok(known)
}
