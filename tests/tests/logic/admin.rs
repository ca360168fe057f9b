//! The operator's orders, several at a time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use session_core::UserId;
use session_core::ledger::{AdmissionPolicy, StoreCommand, UserOverrides};
use session_core::ledger::{Outcome, SlotLimit, StoreError, WhenFull};
use shell::admin::{AdminError, AdminRequest, AdminService, FullAction, Override, SlotCount, UserPatch, socket};
use shell::store::{CommandCompletion, MemoryStore, SessionNotifier, Store, UpdateCompletion, UserUpdate};
use smol::Executor;
use smol::future::{or, yield_now, zip};
use tests::test_server::NODE;
use tests::waiting::{TIMEOUT, eventually};

/// A store in which everything waits until it is got on with.
struct Slow {
    store: MemoryStore,
    waiting: Mutex<VecDeque<Waiting>>,
}

enum Waiting {
    Command(StoreCommand, CommandCompletion),
    Amendment(UserId, UserUpdate, UpdateCompletion),
}

impl Slow {
    fn new() -> Arc<Self> {
        let store = MemoryStore::new(NODE, SlotLimit::default());
        Arc::new(Self { store, waiting: Mutex::new(VecDeque::new()) })
    }

    fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().len()
    }

    /// Gets on with what has waited longest, if anything waits.
    fn step(&self) {
        let first = self.waiting.lock().unwrap().pop_front();
        match first {
            Some(Waiting::Command(command, done)) => self.store.submit(command, done),
            Some(Waiting::Amendment(user, update, done)) => self.store.update_user(user, update, done),
            None => {}
        }
    }
}

impl Store for Slow {
    fn submit(&self, command: StoreCommand, done: CommandCompletion) {
        self.waiting.lock().unwrap().push_back(Waiting::Command(command, done));
    }

    fn update_user(&self, user: UserId, update: UserUpdate, done: UpdateCompletion) {
        self.waiting.lock().unwrap().push_back(Waiting::Amendment(user, update, done));
    }

    fn set_notifier(&self, router: Arc<dyn SessionNotifier>) {
        self.store.set_notifier(router);
    }

    fn set_policy(&self, policy: AdmissionPolicy) {
        self.store.set_policy(policy);
    }

    fn policy_for(&self, user: &UserId) -> AdmissionPolicy {
        self.store.policy_for(user)
    }

    fn close(&self, within: Duration) -> bool {
        self.store.close(within)
    }
}

fn ada() -> UserId {
    UserId::parse("ada").unwrap()
}

fn operator(store: &Arc<Slow>) -> AdminService {
    AdminService::new(Arc::<Slow>::clone(store), NODE, None, TIMEOUT)
}

#[test]
fn what_two_operators_set_at_once_holds_both() {
    let store = Slow::new();
    let operator = operator(&store);
    let ada = ada();
    let limit =
        AdminRequest::Limit(UserPatch { limit: Some(Override::To(SlotCount::Number(7))), ..UserPatch::default() });
    let full = AdminRequest::Limit(UserPatch {
        when_full: Some(Override::To(FullAction::EvictOldest)),
        ..UserPatch::default()
    });
    let working = async {
        loop {
            // Whoever can ask has asked before.
            store.step();
            yield_now().await;
        }
    };
    let (limit, full) = smol::block_on(or(zip(operator.handle(&ada, &limit), operator.handle(&ada, &full)), working));
    assert!(limit.is_ok() && full.is_ok(), "{limit:?} {full:?}");
    let overrides = UserOverrides { limit: Some(SlotLimit::new(7).unwrap()), when_full: Some(WhenFull::EvictOldest) };
    assert_eq!(store.policy_for(&ada).overrides, overrides);
}

