//! A task that counts how often it is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
struct Sleeper(AtomicU32);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waker, and how often it has been woken so far.
pub(super) fn sleeper() -> (Waker, impl Fn() -> u32) {
    let sleeper = Arc::<Sleeper>::default();
    (Arc::clone(&sleeper).into(), move || sleeper.0.load(Ordering::Relaxed))
}
