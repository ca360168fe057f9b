//! The server's command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, Args, CommandFactory as _, Parser, Subcommand};

use super::nodes_command::{self, NodesArguments};
use super::status_command::{self, StatusArguments};
use super::token_command;
use super::user_command::{self, EndArguments, LimitArguments, UserArguments, UserCommand};
use super::users_command::{self, UsersArguments};
use crate::config::error::{ConfigErrors, ConfigSource};
use crate::config::flags::{DataDirFlags, Flags};
use crate::config::loader::{ConfigLoader, Loaded};
use crate::config::{Config, print};
use crate::runtime::command_line;

/// Limits how many live sessions one user may hold, over WebSockets.
///
/// A client opens a WebSocket at `/` and authenticates. The open socket is its session. Every option can also be set by
/// the environment variable that its help names, or in a file. A flag overrides the variable, and the variable overrides
/// the file. Write times as in 10s, 500ms or 2m.
#[derive(Debug, Parser)]
#[command(name = "server", version, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
SIGINT (Ctrl-C) or SIGTERM ends every session, closes the store and exits within 10 seconds. A second one exits at \
once.

SIGHUP reloads the configuration, keys and certificates. The log says what changed, and what needs a restart.

Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong usage or configuration, certificates and keys included, 70 a part of the server has failed, 130 stopped by a second signal. The help of each command lists those of the command.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the configuration in force, with the source of each value: option, environment or file
    #[command(after_help = CONFIG_HELP, mut_args(|arg| show_only(arg, &[])))]
    Config(ConfigArguments),
    /// Reports every error in a configuration file, and in the certificate, keys and secrets that it names. Options and
    /// environment do not count
    #[command(after_help = "Exit codes: 0 the file is valid, 1 it is not or cannot be read, 2 wrong usage.")]
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Makes a token for development, signed with the keys of this configuration, and prints it
    #[command(after_help = TOKEN_HELP, mut_args(|arg| show_only(arg, &["jwt_"])))]
    Token(token_command::TokenArgs),
    /// Shows what is in a token, whether a server with this configuration accepts it, and if not why
    #[command(
        after_help = CHECK_TOKEN_HELP,
        mut_args(|arg| show_only(arg, &["auth", "user_id_form", "jwt_", "max_message_bytes"]))
    )]
    CheckToken(token_command::CheckTokenArgs),
    /// Shows how the server and its store are doing: sessions, users, connections, files, room, settings that need a restart
    #[command(after_help = STATUS_HELP)]
    Status(DataDirArguments<StatusArguments>),
    /// Shows the servers that share the store, and which settings differ between them; `bury` declares one of them dead
    #[command(after_help = NODES_HELP)]
    Nodes(DataDirArguments<NodesArguments>),
    /// Lists the users that the server knows, or has overrides for, in the order of their ids
    #[command(after_help = USERS_HELP)]
    Users(DataDirArguments<UsersArguments>),
    /// Shows a user's limit, or overrides it for this user
    #[command(after_help = LIMIT_HELP)]
    Limit(DataDirArguments<LimitArguments>),
    /// Shows the sessions that hold a user's slots, since when and from where, and what the next session would get
    #[command(after_help = EXPLAIN_HELP)]
    Explain(DataDirArguments<UserArguments>),
    /// Ends a user's sessions. The server tells their clients and closes them
    #[command(after_help = ORDER_HELP)]
    End(DataDirArguments<EndArguments>),
    /// Deletes a user without slots from the store: the per-user override, and when the server saw the user
    #[command(after_help = ORDER_HELP)]
    Forget(DataDirArguments<UserArguments>),
}

/// Hides the options of the server but these; a name that ends with `_` stands for all that begin with it. The command takes
/// them all the same, so that it can be given the server's own command line.
fn show_only(arg: Arg, shown: &[&str]) -> Arg {
    let is_shown = |name: &str| {
        shown.iter().any(|shown| if shown.ends_with('_') { name.starts_with(shown) } else { name == *shown })
    };
    let is_hidden = Config::keys().iter().any(|key| key.name == arg.get_id().as_str() && !is_shown(key.name));
    arg.hide(is_hidden)
}

