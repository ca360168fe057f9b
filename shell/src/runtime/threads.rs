//! Runs a future on this thread, and what it spawns on others beside it.

use std::sync::Arc;
use std::thread::{self, available_parallelism};

use smol::Executor;

/// One thread per core of this machine, 256 at most.
#[must_use]
pub fn one_per_core() -> u16 {
    available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX).min(256))
}

/// Runs `main` to its end on this thread, which helps the executor meanwhile, as do `threads - 1` others.
pub fn on_threads<T>(threads: u16, executor: &Arc<Executor<'static>>, main: impl Future<Output = T>) -> T {
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    for number in 1..threads {
        let (executor, stopped) = (Arc::clone(executor), stopped.clone());
        let work = move || smol::block_on(executor.run(stopped.recv()));
        // With fewer threads it is slower, not wrong.
        if let Err(error) = thread::Builder::new().name(format!("sessions-{number}")).spawn(work) {
            tracing::warn!(%error, "cannot start a thread, going on with {number}");
            break;
        }
    }
    let ended = smol::block_on(executor.run(main));
    drop(stop);
    ended
}
