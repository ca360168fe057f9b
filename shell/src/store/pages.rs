//! Lists of users and sessions, in pages.

use session_core::ledger::{SessionRecord, StoreError, UserRecord};
use session_core::{SessionId, UserId};

use super::failure::StoreFailure;
use super::user_state::{SessionCounts, UserState};

/// Asks for one page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Where the page before it ended. `None` asks for the first page.
    pub after: Option<Cursor>,
    /// The most items to return. Below 1 it counts as 1, above [`PageRequest::MAX`] as that.
    pub limit: usize,
}

/// One page of a list.
///
/// The store keeps one order from page to page. An item that exists from the first page to the last is listed once, even if
/// others come and go meanwhile. A page may have fewer items than the limit, even none, and still not be the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as the request's limit.
    pub items: Vec<T>,
    /// Where the next page begins. `None` if this is the last.
    pub next: Option<Cursor>,
}

/// Where a page ends. Only the store that made it can read it: a store on a network has an order of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Box<[u8]>);

/// Which users to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserFilter {
    /// What the ids begin with.
    pub prefix: String,
    /// Whether to list only users with sessions.
    pub with_sessions: bool,
}

/// A user in a store's list: one who was granted a slot and is not forgotten, or one with overrides. A store that keeps
/// nothing of users without slots lists the users with slots or overrides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUser {
    /// Which user.
    pub user: UserId,
    /// What is kept of the user. Who has sessions has been seen, also if the store has not noted it yet.
    pub state: UserState,
    /// The sessions that hold the user's slots now.
    pub sessions: SessionCounts,
}

/// A session in a store's list: it holds a slot, live or lingering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Whose session.
    pub user: UserId,
    /// The session as the user's record has it.
    pub record: SessionRecord,
}

impl PageRequest {
    /// The most items of one page.
    pub const MAX: usize = 1000;

    /// Asks for the first page.
    #[must_use]
    pub const fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.clamp(1, Self::MAX)
    }

    /// The user behind whom the page begins.
    pub(super) fn after_user(&self) -> Result<Option<UserId>, StoreFailure> {
        self.after.as_ref().map(|cursor| user_from(&cursor.0)).transpose()
    }

    fn after_session(&self) -> Result<Option<(UserId, SessionId)>, StoreFailure> {
        let Some(Cursor(bytes)) = &self.after else { return Ok(None) };
        let (session, user) = bytes.split_first_chunk().ok_or(UNREADABLE)?;
        Ok(Some((user_from(user)?, SessionId::from_bytes(*session))))
    }
}

/// The failure of a cursor that another list, or another store, has made.
const UNREADABLE: StoreFailure = StoreFailure::Rejected(StoreError::Failed);

fn user_from(bytes: &[u8]) -> Result<UserId, StoreFailure> {
    std::str::from_utf8(bytes).ok().and_then(|id| UserId::parse(id).ok()).ok_or(UNREADABLE)
}

impl Cursor {
    /// The cursor that [`Cursor::as_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Some hundred bytes that stand for this place in the list.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn after_user(user: &UserId) -> Self {
        Self(user.as_str().as_bytes().into())
    }

    fn after_session(user: &UserId, session: SessionId) -> Self {
        Self([&session.to_bytes(), user.as_str().as_bytes()].concat().into())
    }
}

/// Builds one page of sessions, in the order of their users' ids and then of their own.
pub(super) struct SessionPageBuilder {
    limit: usize,
    after: Option<(UserId, SessionId)>,
    items: Vec<StoredSession>,
}

impl SessionPageBuilder {
    pub(super) fn new(request: &PageRequest) -> Result<Self, StoreFailure> {
        Ok(Self { limit: request.limit(), after: request.after_session()?, items: Vec::new() })
    }

    /// The first user whose record is wanted.
    pub(super) fn first_user(&self) -> Option<&UserId> {
        self.after.as_ref().map(|(user, _)| user)
    }

    /// Adds the sessions of a record, which is the next in order and has no lapsed ones. False if the page has no room for
    /// all of them.
    pub(super) fn add(&mut self, user: &UserId, record: &UserRecord) -> bool {
        let mut sessions: Vec<_> = record.sessions().iter().collect();
        sessions.sort_unstable_by_key(|record| record.session);
        for record in sessions {
            if self.after.as_ref().is_some_and(|(last, session)| user == last && record.session <= *session) {
                continue;
            }
            if self.items.len() == self.limit {
                return false;
            }
            self.items.push(StoredSession { user: user.clone(), record: record.clone() });
        }
        true
    }

    /// The last page.
    pub(super) fn finish(self) -> Page<StoredSession> {
        Page { items: self.items, next: None }
    }

    /// A page after which more follows, behind its last session.
    pub(super) fn finish_full(self) -> Page<StoredSession> {
        let next = self.items.last().map(|last| Cursor::after_session(&last.user, last.record.session));
        Page { items: self.items, next }
    }

    /// A page after which more follows, behind this user's sessions.
    pub(super) fn finish_after(self, user: &UserId) -> Page<StoredSession> {
        let last = SessionId::from_bytes([u8::MAX; 16]);
        Page { items: self.items, next: Some(Cursor::after_session(user, last)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_of_another_list_is_rejected() {
        let request = |bytes: &[u8]| PageRequest { after: Some(Cursor::from_bytes(bytes)), limit: 1 };
        for bytes in [&[][..], &[0xff], b"a\n"] {
            assert_eq!(request(bytes).after_user(), Err(UNREADABLE), "{bytes:?}");
        }
        for bytes in [&[][..], b"ada", &[1; 16]] {
            assert!(SessionPageBuilder::new(&request(bytes)).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn limit_is_at_least_one_and_bounded() {
        assert_eq!([0, 1, 1001].map(|limit| PageRequest::first(limit).limit()), [1, 1, PageRequest::MAX]);
    }
}
