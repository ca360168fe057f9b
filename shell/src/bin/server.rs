//! The session server. `server --help` describes it.

use std::process::ExitCode;
use std::{env, io};

use shell::cli::{Action, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::from_command_line(env::args_os()).unwrap_or_else(|error| error.exit());
    match arguments.run(env::vars_os(), &mut io::stdout(), &mut io::stderr()) {
        Action::Exit(code) => code.into(),
        Action::Serve(loader, loaded) => match shell::cli::serve::run(loader, *loaded) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                print_error(&error);
                ExitCode::FAILURE
            }
        },
    }
}

#[expect(clippy::print_stderr, reason = "the log may be off, and the user must see this")]
fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
