//! Users and sessions in pages.

use session_core::ledger::{KnownToken, StoreCommand};
use session_core::ledger::{Outcome, SessionStatus, SlotLimit, UserOverrides};
use session_core::{Timestamp, UserId};
use shell::store::{
    PageRequest, SeenState, SessionCounts, StoredSession, StoredUser, UserFilter, UserState, UserUpdate,
};

use super::harness::*;

pub(super) fn lists_users_in_pages(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    assert_eq!(subject.users(10), []);
    for number in 0..20 {
        subject.ask(acquire_with(&format!("user {number}"), number, number, options(number)));
    }
    for number in (15..25_u32).rev() {
        subject.update(&format!("user {number}"), UserUpdate::Set(limited_to(number))).unwrap();
    }
    let users = subject.users(PageRequest::MAX);
    assert_eq!(users.len(), 25);
    for number in 0..25 {
        let of_user: Vec<_> = users.iter().filter(|entry| entry.user == user(&format!("user {number}"))).collect();
        let [StoredUser { state, sessions, .. }] = of_user[..] else { panic!("user {number} is listed: {of_user:?}") };
        let overrides = if number < 15 { UserOverrides::default() } else { limited_to(u32::try_from(number).unwrap()) };
        let seen = SeenState::Never.with_grants((number < 20).then(|| at(number)));
        assert_eq!(*state, UserState { overrides, seen }, "user {number}");
        assert_eq!(sessions.live, u32::from(number < 20), "user {number}");
    }
    for limit in [1, 2, 7, 24, 25] {
        assert_eq!(subject.users(limit), users, "in pages of {limit}");
    }
    // No slot and no override: nothing is left to know.
    assert_eq!(subject.ask(release("user 3", 3)), Outcome::Released);
    for number in [3, 24] {
        subject.update(&format!("user {number}"), UserUpdate::Forget).unwrap();
    }
    let left: Vec<_> =
        users.into_iter().filter(|entry| ![user("user 3"), user("user 24")].contains(&entry.user)).collect();
    assert_eq!(subject.users(7), left);
}

pub(super) fn lists_users_by_prefix_and_sessions(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(5).unwrap());
    subject.store.set_policy(policy(5));
    for number in 0..60 {
        let name = match number % 3 {
            0 => "ada",
            1 => "bob",
            _ => "boba",
        };
        subject.ask(acquire_with(&format!("{name} {}", number / 6), number, 0, options(number)));
    }
    subject.ask(lose("bob 0", 1, 1));
    // Who has no session any more is kept by some stores, by none as one with sessions.
    for number in [0, 3] {
        subject.ask(release("ada 0", number));
    }
    subject.update("bob 9x", UserUpdate::Set(limited_to(1))).unwrap();
    subject.update("bob 0", UserUpdate::Set(limited_to(2))).unwrap();
    let ids = |users: &[StoredUser]| users.iter().map(|entry| entry.user.to_string()).collect::<Vec<_>>();
    let listed = subject.users_like("bob ", false, PageRequest::MAX);
    let all = in_order(&subject, listed.clone());
    assert_eq!(
        ids(&all),
        ["bob 0", "bob 1", "bob 2", "bob 3", "bob 4", "bob 5", "bob 6", "bob 7", "bob 8", "bob 9", "bob 9x"]
    );
    assert_eq!(
        (all[0].sessions, all[1].sessions, all[10].sessions),
        (SessionCounts { live: 1, lingering: 1 }, SessionCounts { live: 2, lingering: 0 }, SessionCounts::default(),)
    );
    assert_eq!((all[0].state.overrides, all[10].state.seen), (limited_to(2), SeenState::Never));
    let holders = subject.users_like("", true, PageRequest::MAX);
    assert_eq!(holders.len(), 29, "not ada 0, and not bob 9x");
    assert!(holders.iter().all(|entry| entry.sessions.is_any() && entry.state.seen.is_known()));
    let bobs = subject.users_like("bob ", true, PageRequest::MAX);
    assert_eq!(in_order(&subject, bobs.clone()), all[..10]);
    for limit in [1, 2, 9, 10, 11] {
        assert_eq!(subject.users_like("bob ", false, limit), listed, "in pages of {limit}");
        assert_eq!(subject.users_like("bob ", true, limit), bobs, "in pages of {limit}");
    }
    for nobody in ["bobb", "c", "\0", "\u{1}", "zzz", &"b".repeat(1000)] {
        assert_eq!(subject.users_like(nobody, false, 10), [], "{nobody:?}");
    }
}

/// A store that is not shared lists users in the order of their ids.
fn in_order(subject: &Subject, mut users: Vec<StoredUser>) -> Vec<StoredUser> {
    if subject.is_shared() {
        users.sort_by(|one, other| one.user.cmp(&other.user));
    }
    users
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
    let mut of_users = smol::block_on(subject.store.list_users(UserFilter::default(), PageRequest::first(3))).unwrap();
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
            let page = PageRequest { after: Some(after), limit: 3 };
            of_users = smol::block_on(subject.store.list_users(UserFilter::default(), page)).unwrap();
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
        let mut numbers: Vec<_> =
            subject.sessions(None, limit).iter().map(|entry| entry.record.session.number()).collect();
        if subject.is_shared() {
            numbers.sort_unstable();
        }
        assert_eq!(numbers, [2, 4], "by the store's own clock, in pages of {limit}");
    }
    assert_eq!(subject.sessions(Some("bob"), 10), []);
}
