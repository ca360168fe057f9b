//! The session server. `server --help` tells the rest.

use std::process::ExitCode;

use clap::Parser;
use shell::config::Config;

/// Limits how many live sessions one user may hold, over WebSockets.
///
/// A client opens a WebSocket at `/` and authenticates; the open socket is its session. Every option can also be set
/// by the environment variable that its help names. Times are written as in 10s, 500ms or 2m.
#[derive(Debug, Parser)]
#[command(name = "server", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

const EXIT_CODES: &str = "\
SIGINT (Ctrl-C) and SIGTERM end every session, close the store and exit within 10 seconds; a second one at once.

Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong usage, 130 stopped by a second signal.";

fn main() -> ExitCode {
    match shell::service::run(&Arguments::parse().config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the log may be off, and this must be seen")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
