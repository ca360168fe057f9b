//! What a session that stops waiting for the store leaves to be done.
//!
//! The store of these tests begins to apply a command when the test lets it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use session_core::ledger::{
    AcquireOptions, AdmissionPolicy, EndReason, EndTarget, KnownToken, Outcome, SlotLimit, SlotUsage, StoreCommand,
    WhenFull,
};
use session_core::{ResumeKey, SessionId, Timestamp, UserId};
use shell::runtime::clock::{Clock, ManualClock};
use shell::server::mailbox::{Mailbox, Notification};
use shell::server::registry::Registry;
use shell::server::slot_guard::SlotGuard;
use shell::server::store_client::StoreClient;
use shell::store::{Completion, Store as _};
use tests::stallable_store::StallableStore;
use tests::test_server::NODE;

const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sessions of ada, over a store that waits for the test.
struct Harness {
    store: Arc<StallableStore>,
    store_client: Arc<StoreClient>,
    clock: Arc<ManualClock>,
}

impl Harness {
    /// A store that is stalled, with one slot for each user. A newcomer evicts the oldest session.
    fn new() -> Self {
        let store = StallableStore::new(1);
        let policy = AdmissionPolicy::new(SlotLimit::new(1).unwrap());
        store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy });
        let clock = Arc::<ManualClock>::default();
        let manual = Clock::manual(Arc::clone(&clock));
        let registry = Registry::new(NODE, manual.clone());
        let store_client = StoreClient::new(store.clone(), registry, manual, STORE_TIMEOUT, 9);
        Self { store, store_client, clock }
    }

    fn guard(&self, number: u64) -> (SlotGuard, Arc<Mailbox>) {
        let mailbox = Arc::<Mailbox>::default();
        (SlotGuard::new(Arc::clone(&self.store_client), Arc::clone(&mailbox), session(number)), mailbox)
    }

    /// Lets the wait for this session's acquire end.
    fn time_out(&self, guard: &mut SlotGuard) {
        let late = guard.deadline().unwrap();
        self.clock.set(late);
        assert!(guard.end_wait());
    }

    /// The releases that are retried some time later.
    fn retried(&self) -> Vec<StoreCommand> {
        let before = self.store.waiting();
        self.clock.set(Clock::manual(Arc::clone(&self.clock)).now() + Duration::from_millis(50));
        let mut retry = pin!(Arc::clone(&self.store_client).retry());
        assert!(retry.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        self.store.waiting_commands().split_off(before)
    }

    fn slots(&self) -> Vec<SessionId> {
        self.usage().sessions.iter().map(|entry| entry.session).collect()
    }

    fn usage(&self) -> Box<SlotUsage> {
        let (completion, listed) = Completion::channel();
        let (user, session, at) = (user(), session(0), Timestamp::default());
        self.store.submit(
            StoreCommand::ListSessions { user, session, limit: None, is_unbounded: true, watch: None, at },
            completion,
        );
        let Outcome::Listed(usage) = smol::block_on(listed) else { panic!("no list") };
        usage
    }
}

fn user() -> UserId {
    UserId::parse("ada").unwrap()
}

fn session(number: u64) -> SessionId {
    NODE.session(number)
}

fn acquire(number: u64, options: Option<AcquireOptions>) -> StoreCommand {
    let (at, options) = (Timestamp::default(), options.map(Box::new));
    StoreCommand::Acquire { user: user(), session: session(number), limit: None, at, options }
}

fn poll(mailbox: &Mailbox) -> Poll<Notification> {
    mailbox.poll(&mut Context::from_waker(Waker::noop()))
}

/// What the client submits for a session whose acquire the store began and never answered.
fn submitted_after_timeout(options: Option<AcquireOptions>) -> Vec<StoreCommand> {
    let harness = Harness::new();
    harness.store.stall();
    let (mut guard, _mailbox) = harness.guard(1);
    guard.submit(acquire(1, options));
    assert_eq!(guard.deadline(), Some(Timestamp::default() + STORE_TIMEOUT));
    harness.store.begin();
    harness.time_out(&mut guard);
    harness.retried()
}

#[test]
fn unanswered_acquire_leaves_a_pending_release() {
    let release = [StoreCommand::Release { user: user(), session: session(1) }];
    assert_eq!(submitted_after_timeout(None), release);
    let resumable = AcquireOptions { new_resume_key: Some(KEY), ..AcquireOptions::default() };
    assert_eq!(submitted_after_timeout(Some(resumable)), release);
}

/// A release would take the slot from its client because the store was slow.
#[test]
fn unanswered_resume_leaves_a_pending_linger() {
    let at = Timestamp::default() + STORE_TIMEOUT;
    let resume = AcquireOptions { resume: Some(KEY), ..AcquireOptions::default() };
    assert_eq!(
        submitted_after_timeout(Some(resume)),
        [StoreCommand::Linger { user: user(), session: session(1), at, token: KnownToken::Shown(Box::new(KEY)) }]
    );
}

