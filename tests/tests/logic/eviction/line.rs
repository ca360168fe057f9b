//! The line of those who wait for a slot: who is in it, and that nobody overtakes.

use session_core::ledger::{AdmissionPolicy, CountBy, WhenFull};

use super::line_script::run;
use super::one_user::*;

#[test]
fn line_is_first_come_first_served() {
    run(
        &policy(1),
        &[
            ("1", "granted"),
            ("2 waits", "at 1"),
            ("3 waits", "at 2, tells 2"),
            // It keeps its place, and nobody has to know.
            ("2 waits", "at 1"),
            ("1 leaves", "gone, calls 2, tells 2 3"),
            // The slot is free, but not for them.
            ("4", "denied, calls 2"),
            ("3 waits", "at 2, calls 2"),
            ("4 waits", "at 3, calls 2, tells 2 3"),
            ("2 waits", "granted, tells 3 4"),
            ("2 leaves", "gone, calls 3, tells 3 4"),
            ("3 waits", "granted, tells 4"),
            ("3 leaves", "gone, calls 4, tells 4"),
            ("4 waits", "granted"),
        ],
    );
}

#[test]
fn waiting_session_leaves_the_line() {
    for (leaves, tells) in [
        ("2 leaves", "gone, tells 3"),
        ("2 is lost", "gone, tells 3"),
        ("2", "denied, tells 3"),
        ("2 claims 0", "denied, tells 3"),
        ("2 waits claims 0", "denied, tells 3"),
        ("2 waits claims 5", "granted, tells 3"),
        ("2 waits resumes 1", "granted, tells 3"),
    ] {
        let rows = [("1", "granted"), ("2 waits", "at 1"), ("3 waits", "at 2, tells 2"), (leaves, tells)];
        let then = run(&policy(1), &rows);
        assert_eq!(then.record.waiting().iter().map(|waiter| waiter.session).collect::<Vec<_>>(), [id(3)], "{leaves}");
    }
}

#[test]
fn full_line_takes_nobody() {
    run(
        &AdmissionPolicy { max_waiting: 2, ..policy(1) },
        &[
            ("1", "granted"),
            ("2 waits", "at 1"),
            ("3 waits", "at 2, tells 2"),
            ("4 waits", "full"),
            ("3 waits", "at 2"),
            ("2 leaves", "gone, tells 3"),
            ("4 waits", "at 2, tells 3"),
        ],
    );
    run(&AdmissionPolicy { max_waiting: 0, ..policy(1) }, &[("1", "granted"), ("2 waits", "full")]);
}

#[test]
fn waiting_sessions_of_dead_nodes_vanish() {
    run(
        &policy(1),
        &[
            ("1", "granted"),
            ("50 waits", "at 1"),
            ("2 waits", "at 2, tells 50"),
            ("50 dies", "dead"),
            ("51 waits", "Rejected(Failed), tells 2"),
            ("1 leaves", "gone, calls 2, tells 2"),
            ("2 waits", "granted"),
        ],
    );
}

#[test]
fn banned_user_does_not_wait() {
    run(&policy(0), &[("1 waits", "denied"), ("2 waits claims 1", "granted"), ("1 waits", "denied")]);
}

/// A session whose token claims fewer slots waits until so few are taken. Others need not wait for that. But once it may
/// have its slot, they must not take it.
#[test]
fn lower_claim_neither_blocks_nor_loses() {
    run(
        &policy(3),
        &[
            ("1", "granted"),
            ("2 waits claims 1", "at 1"),
            ("3", "granted, tells 2"),
            ("1 leaves", "gone, tells 2"),
            ("3 leaves", "gone, calls 2, tells 2"),
            ("4", "denied, calls 2"),
            ("4 waits", "at 2, calls 2, tells 2"),
            ("2 waits claims 1", "granted, calls 4, tells 4"),
            ("4 waits", "granted"),
        ],
    );
}

/// Once, the newcomer was admitted beyond the limit: it relied on the evictions of the one before it.
#[test]
fn newcomer_relies_on_no_evictions_of_others() {
    let grace = AdmissionPolicy { linger_grace: LINGER / 2, ..policy(3) };
    run(
        &grace,
        &[
            ("1", "granted"),
            ("2", "granted"),
            ("3", "granted"),
            ("1 is lost", "gone"),
            ("2 is lost", "gone"),
            ("3 is lost", "gone"),
            ("4 waits claims 1", "at 1"),
            ("5 leaves", "gone"),
            ("5 leaves", "gone"),
            ("5 leaves", "gone"),
            ("5 leaves", "gone"),
            // Now no slot is kept any more.
            ("6", "denied, calls 4"),
            ("4 waits claims 1", "granted"),
            ("6", "granted"),
        ],
    );
}

