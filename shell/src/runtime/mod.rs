//! What every other room runs on: the list of its vital parts, clock and timers, log, threads, signals, memory, open files.

pub mod process;
pub mod supervisor;
pub mod readiness;
pub mod clock;
pub mod deadline_timer;
mod timer_queue;
pub(crate) mod rfc3339;
pub(crate) mod duration;
pub(crate) mod command_line;
pub mod events;
pub(crate) mod help_text;
pub mod log;
pub mod threads;
pub mod fair_turns;
pub mod signals;
pub mod malloc;
pub mod open_files;
pub mod descriptors;
pub(crate) mod host_name;
pub mod user_id_form;
pub(crate) mod access;
pub(crate) mod bare_token;
#[cfg(test)]
pub(crate) mod testing;