/// After a reboot a client shows a token whose slot is gone, and the store is slow. Once, each try left a slot that
/// lingered, and the user was locked out.
#[test]
fn unanswered_resume_of_a_void_token_keeps_no_slot() {
    let harness = Harness::new();
    let policy = AdmissionPolicy::new(SlotLimit::new(1).unwrap());
    harness.store.set_policy(AdmissionPolicy { linger: Duration::from_secs(9), lingering_first: false, ..policy });
    let fresh = Some(ResumeKey::from_bytes([1; 32]));
    for (number, shown, left) in [(1, Some(KEY), vec![]), (2, None, vec![]), (3, fresh, vec![session(3)])] {
        harness.store.stall();
        let (mut guard, _mailbox) = harness.guard(number);
        let options = AcquireOptions { resume: shown, new_resume_key: fresh, ..AcquireOptions::default() };
        guard.submit(acquire(number, Some(options)));
        harness.store.begin();
        harness.time_out(&mut guard);
        assert!(guard.answered(&Outcome::Unknown).is_some());
        harness.store.recover();
        assert_eq!(harness.slots(), [session(number)], "it was applied late");
        harness.retried();
        assert_eq!((harness.slots(), harness.store_client.tracked()), (left, 0));
    }
}

/// Clients that come back to a slow store, each after its predecessor was refused. Once, each of them evicted the live
/// session for nobody.
#[test]
fn refused_acquires_evict_no_session() {
    let harness = Harness::new();
    let (mut live, mailbox) = harness.guard(1);
    live.submit(acquire(1, None));
    let granted = Outcome::granted(1);
    assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(granted.clone())));
    assert_eq!(live.answered(&granted), None);

    harness.store.stall();
    for number in 2..9 {
        let (mut guard, refused) = harness.guard(number);
        guard.submit(acquire(number, None));
        harness.time_out(&mut guard);
        assert!(poll(&refused).is_pending());
        assert_eq!(guard.answered(&Outcome::Unknown), Some(user()), "the session is refused");
        assert_eq!((harness.store_client.tracked(), harness.store_client.pending()), (1, 0), "nothing is owed");
    }
    harness.store.recover();
    assert_eq!(harness.slots(), [session(1)]);
}

#[test]
fn abandoned_acquire_is_withdrawn_unless_it_has_begun() {
    let harness = Harness::new();
    harness.store.stall();
    let (mut gone, _mailbox) = harness.guard(1);
    gone.submit(acquire(1, None));
    assert!(gone.withdraw_acquire() && !gone.withdraw_acquire());
    assert_eq!((gone.deadline(), harness.store_client.tracked()), (None, 0));
    let (mut begun, mailbox) = harness.guard(2);
    begun.submit(acquire(2, None));
    harness.store.begin();
    assert!(!begun.withdraw_acquire());
    harness.store.recover();
    assert_eq!(poll(&mailbox), Poll::Ready(Notification::Stored(Outcome::granted(1))));
    assert_eq!(harness.slots(), [session(2)], "the first acquire was not applied");
}

/// A connection that panics while it waits.
#[test]
fn dropped_guard_withdraws_its_acquire() {
    let harness = Harness::new();
    harness.store.stall();
    let (mut guard, _mailbox) = harness.guard(1);
    guard.submit(acquire(1, None));
    drop(guard);
    assert_eq!((harness.store.waiting_commands(), harness.store_client.tracked()), (vec![acquire(1, None)], 0));
    harness.store.recover();
    assert_eq!(harness.slots(), []);
}

/// Whatever its connection was doing when it ended.
#[test]
fn place_in_line_goes_with_its_connection() {
    let waits = || Some(AcquireOptions { waits: true, ..AcquireOptions::default() });
    for end in ["dropped", "dropped with a command", "dropped with a command that began", "timed out", "in doubt"] {
        let harness = Harness::new();
        harness.store.set_policy(AdmissionPolicy::new(SlotLimit::new(1).unwrap()));
        let (mut holder, _mailbox) = harness.guard(1);
        holder.submit(acquire(1, None));
        let (mut guard, mailbox) = harness.guard(2);
        guard.submit(acquire(2, waits()));
        let Poll::Ready(Notification::Stored(outcome)) = poll(&mailbox) else { panic!("it is answered") };
        guard.answered(&outcome);
        assert_eq!((harness.usage().waiting, harness.store_client.tracked()), (1, 2), "{end}");

        // It asks again.
        harness.store.stall();
        match end {
            "dropped" => {}
            "dropped with a command" => guard.submit(acquire(2, waits())),
            "dropped with a command that began" => {
                guard.submit(acquire(2, waits()));
                harness.store.begin();
            }
            "timed out" => {
                guard.submit(acquire(2, waits()));
                harness.time_out(&mut guard);
                guard.answered(&Outcome::Unknown);
            }
            _ => {
                guard.submit(acquire(2, waits()));
                harness.store.begin();
                harness.time_out(&mut guard);
                guard.answered(&Outcome::Unknown);
            }
        }
        drop(guard);
        harness.store.recover();
        harness.retried();
        assert_eq!((harness.usage().waiting, harness.store_client.tracked()), (0, 1), "{end}");
        assert_eq!(harness.slots(), [session(1)]);
    }
}

/// An operator whose command timed out.
#[test]
fn command_of_a_dropped_future_is_withdrawn() {
    let harness = Harness::new();
    let (mut live, _mailbox) = harness.guard(1);
    live.submit(acquire(1, None));
    harness.store.stall();
    let (completion, ended) = Completion::channel();
    let (user, session_asking, at) = (user(), session(0), Timestamp::default());
    let (target, reason) = (EndTarget::All, EndReason::ByOperator);
    harness.store.submit(StoreCommand::EndSessions { user, session: session_asking, target, reason, at }, completion);
    drop(ended);
    harness.store.recover();
    assert_eq!(harness.slots(), [session(1)]);
}

const KEY: ResumeKey = ResumeKey::from_bytes([9; 32]);
