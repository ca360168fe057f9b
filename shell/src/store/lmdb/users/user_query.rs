//! Questions to the thread that owns `users/`: a page of users, and how it is doing.

use std::ops::Bound;

use session_core::ledger::StoreError;
use session_core::{Timestamp, UserId};

use super::known_user::KnownUser;
use super::overrides::FIRST_USER;
use crate::runtime::events::log_event;
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::lmdb::environment::Environment;
use crate::store::shared::SharedPolicy;
use crate::store::usage::EnvironmentUsage;
use crate::store::user_slice::{UserRange, UserSlice};
use crate::store::user_state::{SeenState, UserSeen, UserState};

/// A question, and whom to answer.
#[derive(Debug)]
pub(in crate::store::lmdb) enum UserQuery {
    /// The first known users of a range.
    List(UserRange, Completion<Result<UserSlice<UserState>, StoreFailure>>),
    /// What is kept of each of these users.
    Find(Vec<UserId>, Completion<Result<Vec<UserState>, StoreFailure>>),
    /// How it is doing.
    Health(Completion<Result<UsersHealth, StoreFailure>>),
    /// How much of the map is used, and by how many users.
    Usage(Completion<Result<UsersUsage, StoreFailure>>),
}

/// How the thread that owns `users/` is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::lmdb) struct UsersHealth {
    /// The environment does not open: no user is noted, and no override can be set.
    pub(in crate::store::lmdb) is_closed: bool,
    /// New users are not noted: there is no room.
    pub(in crate::store::lmdb) is_full: bool,
}

/// How much `users/` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::lmdb) struct UsersUsage {
    pub(in crate::store::lmdb) environment: EnvironmentUsage,
    pub(in crate::store::lmdb) known_users: usize,
    pub(in crate::store::lmdb) max_known_users: usize,
}

impl UserQuery {
    /// Answers that it was not looked up.
    pub(super) fn reject(self, error: StoreError) {
        let failure = StoreFailure::Rejected(error);
        match self {
            Self::List(_, completion) => completion.answer(Err(failure)),
            Self::Find(_, completion) => completion.answer(Err(failure)),
            Self::Health(completion) => completion.answer(Err(failure)),
            Self::Usage(completion) => completion.answer(Err(failure)),
        }
    }
}

/// The first users of a range that are known, with what is kept of each: of `seen`, who are not noted yet, too.
pub(super) fn list_users(
    environment: &Environment,
    policy: &SharedPolicy,
    range: &UserRange,
    seen: UserSlice<Timestamp>,
) -> Result<UserSlice<UserState>, StoreFailure> {
    let known = known_in(environment, range).map_err(|error| log_failure(&error))?;
    let known = known.merge(seen).map(|(known, at)| known.unwrap_or_default().with_grants(at));
    let users = known.merge(policy.overrides_in(range));
    Ok(users.map(|(seen, overrides)| UserState {
        overrides: overrides.unwrap_or_default(),
        seen: seen.unwrap_or_default(),
    }))
}

fn known_in(environment: &Environment, range: &UserRange) -> heed::Result<UserSlice<SeenState>> {
    let txn = environment.write()?;
    let mut slice = UserSlice { items: Vec::new(), end: None };
    // The overrides are before the users. No user's id begins like them.
    let start = match range.start() {
        Bound::Included(key) => Bound::Included(key.max(FIRST_USER)),
        Bound::Excluded(after) => Bound::Excluded(after),
        Bound::Unbounded => Bound::Included(FIRST_USER),
    };
    for entry in environment.records.range(&txn, &(start, Bound::Unbounded))? {
        let (key, bytes) = entry?;
        if range.is_behind(key) {
            break;
        }
        let Some(user) = std::str::from_utf8(key).ok().and_then(|id| UserId::parse(id).ok()) else { continue };
        if slice.items.len() == range.limit {
            slice.end = slice.items.last().map(|(user, _)| user.clone());
            break;
        }
        slice.items.push((user, seen_state(bytes)));
    }
    Ok(slice)
}

/// What is kept of each of these users. `seen` has those who are not noted yet.
pub(super) fn find_users(
    environment: &Environment,
    policy: &SharedPolicy,
    users: &[UserId],
    seen: &[Option<Timestamp>],
) -> Result<Vec<UserState>, StoreFailure> {
    let find = || -> heed::Result<Vec<UserState>> {
        let txn = environment.write()?;
        let state = |(user, at): (&UserId, &Option<Timestamp>)| {
            let known = environment.records.get(&txn, user.as_str().as_bytes())?;
            let seen = known.map(seen_state).unwrap_or_default().with_grants(*at);
            Ok(UserState { overrides: policy.for_user(user).overrides, seen })
        };
        users.iter().zip(seen).map(state).collect()
    };
    find().map_err(|error| log_failure(&error))
}

/// What the bytes of a known user say.
pub(super) fn seen_state(bytes: &[u8]) -> SeenState {
    match KnownUser::decode(bytes) {
        Ok(KnownUser { first_seen, last_seen }) => SeenState::At(UserSeen { first: first_seen, last: last_seen }),
        Err(_) => SeenState::Unreadable,
    }
}

fn log_failure(error: &heed::Error) -> StoreFailure {
    log_event!(users_not_listed { error: display(error) });
    StoreFailure::Rejected(StoreError::Failed)
}
