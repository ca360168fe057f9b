//! `client` without a subcommand holds sessions; `client sessions` and `client end` list and end them.

mod runner;
mod prompt;
mod resume_file;
pub mod sessions_command;
pub(crate) mod printer;

pub use printer::{Format, Printer};
pub use runner::{Plan, Verdict, hold};