const CONFIG_HELP: &str = "\
The command takes every option of the server; `server --help` lists them.

Exit codes: 0 printed, 1 the output cannot be written, 2 wrong usage or configuration.";

const TOKEN_HELP: &str = "\
The command also takes every other option of the server; `server --help` lists them.

Exit codes: 0 printed, 1 it cannot be signed, 2 wrong usage or configuration.";

const CHECK_TOKEN_HELP: &str = "\
The command also takes every other option of the server; `server --help` lists them.

Exit codes: 0 accepted, 1 it cannot be checked, 2 wrong usage or configuration, 3 refused.";

const LIMIT_HELP: &str = "\
The command asks the server that runs on the data directory, over the socket operator.sock in it. If no server runs, \
the command opens the store itself.

Exit codes: 0 done, or the question is answered, 1 not done, or not known to be done, 2 wrong usage or configuration, \
6 nothing to do: nothing was changed, and with --dry-run nothing would be.";

const ORDER_HELP: &str = "\
The command asks the server that runs on the data directory, over the socket operator.sock in it. If no server runs, \
the command opens the store itself.

Exit codes: 0 done, 1 not done, or not known to be done, 2 wrong usage or configuration, 6 nothing to do.";

const EXPLAIN_HELP: &str = "\
The command asks the server that runs on the data directory, over the socket operator.sock in it. If no server runs, \
the command opens the store itself.

Exit codes: 0 answered, also for a user whom the server does not know, 1 not answered, 2 wrong usage or configuration.";

const STATUS_HELP: &str = "\
The command asks the server that runs on the data directory, over the socket operator.sock in it. If no server runs, \
the command opens the store itself, and shows what is in it.

Exit codes: 0 a server runs, 1 the status cannot be read, 2 wrong usage or configuration, 7 no server runs.";

const NODES_HELP: &str = "\
The command asks the server that runs on the data directory, over the socket operator.sock in it. Any server that shares \
the store knows all of them.

Exit codes: 0 answered, 1 not answered, 2 wrong usage or configuration. `server nodes bury --help` lists those of the \
order.";

const USERS_HELP: &str = "\
The command asks the server that runs on the data directory, over the socket operator.sock in it. If no server runs, \
the command opens the store itself.

Exit codes: 0 listed, 1 they cannot be read, 2 wrong usage or configuration.";

/// The arguments of an operator's command, and the flags that select the data directory.
#[derive(Debug, Args)]
struct DataDirArguments<A: Args> {
    #[command(flatten)]
    arguments: A,
    #[command(flatten)]
    flags: DataDirFlags,
}

#[derive(Debug, Args)]
struct ConfigArguments {
    /// Print a file to start from, with every key at its default, commented out
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    flags: Flags,
}

/// What the process does after the command line is parsed.
#[derive(Debug)]
pub enum Action {
    /// Run a server with this configuration. The loader can load it again.
    Serve(ConfigLoader, Box<Loaded>),
    /// Exit with this code.
    Exit(u8),
}

