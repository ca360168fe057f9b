//! The command line of the `client` binary: parses it and runs what it asks for.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, value_parser};
use session_core::ledger::Evict;
use session_core::protocol::AuthenticateOptions;
use session_core::{DisplayName, SessionId, UserId};

use super::run::{Format, Printer, RunOptions, run, sessions_command};
use super::{Credentials, Error, ExitReason, Options, RootCertificates, Token, Url, bench, interrupts};
use crate::runtime::command_line;
use crate::runtime::duration::duration_within;

const AFTER_HELP: &str = "\
At a terminal, a client that is denied a slot shows who holds the slots. If the server lets clients choose, it asks \
which sessions to end.\n
With --json each event is a line: {\"connection\":1,\"type\":\"HELLO\",\"payload\":\"message from server\"}\n
A token can also be given in the environment variable SESSIONS_TOKEN. It is never printed.\n
Ctrl-C or SIGTERM sends BYE on every session and waits for the answers. The second one ends the client at once.\n
Exit codes. With several sessions the highest counts:
  0  ended by Ctrl-C, SIGTERM or a closed pipe, and no session was denied, refused or lost
  1  the output cannot be written, or signals cannot be caught
  2  wrong usage, or a bad token or certificate file
  3  a session was denied a slot: the user, or the device, has reached the connection limit; with --wait, still so at the \
end of the wait
  4  a session was lost: the server cannot be reached or trusted, does not answer within 10 seconds, closed the connection \
or refused for another reason; or the file of --resume is bad; or a second Ctrl-C did not wait for the answer to BYE
  5  another session of the user or the operator ended a session (4409), or a session continues on another connection \
(4410), or two clients resume the same session (4411)";

const SESSIONS_AFTER_HELP: &str = "\
The client signs in for a moment, which takes a slot of the user if one is free. If none is free, the server denies \
the client a slot and tells it who holds the slots. Signing in ends no session.

Exit codes: 0 done, 1 the output cannot be written, 2 wrong usage, 3 denied a slot because the user, or the device, \
has reached the connection limit, 4 not done.";

/// Holds sessions of one user until Ctrl-C, and prints each event as it arrives
#[derive(Debug, Parser)]
#[command(name = "client", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    hold: HoldArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the sessions that hold the user's slots
    #[command(after_help = SESSIONS_AFTER_HELP)]
    Sessions(ServerArguments),
    /// Ends another session of this user. The command signs in for a moment, so it needs a slot. If none is free, the
    /// server must allow `client_choice`; it then frees lingering slots first. With `count = devices`, all sessions of that
    /// device end
    #[command(after_help = SESSIONS_AFTER_HELP)]
    End {
        /// The session's id, 32 hexadecimal digits as `client sessions` shows them
        #[arg(value_parser = parse_session_id)]
        session: SessionId,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Measures a server of your own: how many sign-ins a second it bears, and how long they take
    #[command(after_help = bench::AFTER_HELP)]
    Bench(bench::Settings),
}

/// The server, and who signs in.
#[derive(Debug, Args)]
struct ServerArguments {
    /// The server, a ws:// or wss:// URL
    #[arg(long, env = "SESSIONS_URL", default_value = "ws://localhost:3000")]
    url: Url,
    /// For wss://, a PEM file with the certificates to trust instead of the system's
    #[arg(long, value_name = "FILE", env = "SESSIONS_CA", value_parser = |file: &str| RootCertificates::read(file))]
    ca: Option<RootCertificates>,
    /// The user to authenticate as, 1 to 256 bytes without control characters [default: testuser]
    #[arg(long, env = "SESSIONS_USER", value_parser = UserId::parse)]
    user: Option<UserId>,
    /// A file with a JSON Web Token to authenticate with instead of a user id, - for standard input; not with --user
    #[arg(long, value_name = "FILE", value_parser = TokenFile::read)]
    token_file: Option<TokenFile>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct HoldArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// The name of this device, 1 to 64 characters without control characters. A server may limit sessions per device
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    device: Option<DisplayName>,
    /// A name for the sessions, shown in lists of the user's sessions; bounds as for --device
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    label: Option<DisplayName>,
    /// Which sessions to end if the limit is reached and the server lets clients choose: oldest, or session ids with commas
    /// between. With nobody the server ends none, even if the newest session would replace the oldest
    #[arg(long, value_name = "oldest|nobody|ID,ID…", value_parser = parse_evict)]
    evict: Option<Evict>,
    /// Wait in line for up to this long if no slot is free, 100ms to 1h. Then the client is denied a slot as without --wait.
    /// Ctrl-C leaves the line
    #[arg(long, value_name = "TIME", value_parser = parse_wait)]
    wait: Option<Duration>,
    /// Print the sessions of the user once the client has a slot, and after each change, at most once a second
    #[arg(long)]
    watch: bool,
    /// Resume the session whose token is in this file, if it has one, and keep the token there. Several connections use
    /// FILE.1, FILE.2 and so on
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Reconnect when the server or the connection fails, and resume the session if the server has kept its slot
    #[arg(long)]
    reconnect: bool,
    /// How many sessions to hold, 1 to 10000. Granted sessions are held even if others are denied
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Print no events, only errors; not with --json
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

/// A token, and the file that had it.
#[derive(Debug, Clone)]
struct TokenFile {
    token: Token,
    path: String,
}

impl TokenFile {
    fn read(path: &str) -> Result<Self, Error> {
        Token::read(path).map(|token| Self { token, path: path.into() })
    }
}

/// What every command but `bench` needs to sign in.
struct SignIn {
    url: Url,
    credentials: Credentials,
    options: Options,
    token_file: Option<String>,
}

impl ServerArguments {
    /// Exits the process if both a user and a token are given, or if SESSIONS_TOKEN has a bad token.
    fn into_sign_in(self) -> SignIn {
        let Self { url, ca, user, token_file, json: _ } = self;
        let path = token_file.as_ref().map(|file| file.path.clone());
        let credentials = choose_credentials(user, token_file).unwrap_or_else(|usage_error| usage_error.exit());
        let options = Options { root_certificates: ca.unwrap_or_default(), ..Options::default() };
        SignIn { url, credentials, options, token_file: path }
    }
}

impl Arguments {
    /// Parses a command line, with the program's name first.
    ///
    /// # Errors
    /// What clap says, also about `--help` and `--version`.
    pub fn from_command_line(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, clap::Error> {
        command_line::parse(arguments)
    }

    /// Runs the command until it ends. Prints to `out`, and errors to `err`.
    ///
    /// # Errors
    /// When `out` cannot be written, signals cannot be caught, or `bench` has too few open files.
    pub fn run(self, out: &mut (impl Write + IsTerminal), err: &mut impl Write) -> Result<ExitReason> {
        match self.command {
            Some(Command::Bench(settings)) => Ok(bench::run(&settings, catch_interrupts()?, out, err)?),
            Some(Command::Sessions(server)) => {
                let json = server.json;
                let SignIn { url, credentials, options, .. } = server.into_sign_in();
                let sessions = smol::block_on(sessions_command::sessions(&url, &credentials, &options));
                Ok(sessions_command::print(sessions.map(Some), json, out, err)?)
            }
            Some(Command::End { session, server }) => {
                let json = server.json;
                let SignIn { url, credentials, options, .. } = server.into_sign_in();
                let ended = smol::block_on(sessions_command::end(&url, &credentials, &options, session));
                Ok(sessions_command::print(ended.map(|()| None), json, out, err)?)
            }
            None => self.hold.run(out, err),
        }
    }
}

impl HoldArguments {
    fn run(self, out: &mut (impl Write + IsTerminal), err: &mut impl Write) -> Result<ExitReason> {
        let interrupts = catch_interrupts()?;
        let Self { server, connections, quiet, device, label, evict, wait, watch, resume, reconnect } = self;
        let format = match (quiet, server.json) {
            (true, _) => Format::Quiet,
            (false, true) => Format::Json,
            (false, false) => Format::Text,
        };
        let SignIn { url, credentials, options, token_file } = server.into_sign_in();
        let is_interactive =
            format == Format::Text && connections == 1 && io::stdin().is_terminal() && out.is_terminal();
        let authenticate_options = AuthenticateOptions { device, label, evict, wait, ..AuthenticateOptions::default() };
        let authenticate_options =
            (authenticate_options != AuthenticateOptions::default()).then_some(authenticate_options);
        let run_options = RunOptions {
            authenticate_options,
            resume,
            reconnect,
            token_file,
            is_interactive,
            watch,
            connections,
            options,
            ..RunOptions::new(url, credentials)
        };
        let printer = Printer::new(format, out, err);
        smol::block_on(run(&run_options, printer, interrupts)).context("cannot write to standard output")
    }
}

fn catch_interrupts() -> Result<impl futures_util::Stream<Item = ()> + Send> {
    interrupts().context("cannot catch Ctrl-C and SIGTERM")
}

fn parse_session_id(text: &str) -> Result<SessionId, &'static str> {
    SessionId::parse(text).ok_or("it must be 32 hexadecimal digits")
}

fn parse_name(text: &str) -> Result<DisplayName, &'static str> {
    DisplayName::parse(text).ok_or("it must be 1 to 64 characters without control characters")
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(100), AuthenticateOptions::MAX_WAIT)
}

