//! What the process runs on: clock, timers, log, threads, signals, memory, open files.

pub mod clock;
pub mod deadline_timer;
pub(crate) mod duration;
pub mod log;
pub mod malloc;
pub mod open_files;
pub(crate) mod rfc3339;
pub mod signals;
#[cfg(test)]
pub(crate) mod testing;
pub mod threads;
mod timer_queue;
