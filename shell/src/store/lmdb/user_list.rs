//! Lists of users, put together from what the two threads know: who holds slots, and who was seen or has overrides.

use session_core::UserId;

use super::live_query::{Holder, LiveQuery};
use super::queue::Queue;
use super::users::{UpdateSender, UserQuery};
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::pages::{Page, PageRequest, StoredUser, UserFilter};
use crate::store::user_slice::{UserRange, UserSlice};
use crate::store::user_state::UserState;

/// One page of users. So that nobody who holds a slot is missing, both threads are asked, those who hold slots first: a user
/// is noted as seen after the grant.
pub(super) async fn list(
    queue: &Queue,
    users: &UpdateSender,
    filter: &UserFilter,
    page: &PageRequest,
) -> Result<Page<StoredUser>, StoreFailure> {
    let range = UserRange::new(filter, page)?;
    let limit = range.limit;
    let (completion, holders) = Completion::channel();
    queue.ask(LiveQuery::ListHolders(range.clone(), completion));
    let holders = holders.await?;
    let found = if filter.with_sessions {
        with_states(users, holders).await?
    } else {
        let (completion, known) = Completion::channel();
        users.ask(UserQuery::List(range, completion));
        known.await?.merge(holders)
    };
    Ok(found.into_page(limit, |user, (state, holder)| stored_user(user, state.unwrap_or_default(), holder)))
}

/// What is kept of one user.
pub(super) async fn find(users: &UpdateSender, user: UserId) -> Result<UserState, StoreFailure> {
    let (completion, found) = Completion::channel();
    users.ask(UserQuery::Find(vec![user], completion));
    Ok(found.await?.pop().unwrap_or_default())
}

async fn with_states(
    users: &UpdateSender,
    holders: UserSlice<Holder>,
) -> Result<UserSlice<(Option<UserState>, Option<Holder>)>, StoreFailure> {
    let (completion, states) = Completion::channel();
    users.ask(UserQuery::Find(holders.items.iter().map(|(user, _)| user.clone()).collect(), completion));
    let mut states = states.await?.into_iter();
    Ok(holders.map(|holder| (states.next(), Some(holder))))
}

fn stored_user(user: UserId, state: UserState, holder: Option<Holder>) -> StoredUser {
    let seen = state.seen.with_grants(holder.into_iter().flat_map(|holder| holder.since));
    let sessions = holder.map(|holder| holder.sessions).unwrap_or_default();
    StoredUser { user, state: UserState { seen, ..state }, sessions }
}
