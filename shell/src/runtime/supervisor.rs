//! The threads and tasks that must run for as long as the server does, and what happens when one of them ends.
//!
//! [`Part`] is the one list. Some parts may have left work half done. The end of such a part ends the whole process:
//! the next start finds what it finds after `kill -9`, which the store is made for. A part that keeps nothing
//! between two rounds is started again.
//!
//! Not in the list: tasks of one connection or one request, whose panic ends only them, and threads of libraries
//! (`async-io`, `blocking`), which catch the panics of the work that they are given.

use crate::runtime::events::log_event;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use smol::future::or;
use smol::{Executor, Task, Timer};

/// A thread or a task that must run for as long as the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The main thread, which runs the server until it stops.
    Main,
    /// A further thread that runs tasks.
    Worker,
    /// The thread that waits for SIGINT and SIGTERM.
    Signals,
    /// The thread that writes log lines to standard error.
    LogWriter,
    /// The thread of the store that sweeps `live/`, answers queries, and applies commands when no thread of a session does.
    StoreLive,
    /// The thread that owns `users/`.
    StoreUsers,
    /// The thread that checks that the data directory is still the one that was opened.
    StoreWatch,
    /// A thread that carries requests to a store that servers share, and answers back.
    StoreLane,
    /// The thread that cuts clients when this server may not serve them any more.
    StoreFence,
    /// The thread that listens to what other servers tell this one.
    StoreHints,
    /// The thread that tells the other servers what this one is.
    StoreAbout,
    /// A task that accepts connections of one listener.
    Accept,
    /// The task that wakes the tasks whose timers are due.
    Timers,
    /// The task that retries releases.
    Retry,
    /// The task that notices corrections of the wall clock.
    WallClock,
    /// The task that asks the store how it is doing, for the health check.
    Health,
    /// The task that returns free memory to the system.
    TrimMemory,
    /// The task that serves operators.
    Admin,
    /// The task that reloads configuration and keys.
    Reload,
    /// The task that fetches keys from their provider.
    Keys,
}

/// What happens when a part ends that should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// The process ends, with [`Supervisor::EXIT_CODE`].
    EndProcess,
    /// The part starts again, after [`Supervisor::RESTART_DELAY`]. It keeps nothing between two rounds that could be lost.
    Restart,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 20] = [
        Self::Main,
        Self::Worker,
        Self::Signals,
        Self::LogWriter,
        Self::StoreLive,
        Self::StoreUsers,
        Self::StoreWatch,
        Self::StoreLane,
        Self::StoreFence,
        Self::StoreHints,
        Self::StoreAbout,
        Self::Accept,
        Self::Timers,
        Self::Retry,
        Self::WallClock,
        Self::Health,
        Self::TrimMemory,
        Self::Admin,
        Self::Reload,
        Self::Keys,
    ];

    /// Its name, in the log and of its thread.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Worker => "worker",
            Self::Signals => "signals",
            Self::LogWriter => "log-writer",
            Self::StoreLive => "store-live",
            Self::StoreUsers => "store-users",
            Self::StoreWatch => "store-watch",
            Self::StoreLane => "store-lane",
            Self::StoreFence => "store-fence",
            Self::StoreHints => "store-hints",
            Self::StoreAbout => "store-about",
            Self::Accept => "accept",
            Self::Timers => "timers",
            Self::Retry => "retry",
            Self::WallClock => "wall-clock",
            Self::Health => "health",
            Self::TrimMemory => "trim-memory",
            Self::Admin => "admin",
            Self::Reload => "reload",
            Self::Keys => "keys",
        }
    }

    /// What happens when it ends.
    #[must_use]
    pub const fn on_end(self) -> OnEnd {
        match self {
            // Other parts would wait for them for ever.
            Self::Main | Self::Worker | Self::Signals | Self::LogWriter => OnEnd::EndProcess,
            // A command, an update or a release may be half done.
            Self::StoreLive | Self::StoreUsers | Self::Retry | Self::StoreLane => OnEnd::EndProcess,
            // The limit rests on it, or on what it hears soon.
            Self::StoreFence | Self::StoreHints => OnEnd::EndProcess,
            // It notices that servers of another version use the same keys.
            Self::StoreAbout => OnEnd::EndProcess,
            // The server must not admit sessions while nobody looks at its directory.
            Self::StoreWatch => OnEnd::EndProcess,
            Self::Accept
            | Self::Timers
            | Self::WallClock
            | Self::Health
            | Self::TrimMemory
            | Self::Admin
            | Self::Reload
            | Self::Keys => OnEnd::Restart,
        }
    }
}

/// Watches the parts of a process. A clone watches the same process.
#[derive(Clone, Default)]
pub struct Supervisor(Arc<OnceLock<End>>);

/// Ends the process.
type End = Box<dyn Fn(Part) + Send + Sync>;

impl Supervisor {
    /// The exit code of a process that ends because one of its parts has: `EX_SOFTWARE` of sysexits(3).
    pub const EXIT_CODE: u8 = 70;

    /// How long after its end a part starts again. So a part that fails at once does not keep a processor busy.
    pub const RESTART_DELAY: Duration = Duration::from_millis(500);

    /// Sets how the process ends. `end` runs on any thread, also in the middle of a panic, and should not return. Only the
    /// first call has an effect.
    ///
    /// Without it the end of a part is only logged: what a library does not own, it must not end.
    pub fn set_end(&self, end: impl Fn(Part) + Send + Sync + 'static) {
        let _is_set = self.0.set(Box::new(end));
    }

    /// Watches a thread. If the guard is dropped before [`PartGuard::finish`], as by a panic, the part has failed.
    #[must_use]
    pub fn watch(&self, part: Part) -> PartGuard {
        PartGuard { supervisor: self.clone(), part, is_finished: false }
    }

