//! Waits with a time limit.

use std::thread;
use std::time::{Duration, Instant};

/// No wait in a test is longer than this: what takes longer has failed.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Looks again and again whether something has become true.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
