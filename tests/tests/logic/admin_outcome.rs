//! What an operator's request answers: what was, what is, and whether anything was done.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use session_core::ledger::{LimitSource, Outcome, SlotLimit, StoreCommand, WhenFull};
use session_core::{Timestamp, UserId};
use shell::admin::{
    AdminRequest, AdminService, Change, DefaultWord, Override, OverridesReport, SlotCount, UserListRequest, UserPatch,
    UserReport,
};
use shell::store::{Completion, LmdbConfig, LmdbStore, Store};
use smol::future::{or, pending, yield_now, zip};
use tests::stallable_store::StallableStore;
use tests::test_server::NODE;
use tests::waiting::TIMEOUT;

/// An operator of a store where a user may hold three slots.
struct Subject {
    store: Arc<dyn Store>,
    service: AdminService,
    _directory: tempfile::TempDir,
}

impl Subject {
    fn open() -> Self {
        Self::with_max_known_users(LmdbConfig::DEFAULT_MAX_KNOWN_USERS)
    }

    fn with_max_known_users(max_known_users: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = LmdbConfig::new(directory.path(), SlotLimit::new(3).unwrap());
        let config = LmdbConfig { max_known_users, ..config };
        let store: Arc<dyn Store> = Arc::new(LmdbStore::open(&config, NODE).unwrap());
        let service = AdminService::new(Arc::clone(&store), None, TIMEOUT);
        Self { store, service, _directory: directory }
    }

    fn submit(&self, command: StoreCommand) -> Outcome {
        let (completion, outcome) = Completion::channel();
        self.store.submit(command, completion);
        smol::block_on(outcome)
    }

    fn hold(&self, id: &str, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let (session, at) = (NODE.session(number), Timestamp::from_epoch(Duration::from_secs(number)));
            let acquire = StoreCommand::Acquire { user: user(id), session, limit: None, at, options: None };
            assert!(matches!(self.submit(acquire), Outcome::Granted { .. }));
        }
    }

    fn handle(&self, id: &str, request: &AdminRequest) -> UserReport {
        smol::block_on(self.service.handle(&user(id), request)).unwrap()
    }

    fn limit(&self, id: &str, slots: u32) -> UserReport {
        self.handle(id, &AdminRequest::Limit(to(slots)))
    }
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn to(slots: u32) -> UserPatch {
    UserPatch { limit: Some(Override::To(SlotCount::Number(slots))), ..UserPatch::default() }
}

fn overrides(limit: Option<u32>) -> OverridesReport {
    OverridesReport { limit, when_full: None }
}

fn ids(numbers: &[u64]) -> Vec<String> {
    numbers.iter().map(|&number| NODE.session(number).to_string()).collect()
}

#[test]
fn limit_says_what_was_and_what_is() {
    let subject = Subject::open();
    let report = subject.limit("ada", 5);
    let before = report.before.unwrap();
    assert_eq!((before.limit, before.limit_source, before.overrides), (3, LimitSource::Server, overrides(None)));
    assert_eq!((report.state.limit, report.state.limit_source), (5, LimitSource::User));
    assert_eq!((report.state.overrides, report.change), (overrides(Some(5)), Change::Made));
    let report = subject.limit("ada", 5);
    assert_eq!((report.before.unwrap().limit, report.state.limit, report.change), (5, 5, Change::None));
    let evict = UserPatch { when_full: Some(Override::To(WhenFull::EvictOldest)), ..UserPatch::default() };
    let report = subject.handle("ada", &AdminRequest::Limit(evict));
    assert_eq!((report.before.unwrap().when_full, report.change), (WhenFull::Deny, Change::Made));
    let default = UserPatch { limit: Some(Override::Default(DefaultWord::Default)), ..UserPatch::default() };
    assert_eq!(subject.handle("ada", &AdminRequest::Limit(default)).change, Change::Made);
    assert_eq!(subject.handle("ada", &AdminRequest::Limit(default)).change, Change::None);
    assert_eq!(subject.handle("ada", &AdminRequest::Explain).change, Change::None);
}

