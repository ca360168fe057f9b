//! `client` without a subcommand holds sessions; `client sessions` and `client end` list and end them.

mod runner;
mod options;
mod prompt;
mod resume_file;
pub mod sessions_command;
mod printer;
#[cfg(test)]
mod tests;

pub use options::RunOptions;
pub use printer::{Format, Printer};
pub use runner::run;
