//! The stores under test, and what the suite asks of them.

use session_core::ledger::SessionNames;
use session_core::ledger::{AcquireOptions, EndTarget, KnownToken, StoreCommand};
use session_core::ledger::{AdmissionPolicy, EndReason, EndedSession, Outcome, SessionHint, SlotLimit, UserOverrides};
use session_core::{DisplayName, NodeId, ResumeKey, SessionId, Timestamp, UserId};
use shell::store::{
    Completion, LmdbConfig, LmdbStore, MemoryStore, Page, PageRequest, Store, StoreFailure, StoredSession, StoredUser,
    UserFilter, UserState, UserUpdate,
};
use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;
use tests::test_server::NODE;
use tests::waiting::TIMEOUT;

use super::clients::Clients;

/// A store with its clients, and what must outlive it.
pub(super) struct Subject {
    pub(super) store: Arc<dyn Store>,
    /// The sessions of the store, through which all commands go.
    pub(super) clients: Clients,
    pub(super) observed: Receiver<Observed>,
    pub(super) observer: Sender<Observed>,
    pub(super) _outlives: Box<dyn Any>,
}

/// What a store lets the world know, in its order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// The answer to a command that [`Subject::send`] submitted.
    Answer(Outcome),
    /// The grant of a slot to this session, for [`super::order`].
    Granted(SessionId),
    /// Who lost a slot.
    Ended(Vec<EndedSession>),
    /// The hints after a command.
    Hinted(Vec<SessionHint>),
}

pub(super) fn subject(store: impl Store + 'static, outlives: impl Any) -> Subject {
    let (observer, observed) = std::sync::mpsc::channel();
    let store: Arc<dyn Store> = Arc::new(store);
    let clients = Clients::new(&store, observer.clone());
    Subject { store, clients, observed, observer, _outlives: Box::new(outlives) }
}

pub(super) fn memory(limit: SlotLimit) -> Subject {
    subject(MemoryStore::new(NODE, limit), ())
}

pub(super) fn lmdb(limit: SlotLimit) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(&LmdbConfig::new(directory.path(), limit), NODE).unwrap();
    subject(store, directory)
}

impl Subject {
    pub(super) fn submit(&self, command: StoreCommand) -> Receiver<Outcome> {
        self.clients.submit(command)
    }

    /// What the suite cannot demand of a store that several servers share, whose sessions are those of real clients:
    ///
    /// - A session that has given its slot up, or has lost it, does not ask for one again at once. It waits for an answer before it
    ///   gives its slot up: from then on it is told neither the answer nor that it has lost the slot.
    /// - The store is closed only once all sessions have given up their slots, and then takes a release for one of a session
    ///   that has none.
    /// - Users have no order across the parts of the store, and a node takes at most about 700 commands for each part at once.
    pub(super) fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    pub(super) fn update(&self, name: &str, update: UserUpdate) -> Result<UserState, StoreFailure> {
        let (completion, answer) = Completion::channel();
        self.store.update_user(user(name), update, completion);
        smol::block_on(answer)
    }

    pub(super) fn overrides(&self, name: &str) -> UserOverrides {
        smol::block_on(self.store.policy_for(&user(name))).unwrap().overrides
    }

    /// All users, in pages of this size.
    pub(super) fn users(&self, limit: usize) -> Vec<StoredUser> {
        self.users_like("", false, limit)
    }

    /// The users whose ids begin like this, or those of them who have sessions.
    pub(super) fn users_like(&self, prefix: &str, with_sessions: bool, limit: usize) -> Vec<StoredUser> {
        let filter = UserFilter { prefix: prefix.into(), with_sessions };
        read_all(limit, |page| smol::block_on(self.store.list_users(filter.clone(), page)))
    }

    /// All sessions, in pages of this size.
    pub(super) fn sessions(&self, name: Option<&str>, limit: usize) -> Vec<StoredSession> {
        read_all(limit, |page| smol::block_on(self.store.list_sessions(name.map(user), page)))
    }

    pub(super) fn ask(&self, command: StoreCommand) -> Outcome {
        self.submit(command).recv_timeout(TIMEOUT).expect("every command is answered")
    }

    /// Submits a command whose answer is heard in the order of all else.
    pub(super) fn send(&self, command: StoreCommand) {
        let observer = self.observer.clone();
        self.clients.submit_then(command, move |outcome| observer.send(Observed::Answer(outcome)).unwrap());
    }

    pub(super) fn next(&self) -> Observed {
        self.observed.recv_timeout(TIMEOUT).expect("the store says something")
    }

