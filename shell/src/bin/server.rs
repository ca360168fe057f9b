//! The session server. `server --help` tells the rest.

use std::process::ExitCode;
use std::{env, io};

use clap::Parser as _;
use shell::cli::{Action, Arguments};

fn main() -> ExitCode {
    match Arguments::parse().run(env::vars_os(), &mut io::stdout(), &mut io::stderr()) {
        Action::Exit(code) => code.into(),
        Action::Serve(sources, loaded) => match shell::cli::serve::run(sources, *loaded) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        },
    }
}

#[expect(clippy::print_stderr, reason = "the log may be off, and this must be seen")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