/// The answer to the first is late: what it asks for is done all the same, and the second builds upon that.
#[test]
fn what_nobody_waits_for_any_longer_is_not_lost_to_the_next_order() {
    let store = Slow::new();
    let operator = AdminService::new(Arc::<Slow>::clone(&store), NODE, None, Duration::from_millis(1));
    let ada = ada();
    let limit =
        AdminRequest::Limit(UserPatch { limit: Some(Override::To(SlotCount::Number(0))), ..UserPatch::default() });
    let full = AdminRequest::Limit(UserPatch {
        when_full: Some(Override::To(FullAction::EvictOldest)),
        ..UserPatch::default()
    });
    assert_eq!(smol::block_on(operator.handle(&ada, &limit)), Err(AdminError::StoreTimedOut));
    let working = async {
        loop {
            yield_now().await;
            store.step();
        }
    };
    // Whatever comes of it in this millisecond: it waits for the first.
    let _either = smol::block_on(or(operator.handle(&ada, &full), working));
    while store.waiting() > 0 {
        store.step();
    }
    assert_eq!(
        store.policy_for(&ada).overrides,
        UserOverrides { limit: Some(SlotLimit::new(0).unwrap()), when_full: Some(WhenFull::EvictOldest) }
    );
}

/// A store that takes what is set, and no command.
struct Deaf(MemoryStore);

impl Store for Deaf {
    fn submit(&self, _: StoreCommand, done: CommandCompletion) {
        done.answer(Outcome::Rejected(StoreError::Overloaded));
    }

    fn update_user(&self, user: UserId, update: UserUpdate, done: UpdateCompletion) {
        self.0.update_user(user, update, done);
    }

    fn set_notifier(&self, router: Arc<dyn SessionNotifier>) {
        self.0.set_notifier(router);
    }

    fn set_policy(&self, policy: AdmissionPolicy) {
        self.0.set_policy(policy);
    }

    fn policy_for(&self, user: &UserId) -> AdmissionPolicy {
        self.0.policy_for(user)
    }

    fn close(&self, within: Duration) -> bool {
        self.0.close(within)
    }
}

#[test]
fn a_limit_that_is_set_but_not_enforced_is_told_to_be_set() {
    let store = Arc::new(Deaf(MemoryStore::new(NODE, SlotLimit::default())));
    let operator = AdminService::new(Arc::<Deaf>::clone(&store), NODE, None, TIMEOUT);
    let limit = Some(Override::To(SlotCount::Number(0)));
    let order = AdminRequest::Limit(UserPatch { limit, enforce: true, ..UserPatch::default() });
    let told = smol::block_on(operator.handle(&ada(), &order)).unwrap_err().to_string();
    assert!(told.starts_with("the limit is set, but whoever is beyond it was not ended: The server is over"), "{told}");
    assert_eq!(store.policy_for(&ada()).overrides.limit, Some(SlotLimit::new(0).unwrap()));
}

#[test]
fn no_more_than_sixteen_orders_are_heard_at_a_time_and_none_is_lost() {
    const ORDERS: usize = 24;
    const AT_A_TIME: usize = 16;
    let directory = tempfile::tempdir().unwrap();
    let store = Slow::new();
    let listener = socket::bind(directory.path()).unwrap();
    let executor = Arc::new(Executor::new());
    let serving = socket::serve(listener, Arc::new(operator(&store)), Arc::clone(&executor));
    // It ends with the test's process.
    thread::spawn(move || smol::block_on(executor.run(serving)));
    thread::scope(|scope| {
        let order = || smol::block_on(socket::request(directory.path(), &ada(), &AdminRequest::Explain));
        let orders: Vec<_> = (0..ORDERS).map(|_| scope.spawn(order)).collect();
        eventually("as many are heard as may be", || store.waiting() >= AT_A_TIME);
        for left in (1..=ORDERS).rev() {
            eventually("the next is heard", || store.waiting() >= left.min(AT_A_TIME));
            assert_eq!(store.waiting(), left.min(AT_A_TIME));
            store.step();
        }
        for order in orders {
            assert!(order.join().unwrap().is_ok_and(|report| report.is_some()));
        }
    });
}