    /// The sessions that lost their slots since the last call, up to the last answered command.
    pub(super) fn ended(&self) -> Vec<EndedSession> {
        let ended = self.observed.try_iter().flat_map(|observed| match observed {
            Observed::Ended(ended) => ended,
            Observed::Answer(outcome) => panic!("nobody waited for {outcome:?}"),
            Observed::Hinted(hints) => panic!("nobody waited for {hints:?}"),
            Observed::Granted(session) => panic!("nobody waited for the grant of {session}"),
        });
        ended.collect()
    }
}

/// Reads a list to its end, in pages of this size.
pub(super) fn read_all<T>(limit: usize, list: impl Fn(PageRequest) -> Result<Page<T>, StoreFailure>) -> Vec<T> {
    const MAX_PAGES: usize = 10_000;

    let mut items = Vec::new();
    let mut request = PageRequest::first(limit);
    for _ in 0..MAX_PAGES {
        let page = list(request).unwrap();
        assert!(page.items.len() <= limit, "{} items in a page of {limit}", page.items.len());
        items.extend(page.items);
        let Some(next) = page.next else { return items };
        request = PageRequest { after: Some(next), limit };
    }
    panic!("the list does not end");
}

pub(super) fn acquire(name: &str, number: u64) -> StoreCommand {
    acquire_for(name, session(number))
}

pub(super) fn acquire_for(name: &str, session: SessionId) -> StoreCommand {
    StoreCommand::Acquire { user: user(name), session, limit: None, at: Timestamp::default(), options: None }
}

pub(super) fn release(name: &str, number: u64) -> StoreCommand {
    StoreCommand::Release { user: user(name), session: session(number) }
}

pub(super) fn lookup(name: &str, number: u64) -> StoreCommand {
    StoreCommand::CountSlots { user: user(name), session: session(number), at: at(0) }
}

pub(super) fn lose(name: &str, number: u64, second: u64) -> StoreCommand {
    let (user, session, at, token) = (user(name), session(number), at(second), KnownToken::Granted);
    StoreCommand::Linger { user, session, at, token }
}

/// The loss of a session that showed this token, and never had an answer.
pub(super) fn lose_after_showing(name: &str, number: u64, second: u64, shown: u64) -> StoreCommand {
    let (user, session, at, token) = (user(name), session(number), at(second), KnownToken::Shown(Box::new(key(shown))));
    StoreCommand::Linger { user, session, at, token }
}

pub(super) fn end(name: &str, asker: u64, which: EndTarget) -> StoreCommand {
    StoreCommand::EndSessions {
        user: user(name),
        session: session(asker),
        target: which,
        reason: EndReason::ByUser(None),
        at: at(0),
    }
}

pub(super) fn acquire_with(name: &str, number: u64, second: u64, options: AcquireOptions) -> StoreCommand {
    let (user, session, at) = (user(name), session(number), at(second));
    StoreCommand::Acquire { user, session, limit: None, at, options: Some(Box::new(options)) }
}

/// What a session says that calls itself by its number, and can be taken up again.
pub(super) fn options(number: u64) -> AcquireOptions {
    AcquireOptions { label: Some(label(number)), new_resume_key: Some(key(number)), ..AcquireOptions::default() }
}

pub(super) fn key(number: u64) -> ResumeKey {
    ResumeKey::from_bytes([u8::try_from(number).unwrap(); 32])
}

pub(super) fn label(number: u64) -> DisplayName {
    DisplayName::parse(&format!("session {number}")).unwrap()
}

/// The names of such a session.
pub(super) fn names(number: u64) -> Option<Box<SessionNames>> {
    tests::values::labelled(&format!("session {number}"))
}

/// This limit, with a grace period of ten seconds and `client_choice`.
pub(super) fn policy(limit: u32) -> AdmissionPolicy {
    let policy = AdmissionPolicy::new(SlotLimit::new(limit).unwrap());
    AdmissionPolicy { client_choice: true, linger: LINGER, linger_grace: Duration::ZERO, ..policy }
}

/// A node that no store has heard of.
pub(super) const UNLISTED: NodeId = NodeId::new(0xdead);

pub(super) fn limited_to(slots: u32) -> UserOverrides {
    UserOverrides { limit: Some(SlotLimit::new(slots).unwrap()), when_full: None }
}

pub(super) const LINGER: Duration = Duration::from_secs(10);

/// In a future so far that what lingers until then does so by a store's own clock, too.
pub(super) fn at(second: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(4_000_000_000 + second))
}

pub(super) fn ended(number: u64, how: EndReason) -> EndedSession {
    EndedSession { session: session(number), reason: how }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(super) fn session(number: u64) -> SessionId {
    NODE.session(number)
}