impl Arguments {
    /// Parses a command line, with the program's name first.
    ///
    /// # Errors
    /// What clap says, also about `--help` and `--version`.
    pub fn from_command_line(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, clap::Error> {
        command_line::parse(arguments)
    }

    /// Runs the command, except the server itself. Writes errors to `err`.
    pub fn run(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> Action {
        let Self { flags, command } = self;
        let general_flags = flags.names();
        let loader = |own_flags: Flags| ConfigLoader::new(flags.merge(own_flags), environment);
        let written = match command {
            None => {
                let loader = loader(Flags::default());
                match loader.load_for_server().map_err(|errors| print_errors(&errors, err)) {
                    Ok(loaded) => return Action::Serve(loader, Box::new(loaded)),
                    Err(written) => written.map(|()| 2),
                }
            }
            Some(Command::Config(ConfigArguments { default: true, .. })) => {
                write!(out, "{}", print::defaults()).map(|()| 0)
            }
            Some(Command::Config(arguments)) => with_config(&loader(arguments.flags), out, err, print_effective),
            Some(Command::CheckConfig { file }) => check_config(&general_flags, &file, out, err),
            Some(Command::Token(mut arguments)) => {
                let loader = loader(mem::take(&mut arguments.flags));
                with_config(&loader, out, err, |loaded, out, err| {
                    print_result(arguments.make_token(&loader, loaded), out, err)
                })
            }
            Some(Command::CheckToken(mut arguments)) => {
                let loader = loader(mem::take(&mut arguments.flags));
                with_config(&loader, out, err, |loaded, out, err| {
                    let result = arguments.check_token(&loader, loaded, err);
                    print_result(result, out, err)
                })
            }
            Some(Command::Status(DataDirArguments { arguments, flags: DataDirFlags(flags) })) => {
                with_config(&loader(flags), out, err, |loaded, out, err| {
                    status_command::run(&arguments, &loaded.config, out, err)
                })
            }
            Some(Command::Nodes(DataDirArguments { mut arguments, flags: DataDirFlags(flags) })) => {
                let flags = flags.merge(arguments.take_flags());
                with_config(&loader(flags), out, err, |loaded, out, err| {
                    nodes_command::run(&arguments, &loaded.config, out, err)
                })
            }
            Some(Command::Users(DataDirArguments { arguments, flags: DataDirFlags(flags) })) => {
                with_config(&loader(flags), out, err, |loaded, out, err| {
                    users_command::run(arguments, &loaded.config, out, err)
                })
            }
            Some(Command::Limit(DataDirArguments { arguments, flags: DataDirFlags(flags) })) => {
                run_user_command(&arguments.into_command(), &loader(flags), out, err)
            }
            Some(Command::Explain(DataDirArguments { arguments, flags: DataDirFlags(flags) })) => {
                run_user_command(&arguments.explain(), &loader(flags), out, err)
            }
            Some(Command::End(DataDirArguments { arguments, flags: DataDirFlags(flags) })) => {
                run_user_command(&arguments.into_command(), &loader(flags), out, err)
            }
            Some(Command::Forget(DataDirArguments { arguments, flags: DataDirFlags(flags) })) => {
                run_user_command(&arguments.forget(), &loader(flags), out, err)
            }
        };
        Action::Exit(written.unwrap_or(1))
    }
}

/// Loads the configuration, or writes its errors to `err`.
fn load(loader: &ConfigLoader, err: &mut impl Write) -> Result<Loaded, io::Result<()>> {
    loader.load().map_err(|errors| print_errors(&errors, err))
}

fn print_errors(errors: &ConfigErrors, err: &mut impl Write) -> io::Result<()> {
    writeln!(err, "error: the configuration is invalid\n{errors}")
}

/// Calls `act` with the loaded configuration. Returns the exit code.
fn with_config<O: Write, E: Write>(
    loader: &ConfigLoader,
    out: &mut O,
    err: &mut E,
    act: impl FnOnce(&Loaded, &mut O, &mut E) -> io::Result<u8>,
) -> io::Result<u8> {
    match load(loader, err) {
        Ok(loaded) => act(&loaded, out, err),
        Err(written) => written.map(|()| 2),
    }
}

/// Prints a command's text and returns its exit code; or prints the error and returns 1.
fn print_result(result: Result<(String, u8), String>, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    match result {
        Ok((text, code)) => writeln!(out, "{text}").map(|()| code),
        Err(error) => writeln!(err, "error: {error}").map(|()| 1),
    }
}

fn run_user_command(
    command: &UserCommand,
    loader: &ConfigLoader,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    with_config(loader, out, err, |loaded, out, err| user_command::run(command, &loaded.config, out, err))
}

fn print_effective(loaded: &Loaded, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    write!(out, "{}", print::effective(loaded)).map(|()| 0)
}

fn check_config(general_flags: &[String], file: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    if let [flag, ..] = general_flags {
        let message = format!("check-config checks the file alone, {flag} cannot be given with it");
        write!(err, "{}", Arguments::command().error(ErrorKind::ArgumentConflict, message))?;
        return Ok(2);
    }
    let loaded = match ConfigLoader::from_file(file).load_for_other_server() {
        Ok(loaded) => loaded,
        Err(errors) => return writeln!(err, "{errors}").map(|()| 1),
    };
    let set = loaded.settings.iter().filter(|setting| setting.source != ConfigSource::Default).count();
    let all = loaded.settings.len();
    writeln!(out, "{} is valid: it sets {set} of {all} keys, the others keep their defaults", file.display())
        .map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::help_text::tests::assert_help_is_wrapped_once;

    /// The exit code, unless the command serves, and both outputs.
    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<u8>, String, String) {
        let arguments = Arguments::from_command_line(["server"].iter().chain(arguments)).unwrap();
        let environment = variables.iter().map(|&(name, value)| (name.into(), value.into()));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = match arguments.run(environment, &mut out, &mut err) {
            Action::Serve(..) => None,
            Action::Exit(code) => Some(code),
        };
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    #[test]
    fn clap_accepts_the_command_line() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_is_wrapped_once() {
        assert_help_is_wrapped_once(&Arguments::command());
    }

    #[test]
    fn help_of_a_command_shows_only_options_that_it_uses() {
        let help = |command: &str| {
            let error = Arguments::from_command_line(["server", command, "--help"]).unwrap_err();
            error.to_string()
        };
        for (command, shown, hidden) in [
            ("config", &["--default", "--config"][..], &["--limit", "--data", "--jwt-algorithm"][..]),
            ("token", &["--user", "--ttl", "--jwt-algorithm", "--config"], &["--limit", "--data", "--tls-cert"]),
            (
                "check-token",
                &["--jwt-audience", "--max-message-bytes", "--auth", "--user-id-form"],
                &["--data", "--auth-timeout "],
            ),
            ("explain", &["--json", "--data", "--config"], &["--limit", "--listen"]),
        ] {
            let help = help(command);
            let has = |flag: &str| help.lines().any(|line| line.trim_start().starts_with(flag));
            assert!(shown.iter().all(|flag| has(flag)), "{help}");
            assert!(!hidden.iter().any(|flag| has(flag)), "{help}");
        }
        let (code, out, _) = run(&["config", "--limit", "7"], &[]);
        assert!(code == Some(0) && out.contains("limit = 7  # --limit"), "a hidden option is taken: {out}");
    }

    #[test]
    fn help_of_a_command_lists_only_exit_codes_that_it_has() {
        for (command, has_nothing_to_do, has_dry_run) in
            [("limit", true, true), ("end", true, false), ("forget", true, false), ("explain", false, false)]
        {
            let help = Arguments::from_command_line(["server", command, "--help"]).unwrap_err().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(
                (help.contains("6 nothing to do"), help.contains("--dry-run")),
                (has_nothing_to_do, has_dry_run),
                "{help}"
            );
        }
    }

    #[test]
    fn json_may_stand_before_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        for arguments in [["--json", "--data", data, "explain", "ada"], ["explain", "--data", data, "ada", "--json"]] {
            let (code, out, err) = run(&arguments, &[]);
            assert_eq!((code, &*out), (Some(1), ""));
            assert!(err.contains("there is no server data in"), "{err}");
        }
        let error = Arguments::from_command_line(["server", "--json"]).unwrap_err();
        assert!(error.to_string().contains("unexpected argument '--json'"), "{error}");
    }

    #[test]
    fn server_without_command_needs_a_valid_configuration() {
        assert_eq!(run(&["--limit", "5"], &[("SESSIONS_LIMITS", "5")]), (None, String::new(), String::new()));
        let (code, out, err) = run(&[], &[("SESSIONS_LIMIT", "1025"), ("SESSIONS_THREADS", "0")]);
        assert_eq!((code, &*out), (Some(2), ""));
        assert!(
            err.starts_with("error: ") && err.contains("SESSIONS_LIMIT:") && err.contains("SESSIONS_THREADS:"),
            "{err}"
        );
    }

    #[test]
    fn config_takes_options_before_and_after_it() {
        let (code, out, err) = run(&["--limit", "4", "--threads", "7", "config", "--limit", "5"], &[]);
        assert_eq!((code, &*err), (Some(0), ""));
        assert!(out.contains("\nlimit = 5  # --limit\n") && out.contains("\nthreads = 7  # --threads\n"), "{out}");
        let (code, out, err) = run(&["config"], &[("SESSIONS_LIMITS", "5")]);
        assert_eq!(code, Some(0));
        assert!(
            out.contains("\nlimit = 3  # default\n") && err.starts_with("warning: SESSIONS_LIMITS: "),
            "{out}{err}"
        );
        let (code, out, err) = run(&["config"], &[("SESSIONS_LIMIT", "1025")]);
        assert_eq!((code, &*out), (Some(2), ""));
        assert!(err.contains("SESSIONS_LIMIT: "), "{err}");
    }

    #[test]
    fn config_default_ignores_every_source() {
        let (code, out, err) = run(&["config", "--default"], &[("SESSIONS_LIMIT", "1025")]);
        assert_eq!((code, &*out, &*err), (Some(0), &*print::defaults(), ""));
    }

    #[test]
    fn check_config_checks_the_file_alone() {
        let (_directory, good) = file("limit = 5\nthreads = 2");
        let (code, out, err) = run(&["check-config", &good], &[("SESSIONS_LIMIT", "1025")]);
        assert_eq!((code, &*err), (Some(0), ""));
        assert!(out.starts_with(&format!("{good} is valid: it sets 2 of ")), "{out}");

        let (_directory, bad) = file("limit = 1025\nthreads = 0");
        let (code, out, err) = run(&["check-config", &bad], &[]);
        assert_eq!((code, &*out), (Some(1), ""));
        assert!(err.contains(":1:1: limit: ") && err.contains(":2:1: threads: "), "{err}");
        let (code, _, err) = run(&["check-config", "missing.toml"], &[]);
        assert_eq!(code, Some(1));
        assert!(err.contains("missing.toml: it cannot be read"), "{err}");

        let (code, out, err) = run(&["--limit", "5", "check-config", &good], &[]);
        assert_eq!((code, &*out), (Some(2), ""));
        assert!(err.contains("--limit cannot be given with it"), "{err}");
    }

    #[test]
    fn flag_switches_off_what_a_weaker_source_switches_on() {
        let (_directory, path) = file("proxy_protocol = true\nclient_choice = true");
        let arguments = ["--config", &path, "config", "--default=false", "--proxy-protocol=false"];
        let (code, out, err) = run(&arguments, &[("SESSIONS_ALLOW_OPEN_AUTH", "true")]);
        assert_eq!((code, &*err), (Some(0), ""));
        for line in ["proxy_protocol = false  # --proxy-protocol", "allow_open_auth = true  # SESSIONS_ALLOW_OPEN_AUTH"]
        {
            assert!(out.contains(line), "{line}\n{out}");
        }
        let error = Arguments::from_command_line(["server", "--allow-open-auth", "true"]).unwrap_err();
        assert!(error.to_string().contains("tip: write '--allow-open-auth=true'"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn unwritable_output_is_a_failure() {
        let arguments = Arguments::try_parse_from(["server", "config"]).unwrap();
        let mut full = &mut [0_u8; 0][..];
        assert!(matches!(arguments.run([], &mut full, &mut Vec::new()), Action::Exit(1)));
    }
}