#[test]
fn sessions_beyond_a_lowered_limit_are_named() {
    let subject = Subject::open();
    subject.hold("ada", 1..=3);
    assert_eq!(subject.handle("ada", &AdminRequest::Explain).beyond_limit, ids(&[]));
    let report = subject.limit("ada", 1);
    assert_eq!((report.connections, report.beyond_limit, report.ended), (3, ids(&[3, 2]), ids(&[])));
    assert_eq!(subject.handle("ada", &AdminRequest::Explain).beyond_limit, ids(&[3, 2]));
    // Whoever is beyond the server's limit may be within the limit of a token.
    let lowered = AdminRequest::Limit(UserPatch { limit: Some(Override::Default(DefaultWord::Default)), ..to(0) });
    subject.handle("ada", &lowered);
    subject.store.set_policy(session_core::ledger::AdmissionPolicy::new(SlotLimit::new(1).unwrap()));
    assert_eq!(subject.handle("ada", &AdminRequest::Explain).beyond_limit, ids(&[]));
}

#[test]
fn dry_run_says_what_it_would_do_and_does_nothing() {
    let subject = Subject::open();
    subject.hold("ada", 1..=3);
    let dry = |patch: UserPatch| subject.handle("ada", &AdminRequest::Limit(UserPatch { dry_run: true, ..patch }));
    let report = dry(UserPatch { enforce: true, ..to(1) });
    assert_eq!((report.dry_run, report.change, report.ended), (true, Change::WouldBeMade, ids(&[3, 2])));
    assert_eq!((report.before.unwrap().overrides, report.state.overrides), (overrides(None), overrides(Some(1))));
    assert_eq!((report.connections_before, report.beyond_limit), (Some(3), ids(&[])));
    let report = dry(to(1));
    assert_eq!((report.ended, report.beyond_limit, report.change), (ids(&[]), ids(&[3, 2]), Change::WouldBeMade));
    assert_eq!(subject.handle("ada", &AdminRequest::Explain).state.overrides, overrides(None));
    subject.limit("ada", 3);
    assert_eq!(dry(UserPatch { enforce: true, ..to(3) }).change, Change::None);
}

#[test]
fn enforcing_is_a_change_if_a_session_ends() {
    let subject = Subject::open();
    subject.hold("ada", 1..=3);
    subject.limit("ada", 2);
    let enforce = AdminRequest::Limit(UserPatch { enforce: true, ..UserPatch::default() });
    let report = subject.handle("ada", &enforce);
    assert_eq!((report.connections_before, report.connections, report.change), (Some(3), 2, Change::Made));
    let report = subject.handle("ada", &enforce);
    assert_eq!((report.connections_before, report.connections, report.change), (Some(2), 2, Change::None));
}

#[test]
fn end_says_how_many_slots_were_held() {
    let subject = Subject::open();
    subject.hold("ada", 1..=2);
    let report = subject.handle("ada", &AdminRequest::End(None));
    assert_eq!((report.connections_before, report.connections, report.change), (Some(2), 0, Change::Made));
    let report = subject.handle("ada", &AdminRequest::End(None));
    assert_eq!((report.connections_before, report.ended, report.change), (Some(0), ids(&[]), Change::None));
}

#[test]
fn forget_tells_the_known_from_the_unknown() {
    let subject = Subject::open();
    let report = subject.handle("nobody", &AdminRequest::Forget);
    assert_eq!(
        (report.change, report.before.unwrap().known, report.state.known),
        (Change::None, Some(false), Some(false))
    );
    subject.hold("ada", [1]);
    subject.submit(StoreCommand::Release { user: user("ada"), session: NODE.session(1) });
    subject.limit("ada", 5);
    let report = subject.handle("ada", &AdminRequest::Forget);
    let before = report.before.unwrap();
    assert_eq!((report.change, before.known, before.first_seen), (Change::Made, Some(true), Some(1000)));
    assert_eq!((before.overrides, report.state.known), (overrides(Some(5)), Some(false)));
    assert_eq!(subject.handle("ada", &AdminRequest::Forget).change, Change::None);
    // Who was only given a limit is forgotten, too, and was never seen.
    assert_eq!(subject.limit("dna", 0).state.known, Some(false));
    let report = subject.handle("dna", &AdminRequest::Forget);
    assert_eq!((report.change, report.before.unwrap().known), (Change::Made, Some(false)));
}

