//! A page of users, as an operator asks for it and sees it.

use serde::{Deserialize, Serialize};
use session_core::UserId;

use super::error::AdminError;
use super::report::{OverridesReport, seen_millis};
use crate::store::{Cursor, Page, PageRequest, SessionCounts, StoredUser, UserFilter};

/// Asks for one page of the users that the server knows, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserListRequest {
    /// What the ids begin with.
    pub prefix: String,
    /// Whether to list only users who have sessions.
    pub with_sessions: bool,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// The most users to list, 1 to 1000.
    pub limit: Option<usize>,
}

/// One page of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// The users. A page may have fewer than it may have, even none, and still not be the last.
    pub users: Vec<ListedUser>,
    /// What to ask for next, as `after`. `None` if this is the last page.
    pub next: Option<String>,
}

/// A user in a list. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedUser {
    /// Which user.
    pub user: UserId,
    /// The sessions that hold slots.
    pub sessions: SessionsReport,
    /// Whether the server has seen the user. If not, something is set for the user.
    pub known: bool,
    /// When the server granted the user a slot first. Absent also if that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<u64>,
    /// When it did so last. Up to an hour behind for a user without sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// What is set for the user.
    pub overrides: OverridesReport,
}

/// How many sessions hold slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsReport {
    /// Those that are live.
    pub live: u32,
    /// Those that are lost and linger.
    pub lingering: u32,
}

impl UserListRequest {
    /// How many users a page has if the request does not say it.
    pub const DEFAULT_LIMIT: usize = 100;

    /// What to ask the store.
    pub(super) fn read(&self) -> Result<(UserFilter, PageRequest), AdminError> {
        let bad = |message: &str| AdminError::BadRequest(message.into());
        let limit = self.limit.unwrap_or(Self::DEFAULT_LIMIT);
        if !(1..=PageRequest::MAX).contains(&limit) {
            return Err(bad("a page has 1 to 1000 users"));
        }
        let after = match &self.after {
            None => None,
            Some(after) => Some(read_cursor(after).ok_or_else(|| bad("`after` is not the `next` of a page"))?),
        };
        Ok((
            UserFilter { prefix: self.prefix.clone(), with_sessions: self.with_sessions },
            PageRequest { after, limit },
        ))
    }
}

/// Whether the text can be the `next` of a page.
pub(crate) fn is_cursor(text: &str) -> bool {
    read_cursor(text).is_some()
}

impl From<Page<StoredUser>> for UserList {
    fn from(Page { items, next }: Page<StoredUser>) -> Self {
        let listed = |StoredUser { user, state, sessions: SessionCounts { live, lingering } }| {
            let [first_seen, last_seen] = seen_millis(state.seen);
            ListedUser {
                user,
                sessions: SessionsReport { live, lingering },
                known: state.seen.is_known(),
                first_seen,
                last_seen,
                overrides: state.overrides.into(),
            }
        };
        Self { users: items.into_iter().map(listed).collect(), next: next.as_ref().map(write_cursor) }
    }
}

/// In hexadecimal digits, which no shell and no URL changes.
fn write_cursor(cursor: &Cursor) -> String {
    cursor.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_cursor(text: &str) -> Option<Cursor> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let byte = |pair: &[u32]| match pair {
        &[high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    // No store makes an empty one.
    bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| Cursor::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use session_core::ledger::WhenFull;

    use super::*;

    #[test]
    fn cursor_is_read_as_written() {
        for bytes in [&[0][..], b"ada", "\u{1f980}".as_bytes(), &[255; 300]] {
            let cursor = Cursor::from_bytes(bytes);
            assert_eq!(read_cursor(&write_cursor(&cursor)), Some(cursor));
        }
        for text in ["", "6", "616", "xx", "+1", "61 62", "\u{e9}\u{e9}"] {
            assert_eq!(read_cursor(text), None, "{text:?}");
        }
    }

    /// The socket bounds what it reads of an answer.
    #[test]
    fn longest_page_fits_into_an_answer() {
        let user = ListedUser {
            user: UserId::parse(&"\"".repeat(UserId::MAX_BYTES)).unwrap(),
            sessions: SessionsReport { live: 1024, lingering: 1024 },
            known: false,
            first_seen: Some(u64::MAX),
            last_seen: Some(u64::MAX),
            overrides: OverridesReport { limit: Some(1024), when_full: Some(WhenFull::EvictOldest) },
        };
        let next = Some(write_cursor(&Cursor::from_bytes(&[255; 300])));
        let page = UserList { users: vec![user; PageRequest::MAX], next };
        assert!(serde_json::to_vec(&page).unwrap().len() < 1 << 20);
    }

    #[test]
    fn page_has_one_to_a_thousand_users() {
        let read = |limit| UserListRequest { limit, ..UserListRequest::default() }.read().map(|(_, page)| page.limit);
        assert_eq!([None, Some(1), Some(1000)].map(read), [Ok(100), Ok(1), Ok(1000)]);
        assert!(read(Some(0)).is_err() && read(Some(1001)).is_err());
        let after = UserListRequest { after: Some("ada".into()), ..UserListRequest::default() };
        assert!(matches!(after.read(), Err(AdminError::BadRequest(_))));
    }
}
