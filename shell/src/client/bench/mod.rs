//! `client bench`: puts load on a server, shows progress, and prints a report.

mod run;
pub mod load;
mod settings;
mod report;
mod warnings;
mod json;
mod chart;
mod progress;

pub use report::{End, Report};
pub use run::{Error, run};
pub use settings::{AFTER_HELP, Settings};