#[test]
fn device_shares_its_slot_beside_the_line() {
    run(
        &AdmissionPolicy { client_choice: false, ..devices_policy(1) },
        &[
            ("1 of a", "granted"),
            ("2 waits of b", "at 1"),
            ("3 of a", "granted, tells 2"),
            ("4 of a", "granted, tells 2"),
            ("5 waits of a", "at 2, tells 2"),
            ("6 waits of b", "at 3, tells 2 5"),
            ("1 leaves", "gone, calls 5, tells 2 5 6"),
            ("5 waits of a", "granted, tells 2 6"),
            ("3 leaves", "gone, tells 2 6"),
            ("4 leaves", "gone, tells 2 6"),
            ("5 leaves", "gone, calls 2 6, tells 2 6"),
            // It takes the slot of its device, which is that of the one before it.
            ("6 waits of b", "granted, calls 2, tells 2"),
            ("2 waits of b", "granted"),
        ],
    );
}

#[test]
fn lingering_slot_is_spared_by_who_says_so() {
    run(
        &AdmissionPolicy { count_by: CountBy::Sessions, ..policy(1) },
        &[
            ("1", "granted"),
            ("2 waits spares", "at 1"),
            ("3 waits", "at 2, tells 2"),
            // A lost slot has no grace here: the second in line may take it.
            ("1 is lost", "gone, calls 3, tells 2 3"),
            ("2 waits spares", "at 1, calls 3"),
            ("3 waits", "granted, tells 2"),
            ("3 leaves", "gone, calls 2, tells 2"),
            // Another slot that lingers would not help the one before it.
            ("4", "denied, calls 2"),
        ],
    );
}

/// Who evicts a session takes that one's place, not that of somebody in line.
#[test]
fn evicting_another_session_overtakes_nobody() {
    run(
        &client_choice_policy(1),
        &[
            ("1", "granted"),
            ("2 waits", "at 1"),
            ("3 evicts oldest", "granted, tells 2"),
            ("4 evicts 3", "granted, tells 2"),
            ("4 leaves", "gone, calls 2, tells 2"),
            // A free slot is not to be had for the name of one who waits.
            ("5 evicts 2", "denied, calls 2"),
        ],
    );
    let evict_oldest = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) };
    run(
        &evict_oldest,
        &[
            ("1", "granted"),
            ("2 waits spares", "at 1"),
            ("3", "granted, tells 2"),
            ("4 waits", "granted, tells 2"),
            ("5 waits spares", "at 2, tells 2"),
        ],
    );
}

#[test]
fn resume_overtakes_nobody() {
    run(
        &policy(1),
        &[
            ("1", "granted"),
            ("2 waits spares", "at 1"),
            ("1 is lost", "gone, tells 2"),
            ("3 resumes 1", "granted, tells 2"),
            ("3 is lost", "gone, tells 2"),
            // A session that has a slot asks for no other.
            ("3", "granted, tells 2"),
            ("4 resumes 9", "denied"),
        ],
    );
}

#[test]
fn waiting_session_never_ends_the_oldest_for_another() {
    let policy = AdmissionPolicy { when_full: WhenFull::EvictOldest, ..policy(1) };
    run(
        &policy,
        &[
            ("1", "granted"),
            // It wants to end 9 and no other.
            ("2 waits evicts 9", "at 1"),
            ("1 watches", "1 slots, 1 wait"),
            ("2 waits evicts 9", "at 1"),
            ("2 waits evicts oldest", "granted"),
        ],
    );
}

#[test]
fn choice_that_is_gone_keeps_the_place() {
    let policy = AdmissionPolicy { client_choice: true, ..policy(1) };
    let rows = [("1", "granted"), ("2 waits", "at 1"), ("3 waits", "at 2, tells 2"), ("3 waits evicts 9", "denied")];
    let line = |then: &UserHarness| then.record.waiting().iter().map(|waiter| waiter.session).collect::<Vec<_>>();
    assert_eq!(line(&run(&policy, &rows)), [id(2), id(3)]);
    let left = [&rows[..], &[("3 evicts 9", "denied, tells 2")]].concat();
    assert_eq!(line(&run(&policy, &left)), [id(2)], "it does not want to wait any more");
}
