//! The server's command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::token_command;
use super::user_command::{self, EndArguments, LimitArguments, UserArguments, UserCommand};
use crate::config::error::{ConfigError, ConfigSource};
use crate::config::flags::{DataDirFlags, Flags};
use crate::config::loader::{ConfigLoader, Loaded};
use crate::config::{Authentication, print};
use crate::net::tls::TlsError;

/// Limits how many live sessions one user may hold, over WebSockets.
///
/// A client opens a WebSocket at `/` and authenticates; the open socket is its session. Every option can also be set
/// by the environment variable that its help names, or in a file: what is said here counts most, then the environment,
/// then the file. Times are written as in 10s, 500ms or 2m.
#[derive(Debug, Parser)]
#[command(name = "server", version, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
SIGINT (Ctrl-C) and SIGTERM end every session, close the store and exit within 10 seconds; a second one at once.
SIGHUP reads the configuration, keys and certificates again; the log says what has changed, and what needs a restart.

Exit codes: 0 stopped by a signal, 1 cannot start, 2 wrong usage or configuration, 130 stopped by a second signal.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the configuration that these options, the environment and the file make, and what came from where
    #[command(after_help = "Exit codes: 0 printed, 1 the output cannot be written, 2 wrong usage or configuration.")]
    Config(Print),
    /// Says everything that is wrong in a configuration file, which is looked at by itself
    #[command(after_help = "Exit codes: 0 it is good, 1 it is not or cannot be read, 2 wrong usage.")]
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Makes a token for development, signed as this configuration has it, and prints it
    #[command(after_help = "Exit codes: 0 printed, 1 it cannot be signed, 2 wrong usage or configuration.")]
    Token(token_command::TokenArgs),
    /// Says what is in a token and whether a server with this configuration would take it, and why not
    #[command(
        after_help = "Exit codes: 0 it is good, 1 it cannot be checked, 2 wrong usage or configuration, 3 it is refused."
    )]
    CheckToken(token_command::CheckTokenArgs),
    /// Shows a user's limit, or sets it for this user alone
    #[command(after_help = OPERATOR_HELP)]
    Limit(DataDirArguments<LimitArguments>),
    /// Says who holds a user's slots, since when and from where, and what another session would get
    #[command(after_help = OPERATOR_HELP)]
    Explain(DataDirArguments<UserArguments>),
    /// Ends a user's sessions: they are told so, and closed
    #[command(after_help = OPERATOR_HELP)]
    End(DataDirArguments<EndArguments>),
    /// Forgets what is kept of a user who holds no slot: the own limit, and when it was seen
    #[command(after_help = OPERATOR_HELP)]
    Forget(DataDirArguments<UserArguments>),
}

const OPERATOR_HELP: &str = "\
The server that runs on the data directory is asked, over the socket operator.sock in it. Where none runs, the store
itself is.

Exit codes: 0 done, 1 not done, 2 wrong usage or configuration.";

/// What an operator asks for, and where.
#[derive(Debug, Args)]
struct DataDirArguments<A: Args> {
    #[command(flatten)]
    asked: A,
    #[command(flatten)]
    flags: DataDirFlags,
}

#[derive(Debug, Args)]
struct Print {
    /// Print a file with every key at its default, commented out, to begin with
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    flags: Flags,
}

/// What is left to do.
#[derive(Debug)]
pub enum Action {
    /// Run a server with this configuration, whose sources can be read again.
    Serve(ConfigLoader, Box<Loaded>),
    /// End with this exit code.
    Exit(u8),
}