#[test]
fn user_is_known_from_the_first_grant_on() {
    let subject = Subject::open();
    let state = |id| {
        let state = subject.handle(id, &AdminRequest::Explain).state;
        (state.known, state.first_seen, state.last_seen)
    };
    assert_eq!(state("ada"), (Some(false), None, None));
    subject.hold("ada", 7..=9);
    assert_eq!(state("ada"), (Some(true), Some(7000), Some(9000)));
    assert_eq!(state("bob"), (Some(false), None, None));
}

#[test]
fn report_does_not_depend_on_whether_the_user_is_known() {
    let store = StallableStore::new(3);
    let service = AdminService::new(Arc::<StallableStore>::clone(&store), None, TIMEOUT);
    let (completion, outcome) = Completion::channel();
    let (session, at) = (NODE.session(1), Timestamp::default());
    store.submit(StoreCommand::Acquire { user: user("ada"), session, limit: None, at, options: None }, completion);
    assert_eq!(smol::block_on(outcome), Outcome::granted(1));
    store.lose_users();
    let explain = |id| smol::block_on(service.handle(&user(id), &AdminRequest::Explain)).unwrap();
    let (ada, bob) = (explain("ada"), explain("bob"));
    assert_eq!((ada.connections, ada.state.known, ada.state.first_seen), (1, Some(true), None), "she has a session");
    assert_eq!((bob.connections, bob.state.known), (0, None), "nobody can say");
}

/// Also who is not noted, because too many are.
#[test]
fn everybody_with_a_session_is_listed() {
    let subject = Subject::with_max_known_users(1);
    for (id, number) in [("ada", 1), ("bob", 2), ("eve", 3)] {
        subject.hold(id, [number]);
        // Who waits to be noted is noted with the next change, or never.
        subject.limit("zoe", u32::try_from(number).unwrap());
    }
    let status = smol::block_on(subject.service.status());
    assert_eq!((status.users.known, status.users.max_known, status.users.with_overrides), (Some(1), Some(1), Some(1)));
    let sessions = status.sessions.unwrap();
    assert_eq!((sessions.live, sessions.users, sessions.complete), (3, 3, true));
    assert!(status.server.is_none() && status.store.admits);
    let list = |with_sessions, limit| {
        let request = UserListRequest { with_sessions, limit: Some(limit), ..UserListRequest::default() };
        smol::block_on(subject.service.list_users(&request)).unwrap()
    };
    for (with_sessions, expected) in [(false, &["ada", "bob", "eve", "zoe"][..]), (true, &["ada", "bob", "eve"])] {
        let users = list(with_sessions, 1000).users;
        assert_eq!(users.iter().map(|user| user.user.as_str()).collect::<Vec<_>>(), expected);
        assert!(users.iter().all(|user| user.known == (user.user.as_str() != "zoe")));
    }
    assert_eq!(list(false, 2).next.as_deref(), Some("626f62"), "bob is the last of this page");
}

/// The answer of each is what the store found when it made the change, whatever was read before.
#[test]
fn before_is_read_with_the_change() {
    let store = StallableStore::stalled(3);
    // Two services: each has its own lock, as if another process shared the store.
    let service = || AdminService::new(Arc::<StallableStore>::clone(&store), None, TIMEOUT);
    let (one, other) = (service(), service());
    let working = async {
        while store.waiting() < 2 {
            yield_now().await;
        }
        store.recover();
        pending().await
    };
    let (five, seven) = (AdminRequest::Limit(to(5)), AdminRequest::Limit(to(7)));
    let ada = user("ada");
    let both = zip(one.handle(&ada, &five), other.handle(&ada, &seven));
    let (five, seven) = smol::block_on(or(both, working));
    assert_eq!(five.unwrap().before.unwrap().limit, 3);
    assert_eq!(seven.unwrap().before.unwrap().limit, 5, "not 3, which it had read before");
}
