//! What the next server finds in the directory of a killed one.

use session_core::ledger::{AcquireOptions, StoreCommand};
use session_core::ledger::{AdmissionPolicy, EndReason, EndedSession, Outcome, SlotLimit, WhenFull};
use session_core::{NodeId, Timestamp};
use shell::store::{LmdbConfig, LmdbStore};
use tests::test_server::NODE;

use super::harness::*;
use super::line::{is_granted, wait};

/// For the next server the sessions of a killed one have lapsed, and what it is told of them later does no harm.
#[test]
fn sessions_of_another_node_lapse_in_lmdb() {
    let directory = tempfile::tempdir().unwrap();
    let config = LmdbConfig::new(directory.path(), SlotLimit::new(2).unwrap());
    let first = subject(LmdbStore::open(&config, NODE).unwrap(), ());
    for session in 1..=2 {
        first.ask(acquire("ada", session));
    }
    drop(first);
    let next = NodeId::new(0xbeef);
    let second = subject(LmdbStore::open(&config, next).unwrap(), ());
    let again = |session| StoreCommand::Acquire {
        user: user("ada"),
        session: next.session(session),
        limit: None,
        at: Timestamp::default(),
        options: None,
    };
    assert_eq!(second.ask(again(1)), Outcome::granted(1));
    assert_eq!(second.ask(release("ada", 1)), Outcome::Released, "of the old node");
    assert_eq!(second.ask(again(2)), Outcome::granted(2));
    assert_eq!(second.ask(again(3)), Outcome::Denied(None));
    second.store.set_policy(AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(2) });
    assert_eq!(second.ask(again(3)), Outcome::granted(2));
    let evicted = EndedSession { session: next.session(1), reason: EndReason::TakenOver(None) };
    assert_eq!(
        second.ended(),
        [evicted],
        "sessions of the old node lost their slots, and have nobody to end them here"
    );
}

/// For the next server nobody waits who waited at a killed one.
#[test]
fn line_of_another_node_is_gone_in_lmdb() {
    for sessions in [2, 300] {
        let directory = tempfile::tempdir().unwrap();
        let config = LmdbConfig::new(directory.path(), SlotLimit::new(sessions).unwrap());
        let first = subject(LmdbStore::open(&config, NODE).unwrap(), ());
        let sessions = u64::from(sessions);
        (1..=sessions).for_each(|number| drop(first.ask(acquire("ada", number))));
        for number in sessions + 1..=sessions + 9 {
            assert!(matches!(first.ask(wait("ada", number)), Outcome::Waiting(_)));
        }
        drop(first);
        let next = NodeId::new(0xbeef);
        let second = subject(LmdbStore::open(&config, next).unwrap(), ());
        let options = Some(Box::new(AcquireOptions::default()));
        let ask = |number| StoreCommand::Acquire {
            user: user("ada"),
            session: next.session(number),
            limit: None,
            at: at(0),
            options: options.clone(),
        };
        for number in 1..=sessions {
            assert!(is_granted(&second.ask(ask(number))), "a session of the killed server is in the way");
        }
        let Outcome::Denied(Some(usage)) = second.ask(ask(sessions + 1)) else { panic!("the limit is reached") };
        assert_eq!((usage.waiting, usage.slots), (0, u32::try_from(sessions).unwrap()));
        // What it is told of them later does no harm.
        assert_eq!(second.ask(release("ada", sessions + 1)), Outcome::Released);
    }
}
