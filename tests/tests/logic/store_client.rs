//! What a session that stops waiting for the store leaves to be done.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use session_core::ledger::{AcquireOptions, StoreCommand};
use session_core::{ResumeKey, Timestamp, UserId};
use shell::runtime::clock::{Clock, ManualClock};
use shell::server::registry::Registry;
use shell::server::slot_guard::SlotGuard;
use shell::server::store_client::StoreClient;
use tests::stallable_store::StallableStore;
use tests::test_server::NODE;

const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the client submits for a session whose acquire was never answered.
fn submitted_after_timeout(options: Option<AcquireOptions>) -> Vec<StoreCommand> {
    let store = StallableStore::stalled(1);
    let clock = Arc::<ManualClock>::default();
    let manual = Clock::manual(Arc::clone(&clock));
    let registry = Registry::new(NODE, manual.clone());
    let store_client = StoreClient::new(store.clone(), registry, manual, STORE_TIMEOUT, 1);
    let (user, session) = (UserId::parse("ada").unwrap(), NODE.session(1));
    let mut guard = SlotGuard::new(Arc::clone(&store_client), Arc::default(), session);
    let (at, options) = (Timestamp::default(), options.map(Box::new));
    guard.submit(StoreCommand::Acquire { user, session, limit: None, at, options });
    let late = Timestamp::default() + STORE_TIMEOUT;
    assert_eq!(guard.deadline(), Some(late));
    clock.set(late);
    assert!(guard.expire());
    clock.set(late + Duration::from_millis(50));
    let mut retry = pin!(store_client.retry());
    assert!(retry.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    store.waiting_commands().split_off(1)
}

#[test]
fn unanswered_acquire_leaves_a_pending_release() {
    let release = [StoreCommand::Release { user: UserId::parse("ada").unwrap(), session: NODE.session(1) }];
    assert_eq!(submitted_after_timeout(None), release);
    let resumable = AcquireOptions { new_resume_key: Some(KEY), ..AcquireOptions::default() };
    assert_eq!(submitted_after_timeout(Some(resumable)), release);
}

/// A release would take the slot from its client because the store was slow.
#[test]
fn unanswered_resume_leaves_a_pending_linger() {
    let (user, session) = (UserId::parse("ada").unwrap(), NODE.session(1));
    let at = Timestamp::default() + STORE_TIMEOUT;
    let resume = AcquireOptions { resume: Some(KEY), ..AcquireOptions::default() };
    assert_eq!(submitted_after_timeout(Some(resume)), [StoreCommand::Linger { user, session, at }]);
}

const KEY: ResumeKey = ResumeKey::from_bytes([9; 32]);
