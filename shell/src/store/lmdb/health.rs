//! How the store is doing and how much it holds, put together from what its two threads say.

use std::time::Duration;

use session_core::ledger::StoreError;
use smol::Timer;
use smol::future::or;

use super::live_query::{LiveHealth, LiveQuery};
use super::queue::Queue;
use super::users::{UpdateSender, UserQuery, UsersHealth, UsersUsage};
use crate::store::completion::Completion;
use crate::store::failure::StoreFailure;
use crate::store::health::StoreHealth;
use crate::store::usage::StoreUsage;

/// How long a thread may take to say how it is doing.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Asks both threads.
pub(super) async fn check(queue: &Queue, users: &UpdateSender) -> StoreHealth {
    let (completion, live) = Completion::channel();
    queue.ask(LiveQuery::Health(completion));
    let (completion, of_users) = Completion::channel();
    users.ask(UserQuery::Health(completion));
    let live = within_timeout(live).await;
    let of_users = within_timeout(of_users).await;
    summarise(live, of_users, queue.is_full())
}

/// How much both environments hold.
pub(super) async fn usage(queue: &Queue, users: &UpdateSender, users_with_overrides: usize) -> StoreUsage {
    let (completion, live) = Completion::channel();
    queue.ask(LiveQuery::Usage(completion));
    let (completion, of_users) = Completion::channel();
    users.ask(UserQuery::Usage(completion));
    let live = within_timeout(live).await.ok();
    let of_users: Option<UsersUsage> = within_timeout(of_users).await.ok();
    StoreUsage {
        known_users: of_users.map(|usage| usage.known_users),
        max_known_users: of_users.map(|usage| usage.max_known_users),
        users_with_overrides: Some(users_with_overrides),
        live,
        users: of_users.map(|usage| usage.environment),
    }
}

async fn within_timeout<T>(answer: impl Future<Output = Result<T, StoreFailure>>) -> Result<T, StoreFailure> {
    let late = async {
        Timer::after(TIMEOUT).await;
        Err(StoreFailure::TimedOut)
    };
    or(answer, late).await
}

fn summarise(
    live: Result<LiveHealth, StoreFailure>,
    users: Result<UsersHealth, StoreFailure>,
    is_queue_full: bool,
) -> StoreHealth {
    let unavailable = |problem: &str| StoreHealth::Unavailable { refusal: StoreError::Failed, problem: problem.into() };
    let live = match live {
        Ok(LiveHealth { is_closed: true, .. }) => return unavailable("the slots' environment does not open"),
        Ok(live) => live,
        Err(StoreFailure::TimedOut) => {
            return unavailable("the slots' environment does not answer: its disk may stall");
        }
        Err(StoreFailure::Rejected(_) | StoreFailure::InDoubt) => return unavailable("the store is closed"),
    };
    let refusal = match live {
        LiveHealth { is_lost: true, .. } => Some(StoreError::Failed),
        LiveHealth { is_full: true, .. } => Some(StoreError::Full),
        LiveHealth { .. } if is_queue_full => Some(StoreError::Overloaded),
        LiveHealth { .. } => None,
    };
    let is_users_full = matches!(users, Ok(UsersHealth { is_full: true, .. }));
    let is_users_closed = !matches!(users, Ok(UsersHealth { is_closed: false, .. }));
    let problems = [
        (live.is_lost, "the data directory is not where it was opened: put it back, or restart the server"),
        (live.is_full, "no room for new slots: what is left is for releases"),
        (live.is_ballast_missing, "the disk is nearly full"),
        (live.has_unreadable, "a user's record cannot be read, and the user is rejected until a restart: see the log"),
        (is_queue_full, "the queue of commands is full"),
        (is_users_full, "no room for new users"),
        (is_users_closed, "the users' environment does not answer"),
    ];
    let problems: Vec<_> = problems.iter().filter(|(is_so, _)| *is_so).map(|(_, text)| (*text).to_owned()).collect();
    if problems.is_empty() { StoreHealth::Ready } else { StoreHealth::Degraded { refusal, problems } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: LiveHealth = LiveHealth {
        is_closed: false,
        is_full: false,
        is_ballast_missing: false,
        is_lost: false,
        has_unreadable: false,
    };
    const USERS: UsersHealth = UsersHealth { is_closed: false, is_full: false };

    fn refusal(live: LiveHealth, users: UsersHealth, is_queue_full: bool) -> (usize, Option<StoreError>) {
        match summarise(Ok(live), Ok(users), is_queue_full) {
            StoreHealth::Ready => (0, None),
            StoreHealth::Degraded { refusal, problems } => (problems.len(), refusal),
            StoreHealth::Unavailable { refusal, .. } => (usize::MAX, Some(refusal)),
        }
    }

    #[test]
    fn refusal_is_what_an_acquire_would_get() {
        assert_eq!(refusal(LIVE, USERS, false), (0, None));
        assert_eq!(refusal(LiveHealth { is_ballast_missing: true, ..LIVE }, USERS, false), (1, None));
        assert_eq!(refusal(LiveHealth { has_unreadable: true, ..LIVE }, USERS, false), (1, None));
        let full = LiveHealth { is_full: true, is_ballast_missing: true, ..LIVE };
        assert_eq!(refusal(full, USERS, true), (3, Some(StoreError::Full)));
        assert_eq!(refusal(LIVE, USERS, true), (1, Some(StoreError::Overloaded)));
        let lost = LiveHealth { is_lost: true, ..full };
        assert_eq!(refusal(lost, USERS, true), (4, Some(StoreError::Failed)));
        let closed = LiveHealth { is_closed: true, ..LIVE };
        assert_eq!(refusal(closed, USERS, true), (usize::MAX, Some(StoreError::Failed)));
        for users in [UsersHealth { is_closed: true, ..USERS }, UsersHealth { is_full: true, ..USERS }] {
            assert_eq!(refusal(LIVE, users, false), (1, None), "sessions are admitted without users/");
        }
    }

    #[test]
    fn thread_that_does_not_answer_makes_the_store_unavailable() {
        for failure in [StoreFailure::TimedOut, StoreFailure::Rejected(StoreError::Failed)] {
            let health = summarise(Err(failure), Ok(USERS), false);
            assert!(matches!(health, StoreHealth::Unavailable { refusal: StoreError::Failed, .. }), "{health:?}");
            let health = summarise(Ok(LIVE), Err(failure), false);
            assert!(matches!(health, StoreHealth::Degraded { refusal: None, .. }), "{health:?}");
        }
    }
}
