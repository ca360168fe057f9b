//! One suite that every store passes: the contract of `session_core::ledger`.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that cannot go on has failed")]

mod harness;
mod clients;
mod redis_subject;
mod line;
mod order;
mod by_the_rule;
mod pages;
mod restart;

use std::sync::Barrier;
use std::thread;

use session_core::ledger::{AcquireOptions, EndTarget, GrantDetails, StoreCommand};
use session_core::ledger::{
    AdmissionPolicy, EndReason, Evict, Liveness, NotResumed, Outcome, RenewalDenied, Resumption, SessionStatus,
    SlotLimit, StoreError, UserOverrides, WhenFull,
};
use session_core::{DisplayName, SlotId, Timestamp, UserId};
use shell::store::{Completion, NodeStatus, PageRequest, StoreFailure, StoreHealth};
use shell::store::{UserFilter, UserState, UserUpdate};
use tests::test_server::NODE;
use tests::waiting::{TIMEOUT, eventually};

use self::by_the_rule::agrees_with_the_rule;
use self::harness::*;
use self::line::*;
use self::order::*;
use self::pages::*;
use self::redis_subject::{is_redis_installed, redis};

/// Makes a module with the whole suite for one store.
macro_rules! suite {
    ($store:ident if $is_there:expr) => {
        suite!($store if $is_there; grants_up_to_the_limit, applies_the_claimed_limit_or_the_last_set, is_idempotent,
            applies_commands_of_a_session_in_order, applies_no_withdrawn_command, agrees_with_the_rule, admits_exactly_the_limit_under_a_race,
            keeps_users_apart, answers_everything_and_rejects_after_close, notifies_an_evicted_session_once_before_the_answer,
            swaps_many_slots_in_one_batch, notifies_before_it_answers_that_or_a_later_command, moves_a_slot_to_a_resuming_session, keeps_a_lost_session_for_its_linger,
            gives_a_lingering_slot_to_a_new_session, lists_and_ends_sessions_of_a_user,
            decides_about_renewals, lists_its_own_node_as_alive, notifies_only_sessions_of_its_own_node,
            applies_overrides_until_the_user_is_forgotten, applies_updates_of_a_user_in_order,
            lists_users_in_pages, lists_users_by_prefix_and_sessions, lists_sessions_in_pages, lists_items_once_while_others_change,
            lists_no_void_sessions, is_ready_until_it_is_closed, goes_on_after_an_abandoned_question,
            admits_those_in_line_in_their_order, tells_those_who_watch_or_wait, keeps_a_line_behind_many_sessions,
            lists_nobody_who_only_waits, gives_everybody_in_line_a_turn);
    };
    ($store:ident if $is_there:expr; $($test:ident),+) => {
        mod $store {
            $(#[test]
            fn $test() {
                if $is_there {
                    super::$test(super::$store);
                }
            })+
        }
    };
}

suite!(memory if true);
suite!(lmdb if true);
suite!(redis if super::is_redis_installed());

fn grants_up_to_the_limit(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(3).unwrap());
    for held in 1..=3 {
        assert_eq!(subject.ask(acquire("ada", held)), Outcome::granted(u32::try_from(held).unwrap()));
    }
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::Denied(None));
    assert_eq!(subject.ask(lookup("ada", 4)), Outcome::Counted { slots: 3 });
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { slots: 2 });
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::granted(3));
    assert_eq!(subject.ask(acquire("ada", 5)), Outcome::Denied(None));
}

fn applies_the_claimed_limit_or_the_last_set(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    let claim = |number, slots| StoreCommand::Acquire {
        user: user("ada"),
        session: session(number),
        limit: Some(SlotLimit::new(slots).unwrap()),
        at: Timestamp::default(),
        options: None,
    };
    let granted = Outcome::granted;
    assert_eq!(subject.ask(claim(1, 0)), Outcome::Denied(None));
    assert_eq!(subject.ask(acquire("ada", 1)), granted(1));
    assert_eq!(subject.ask(acquire("ada", 2)), Outcome::Denied(None));
    assert_eq!(subject.ask(claim(2, 2)), granted(2));
    assert_eq!(subject.ask(claim(3, 2)), Outcome::Denied(None));
    subject.store.set_policy(AdmissionPolicy::new(SlotLimit::new(4).unwrap()));
    assert_eq!([acquire("ada", 3), acquire("ada", 4)].map(|asked| subject.ask(asked)), [granted(3), granted(4)]);
    assert_eq!(subject.ask(acquire("ada", 5)), Outcome::Denied(None));
    subject.store.set_policy(AdmissionPolicy::new(SlotLimit::new(2).unwrap()));
    assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(acquire("ada", 6)), Outcome::Denied(None));
    assert_eq!(subject.ask(release("ada", 3)), Outcome::Released);
    assert_eq!(subject.ask(acquire("ada", 6)), granted(2));
}

