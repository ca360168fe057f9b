//! What the tests of this module share.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use session_core::ledger::{AcquireOptions, StoreCommand};
use session_core::ledger::{AdmissionPolicy, EndedSession, Outcome, SessionHint, SlotLimit, StoreError};
use session_core::{NodeId, ResumeKey, SessionId, Timestamp, UserId};
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

use super::store::LmdbConfig;
use crate::runtime::supervisor::{Part, PartGuard, Supervisor};
use crate::store::api::Store;
use crate::store::completion::Completion;
use crate::store::notifier::SessionNotifier;
use crate::store::shared::SharedPolicy;

/// More than anything here takes: a test that waits this long has failed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) const NODE: NodeId = NodeId::new(1);
pub(super) const OTHER_NODE: NodeId = NodeId::new(2);

pub(super) const RELEASED: Outcome = Outcome::Released;
pub(super) const UNKNOWN: Outcome = Outcome::Unknown;
pub(super) const FULL: Outcome = Outcome::Rejected(StoreError::Full);
pub(super) const FAILED: Outcome = Outcome::Rejected(StoreError::Failed);

/// Small maps and a limit of two.
pub(super) fn config(directory: &Path) -> LmdbConfig {
    LmdbConfig {
        live_map_bytes: 4 << 20,
        users_map_bytes: 4 << 20,
        ..LmdbConfig::new(directory, SlotLimit::new(2).unwrap())
    }
}

/// A limit of two, and no overrides.
pub(super) fn policy() -> SharedPolicy {
    SharedPolicy::new(AdmissionPolicy::new(SlotLimit::new(2).unwrap()), HashMap::new())
}

pub(super) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

pub(super) fn acquire(id: &str, number: u64) -> StoreCommand {
    acquire_for(id, NODE.session(number))
}

pub(super) fn acquire_for(id: &str, session: SessionId) -> StoreCommand {
    StoreCommand::Acquire {
        user: user(id),
        session,
        limit: None,
        at: Timestamp::from_epoch(Duration::from_secs(session.number())),
        options: None,
    }
}

/// An acquire with options.
pub(super) fn acquire_with(id: &str, session: SessionId, at: Timestamp, options: AcquireOptions) -> StoreCommand {
    StoreCommand::Acquire { user: user(id), session, limit: None, at, options: Some(Box::new(options)) }
}

/// The options of a client that can resume with [`KEY`].
pub(super) fn resumable() -> AcquireOptions {
    AcquireOptions { new_resume_key: Some(KEY), ..AcquireOptions::default() }
}

pub(super) const KEY: ResumeKey = ResumeKey::from_bytes([7; 32]);

pub(super) fn release(id: &str, number: u64) -> StoreCommand {
    StoreCommand::Release { user: user(id), session: NODE.session(number) }
}

pub(super) fn lookup(id: &str, number: u64) -> StoreCommand {
    StoreCommand::CountSlots {
        user: user(id),
        session: NODE.session(number),
        at: Timestamp::from_epoch(Duration::from_secs(number)),
    }
}

pub(super) fn granted(slots: u32) -> Outcome {
    Outcome::granted(slots)
}

pub(super) fn found(slots: u32) -> Outcome {
    Outcome::Counted { slots }
}

/// The guard of a thread that nobody watches.
pub(super) fn unwatched() -> PartGuard {
    Supervisor::default().watch(Part::StoreLive)
}

/// Submits the command and waits for its answer.
pub(super) fn ask(store: &dyn Store, command: StoreCommand) -> Outcome {
    let answers = OutcomeChannel::default();
    store.submit(command, answers.completion());
    answers.next()
}

/// Closes the store; whether that took no longer than `timeout`.
pub(super) fn close(store: &dyn Store, timeout: Duration) -> bool {
    smol::block_on(store.close(timeout)).is_ok()
}

/// What this thread logs during `work`.
pub(super) fn logged(work: impl FnOnce()) -> String {
    // With only one subscriber, a line that another test's thread reaches first is disabled for good.
    let _second = Dispatch::new(NoSubscriber::new());
    let mut file = tempfile::tempfile().unwrap();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(file.try_clone().unwrap())).finish();
    tracing::subscriber::with_default(log, work);
    let mut lines = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut lines).unwrap();
    lines
}

/// Collects outcomes in the order in which they come.
#[derive(Debug)]
pub(super) struct OutcomeChannel {
    sender: Sender<Outcome>,
    receiver: Receiver<Outcome>,
}

impl Default for OutcomeChannel {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }
}

impl OutcomeChannel {
    pub(super) fn completion(&self) -> Completion<Outcome> {
        let sender = self.sender.clone();
        Completion::new(move |outcome| {
            // Fails if the test has ended.
            drop(sender.send(outcome));
        })
    }

    /// Waits for the next.
    pub(super) fn next(&self) -> Outcome {
        self.receiver.recv_timeout(TIMEOUT).expect("every command is answered")
    }

    /// Those that have come so far.
    pub(super) fn now(&self) -> Vec<Outcome> {
        self.receiver.try_iter().collect()
    }
}

/// Receives the sessions that a store says have lost their slots.
#[derive(Debug)]
pub(super) struct EndedChannel(Sender<Vec<EndedSession>>);

impl EndedChannel {
    pub(super) fn new() -> (Arc<Self>, Receiver<Vec<EndedSession>>) {
        let (sender, heard) = channel();
        (Arc::new(Self(sender)), heard)
    }
}

impl SessionNotifier for EndedChannel {
    fn notify(&self, _: &UserId, ended: Vec<EndedSession>) {
        // Fails if the test has ended.
        let _unheard = self.0.send(ended);
    }

    fn hint(&self, _: Vec<SessionHint>) {}
}
