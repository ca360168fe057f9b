//! The order of what a store says: the ended sessions before the answers.

use std::collections::BTreeMap;
use std::thread;

use session_core::ledger::{AdmissionPolicy, Outcome, SlotLimit, WhenFull};
use tests::waiting::TIMEOUT;

use super::harness::*;

const THREADS: u64 = 4;

/// Each session takes the place of the one before it, from several threads at once. Whoever hears of a grant has heard
/// before of each session that lost its slot before that grant.
pub(super) fn notifies_before_it_answers_that_or_a_later_command(open: fn(SlotLimit) -> Subject) {
    let subject = open(SlotLimit::new(1).unwrap());
    subject.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) });
    let acquires = if subject.is_shared() { 150 } else { 1000 };
    thread::scope(|scope| {
        for first in 0..THREADS {
            let (clients, observer) = (&subject.clients, subject.observer.clone());
            scope.spawn(move || {
                for number in 1..=acquires {
                    let (number, observer) = (first * acquires + number, observer.clone());
                    let heard = move |outcome| {
                        assert_eq!(outcome, Outcome::granted(1));
                        // Fails when the test no longer listens.
                        let _unheard = observer.send(Observed::Granted(session(number)));
                    };
                    clients.submit_then(acquire("ada", number), heard);
                }
            });
        }
    });
    let (mut granted, mut ended) = (Vec::new(), Vec::new());
    while granted.len() < usize::try_from(THREADS * acquires).unwrap() {
        match subject.observed.recv_timeout(TIMEOUT).expect("each acquire is granted") {
            Observed::Granted(session) => granted.push((session, ended.len())),
            Observed::Ended(sessions) => ended.extend(sessions.into_iter().map(|ended| ended.session)),
            Observed::Answer(outcome) => panic!("nobody waited for {outcome:?}"),
            Observed::Hinted(hints) => panic!("nobody waits, but {hints:?}"),
        }
    }
    // A session is ended by the next one that is granted. The last one is not ended.
    assert_eq!(ended.len() + 1, granted.len());
    let order: BTreeMap<_, _> = ended.into_iter().zip(0..).collect();
    for (session, ended_before) in granted {
        let granted_before = order.get(&session).copied().unwrap_or(order.len());
        assert!(ended_before >= granted_before, "{session} was granted while some before it had not been ended");
    }
}
