//! Tests that need many file descriptors.

use shell::runtime::open_files::raise_limit;

/// Descriptors for the tests that run at the same time.
const OTHERS: u64 = 300;

/// Whether a test may open this many files. It runs only then. Raises the limit as far as it may; if that is not enough, says
/// that the test is skipped.
#[must_use]
#[allow(clippy::print_stdout, reason = "a skipped test is reported")]
pub fn enough_descriptors(needed: u64) -> bool {
    let limit = raise_limit();
    let is_enough = limit >= needed + OTHERS;
    if !is_enough {
        println!("skipped: it needs {} file descriptors, and the limit (ulimit -Hn) is {limit}", needed + OTHERS);
    }
    is_enough
}
