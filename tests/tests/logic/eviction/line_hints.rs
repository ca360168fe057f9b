//! Who is told that the user's sessions changed.

use super::line_script::run;
use super::one_user::*;

#[test]
fn watching_session_hears_of_changes_by_others() {
    run(
        &policy(2),
        &[
            ("1", "granted"),
            ("1 watches", "1 slots, 0 wait"),
            ("2", "granted, tells 1"),
            ("3", "denied"),
            ("3 waits", "at 1, tells 1"),
            ("3 waits", "at 1"),
            ("2 watches", "2 slots, 1 wait"),
            ("1 ends 2", "ended 1, calls 3, tells 1 3"),
            ("3 waits", "granted, tells 1"),
            ("3 is lost", "gone, tells 1"),
            ("3 leaves", "gone, tells 1"),
            ("3 leaves", "gone"),
            ("1 leaves", "gone"),
        ],
    );
}

#[test]
fn watching_session_ceases_to() {
    for ceases in [("1 ignores", "1 slots, 0 wait"), ("1 is lost", "gone"), ("3 resumes 1", "granted")] {
        run(&policy(3), &[("1", "granted"), ("1 watches", "1 slots, 0 wait"), ceases, ("2", "granted")]);
    }
    let asks_for_its_slot = [("1 is lost", "gone"), ("1", "granted"), ("2", "granted")];
    run(&policy(3), &[&[("1", "granted"), ("1 watches", "1 slots, 0 wait")][..], &asks_for_its_slot].concat());
    // It asks again, and goes on watching.
    let asks_again = [("1", "granted"), ("1 watches", "1 slots, 0 wait"), ("1", "granted"), ("2", "granted, tells 1")];
    run(&policy(3), &asks_again);
}

#[test]
fn lost_session_does_not_watch() {
    run(&policy(3), &[("1", "granted"), ("1 is lost", "gone"), ("1 watches", "1 slots, 0 wait"), ("2", "granted")]);
}