impl Arguments {
    /// Does what was asked for, but for running a server. Says on `err` whatever is wrong.
    pub fn run(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> Action {
        let Self { flags, command } = self;
        let written = match command {
            None => {
                let sources = ConfigLoader::new(flags, environment);
                match load(&sources, err) {
                    Ok(loaded) => return Action::Serve(sources, Box::new(loaded)),
                    Err(written) => written.map(|()| 2),
                }
            }
            Some(Command::Config(Print { default: true, .. })) => write!(out, "{}", print::defaults()).map(|()| 0),
            Some(Command::Config(print)) => {
                print_effective(&ConfigLoader::new(flags.merge(print.flags), environment), out, err)
            }
            Some(Command::CheckConfig { file }) => check(&flags, &file, out, err),
            Some(Command::Token(mut make)) => {
                let sources = ConfigLoader::new(flags.merge(mem::take(&mut make.flags)), environment);
                with(&sources, out, err, |loaded, out, err| make.run(&sources, loaded, out, err))
            }
            Some(Command::CheckToken(mut check)) => {
                let sources = ConfigLoader::new(flags.merge(mem::take(&mut check.flags)), environment);
                with(&sources, out, err, |loaded, out, err| check.run(&sources, loaded, out, err))
            }
            Some(Command::Limit(DataDirArguments { asked, flags: own })) => {
                run_user_command(&asked.into_command(), &ConfigLoader::new(flags.merge(own.0), environment), out, err)
            }
            Some(Command::Explain(DataDirArguments { asked, flags: own })) => {
                run_user_command(&asked.explain(), &ConfigLoader::new(flags.merge(own.0), environment), out, err)
            }
            Some(Command::End(DataDirArguments { asked, flags: own })) => {
                run_user_command(&asked.into_command(), &ConfigLoader::new(flags.merge(own.0), environment), out, err)
            }
            Some(Command::Forget(DataDirArguments { asked, flags: own })) => {
                run_user_command(&asked.forget(), &ConfigLoader::new(flags.merge(own.0), environment), out, err)
            }
        };
        Action::Exit(written.unwrap_or(1))
    }
}

/// Reads the sources, or says what is wrong with them.
fn load(sources: &ConfigLoader, err: &mut impl Write) -> Result<Loaded, io::Result<()>> {
    sources.load().map_err(|problems| writeln!(err, "error: the configuration is wrong\n{problems}"))
}

/// Does something with what the sources say.
fn with<O: Write, E: Write>(
    sources: &ConfigLoader,
    out: &mut O,
    err: &mut E,
    act: impl FnOnce(&Loaded, &mut O, &mut E) -> io::Result<u8>,
) -> io::Result<u8> {
    match load(sources, err) {
        Ok(loaded) => act(&loaded, out, err),
        Err(written) => written.map(|()| 2),
    }
}

fn run_user_command(
    asked: &UserCommand,
    sources: &ConfigLoader,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    with(sources, out, err, |loaded, out, err| user_command::run(asked, &loaded.config, out, err))
}

fn print_effective(sources: &ConfigLoader, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let loaded = match load(sources, err) {
        Ok(loaded) => loaded,
        Err(written) => return written.map(|()| 2),
    };
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    write!(out, "{}", print::effective(&loaded)).map(|()| 0)
}

/// What is wrong with the files that it names. A secret may be in the environment of the server, which is not this one.
fn unusable(loaded: &Loaded) -> Vec<ConfigError> {
    let Loaded { config, settings, .. } = loaded;
    let problem = |key: &str, why: String| {
        let origin = settings.iter().find(|setting| setting.key.name == key).map(|setting| setting.origin.clone());
        ConfigError::for_key(origin.unwrap_or(ConfigSource::Default), key, why)
    };
    let certificate = config.connection_settings().err().map(|error| {
        let key = match error {
            TlsError::Certificate { .. } | TlsError::NoCertificate { .. } => "tls_cert",
            TlsError::Key { .. } | TlsError::Unusable { .. } => "tls_key",
        };
        problem(key, error.to_string())
    });
    let keys = [
        ("jwt_secret_file", &config.jwt_secret_file),
        ("jwt_public_key_file", &config.jwt_public_key_file),
        ("jwt_key_set_file", &config.jwt_key_set_file),
    ];
    let keys = keys.into_iter().find(|(_, file)| file.is_some() && config.auth == Authentication::Jwt);
    let keys = keys.and_then(|(key, _)| config.verifier(None).err().map(|error| problem(key, error.to_string())));
    certificate.into_iter().chain(keys).collect()
}

fn check(flags: &Flags, file: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    if let [flag, ..] = &flags.names()[..] {
        let words = format!("check-config looks at the file by itself, {flag} cannot be given with it");
        write!(err, "{}", Arguments::command().error(ErrorKind::ArgumentConflict, words))?;
        return Ok(2);
    }
    match ConfigLoader::from_file(file).load() {
        Ok(loaded) if !unusable(&loaded).is_empty() => {
            for problem in unusable(&loaded) {
                writeln!(err, "{problem}")?;
            }
            Ok(1)
        }
        Ok(loaded) => {
            let set = loaded.settings.iter().filter(|setting| setting.origin != ConfigSource::Default).count();
            let all = loaded.settings.len();
            writeln!(out, "{} is good: it sets {set} of {all} keys, the others are at their defaults", file.display())?;
            Ok(0)
        }
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exit code, if it ends, and both outputs.
    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<u8>, String, String) {
        let arguments = Arguments::try_parse_from(["server"].iter().chain(arguments)).unwrap();
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
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves_unless_the_configuration_is_wrong() {
        assert_eq!(run(&["--limit", "5"], &[("SESSIONS_LIMITS", "5")]), (None, String::new(), String::new()));
        let (code, out, err) = run(&[], &[("SESSIONS_LIMIT", "1025"), ("SESSIONS_THREADS", "0")]);
        assert_eq!((code, &*out), (Some(2), ""));
        assert!(
            err.starts_with("error: ") && err.contains("SESSIONS_LIMIT:") && err.contains("SESSIONS_THREADS:"),
            "{err}"
        );
    }

    #[test]
    fn config_prints_what_counts_with_options_before_and_after_it() {
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
    fn config_default_prints_the_defaults_whatever_is_set() {
        let (code, out, err) = run(&["config", "--default"], &[("SESSIONS_LIMIT", "1025")]);
        assert_eq!((code, &*out, &*err), (Some(0), &*print::defaults(), ""));
    }

    #[test]
    fn check_config_looks_at_the_file_by_itself() {
        let (_directory, good) = file("limit = 5\nthreads = 2");
        let (code, out, err) = run(&["check-config", &good], &[("SESSIONS_LIMIT", "1025")]);
        assert_eq!((code, &*err), (Some(0), ""));
        assert!(out.starts_with(&format!("{good} is good: it sets 2 of ")), "{out}");

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
    fn output_that_cannot_be_written_is_a_failure() {
        let arguments = Arguments::try_parse_from(["server", "config"]).unwrap();
        let mut full = &mut [0_u8; 0][..];
        assert!(matches!(arguments.run([], &mut full, &mut Vec::new()), Action::Exit(1)));
    }
}
