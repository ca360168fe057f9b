//! Parts of lists of users, in the order of their ids, and how they are put together.

use std::collections::BTreeMap;
use std::ops::Bound;

use session_core::UserId;

use super::failure::StoreFailure;
use super::pages::{Cursor, Page, PageRequest, UserFilter};

/// Which users are asked for: those behind the cursor whose ids begin with the prefix, at most so many.
#[derive(Debug, Clone)]
pub(super) struct UserRange {
    prefix: String,
    after: Option<UserId>,
    pub(super) limit: usize,
}

/// The first users of a range, in the order of their ids, with what is known of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserSlice<T> {
    pub(super) items: Vec<(UserId, T)>,
    /// All users of the range up to this one are there. `None` if all of the whole range are.
    pub(super) end: Option<UserId>,
}

impl UserRange {
    pub(super) fn new(filter: &UserFilter, page: &PageRequest) -> Result<Self, StoreFailure> {
        Ok(Self { prefix: filter.prefix.clone(), after: page.after_user()?, limit: page.limit() })
    }

    pub(super) fn contains(&self, user: &UserId) -> bool {
        user.as_str().starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| user > after)
    }

    /// Where the range begins, in a tree that is sorted by the bytes of the ids.
    pub(super) fn start(&self) -> Bound<&[u8]> {
        // A tree has neither an empty key nor one that is longer than any id.
        let prefix = self.prefix.as_bytes();
        let prefix = prefix.get(..UserId::MAX_BYTES).unwrap_or(prefix);
        match self.after.as_ref().map(|after| after.as_str().as_bytes()) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None if prefix.is_empty() => Bound::Unbounded,
            Some(_) | None => Bound::Included(prefix),
        }
    }

    /// Whether a key, which is not before [`UserRange::start`], is behind the range.
    pub(super) fn is_behind(&self, key: &[u8]) -> bool {
        !key.starts_with(self.prefix.as_bytes())
    }

    /// The first users of the range among these, which are in no order. Keeps no more than those.
    pub(super) fn first_of<'a, T: 'a>(&self, users: impl Iterator<Item = (&'a UserId, T)>) -> UserSlice<T> {
        let mut first = BTreeMap::new();
        let mut is_whole = true;
        for (user, item) in users.filter(|(user, _)| self.contains(user)) {
            if first.len() == self.limit && first.last_key_value().is_some_and(|(last, _)| user > *last) {
                is_whole = false;
                continue;
            }
            first.insert(user, item);
            if first.len() > self.limit {
                first.pop_last();
                is_whole = false;
            }
        }
        let items: Vec<_> = first.into_iter().map(|(user, item)| (user.clone(), item)).collect();
        let end = items.last().filter(|_| !is_whole).map(|(user, _)| user.clone());
        UserSlice { items, end }
    }
}

impl<T> UserSlice<T> {
    /// The users of both, as far as both are known.
    pub(super) fn merge<U>(self, other: UserSlice<U>) -> UserSlice<(Option<T>, Option<U>)> {
        let end = match (self.end, other.end) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let mut merged: BTreeMap<UserId, (Option<T>, Option<U>)> =
            self.items.into_iter().map(|(user, item)| (user, (Some(item), None))).collect();
        for (user, item) in other.items {
            merged.entry(user).or_default().1 = Some(item);
        }
        let is_known = |user: &UserId| end.as_ref().is_none_or(|end| user <= end);
        let items = merged.into_iter().filter(|(user, _)| is_known(user)).collect();
        UserSlice { items, end }
    }

    pub(super) fn map<U>(self, mut change: impl FnMut(T) -> U) -> UserSlice<U> {
        let items = self.items.into_iter().map(|(user, item)| (user, change(item))).collect();
        UserSlice { items, end: self.end }
    }