fn is_idempotent(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    for _ in 0..3 {
        assert_eq!(subject.ask(acquire("ada", 1)), Outcome::granted(1));
    }
    for _ in 0..3 {
        assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
        assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { slots: 0 });
    }
    assert_eq!(subject.ask(release("nobody", 9)), Outcome::Released, "releasing what is not held changes nothing");
}

fn applies_commands_of_a_session_in_order(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    // Nobody waits for an answer, so a store that batches gets them all at once.
    let turns = (0..100).flat_map(|_| [acquire("ada", 1), release("ada", 1)]);
    let commands = turns.chain([acquire("ada", 2), release("ada", 1)]);
    let outcomes: Vec<_> = if subject.is_shared() {
        commands.map(|command| subject.ask(command)).collect()
    } else {
        let answers: Vec<_> = commands.map(|command| subject.submit(command)).collect();
        answers.iter().map(|answer| answer.recv_timeout(TIMEOUT).unwrap()).collect()
    };
    for pair in outcomes[..200].chunks(2) {
        assert_eq!(pair, [Outcome::granted(1), Outcome::Released]);
    }
    assert_eq!(outcomes[200..], [Outcome::granted(1), Outcome::Released]);
    assert_eq!(subject.ask(lookup("ada", 2)), Outcome::Counted { slots: 1 }, "session 1 released nothing of 2's");
}

/// With a newcomer that nobody waits for, before and behind commands that are answered.
fn applies_no_withdrawn_command(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    assert_eq!(subject.ask(acquire("ada", 1)), Outcome::granted(1));
    let withdraw = |command| {
        let (completion, answer) = Completion::<Outcome>::channel();
        drop(answer);
        subject.store.submit(command, completion);
    };
    for number in 2..20 {
        withdraw(acquire("ada", number));
        withdraw(end("ada", number, EndTarget::All));
        assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { slots: 1 });
    }
    withdraw(acquire("bob", 30));
    assert_eq!(subject.ask(lookup("bob", 31)), Outcome::Counted { slots: 0 });
    assert_eq!(subject.ended(), [], "nobody is evicted for a withdrawn acquire");
    let held: Vec<_> = subject.sessions(None, 9).into_iter().map(|entry| entry.record.session).collect();
    assert_eq!(held, [session(1)]);
}

