//! Users and sessions in pages.

use session_core::ledger::{KnownToken, StoreCommand};
use session_core::ledger::{Outcome, SessionStatus, SlotLimit, UserOverrides};
use session_core::{Timestamp, UserId};
use shell::store::{PageRequest, StoredSession, StoredUser, UserUpdate};

use super::harness::*;

pub(super) fn lists_users_in_pages(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    assert_eq!(subject.users(10), []);
    for number in 0..20 {
        subject.ask(acquire_with(&format!("user {number}"), number, number, options(number)));
    }
    for number in (15..25_u32).rev() {
        assert_eq!(subject.update(&format!("user {number}"), UserUpdate::Set(limited_to(number))), Ok(()));
    }
    let users = subject.users(PageRequest::MAX);
    assert_eq!(users.len(), 25);
    for number in 0..25 {
        let of_user: Vec<_> = users.iter().filter(|entry| entry.user == user(&format!("user {number}"))).collect();
        let [StoredUser { overrides, seen, .. }] = of_user[..] else { panic!("user {number} is listed: {of_user:?}") };
        let expected = if number < 15 { UserOverrides::default() } else { limited_to(u32::try_from(number).unwrap()) };
        assert_eq!(*overrides, expected, "user {number}");
        let seen = seen.map(|seen| (seen.first, seen.last));
        assert_eq!(seen, (number < 20).then(|| (at(number), at(number))), "user {number}");
    }
    for limit in [1, 2, 7, 24, 25] {
        assert_eq!(subject.users(limit), users, "in pages of {limit}");
    }
    // No slot and no override: nothing is left to know.
    assert_eq!(subject.ask(release("user 3", 3)), Outcome::Released);
    for number in [3, 24] {
        assert_eq!(subject.update(&format!("user {number}"), UserUpdate::Forget), Ok(()));
    }
    let left: Vec<_> =
        users.into_iter().filter(|entry| ![user("user 3"), user("user 24")].contains(&entry.user)).collect();
    assert_eq!(subject.users(7), left);
}

pub(super) fn lists_sessions_in_pages(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(5).unwrap());
    subject.store.set_policy(policy(5));
    assert_eq!(subject.sessions(None, 10), []);
    for number in 0..40 {
        subject.ask(acquire_with(&format!("user {}", number % 9), number, number, options(number)));
    }
    subject.ask(lose("user 4", 4, 41));
    let sessions = subject.sessions(None, PageRequest::MAX);
    let mut numbers: Vec<_> = sessions.iter().map(|entry| entry.record.session.number()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>(), "each is listed once");
    for StoredSession { user, record } in &sessions {
        let number = record.session.number();
        assert_eq!((user, record.since), (&self::user(&format!("user {}", number % 9)), at(number)));
        assert_eq!(record.label(), Some(&label(number)));
        let status =
            if number == 4 { SessionStatus::Lingering { until: at(41) + LINGER } } else { SessionStatus::Live };
        assert_eq!(record.status, status, "session {number}");
    }
    for limit in [1, 2, 7, 39, 40] {
        assert_eq!(subject.sessions(None, limit), sessions, "in pages of {limit}");
    }
    let of_user: Vec<_> = sessions.iter().filter(|entry| entry.user == user("user 2")).cloned().collect();
    assert_eq!(of_user.len(), 5);
    for limit in [1, 4, 5, 6] {
        assert_eq!(subject.sessions(Some("user 2"), limit), of_user, "in pages of {limit}");
    }
    assert_eq!(subject.sessions(Some("nobody"), 1), []);
}

/// Between two pages the first items go, and others come.
pub(super) fn lists_items_once_while_others_change(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    for number in 0..20 {
        subject.ask(acquire_with(&format!("user {number}"), number, 0, options(number)));
    }
    let users = subject.users(PageRequest::MAX);
    let sessions = subject.sessions(None, PageRequest::MAX);
    let number_of = |user: &UserId| user.as_str()["user ".len()..].parse().unwrap();
    let mut of_users = smol::block_on(subject.store.list_users(PageRequest::first(3))).unwrap();
    let mut of_sessions = smol::block_on(subject.store.list_sessions(None, PageRequest::first(3))).unwrap();
    let (mut listed_users, mut listed_sessions) = (of_users.items.clone(), of_sessions.items.clone());
    while let Some(after) = of_sessions.next.take() {
        // The cursor's own user and session go.
        let last = listed_sessions.last().unwrap();
        subject.ask(release(last.user.as_str(), last.record.session.number()));
        subject.update(last.user.as_str(), UserUpdate::Forget).unwrap();
        of_sessions =
            smol::block_on(subject.store.list_sessions(None, PageRequest { after: Some(after), limit: 3 })).unwrap();
        listed_sessions.extend(of_sessions.items.iter().cloned());
        if let Some(after) = of_users.next.take() {
            of_users = smol::block_on(subject.store.list_users(PageRequest { after: Some(after), limit: 3 })).unwrap();
            listed_users.extend(of_users.items.iter().cloned());
        }
    }
    assert_eq!(listed_sessions, sessions);
    let left: Vec<UserId> = listed_users.iter().map(|entry| entry.user.clone()).collect();
    assert_eq!(left, users.into_iter().map(|entry| entry.user).collect::<Vec<_>>());
    let gone: u64 = number_of(&listed_sessions[2].user);
    assert_eq!(subject.ask(lookup(&format!("user {gone}"), gone)), Outcome::Counted { slots: 0 });
}

pub(super) fn lists_no_void_sessions(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    subject.store.set_policy(policy(2));
    let long_ago = Timestamp::default();
    let acquire = |name, number| StoreCommand::Acquire {
        user: user(name),
        session: session(number),
        limit: None,
        at: long_ago,
        options: Some(Box::new(options(number))),
    };
    for (name, number) in [("ada", 1), ("ada", 2), ("bob", 3), ("eve", 4)] {
        subject.ask(acquire(name, number));
    }
    for (name, number) in [("ada", 1), ("bob", 3)] {
        let lost = StoreCommand::Linger {
            user: user(name),
            session: session(number),
            at: long_ago,
            token: KnownToken::Granted,
        };
        assert_eq!(subject.ask(lost), Outcome::Released);
    }
    for limit in [1, 10] {
        let numbers: Vec<_> = subject.sessions(None, limit).iter().map(|entry| entry.record.session.number()).collect();
        assert_eq!(numbers, [2, 4], "by the store's own clock, in pages of {limit}");
    }
    assert_eq!(subject.sessions(Some("bob"), 10), []);
}
