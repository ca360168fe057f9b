//! Runs an executor on several threads.

use std::sync::Arc;
use std::thread::{self, available_parallelism};

use smol::Executor;

/// One thread per core of this machine, at most 256.
#[must_use]
pub fn one_per_core() -> u16 {
    available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX).min(256))
}

/// Runs `main` to its end on this thread. Meanwhile this thread and `threads - 1` others run the executor's tasks.
pub fn on_threads<T>(threads: u16, executor: &Arc<Executor<'static>>, main: impl Future<Output = T>) -> T {
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    for number in 1..threads {
        let (executor, stopped) = (Arc::clone(executor), stopped.clone());
        let work = move || smol::block_on(executor.run(stopped.recv()));
        // Fewer threads are slower, but enough.
        if let Err(error) = thread::Builder::new().name(format!("sessions-{number}")).spawn(work) {
            tracing::warn!(%error, "cannot start a thread; continuing with {number}");
            break;
        }
    }
    let output = smol::block_on(executor.run(main));
    drop(stop);
    output
}