fn admits_exactly_the_limit_under_a_race(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(3).unwrap());
    let barrier = Barrier::new(8);
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                let (clients, barrier) = (&subject.clients, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let answers: Vec<_> = (0..50).map(|at| clients.submit(acquire("ada", thread * 100 + at))).collect();
                    answers.iter().map(|answer| answer.recv_timeout(TIMEOUT).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    outcomes.retain(|outcome| *outcome != Outcome::Denied(None));
    outcomes.sort_unstable_by_key(|outcome| format!("{outcome:?}"));
    assert_eq!(outcomes, [1, 2, 3].map(Outcome::granted));
}

fn keeps_users_apart(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    let long = "x".repeat(UserId::MAX_BYTES);
    let almost = "x".repeat(UserId::MAX_BYTES - 1);
    for (number, user) in ["a", "A", "ab", "é", "e\u{301}", " ", &long, &almost].into_iter().enumerate() {
        let session = u64::try_from(number).unwrap();
        assert_eq!(subject.ask(acquire(user, session)), Outcome::granted(1), "{user:?}");
        assert_eq!(subject.ask(acquire(user, 100 + session)), Outcome::Denied(None), "{user:?}");
    }
}

fn answers_everything_and_rejects_after_close(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    let answers: Vec<_> = (0..500).map(|at| subject.submit(acquire(&format!("user {at}"), at))).collect();
    let closed = subject.store.close(TIMEOUT);
    for answer in answers {
        assert_eq!(answer.recv_timeout(TIMEOUT), Ok(Outcome::granted(1)), "what it took it applies");
    }
    if subject.is_shared() {
        (0..500).for_each(|at| assert_eq!(subject.ask(release(&format!("user {at}"), at)), Outcome::Released));
    }
    assert_eq!(smol::block_on(closed), Ok(()), "it closes in time");
    assert_eq!(subject.ask(acquire("late", 1)), Outcome::Rejected(StoreError::Failed));
    let late = if subject.is_shared() { Outcome::Released } else { Outcome::Rejected(StoreError::Failed) };
    assert_eq!(subject.ask(release("user 0", 0)), late);
    assert_eq!(smol::block_on(subject.store.close(TIMEOUT)), Ok(()), "closing twice is the same as closing once");
}

fn notifies_an_evicted_session_once_before_the_answer(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    subject.store.set_policy(policy(2));
    for number in [1, 2] {
        subject.ask(acquire_with("ada", number, 0, options(number)));
    }
    let Outcome::Denied(Some(usage)) = subject.ask(acquire_with("ada", 3, 0, options(3))) else {
        panic!("both are taken")
    };
    assert_eq!(usage.sessions.iter().map(|entry| entry.session).collect::<Vec<_>>(), [1, 2].map(session));
    assert_eq!(subject.ended(), [], "who is refused ends nobody");

    let choice = |ids: &[u64]| Some(Evict::Sessions(ids.iter().map(|&number| session(number)).collect()));
    subject.send(acquire_with("ada", 3, 0, AcquireOptions { evict: choice(&[2]), ..options(3) }));
    assert_eq!(subject.next(), Observed::Ended(vec![ended(2, EndReason::TakenOver(names(3)))]));
    assert!(matches!(subject.next(), Observed::Answer(Outcome::Granted { slots: 2, .. })));
    // What the two of them say later finds nothing.
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { slots: 2 });

    subject.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    subject.send(acquire("ada", 4));
    assert_eq!(
        subject.next(),
        Observed::Ended([1, 3].map(|number| ended(number, EndReason::TakenOver(None))).to_vec())
    );
    assert_eq!(subject.next(), Observed::Answer(Outcome::granted(1)));
    assert_eq!(subject.ended(), [], "once");
}

/// A store that batches gets them all at once: each of them ends the one before it.
fn swaps_many_slots_in_one_batch(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    let answers: Vec<_> =
        (1..=100).map(|number| subject.submit(acquire_with("ada", number, 0, options(number)))).collect();
    let late = || subject.submit(release("ada", 1));
    let in_batch = (!subject.is_shared()).then(late);
    for answer in answers {
        let outcome = answer.recv_timeout(TIMEOUT).unwrap();
        assert!(matches!(outcome, Outcome::Granted { slots: 1, .. }), "{outcome:?}");
    }
    assert_eq!(in_batch.unwrap_or_else(late).recv_timeout(TIMEOUT), Ok(Outcome::Released));
    let swapped = |number| ended(number, EndReason::TakenOver(names(number + 1)));
    assert_eq!(subject.ended(), (1..100).map(swapped).collect::<Vec<_>>());
    assert_eq!(subject.ask(lookup("ada", 100)), Outcome::Counted { slots: 1 });
}

fn moves_a_slot_to_a_resuming_session(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(policy(1));
    let grant = |number, seconds, resume| {
        let (slot, since) = (SlotId::new(session(number)), at(seconds));
        let limit = SlotLimit::new(1).unwrap();
        let grant = GrantDetails { limit, linger: LINGER, slot, since, resume, evicted: [].into() };
        Outcome::Granted { slots: 1, grant: Some(Box::new(grant)) }
    };
    let resumed = || grant(1, 0, Resumption::Resumed);
    let resume = |user, number, token| {
        acquire_with(user, number, 1, AcquireOptions { resume: Some(key(token)), ..options(number) })
    };
    assert_eq!(subject.ask(acquire_with("ada", 1, 0, options(1))), grant(1, 0, Resumption::NotAsked));
    let worthless = grant(9, 1, Resumption::Failed(NotResumed::Unknown));
    assert_eq!(subject.ask(resume("bob", 9, 1)), worthless, "of another user it is worth nothing");
    assert!(matches!(subject.ask(resume("ada", 2, 7)), Outcome::Denied(_)), "nor is another token");
    // From a session that lives, then from one that is lost.
    subject.send(resume("ada", 2, 1));
    assert_eq!(
        [subject.next(), subject.next()],
        [Observed::Ended(vec![ended(1, EndReason::Resumed)]), Observed::Answer(resumed()),]
    );
    assert_eq!(subject.ask(lose("ada", 1, 1)), Outcome::Released, "it was another's already");
    assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
    assert!(matches!(subject.ask(acquire_with("ada", 8, 1, options(8))), Outcome::Denied(_)), "2 lives");
    assert_eq!(subject.ask(lose("ada", 2, 1)), Outcome::Released);
    assert_eq!(subject.ask(resume("ada", 3, 1)), resumed());
    assert_eq!(subject.ended(), [], "nobody was there to be told");
}

