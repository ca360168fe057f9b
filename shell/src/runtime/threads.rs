//! Runs an executor on several threads.

use std::sync::Arc;
use std::thread::{self, available_parallelism};

use smol::Executor;
use smol::future::or;

use crate::runtime::events::log_event;
use crate::runtime::supervisor::{Part, Supervisor};

/// One thread per core of this machine, at most 256.
#[must_use]
pub fn one_per_core() -> u16 {
    available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX).min(256))
}

/// The least number of threads that run tasks. One of them may apply a command of its session to the store, and wait for a disk that
/// stalls.
const MIN_THREADS: u16 = 2;

/// Runs `main` to its end on this thread. Meanwhile `threads` others, at least two, run the executor's tasks. So no task delays
/// `main`.
///
/// The supervisor learns of a thread that ends before. A panic of `main` goes on after that.
pub fn on_threads<T>(
    threads: u16,
    executor: &Arc<Executor<'static>>,
    supervisor: &Supervisor,
    main: impl Future<Output = T>,
) -> T {
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let mut has_workers = false;
    for number in 1..=threads.max(MIN_THREADS) {
        let (executor, supervisor, stopped) = (Arc::clone(executor), supervisor.clone(), stopped.clone());
        let work = move || {
            let guard = supervisor.watch(Part::Worker);
            let stopped = async {
                let _always_closed = stopped.recv().await;
            };
            smol::block_on(executor.run(or(stopped, guard.panic_when_due())));
            guard.finish();
        };
        // Fewer threads are slower, but enough.
        if let Err(error) = thread::Builder::new().name(format!("sessions-{number}")).spawn(work) {
            log_event!(threads_missing { threads: number - 1, error: display(error) });
            break;
        }
        has_workers = true;
    }
    let guard = supervisor.watch(Part::Main);
    let main = or(main, guard.panic_when_due());
    // This thread only waits: if it waited for I/O, too, it would have to wake another thread for each event.
    let output = if has_workers { smol::future::block_on(main) } else { smol::block_on(executor.run(main)) };
    guard.finish();
    drop(stop);
    output
}
