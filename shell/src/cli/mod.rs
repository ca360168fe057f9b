//! The command line of the server: its arguments and commands.

mod arguments;
mod reload;
pub mod serve;
mod token_command;
mod user_command;
mod user_text;

pub use arguments::{Action, Arguments};