fn keeps_a_lost_session_for_its_linger(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { lingering_first: false, ..policy(1) });
    subject.ask(acquire_with("ada", 1, 0, options(1)));
    for second in [5, 6] {
        assert_eq!(subject.ask(lose("ada", 1, second)), Outcome::Released, "that it was lost is said once");
    }
    let Outcome::Denied(Some(usage)) = subject.ask(acquire_with("ada", 2, 14, options(2))) else {
        panic!("it is kept")
    };
    assert_eq!(usage.free_at, Some(at(15)));
    assert_eq!(usage.sessions[0].status, SessionStatus::Lingering { until: at(15) });
    assert!(matches!(subject.ask(acquire_with("ada", 2, 15, options(2))), Outcome::Granted { slots: 1, .. }));
    // A slot whose token the client does not have is given back at once.
    assert_eq!(subject.ask(lose_after_showing("ada", 2, 15, 7)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 2)), Outcome::Counted { slots: 0 });
    assert!(matches!(subject.ask(acquire_with("ada", 2, 15, options(2))), Outcome::Granted { slots: 1, .. }));
    assert_eq!(subject.ask(lose_after_showing("ada", 2, 15, 2)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 2)), Outcome::Counted { slots: 1 });
    // What has no token is given back at once.
    assert_eq!(subject.ask(release("ada", 2)), Outcome::Released);
    subject.ask(acquire("ada", 3));
    assert_eq!(subject.ask(lose("ada", 3, 15)), Outcome::Released);
    assert_eq!(subject.ask(lookup("ada", 3)), Outcome::Counted { slots: 0 });
    assert_eq!(subject.ended(), []);
}

fn gives_a_lingering_slot_to_a_new_session(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    subject.store.set_policy(policy(2));
    for number in [1, 2] {
        subject.ask(acquire_with("ada", number, 0, options(number)));
    }
    subject.ask(lose("ada", 2, 1));
    assert_eq!(subject.ask(acquire("ada", 3)), Outcome::granted(2));
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::Denied(None), "1 lives");
    let resume = AcquireOptions { resume: Some(key(2)), ..options(5) };
    assert!(
        matches!(subject.ask(acquire_with("ada", 5, 2, resume)), Outcome::Denied(_)),
        "the token went with the slot"
    );
    assert_eq!(subject.ended(), []);
}

fn lists_and_ends_sessions_of_a_user(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(5).unwrap());
    subject.store.set_policy(policy(5));
    for number in 1..=4 {
        subject.ask(acquire_with("ada", number, number, options(number)));
    }
    subject.ask(acquire_with("bob", 9, 0, options(9)));
    let list = StoreCommand::ListSessions {
        user: user("ada"),
        session: session(1),
        limit: None,
        is_unbounded: false,
        watch: None,
        at: at(5),
    };
    let Outcome::Listed(usage) = subject.ask(list) else { panic!("it is answered by a list") };
    assert_eq!((usage.limit.slots(), usage.slots, usage.free_at), (5, 4, None));
    let seen: Vec<_> =
        usage.sessions.iter().map(|entry| (entry.session, entry.since, entry.label().cloned())).collect();
    assert_eq!(seen, [1, 2, 3, 4].map(|number| (session(number), at(number), Some(label(number)))));

    let ended_are = |numbers: &[u64], before, slots| Outcome::Ended {
        sessions: numbers.iter().map(|&number| session(number)).collect(),
        before,
        slots,
    };
    subject.send(end("ada", 1, EndTarget::One(session(3))));
    assert_eq!(subject.next(), Observed::Ended(vec![ended(3, EndReason::ByUser(names(1)))]));
    assert_eq!(subject.next(), Observed::Answer(ended_are(&[3], 4, 3)));
    for gone in [3, 9] {
        assert_eq!(subject.ask(end("ada", 1, EndTarget::One(session(gone)))), ended_are(&[], 3, 3), "not ada's");
    }
    assert_eq!(subject.ask(end("ada", 3, EndTarget::All)), ended_are(&[], 3, 3), "3 has lost its own slot");
    // Whatever limit is in force.
    let excess = |dry_run| EndTarget::Excess { limit: SlotLimit::new(2).unwrap(), dry_run };
    assert_eq!(subject.ask(end("ada", 7, excess(true))), ended_are(&[], 3, 3), "nobody asks");
    assert_eq!(subject.ask(end("ada", 1, excess(true))), ended_are(&[4], 3, 3));
    assert_eq!(subject.ended(), [], "that only says who it would be");
    assert_eq!(subject.ask(end("ada", 1, EndTarget::All)), ended_are(&[2, 4], 3, 1));
    assert_eq!(subject.ended(), [2, 4].map(|number| ended(number, EndReason::ByUser(names(1)))));
    assert_eq!(subject.ask(lookup("bob", 9)), Outcome::Counted { slots: 1 });
}

