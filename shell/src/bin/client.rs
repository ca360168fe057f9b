//! Holds sessions of one user against a server, and prints what happens to them; or measures a server.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, value_parser};
use session_core::{Ask, Evict, Name, SessionId, UserId};
use shell::client::{
    Format, Login, Options, Plan, Printer, Token, Trust, Url, Verdict, bench, hold, interrupts, manage,
};

const AFTER_HELP: &str = "\
At a terminal, whoever is refused sees who holds the slots, and is asked whom to end if the server
lets clients choose.\n
With --json each event is a line: {\"connection\":1,\"type\":\"HELLO\",\"payload\":\"message from server\"}\n
A token can also be given in the environment variable SESSIONS_TOKEN. It is never printed.\n
Ctrl-C or SIGTERM says BYE on every session and waits for the answer; the second one ends at once.\n
Exit codes, the highest that applies:
  0  ended by Ctrl-C, SIGTERM or a closed pipe, and no session was refused or lost
  1  the output cannot be written, or signals cannot be caught
  2  wrong usage, or a file of certificates or a token that is none
  3  a session was refused because the user has reached the connection limit, or the device its own
  4  a session was lost: the server cannot be reached or trusted, does not answer within 10
     seconds, closed the connection or refused for another reason; or the file of --resume is no
     good; or a second Ctrl-C did not wait for its BYE
  5  a session was ended by another session of the user or by the operator (4409), or goes on on
     another connection (4410)";

const MANAGE_HELP: &str = "\
To ask, the client signs in and takes a slot of the user for a moment, if one is free. If all are taken it is refused, and
told who is there; nobody is ended for it.

Exit codes: 0 done, 1 the output cannot be written, 2 wrong usage, 3 refused because the user has reached the connection
limit, 4 not done.";

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
    /// Says who holds the user's slots
    #[command(after_help = MANAGE_HELP)]
    Sessions(Who),
    /// Ends another session of the user; where all slots are taken, if the server lets clients choose whom to end, and by
    /// taking its place, after those that only linger and, where devices are counted, with the others of its device
    #[command(after_help = MANAGE_HELP)]
    End {
        /// Which, 32 hexadecimal digits as `client sessions` shows them
        #[arg(value_parser = session)]
        session: SessionId,
        #[command(flatten)]
        who: Who,
    },
    /// Measures a server of your own: how many sign-ins a second it bears, and how long they take
    #[command(after_help = bench::AFTER_HELP)]
    Bench(bench::Settings),
}

/// Whose sessions, and where.
#[derive(Args)]
struct Who {
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
    #[arg(long, value_name = "FILE", value_parser = TokenFile::read)]
    token_file: Option<TokenFile>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Holding {
    #[command(flatten)]
    who: Who,
    /// Which device this is, 1 to 64 bytes without control characters: a server may count devices
    #[arg(long, value_name = "NAME", value_parser = name)]
    device: Option<Name>,
    /// What the sessions call themselves where the user's sessions are listed, as --device
    #[arg(long, value_name = "NAME", value_parser = name)]
    label: Option<Name>,
    /// Whom to end if the limit is reached: oldest, or the ids of sessions with commas between, if the server allows it; or
    /// nobody, also where the newest takes the place of the oldest
    #[arg(long, value_name = "oldest|nobody|ID,ID…", value_parser = evict)]
    evict: Option<Evict>,
    /// Take up the session whose token is in this file, if one is, and keep the token there; with several, in FILE.1 and on
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Come back by itself when the server or the connection fails, with the session's own slot if the server keeps it
    #[arg(long)]
    reconnect: bool,
    /// How many sessions to hold, 1 to 10000; those granted are held even if others are refused
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Print no events, only errors; not with --json
    #[arg(long, conflicts_with = "json")]
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

/// A token, and the file it is from.
#[derive(Clone)]
struct TokenFile(Token, String);

impl TokenFile {
    fn read(file: &str) -> Result<Self, shell::client::Error> {
        Token::read(file).map(|token| Self(token, file.into()))
    }
}

impl Who {
    /// Where, who, and from which file that is known.
    fn known(self) -> (Url, Login, Options, Option<String>) {
        let Self { url, ca, user, token_file, json: _ } = self;
        let file = token_file.as_ref().map(|TokenFile(_, file)| file.clone());
        let login = login(user, token_file).unwrap_or_else(|mistake| mistake.exit());
        (url, login, Options { trust: ca.unwrap_or_default(), ..Options::default() }, file)
    }
}

fn run(Arguments { command, holding }: Arguments) -> Result<Verdict> {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    match command {
        Some(Command::Bench(settings)) => {
            let interrupts = interrupts().context("cannot catch Ctrl-C and SIGTERM")?;
            return Ok(bench::run(&settings, interrupts, &mut out, &mut err)?);
        }
        Some(Command::Sessions(who)) => {
            let json = who.json;
            let (url, login, options, _) = who.known();
            let sessions = smol::block_on(manage::sessions(&url, &login, &options));
            return Ok(manage::print(sessions.map(Some), json, &mut out, &mut err)?);
        }
        Some(Command::End { session, who }) => {
            let json = who.json;
            let (url, login, options, _) = who.known();
            let ended = smol::block_on(manage::end(&url, &login, &options, session));
            return Ok(manage::print(ended.map(|()| None), json, &mut out, &mut err)?);
        }
        None => {}
    }
    let interrupts = interrupts().context("cannot catch Ctrl-C and SIGTERM")?;
    let Holding { who, connections, quiet, device, label, evict, resume, reconnect } = holding;
    let json = who.json;
    let (url, login, options, token_file) = who.known();
    let told = if json { Format::Json } else { Format::Words };
    let format = if quiet { Format::Quiet } else { told };
    let picks = format == Format::Words && connections == 1 && io::stdin().is_terminal() && out.is_terminal();
    let ask = Ask { device, label, resume: None, evict };
    let ask = (ask != Ask::default()).then_some(ask);
    let plan = Plan { ask, resume, reconnect, token_file, picks, connections, options, ..Plan::new(url, login) };
    let printer = Printer::new(format, &mut out, &mut err);
    smol::block_on(hold(&plan, printer, interrupts)).context("cannot write to standard output")
}

fn session(text: &str) -> Result<SessionId, &'static str> {
    SessionId::parse(text).ok_or("it must be 32 hexadecimal digits")
}

fn name(text: &str) -> Result<Name, &'static str> {
    Name::parse(text).ok_or("it must be 1 to 64 bytes without control characters")
}

fn evict(text: &str) -> Result<Evict, &'static str> {
    match text {
        "oldest" => return Ok(Evict::Oldest),
        "nobody" => return Ok(Evict::Nobody),
        _ => {}
    }
    let ids: Option<Box<[_]>> = text.split(',').map(SessionId::parse).collect();
    let ids = ids.filter(|ids| ids.len() <= Evict::MOST);
    ids.map(Evict::These).ok_or("write oldest, nobody, or 1 to 100 ids of 32 hexadecimal digits with commas between")
}

/// A token in the environment is no option to clap, so that none can be on the command line, which everybody sees.
fn login(user: Option<UserId>, token_file: Option<TokenFile>) -> Result<Login, clap::Error> {
    let mistake = |kind, words| Arguments::command().error(kind, words);
    let (token, place) = match token_file {
        Some(TokenFile(token, _)) => (Some(token), "--token-file"),
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