    /// Starts a task that must not end. `start` makes its future, again after each restart. Cancelling the task is no failure.
    pub fn spawn<F>(
        &self,
        part: Part,
        executor: &Executor<'static>,
        mut start: impl FnMut() -> F + Send + 'static,
    ) -> Task<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let supervisor = self.clone();
        executor.spawn(async move {
            loop {
                let run = AssertUnwindSafe(async { or(start(), faults::panic_when_due(part)).await });
                let has_panicked = run.catch_unwind().await.is_err();
                match part.on_end() {
                    OnEnd::EndProcess => return supervisor.fail(part),
                    OnEnd::Restart => {
                        let part = part.name();
                        log_event!(part_restarted { part, has_panicked });
                    }
                }
                Timer::after(Self::RESTART_DELAY).await;
            }
        })
    }

    /// Called where a part has ended that the process cannot go on without.
    fn fail(&self, part: Part) {
        let name = part.name();
        log_event!(part_failed { part: name });
        if let Some(end) = self.0.get() {
            end(part);
        }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "Supervisor(ends the process)" } else { "Supervisor(only logs)" })
    }
}

/// Watches one thread.
#[derive(Debug)]
pub struct PartGuard {
    supervisor: Supervisor,
    part: Part,
    is_finished: bool,
}

impl PartGuard {
    /// The thread ends as it should.
    pub fn finish(mut self) {
        self.is_finished = true;
    }

    /// Panics if a test has asked for that. Each round of the thread calls it.
    pub fn round(&self) {
        faults::panic_if_due(self.part);
    }

    /// Panics when a test asks for that. Never ends otherwise.
    pub(crate) async fn panic_when_due<T>(&self) -> T {
        faults::panic_when_due(self.part).await
    }
}

impl Drop for PartGuard {
    fn drop(&mut self) {
        if !self.is_finished {
            self.supervisor.fail(self.part);
        }
    }
}

/// Panics that a test injects into a running process. A debug build has them, a release build does not.
///
/// The environment variable `TEST_PANIC_IN` names a part, and `TEST_PANIC_WHEN` a file. Once the file exists, the part
/// panics, once.
#[cfg(debug_assertions)]
mod faults {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use std::{env, fs};

    use smol::Timer;

    use super::Part;

    struct Fault {
        part: String,
        file: PathBuf,
        is_over: AtomicBool,
    }

    fn fault(part: Part) -> Option<&'static Fault> {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        let read = || {
            let (part, file) = (env::var("TEST_PANIC_IN").ok()?, env::var_os("TEST_PANIC_WHEN")?.into());
            Some(Fault { part, file, is_over: AtomicBool::new(false) })
        };
        FAULT.get_or_init(read).as_ref().filter(|fault| fault.part == part.name())
    }

    pub(super) fn panic_if_due(part: Part) {
        if let Some(fault) = fault(part)
            && fs::exists(&fault.file).unwrap_or(false)
            && !fault.is_over.swap(true, Ordering::Relaxed)
        {
            panic!("a test has asked for this panic");
        }
    }

    pub(super) async fn panic_when_due<T>(part: Part) -> T {
        while fault(part).is_some() {
            panic_if_due(part);
            Timer::after(Duration::from_millis(10)).await;
        }
        std::future::pending().await
    }
}

#[cfg(not(debug_assertions))]
mod faults {
    use super::Part;

    pub(super) const fn panic_if_due(_: Part) {}

    pub(super) fn panic_when_due<T>(_: Part) -> impl Future<Output = T> {
        std::future::pending()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::*;

    /// A supervisor, and the parts whose end it reports.
    fn supervisor() -> (Supervisor, Arc<Mutex<Vec<Part>>>) {
        let (supervisor, failed) = (Supervisor::default(), Arc::<Mutex<Vec<Part>>>::default());
        let reported = Arc::clone(&failed);
        supervisor.set_end(move |part| reported.lock().unwrap().push(part));
        (supervisor, failed)
    }

    #[test]
    fn thread_fails_unless_it_finishes() {
        let (supervisor, failed) = supervisor();
        supervisor.watch(Part::StoreLive).finish();
        assert_eq!(*failed.lock().unwrap(), []);
        let guard = supervisor.watch(Part::StoreUsers);
        let panicked = thread::spawn(move || {
            guard.round();
            panic!("as a bug would");
        });
        assert!(panicked.join().is_err());
        drop(supervisor.watch(Part::Worker));
        assert_eq!(*failed.lock().unwrap(), [Part::StoreUsers, Part::Worker]);
    }

    #[test]
    fn task_fails_or_starts_again() {
        for part in Part::ALL {
            let (supervisor, failed) = supervisor();
            let executor = Executor::new();
            let (started, starts) = smol::channel::unbounded();
            let task = supervisor.spawn(part, &executor, move || {
                let started = started.clone();
                async move {
                    let is_first = started.is_empty();
                    started.send(()).await.unwrap();
                    assert!(!is_first, "as a bug would");
                    std::future::pending::<()>().await;
                }
            });
            match part.on_end() {
                OnEnd::EndProcess => {
                    smol::block_on(executor.run(task));
                    assert_eq!((&**failed.lock().unwrap(), starts.len()), (&[part][..], 1));
                }
                OnEnd::Restart => {
                    smol::block_on(executor.run(async {
                        while starts.len() < 2 {
                            Timer::after(Duration::from_millis(1)).await;
                        }
                        task.cancel().await;
                    }));
                    assert_eq!(*failed.lock().unwrap(), [], "being cancelled is no failure");
                }
            }
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names = Part::ALL.map(Part::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