fn decides_about_renewals(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    let device = |name| DisplayName::parse(name);
    let options = AcquireOptions { device: device("laptop"), ..options(1) };
    assert!(matches!(subject.ask(acquire_with("ada", 1, 0, options)), Outcome::Granted { .. }));
    let renew = |slots: Option<u32>, device| {
        let (user, session, limit) = (user("ada"), session(1), slots.map(|slots| SlotLimit::new(slots).unwrap()));
        subject.ask(StoreCommand::Renew { user, session, limit, device, at: at(1) })
    };
    assert_eq!(renew(None, device("laptop")), Outcome::Counted { slots: 1 });
    assert_eq!(renew(None, device("phone")), Outcome::NotRenewed(RenewalDenied::AnotherDevice));
    assert_eq!(renew(Some(0), device("laptop")), Outcome::NotRenewed(RenewalDenied::Banned));
    subject.update("ada", UserUpdate::Set(limited_to(1))).unwrap();
    assert_eq!(renew(Some(0), device("laptop")), Outcome::Counted { slots: 1 });
}

fn lists_its_own_node_as_alive(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    assert_eq!(subject.store.node(), NODE);
    let nodes = smol::block_on(subject.store.nodes()).unwrap();
    assert!(nodes.contains(&NodeStatus { node: NODE, liveness: Liveness::Alive }), "{nodes:?}");
    // A node that is not listed is dead: its sessions acquire nothing.
    assert!(nodes.iter().all(|status| status.node != UNLISTED));
    assert_eq!(subject.ask(acquire_for("ada", UNLISTED.session(1))), Outcome::Rejected(StoreError::Failed));
    assert_eq!(subject.ask(lookup("ada", 1)), Outcome::Counted { slots: 0 });
}

fn notifies_only_sessions_of_its_own_node(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    for session in [session(1), UNLISTED.session(2), session(3), UNLISTED.session(4), session(5)] {
        subject.ask(acquire_for("ada", session));
    }
    subject.ask(StoreCommand::Release { user: user("ada"), session: UNLISTED.session(2) });
    let by_operator = StoreCommand::EndSessions {
        user: user("ada"),
        session: subject.store.node().session(0),
        target: EndTarget::All,
        reason: EndReason::ByOperator,
        at: at(0),
    };
    subject.ask(by_operator);
    let taken_over = |number| ended(number, EndReason::TakenOver(None));
    assert_eq!(subject.ended(), [taken_over(1), taken_over(3), ended(5, EndReason::ByOperator)]);
}