    /// A page of at most `limit` of them.
    pub(super) fn into_page<U>(mut self, limit: usize, make: impl Fn(UserId, T) -> U) -> Page<U> {
        if self.items.len() > limit {
            self.items.truncate(limit);
            self.end = self.items.last().map(|(user, _)| user.clone());
        }
        let next = self.end.as_ref().map(Cursor::after_user);
        Page { items: self.items.into_iter().map(|(user, item)| make(user, item)).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn range(prefix: &str, after: Option<&str>, limit: usize) -> UserRange {
        UserRange { prefix: prefix.into(), after: after.map(user), limit }
    }

    fn slice<T: Copy>(items: &[(&str, T)], end: Option<&str>) -> UserSlice<T> {
        UserSlice { items: items.iter().map(|&(id, item)| (user(id), item)).collect(), end: end.map(user) }
    }

    #[test]
    fn first_users_of_a_range_are_in_order() {
        let users: Vec<_> = ["b2", "c", "b1", "a", "b3", "b"].iter().map(|id| user(id)).collect();
        let first = |range: UserRange| range.first_of(users.iter().map(|user| (user, ())));
        let ids = |slice: &UserSlice<()>| slice.items.iter().map(|(user, ())| user.to_string()).collect::<Vec<_>>();
        let whole = first(range("", None, 6));
        assert_eq!(
            (ids(&whole), whole.end.clone()),
            (["a", "b", "b1", "b2", "b3", "c"].map(String::from).into(), None)
        );
        let cut = first(range("", None, 2));
        assert_eq!((ids(&cut), cut.end.clone()), (["a", "b"].map(String::from).into(), Some(user("b"))));
        let some = first(range("b", Some("b1"), 2));
        assert_eq!((ids(&some), some.end.clone()), (["b2", "b3"].map(String::from).into(), None));
        assert!(ids(&first(range("d", None, 2))).is_empty());
    }

    #[test]
    fn range_begins_at_prefix_or_cursor() {
        assert_eq!(range("b", Some("a"), 1).start(), Bound::Included(&b"b"[..]));
        assert_eq!(range("b", Some("b"), 1).start(), Bound::Excluded(&b"b"[..]));
        assert_eq!(range("", None, 1).start(), Bound::Unbounded);
        assert_eq!(range(&"b".repeat(1000), None, 1).start(), Bound::Included(&[b'b'; UserId::MAX_BYTES][..]));
        assert!(range("b", None, 1).is_behind(b"c") && !range("b", None, 1).is_behind(b"b1"));
    }

    /// Otherwise a user between the two ends would be missing from one of them, and from the next page.
    #[test]
    fn merge_ends_where_the_shorter_slice_ends() {
        let (one, other) =
            (slice(&[("a", 1), ("c", 3)], Some("c")), slice(&[("b", 'b'), ("c", 'c'), ("d", 'd')], None));
        let merged = slice(&[("a", (Some(1), None)), ("b", (None, Some('b'))), ("c", (Some(3), Some('c')))], Some("c"));
        assert_eq!(one.merge(other), merged);
        let (one, other) = (slice(&[("a", 1)], Some("x")), slice(&[("b", 2), ("y", 3)], Some("y")));
        assert_eq!(one.merge(other), slice(&[("a", (Some(1), None)), ("b", (None, Some(2)))], Some("x")));
        let empty: UserSlice<u8> = slice(&[], Some("a"));
        assert_eq!(empty.merge(slice(&[("b", 2)], None)), slice(&[], Some("a")), "the page is empty, and not the last");
    }

    #[test]
    fn page_has_no_more_than_its_limit() {
        let page = |limit, end| slice(&[("a", 1), ("b", 2)], end).into_page(limit, |user, item| (user, item));
        let after = |id| Some(Cursor::after_user(&user(id)));
        assert_eq!((page(1, None).items.len(), page(1, None).next), (1, after("a")));
        assert_eq!((page(2, None).items.len(), page(2, None).next), (2, None));
        assert_eq!(page(2, Some("x")).next, after("x"));
    }
}
