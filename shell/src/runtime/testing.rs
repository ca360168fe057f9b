//! A waker that counts how often it is called.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
struct WakeCounter(AtomicU32);

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waker, and a function that returns how often it has been called so far.
pub(crate) fn counting_waker() -> (Waker, impl Fn() -> u32) {
    let counter = Arc::<WakeCounter>::default();
    (Arc::clone(&counter).into(), move || counter.0.load(Ordering::Relaxed))
}
