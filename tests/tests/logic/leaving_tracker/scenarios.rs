//! The tracker, call by call.

use std::time::Duration;

use session_core::leaving_tracker::LeavingTracker;
use session_core::{NodeId, SessionId, Timestamp, UserId};

const NODE: NodeId = NodeId::new(7);
const NOW: Timestamp = Timestamp::from_epoch(Duration::from_secs(1000));

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a good id")
}

fn session(number: u64) -> SessionId {
    NODE.session(number)
}

#[test]
fn grant_waits_for_all_that_left_before_it() {
    let (mut leaving, ada) = (LeavingTracker::default(), user("ada"));
    assert!(!leaving.must_wait(&ada, session(1)), "nobody is leaving");
    assert!(leaving.is_empty(), "who is told at once is forgotten");
    leaving.slot_lost(&ada, session(1), NOW);
    leaving.slot_lost(&ada, session(2), NOW);
    assert!(leaving.must_wait(&ada, session(3)));
    assert_eq!(leaving.gone(session(2)), []);
    assert_eq!(leaving.gone(session(1)), [session(3)]);
    assert!(leaving.is_empty());
}

/// *a* is told. *b* evicts *a* and waits. *c* evicts *b*, of whom no client was told.
#[test]
fn gone_session_that_waited_does_not_let_others_in() {
    let (mut leaving, ada) = (LeavingTracker::default(), user("ada"));
    leaving.slot_lost(&ada, session(1), NOW);
    assert!(leaving.must_wait(&ada, session(2)));
    leaving.slot_lost(&ada, session(2), NOW);
    assert!(leaving.must_wait(&ada, session(3)));
    assert_eq!(leaving.gone(session(2)), [session(2)], "it has to learn of its grant, and of no other");
    assert_eq!(leaving.gone(session(1)), [session(3)]);
    assert!(leaving.is_empty());
}

#[test]
fn grant_waits_for_no_later_loss() {
    let (mut leaving, ada) = (LeavingTracker::default(), user("ada"));
    leaving.slot_lost(&ada, session(1), NOW);
    assert!(leaving.must_wait(&ada, session(3)));
    leaving.slot_lost(&ada, session(2), NOW);
    assert!(leaving.must_wait(&ada, session(4)));
    assert_eq!(leaving.gone(session(1)), [session(3)]);
    assert_eq!(leaving.gone(session(2)), [session(4)]);
}

#[test]
fn grants_are_told_in_their_order() {
    let (mut leaving, ada) = (LeavingTracker::default(), user("ada"));
    leaving.slot_lost(&ada, session(1), NOW);
    assert!(leaving.must_wait(&ada, session(9)));
    leaving.slot_lost(&ada, session(2), NOW);
    assert!([8, 7].iter().all(|&number| leaving.must_wait(&ada, session(number))));
    assert_eq!(leaving.gone(session(2)), []);
    let told = leaving.gone(session(1));
    assert_eq!((told.first(), told.len()), (Some(&session(9)), 3));
}

/// The session may not know yet that it lost its slot: on another thread the answer can be faster.
#[test]
fn session_that_lost_its_slot_learns_of_its_grant_when_it_is_gone() {
    let (mut leaving, ada) = (LeavingTracker::default(), user("ada"));
    leaving.slot_lost(&ada, session(1), NOW);
    leaving.slot_lost(&ada, session(2), NOW);
    assert!(leaving.must_wait(&ada, session(2)));
    assert_eq!(leaving.gone(session(1)), []);
    assert_eq!(leaving.gone(session(2)), [session(2)]);
    assert!(leaving.is_empty());
}

#[test]
fn users_do_not_wait_for_each_other() {
    let (mut leaving, ada, bob) = (LeavingTracker::default(), user("ada"), user("bob"));
    leaving.slot_lost(&ada, session(1), NOW);
    assert!(!leaving.must_wait(&bob, session(2)));
    leaving.slot_lost(&bob, session(3), NOW);
    assert!(leaving.must_wait(&bob, session(4)));
    assert_eq!(leaving.gone(session(1)), []);
    assert_eq!(leaving.gone(session(3)), [session(4)]);
}

#[test]
fn loss_reported_twice_keeps_its_time() {
    let (mut leaving, ada) = (LeavingTracker::default(), user("ada"));
    let cut_at = NOW + LeavingTracker::CUT_AFTER;
    assert_eq!(leaving.slot_lost(&ada, session(1), NOW), cut_at);
    assert!(leaving.must_wait(&ada, session(2)));
    assert!(leaving.must_wait(&ada, session(2)), "still");
    assert_eq!(leaving.slot_lost(&ada, session(1), NOW + Duration::from_millis(700)), cut_at);
    assert_eq!(leaving.gone(session(1)), [session(2)]);
    assert_eq!(leaving.gone(session(1)), [], "it is gone once");
    assert!(leaving.is_empty());
}