fn parse_evict(text: &str) -> Result<Evict, &'static str> {
    match text {
        "oldest" => return Ok(Evict::Oldest),
        "nobody" => return Ok(Evict::Nobody),
        _ => {}
    }
    let ids: Option<Box<[_]>> = text.split(',').map(SessionId::parse).collect();
    let ids = ids.filter(|ids| ids.len() <= Evict::MAX);
    ids.map(Evict::Sessions).ok_or("write oldest, nobody, or 1 to 100 ids of 32 hexadecimal digits with commas between")
}

/// SESSIONS_TOKEN is read here and not by clap, so that there is no option for a token: every user of a machine can see the
/// command lines of all processes.
fn choose_credentials(user: Option<UserId>, token_file: Option<TokenFile>) -> Result<Credentials, clap::Error> {
    let usage_error = |kind, message| Arguments::command().error(kind, message);
    let (token, source) = match token_file {
        Some(TokenFile { token, .. }) => (Some(token), "--token-file"),
        None => (
            Token::from_environment().map_err(|error| usage_error(ErrorKind::InvalidValue, error.to_string()))?,
            Token::VARIABLE,
        ),
    };
    match (user, token) {
        (Some(_), Some(_)) => {
            let message = format!("give a user (--user or SESSIONS_USER) or a token, not both; {source} has a token");
            Err(usage_error(ErrorKind::ArgumentConflict, message))
        }
        (None, Some(token)) => Ok(Credentials::Token(token)),
        (Some(user), None) => Ok(Credentials::User(user.as_str().into())),
        (None, None) => Ok(Credentials::User("testuser".into())),
    }
}

#[cfg(test)]
mod tests {
    use session_core::protocol::CloseReason;

    use super::*;
    use crate::runtime::help_text::tests::assert_help_is_wrapped_once;

    #[test]
    fn help_is_wrapped_once() {
        assert_help_is_wrapped_once(&Arguments::command());
    }

    #[test]
    fn exit_code_5_names_its_close_codes() {
        let (_, help) = AFTER_HELP.split_once("\n  5  ").unwrap();
        for reason in CloseReason::ALL {
            assert_eq!(help.contains(&format!("({})", reason.code())), reason.is_slot_lost(), "{reason}");
        }
    }

    #[test]
    fn flags_of_a_command_may_stand_before_it() {
        for arguments in [&["--json", "sessions"][..], &["--url", "ws://localhost:1", "sessions", "--json"]] {
            let arguments = Arguments::from_command_line(["client"].iter().chain(arguments)).unwrap();
            assert!(matches!(arguments.command, Some(Command::Sessions(ServerArguments { json: true, .. }))));
        }
        assert!(Arguments::from_command_line(["client", "--connections", "3", "sessions"]).is_err());
    }
}
