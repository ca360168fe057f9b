//! Waits with a time limit, and at the same time for several things.

use std::thread;
use std::time::{Duration, Instant};

/// The longest wait in a test. A longer wait is a failure.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Polls a condition until it holds.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Does the same with each item, at the same time. For work that is mostly waiting.
pub fn side_by_side<T: Send>(items: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for item in items {
            scope.spawn(|| work(item));
        }
    });
}
