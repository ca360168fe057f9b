//! Any history of commands, against the rule of the core.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Receiver;

use proptest::collection::vec;
use proptest::prelude::*;
use session_core::UserId;
use session_core::ledger::{
    self, AcquireOptions, AdmissionPolicy, EndTarget, KnownToken, Liveness, Outcome, SlotLimit, StoreCommand,
    UserRecord, WhenFull,
};
use tests::waiting::TIMEOUT;

use super::harness::*;

/// Any history over a few users has the outcomes that the rule gives, and ends whom it ends, whatever the store does with
/// batches.
pub(super) fn agrees_with_the_rule(open: fn(SlotLimit) -> Subject) {
    let command = (0..8_u8, 0..4_u8, 1..8_u64, 0..8_u64);
    let subject = open(SlotLimit::new(3).unwrap());
    // What a shared store does depends on how quick it is: it may not do it again.
    let max_shrink_iters = if subject.is_shared() { 0 } else { ProptestConfig::default().max_shrink_iters };
    let config = ProptestConfig { cases: 24, max_shrink_iters, failure_persistence: None, ..ProptestConfig::default() };
    let case = Cell::new(0);
    proptest!(config, |(commands in vec(command, 0..300), when_full in prop::sample::select(&[WhenFull::Deny, WhenFull::EvictOldest][..]))| {
        case.set(case.get() + 1);
        let policy = AdmissionPolicy { when_full, ..policy(3) };
        subject.store.set_policy(policy);
        let mut records = BTreeMap::<UserId, UserRecord>::new();
        let (mut answers, mut ended) = (Vec::new(), Vec::new());
        // After a case that failed.
        while subject.observed.try_recv().is_ok() {}
        // Who has given up a slot, or lost it.
        let mut gone = BTreeSet::new();
        for command in commands {
            let command = any_command(case.get(), command);
            let session = (command.user().clone(), command.session());
            let is_acquire = matches!(command, StoreCommand::Acquire { .. });
            if subject.is_shared() && is_acquire && gone.contains(&session) {
                continue;
            }
            let record = records.entry(command.user().clone()).or_default();
            let expected = ledger::apply(command.user(), record, &command, &policy, |_| Liveness::Alive);
            gone.extend(expected.ended.iter().map(|ended| (command.user().clone(), ended.session)));
            if command.is_release() {
                gone.insert(session);
            }
            if subject.is_shared() && command.is_release() {
                heard(&mut answers)?;
            }
            answers.push((subject.submit(command.clone()), expected.outcome, command));
            ended.extend(expected.ended);
        }
        heard(&mut answers)?;
        let mut lost = subject.ended();
        if subject.is_shared() {
            // Different users are told in any order.
            lost.sort_by_key(|ended| format!("{ended:?}"));
            ended.sort_by_key(|ended| format!("{ended:?}"));
        }
        prop_assert_eq!(lost, ended);
    });
}

/// A command of one of a few sessions of a few users.
fn any_command(case: u32, (kind, user, session, other): (u8, u8, u64, u64)) -> StoreCommand {
    let user = format!("{case} user {user}");
    match kind {
        0 => acquire(&user, session),
        1 => release(&user, session),
        2 => lookup(&user, session),
        3 => StoreCommand::Linger {
            user: self::user(&user),
            session: self::session(session),
            at: at(0),
            token: if other < 4 { KnownToken::Granted } else { KnownToken::Shown(Box::new(key(other))) },
        },
        4 => acquire_with(&user, session, 0, AcquireOptions { resume: Some(key(other)), ..options(session) }),
        5 => end(&user, session, if other == 0 { EndTarget::All } else { EndTarget::One(self::session(other)) }),
        _ => acquire_with(&user, session, 0, options(session)),
    }
}

/// Waits for these answers, which have to be as expected.
fn heard(answers: &mut Vec<(Receiver<Outcome>, Outcome, StoreCommand)>) -> Result<(), TestCaseError> {
    for (answer, expected, command) in answers.drain(..) {
        prop_assert_eq!(answer.recv_timeout(TIMEOUT).unwrap(), expected, "{:?}", command);
    }
    Ok(())
}
