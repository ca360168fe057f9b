//! Holds sessions of one user, lists or ends them, or measures a server. `client --help` describes it.

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use shell::client::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_command_line(env::args_os()).unwrap_or_else(|error| error.exit());
    match arguments.run(&mut io::stdout(), &mut io::stderr()) {
        Ok(exit_reason) => exit_reason.into(),
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
