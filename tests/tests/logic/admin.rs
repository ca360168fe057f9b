//! Requests of operators, several at a time, and all of them on a memory store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use session_core::ledger::{AcquireOptions, KnownToken, SessionHint, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, EndReason, EndedSession, LimitSource, Outcome, SlotLimit, StoreError, UserOverrides, WhenFull,
};
use session_core::{ResumeKey, SessionId, Timestamp, UserId};
use shell::admin::{
    AdminError, AdminRequest, AdminService, BoundSocket, DefaultWord, NextOutcome, Override, SlotCount, UserPatch,
    socket::{self, SocketBounds},
};
use shell::store::{Completion, MemoryStore, SessionNotifier, Store as _};
use smol::Executor;
use smol::future::{or, yield_now, zip};
use tests::stallable_store::StallableStore;
use tests::test_server::NODE;
use tests::waiting::{TIMEOUT, eventually};

fn ada() -> UserId {
    UserId::parse("ada").unwrap()
}

/// An operator of this store.
fn service(store: &Arc<StallableStore>) -> AdminService {
    AdminService::new(Arc::<StallableStore>::clone(store), None, TIMEOUT)
}

fn overrides_of(store: &StallableStore, user: &UserId) -> UserOverrides {
    smol::block_on(store.policy_for(user)).unwrap().overrides
}

#[test]
fn concurrent_overrides_are_both_kept() {
    let store = StallableStore::stalled(3);
    let service = service(&store);
    let ada = ada();
    let limit =
        AdminRequest::Limit(UserPatch { limit: Some(Override::To(SlotCount::Number(7))), ..UserPatch::default() });
    let full =
        AdminRequest::Limit(UserPatch { when_full: Some(Override::To(WhenFull::EvictOldest)), ..UserPatch::default() });
    let working = async {
        loop {
            // All requests that can go on have submitted their command.
            store.step();
            yield_now().await;
        }
    };
    let (limit, full) = smol::block_on(or(zip(service.handle(&ada, &limit), service.handle(&ada, &full)), working));
    assert!(limit.is_ok() && full.is_ok(), "{limit:?} {full:?}");
    let overrides = UserOverrides { limit: Some(SlotLimit::new(7).unwrap()), when_full: Some(WhenFull::EvictOldest) };
    assert_eq!(overrides_of(&store, &ada), overrides);
}

/// The first request times out, and is carried out all the same. The second builds on it.
#[test]
fn timed_out_override_is_kept_by_the_next() {
    let store = StallableStore::stalled(3);
    let service = AdminService::new(Arc::<StallableStore>::clone(&store), None, Duration::from_millis(1));
    let ada = ada();
    let limit =
        AdminRequest::Limit(UserPatch { limit: Some(Override::To(SlotCount::Number(0))), ..UserPatch::default() });
    let full =
        AdminRequest::Limit(UserPatch { when_full: Some(Override::To(WhenFull::EvictOldest)), ..UserPatch::default() });
    assert_eq!(smol::block_on(service.handle(&ada, &limit)), Err(AdminError::StoreTimedOut));
    let question = smol::block_on(service.handle(&ada, &AdminRequest::Explain));
    assert_eq!(question, Err(AdminError::Unanswered), "nothing can be in doubt");
    let working = async {
        loop {
            yield_now().await;
            store.step();
        }
    };
    // Whether it is answered in this millisecond or not: it waits for the first.
    let _either = smol::block_on(or(service.handle(&ada, &full), working));
    while store.waiting() > 0 {
        store.step();
    }
    assert_eq!(
        overrides_of(&store, &ada),
        UserOverrides { limit: Some(SlotLimit::new(0).unwrap()), when_full: Some(WhenFull::EvictOldest) }
    );
}

