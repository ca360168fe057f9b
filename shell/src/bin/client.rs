//! Holds sessions of one user against a server, and prints what happens to them; or measures a server.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, value_parser};
use session_core::UserId;
use shell::client::{Format, Login, Options, Plan, Printer, Token, Trust, Url, Verdict, bench, hold, interrupts};

const AFTER_HELP: &str = "\
A token can also be given in the environment variable SESSIONS_TOKEN. It is never printed.\n
Ctrl-C or SIGTERM says BYE on every session and waits for the answer; the second one ends at once.\n
Exit codes, the highest that applies:
  0  ended by Ctrl-C, SIGTERM or a closed pipe, and no session was refused or lost
  1  the output cannot be written, or signals cannot be caught
  2  wrong usage, or a file of certificates or a token that is none
  3  a session was refused because the user has reached the connection limit
  4  a session was lost: the server cannot be reached or trusted, does not answer within 10
     seconds, closed the connection or refused for another reason; or a second Ctrl-C did not
     wait for its BYE";

/// Holds sessions of one user until Ctrl-C, and prints each event as it arrives
#[derive(Parser)]
#[command(name = "client", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    holding: Holding,
}

#[derive(Subcommand)]
enum Command {
    /// Measures a server of your own: how many sign-ins a second it bears, and how long they take
    #[command(after_help = bench::AFTER_HELP)]
    Bench(bench::Settings),
}

#[derive(Args)]
struct Holding {
    /// The server, a ws:// or wss:// URL
    #[arg(long, env = "SESSIONS_URL", default_value = "ws://localhost:3000")]
    url: Url,
    /// For wss://, a PEM file with the certificates to trust instead of the system's
    #[arg(long, value_name = "FILE", env = "SESSIONS_CA", value_parser = |file: &str| Trust::read(file))]
    ca: Option<Trust>,
    /// The user to authenticate as, 1 to 256 bytes without control characters [default: testuser]
    #[arg(long, env = "SESSIONS_USER", value_parser = UserId::parse)]
    user: Option<UserId>,
    /// A file with a JSON Web Token to authenticate with instead of a user id, - for standard input; not with --user
    #[arg(long, value_name = "FILE", value_parser = Token::read)]
    token_file: Option<Token>,
    /// How many sessions to hold, 1 to 10000; those granted are held even if others are refused
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Print each event as a line of JSON, {"connection":1,"type":"HELLO","payload":"message from server"}
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print no events, only errors; not with --json
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { command, holding }: Arguments) -> Result<Verdict> {
    let interrupts = interrupts().context("cannot catch Ctrl-C and SIGTERM")?;
    let (mut out, mut err) = (io::stdout(), io::stderr());
    if let Some(Command::Bench(settings)) = command {
        return Ok(bench::run(&settings, interrupts, &mut out, &mut err)?);
    }
    let Holding { url, ca, user, token_file, connections, json, quiet } = holding;
    let login = login(user, token_file).unwrap_or_else(|mistake| mistake.exit());
    let options = Options { trust: ca.unwrap_or_default(), ..Options::default() };
    let told = if json { Format::Json } else { Format::Words };
    let format = if quiet { Format::Quiet } else { told };
    let plan = Plan { url, login, connections, options };
    let printer = Printer::new(format, &mut out, &mut err);
    smol::block_on(hold(&plan, printer, interrupts)).context("cannot write to standard output")
}

/// A token in the environment is no option to clap, so that none can be on the command line, which everybody sees.
fn login(user: Option<UserId>, token_file: Option<Token>) -> Result<Login, clap::Error> {
    let mistake = |kind, words| Arguments::command().error(kind, words);
    let (token, place) = match token_file {
        Some(token) => (Some(token), "--token-file"),
        None => (
            Token::in_environment().map_err(|error| mistake(ErrorKind::InvalidValue, error.to_string()))?,
            Token::VARIABLE,
        ),
    };
    match (user, token) {
        (Some(_), Some(_)) => {
            let words = format!("give a user (--user or SESSIONS_USER) or a token, not both; {place} has a token");
            Err(mistake(ErrorKind::ArgumentConflict, words))
        }
        (None, Some(token)) => Ok(Login::Token(token)),
        (Some(user), None) => Ok(Login::User(user.as_str().into())),
        (None, None) => Ok(Login::User("testuser".into())),
    }
}
