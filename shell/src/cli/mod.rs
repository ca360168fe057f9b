//! The server's command line: arguments, and what each command does.

mod arguments;
mod reload;
pub mod serve;
mod token_command;
mod user_command;

pub use arguments::{Action, Arguments};