/// Another request removes the override before the first one is enforced. Once, the sessions were ended down to the
/// server's limit.
#[test]
fn enforced_limit_is_the_one_that_was_ordered() {
    let store = StallableStore::new(1);
    let service = service(&store);
    let ada = ada();
    let limit = |limit, enforce| AdminRequest::Limit(UserPatch { limit: Some(limit), enforce, ..UserPatch::default() });
    let to = |slots| Override::To(SlotCount::Number(slots));
    assert!(smol::block_on(service.handle(&ada, &limit(to(4), false))).is_ok());
    for number in 1..=4 {
        let (completion, outcome) = Completion::channel();
        let (user, session, at) = (ada.clone(), NODE.session(number), Timestamp::default());
        store.submit(StoreCommand::Acquire { user, session, limit: None, at, options: None }, completion);
        assert_eq!(smol::block_on(outcome), Outcome::granted(u32::try_from(number).unwrap()));
    }
    store.stall();
    let (enforce, remove) = (limit(to(3), true), limit(Override::Default(DefaultWord::Default), false));
    let working = async {
        // The override is set. Then the end of the sessions waits, and the removal of the override.
        store.step();
        while store.waiting() < 2 {
            yield_now().await;
        }
        store.step_update();
        loop {
            store.step();
            yield_now().await;
        }
    };
    let (enforced, removed) =
        smol::block_on(or(zip(service.handle(&ada, &enforce), service.handle(&ada, &remove)), working));
    assert_eq!(enforced.unwrap().ended, [NODE.session(4).to_string()]);
    assert!(removed.is_ok() && overrides_of(&store, &ada).is_empty(), "{removed:?}");
}

#[test]
fn limit_that_is_not_enforced_is_reported_as_set() {
    let store = StallableStore::new(3);
    store.reject_commands(StoreError::Overloaded);
    let service = service(&store);
    let limit = Some(Override::To(SlotCount::Number(0)));
    let request = AdminRequest::Limit(UserPatch { limit, enforce: true, ..UserPatch::default() });
    let message = smol::block_on(service.handle(&ada(), &request)).unwrap_err().to_string();
    assert!(
        message.starts_with("the limit is set, but the sessions beyond it were not ended: The server is over"),
        "{message}"
    );
    assert_eq!(overrides_of(&store, &ada()).limit, Some(SlotLimit::new(0).unwrap()));
}

#[test]
fn sixteen_requests_are_served_at_a_time() {
    const REQUESTS: usize = 24;
    const AT_A_TIME: usize = 16;
    let directory = tempfile::tempdir().unwrap();
    let store = StallableStore::stalled(3);
    let socket = Arc::new(smol::lock::Mutex::new(BoundSocket::bind(directory.path())));
    let executor = Arc::new(Executor::new());
    let serving = socket::serve(socket, Arc::new(service(&store)), Arc::clone(&executor), SocketBounds::default());
    // The thread ends with the test's process.
    thread::spawn(move || smol::block_on(executor.run(serving)));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also after a failed assertion, so that the scope ends.
        let _end = EndWhenDropped(&is_over);
        // A client that is slow to send its request may have to make room for another one. Then it asks again.
        let request = || {
            while !is_over.load(Ordering::Relaxed) {
                let report = smol::block_on(socket::request(directory.path(), &ada(), &AdminRequest::Explain));
                if let Ok(report) = report {
                    return report;
                }
            }
            None
        };
        let requests: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(request)).collect();
        eventually("as many requests are served as may be", || store.waiting() >= AT_A_TIME);
        for left in (1..=REQUESTS).rev() {
            eventually("the next request is served", || store.waiting() >= left.min(AT_A_TIME));
            assert_eq!(store.waiting(), left.min(AT_A_TIME));
            store.step();
        }
        for request in requests {
            assert!(request.join().unwrap().is_some());
        }
    });
}

struct EndWhenDropped<'a>(&'a AtomicBool);

impl Drop for EndWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the store notifies this process of.
#[derive(Default)]
struct Notified(Mutex<Vec<EndedSession>>);

impl SessionNotifier for Notified {
    fn notify(&self, _: &UserId, ended: Vec<EndedSession>) {
        self.0.lock().unwrap().extend(ended);
    }

    fn hint(&self, _: Vec<SessionHint>) {}
}

