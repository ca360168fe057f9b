//! `client bench`: puts load on a server, shows progress, and prints a report.

mod settings;
mod run;
pub mod load;
mod progress;
mod report;
mod report_text;
mod warnings;
mod chart;
mod format;
mod json;
mod error;
#[cfg(test)]
mod testing;

pub use error::BenchError;
pub use report::{Report, RunEnd};
pub use run::run;
pub use settings::{AFTER_HELP, Settings};
