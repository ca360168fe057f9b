//! Holds sessions of one user, lists or ends them, or measures a server. `client --help` describes it.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use shell::client::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().run(&mut io::stdout(), &mut io::stderr()) {
        Ok(exit_reason) => exit_reason.into(),
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
