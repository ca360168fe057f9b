//! The command line of the server: its arguments and commands.

mod arguments;
mod log_users;
mod admin_access;
mod capacity;
mod reload;
mod server_status;
mod status_command;
mod nodes_command;
mod nodes_text;
pub mod serve;
mod token_command;
mod user_command;
mod user_text;
mod users_command;

pub use arguments::{Action, Arguments};
