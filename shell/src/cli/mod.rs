//! The command line of the server: its arguments and commands.

mod arguments;
mod log_users;
mod reload;
pub mod serve;
mod token_command;
mod user_command;

pub use arguments::{Action, Arguments};