#[test]
fn explain_knows_that_a_just_lost_slot_is_kept() {
    let policy = AdmissionPolicy { linger: TIMEOUT, ..AdmissionPolicy::new(SlotLimit::new(1).unwrap()) };
    let store = Arc::new(MemoryStore::with_policy(NODE, policy));
    let (session, at) = (NODE.session(1), store.context().process().clock.now());
    let options = AcquireOptions { new_resume_key: Some(ResumeKey::from_bytes([7; 32])), ..AcquireOptions::default() };
    let options = Some(Box::new(options));
    for command in [
        StoreCommand::Acquire { user: ada(), session, limit: None, at, options },
        StoreCommand::Linger { user: ada(), session, at, token: KnownToken::Granted },
    ] {
        let (completion, outcome) = Completion::channel();
        store.submit(command, completion);
        drop(smol::block_on(outcome));
    }
    let service = AdminService::new(Arc::<MemoryStore>::clone(&store), None, TIMEOUT);
    let next = |linger_grace| {
        store.set_policy(AdmissionPolicy { linger_grace, ..policy });
        smol::block_on(service.handle(&ada(), &AdminRequest::Explain)).unwrap().next
    };
    assert_eq!(next(TIMEOUT), NextOutcome::Denied);
    assert_eq!(next(Duration::ZERO), NextOutcome::Granted { ended: vec![session.to_string()] });
}

#[test]
fn memory_store_carries_out_every_admin_request() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new(NODE, SlotLimit::new(3).unwrap()));
    let notified = Arc::<Notified>::default();
    store.set_notifier(Arc::<Notified>::clone(&notified));
    for number in 1..=3 {
        let (completion, outcome) = Completion::channel();
        let (session, at) = (NODE.session(number), Timestamp::from_epoch(Duration::from_secs(number)));
        store.submit(StoreCommand::Acquire { user: ada(), session, limit: None, at, options: None }, completion);
        assert_eq!(smol::block_on(outcome), Outcome::granted(u32::try_from(number).unwrap()));
    }
    let addresses = ["2001:db8:1:2:3:4:5:6", "192.0.2.1"].map(|address| address.parse::<IpAddr>().unwrap());
    let address_of = move |session: SessionId| addresses.get(usize::try_from(session.number()).unwrap() - 1).copied();
    let service = Arc::new(AdminService::new(store, Some(Box::new(address_of)), TIMEOUT));
    let executor = Arc::new(Executor::new());
    let socket = Arc::new(smol::lock::Mutex::new(BoundSocket::bind(directory.path())));
    let serving = socket::serve(socket, service, Arc::clone(&executor), SocketBounds::default());
    thread::spawn(move || smol::block_on(executor.run(serving)));
    let handle = |request| smol::block_on(socket::request(directory.path(), &ada(), &request)).map(Option::unwrap);

    let report = handle(AdminRequest::Explain).unwrap();
    assert_eq!((report.state.limit, report.connections, report.next), (3, 3, NextOutcome::Denied));
    let clients: Vec<_> =
        report.sessions.iter().map(|session| (session.from, session.client_prefix.as_deref())).collect();
    assert_eq!(
        clients,
        [(Some(addresses[0]), Some("2001:db8:1:2::/64")), (Some(addresses[1]), Some("192.0.2.1")), (None, None)]
    );
    assert_eq!(handle(AdminRequest::Forget), Err("this user holds 3 slots: end them first".to_owned()));

    let limit = Some(Override::To(SlotCount::Number(2)));
    let report = handle(AdminRequest::Limit(UserPatch { limit, enforce: true, ..UserPatch::default() })).unwrap();
    assert_eq!((report.state.limit, report.state.limit_source, report.connections), (2, LimitSource::User, 2));
    assert_eq!(report.ended, [NODE.session(3).to_string()]);
    let report = handle(AdminRequest::End(Some(NODE.session(1)))).unwrap();
    assert_eq!((report.ended, report.connections), (vec![NODE.session(1).to_string()], 1));
    assert_eq!(handle(AdminRequest::End(None)).unwrap().connections, 0);
    let ended: Vec<_> = notified.0.lock().unwrap().iter().map(|ended| (ended.session, ended.reason.clone())).collect();
    assert_eq!(
        ended,
        [
            (NODE.session(3), EndReason::LimitLowered),
            (NODE.session(1), EndReason::ByOperator),
            (NODE.session(2), EndReason::ByOperator),
        ]
    );

    let report = handle(AdminRequest::Forget).unwrap();
    assert_eq!((report.state.limit, report.state.limit_source), (3, LimitSource::Server));
}