fn applies_overrides_until_the_user_is_forgotten(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    assert_eq!(subject.overrides("ada"), UserOverrides::default());
    assert_eq!(subject.ask(acquire("ada", 1)), Outcome::granted(1));
    let before = |update| subject.update("ada", update).unwrap();
    // A store may note it after it has answered the acquire.
    eventually("the user is known", || smol::block_on(subject.store.find_user(user("ada"))).unwrap().seen.is_known());
    let seen = before(UserUpdate::Set(limited_to(1))).seen;
    assert!(seen.is_known());
    assert_eq!(subject.overrides("ada"), limited_to(1));
    assert_eq!(subject.ask(acquire("ada", 2)), Outcome::Denied(None));
    let evict = UserOverrides { when_full: Some(WhenFull::EvictOldest), ..limited_to(1) };
    assert_eq!(before(UserUpdate::Set(evict)), UserState { overrides: limited_to(1), seen });
    assert_eq!(subject.ask(acquire("ada", 3)), Outcome::granted(1));
    assert_eq!(subject.ended(), [ended(1, EndReason::TakenOver(None))]);
    // Another policy for all leaves them, and they are nobody else's.
    subject.store.set_policy(policy(3));
    assert_eq!(subject.overrides("ada"), evict);
    assert_eq!(subject.overrides("bob"), UserOverrides::default());
    assert_eq!(subject.ask(acquire("bob", 11)), Outcome::granted(1));
    assert_eq!(subject.ask(acquire("bob", 12)), Outcome::granted(2));

    assert_eq!(before(UserUpdate::Forget).overrides, evict);
    assert_eq!(subject.overrides("ada"), UserOverrides::default());
    assert_eq!(subject.ask(acquire("ada", 4)), Outcome::granted(2), "slots stay when a user is forgotten");
    assert_eq!(subject.update("nobody", UserUpdate::Forget), Ok(UserState::default()), "nothing is kept of them");
    assert_eq!(smol::block_on(subject.store.find_user(user("nobody"))), Ok(UserState::default()));
}

fn applies_updates_of_a_user_in_order(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(2).unwrap());
    let updates = (0..50).map(|slots| UserUpdate::Set(limited_to(slots))).chain([UserUpdate::Forget]);
    let last = UserUpdate::Set(limited_to(7));
    let answers: Vec<_> = updates
        .chain([last])
        .map(|update| {
            let (completion, answer) = Completion::channel();
            subject.store.update_user(user("ada"), update, completion);
            answer
        })
        .collect();
    // Each finds what the one before it has left.
    let before =
        [UserOverrides::default()].into_iter().chain((0..50).map(limited_to)).chain([UserOverrides::default()]);
    for (answer, before) in answers.into_iter().zip(before) {
        assert_eq!(smol::block_on(answer).map(|state| state.overrides), Ok(before));
    }
    assert_eq!(subject.overrides("ada"), limited_to(7));
}

fn is_ready_until_it_is_closed(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    let health = || smol::block_on(subject.store.health());
    assert_eq!((health(), health().message()), (StoreHealth::Ready, None));
    assert_eq!(subject.ask(acquire("ada", 1)), Outcome::granted(1));
    if subject.is_shared() {
        assert_eq!(subject.ask(release("ada", 1)), Outcome::Released);
    }
    assert_eq!(smol::block_on(subject.store.close(TIMEOUT)), Ok(()));

    let closed = health();
    assert!(matches!(closed, StoreHealth::Unavailable { .. }), "{closed:?}");
    assert_eq!(closed.refusal(), Some(StoreError::Failed));
    assert_eq!(subject.ask(acquire("bob", 2)), Outcome::Rejected(StoreError::Failed), "as its health says");
    let failed = StoreFailure::Rejected(StoreError::Failed);
    assert_eq!(subject.update("ada", UserUpdate::Set(limited_to(1))), Err(failed));
    assert_eq!(smol::block_on(subject.store.list_users(UserFilter::default(), PageRequest::first(1))), Err(failed));
    assert_eq!(smol::block_on(subject.store.list_sessions(None, PageRequest::first(1))), Err(failed));
    assert_eq!(smol::block_on(subject.store.list_sessions(Some(user("ada")), PageRequest::first(1))), Err(failed));
}

/// A caller whose time limit has passed drops the future.
fn goes_on_after_an_abandoned_question(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    for _ in 0..100 {
        drop(subject.store.list_users(UserFilter::default(), PageRequest::first(1)));
        drop(subject.store.list_sessions(None, PageRequest::first(1)));
        drop((subject.store.health(), subject.store.nodes()));
        let (completion, answer) = Completion::channel();
        subject.store.update_user(user("ada"), UserUpdate::Set(limited_to(7)), completion);
        drop(answer);
    }
    assert_eq!(subject.ask(acquire("ada", 1)), Outcome::granted(1));
    let is_in_force = || subject.overrides("ada") == limited_to(7);
    eventually("an update whose answer nobody reads is in force", is_in_force);
    eventually("questions are answered again", || {
        smol::block_on(subject.store.list_sessions(None, PageRequest::first(1))).is_ok_and(|page| page.items.len() == 1)
    });
}
