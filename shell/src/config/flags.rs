//! The flags: one for each key, and `--config`.
//!
//! clap reads the environment only to show it in the help. `environment` reads the values in force, so that all errors
//! are reported at once.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::error::ConfigSource;
use super::key::Key;
use super::layer::KeyValue;
use super::value::{InvalidValue, Shape};
use super::{Config, environment};

/// The flags given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The configuration file, if `--config` names one.
    pub file: Option<PathBuf>,
    /// The keys that flags set.
    pub given: Vec<KeyValue>,
}

impl Flags {
    /// Adds the flags of `other`. They override single values and extend lists.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.file = other.file.or(self.file);
        for setting in other.given {
            match self.given.iter_mut().find(|given| given.key == setting.key) {
                Some(given) if given.key.shape == Shape::List => given.texts.extend(setting.texts),
                Some(given) => *given = setting,
                None => self.given.push(setting),
            }
        }
        self
    }

    /// The names of all given flags, with their hyphens.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let file = self.file.iter().map(|_| "--config".to_owned());
        file.chain(self.given.iter().map(|setting| setting.source.to_string())).collect()
    }
}

/// The flags that select the data directory: `--data` and `--config`.
#[derive(Debug, Clone, Default)]
pub(crate) struct DataDirFlags(pub(crate) Flags);

impl DataDirFlags {
    fn keys() -> impl Iterator<Item = &'static Key> {
        Config::keys().iter().filter(|key| key.name == "data")
    }
}

impl Args for DataDirFlags {
    fn augment_args(command: Command) -> Command {
        command.arg(file()).args(Self::keys().map(|key| argument(key).help_heading(None)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DataDirFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(read(matches, Self::keys())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.arg(file()).args(Config::keys().iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(read(matches, Config::keys().iter()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn file() -> Arg {
    Arg::new("config")
        .long("config")
        .env(environment::FILE)
        .value_name("FILE")
        .value_parser(value_parser!(OsString))
        .help("A configuration file in TOML. `server config --default` prints one to start from")
}

fn read(matches: &ArgMatches, keys: impl Iterator<Item = &'static Key>) -> Flags {
    let was_given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let file = matches.get_one::<OsString>("config").filter(|_| was_given("config")).map(PathBuf::from);
    Flags { file, given: keys.filter(|key| was_given(key.name)).map(|key| setting(key, matches)).collect() }
}

fn argument(key: &'static Key) -> Arg {
    let argument = Arg::new(key.name)
        .long(&*key.flag)
        .env(&*key.variable)
        .value_name(key.placeholder)
        .value_parser(ValueParser::new(KeyValueParser(key)))
        .allow_negative_numbers(true)
        .help(key.help)
        .help_heading(key.group)
        .hide_default_value(matches!(key.default, Cow::Owned(_)))
        .hide_env_values(key.is_redacted());
    let argument = if key.default.is_empty() { argument } else { argument.default_value(&*key.default) };
    match key.shape {
        Shape::One => argument.action(ArgAction::Set),
        Shape::List => argument.action(ArgAction::Append),
        Shape::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
    }
}

fn setting(key: &'static Key, matches: &ArgMatches) -> KeyValue {
    let texts = matches.get_many::<String>(key.name).into_iter().flatten();
    let texts = texts.flat_map(|text| key.split(text)).collect();
    KeyValue { key, texts, source: ConfigSource::Flag(format!("--{}", key.flag)) }
}

/// Reports a value that the key's reader does not accept, in clap's own form.
#[derive(Debug, Clone)]
struct KeyValueParser(&'static Key);

impl TypedValueParser for KeyValueParser {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        let Self(key) = self;
        let text = StringValueParser::new().parse_ref(command, arg, value)?;
        let invalid_values = key.check(&key.split(&text)).err().unwrap_or_default();
        let Some(InvalidValue { text, reason }) = invalid_values.into_iter().next() else {
            return Ok(text);
        };
        if key.choices.is_empty() {
            (move |_: &str| Err::<String, _>(reason.clone())).parse_ref(command, arg, OsStr::new(&text))
        } else {
            PossibleValuesParser::new(key.choices.clone()).parse_ref(command, arg, OsStr::new(&text))
        }
    }

    fn parse_ref_(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<String, clap::Error> {
        if source == ValueSource::CommandLine {
            self.parse_ref(command, arg, value)
        } else {
            // The help alone shows it.
            Ok(value.to_string_lossy().into_owned())
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let Self(key) = self;
        if key.choices.is_empty() { None } else { Some(Box::new(key.choices.iter().cloned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample::Sample;

    /// What these arguments set in `Sample`.
    fn parse(arguments: &[&str]) -> Result<Vec<KeyValue>, clap::Error> {
        let keys = Sample::keys();
        let command = Command::new("sample").args(keys.iter().map(argument));
        let matches = command.try_get_matches_from(["sample"].iter().chain(arguments))?;
        let was_given = |key: &&Key| matches.value_source(key.name) == Some(ValueSource::CommandLine);
        Ok(keys.iter().filter(was_given).map(|key| setting(key, &matches)).collect())
    }

    fn texts(arguments: &[&str]) -> Vec<String> {
        let [setting] = <[KeyValue; 1]>::try_from(parse(arguments).unwrap()).unwrap();
        setting.texts
    }

    fn flags(arguments: &[&str]) -> Flags {
        let command = Flags::augment_args(Command::new("server"));
        Flags::from_arg_matches(&command.get_matches_from(["server"].iter().chain(arguments))).unwrap()
    }

    #[test]
    fn redacted_value_is_in_no_error_of_clap() {
        let command = Flags::augment_args(Command::new("server"));
        let url = "redis://someone:hunter2@localhost:99999";
        let error = command.try_get_matches_from(["server", "--redis-url", url]).unwrap_err().to_string();
        assert!(error.contains("'***' for '--redis-url <URL>'") && !error.contains("hunter2"), "{error}");
        let argument = |name: &str| argument(Config::keys().iter().find(|key| key.name == name).unwrap());
        let hides = ["redis_url", "redis_user"].map(|name| argument(name).is_hide_env_values_set());
        assert_eq!(hides, [true, false]);
    }

    #[test]
    fn only_given_flags_are_set() {
        assert_eq!(parse(&[]).unwrap(), []);
        let [most] = &parse(&["--most", "7"]).unwrap()[..] else { panic!("expected one value") };
        assert_eq!((most.key.name, most.source.to_string()), ("most", "--most".into()));
        let none = flags(&[]);
        assert!(none.file.is_none() && none.given.is_empty(), "{none:?}");
    }

    #[test]
    fn each_shape_has_its_flag_syntax() {
        assert_eq!(texts(&["--may-be-open"]), ["true"]);
        assert_eq!(texts(&["--may-be-open=false"]), ["false"]);
        assert_eq!(texts(&["--ports", "80,443", "--ports=81"]), ["80", "443", "81"]);
        assert_eq!(texts(&["--origins="]), [""; 0]);
        assert_eq!(texts(&["--certificate="]), [""]);
        let twice = parse(&["--most", "1", "--most", "2"]).unwrap_err();
        assert!(twice.to_string().contains("cannot be used multiple times"), "{twice}");
    }

    #[test]
    fn invalid_flag_is_reported_by_clap() {
        for (arguments, message) in [
            (
                &["--most", "11"][..],
                "invalid value '11' for '--most <N>': 11 is not from 1 to 10; or write `unlimited`",
            ),
            (&["--most", "-1"], "invalid value '-1' for '--most <N>': -1 is not from 1 to 10"),
            (&["--ports", "80,x"], "invalid value 'x' for '--ports <PORT>': expected a whole number from 1 to 65535"),
            (&["--ports="], "invalid value '' for '--ports <PORT>': at least one must be given"),
            (
                &["--kind", "sqlite"],
                "invalid value 'sqlite' for '--kind <KIND>'\n  [possible values: lmdb, memory, redis]",
            ),
            (&["--may-be-open=maybe"], "[possible values: true, false]"),
            (&["--may-be-open", "false"], "unexpected argument 'false'"),
            (&["--mosd", "7"], "tip: a similar argument exists: '--most'"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.to_string().contains(message), "{arguments:?}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn help_has_groups_variables_and_defaults() {
        let help = Flags::augment_args(Command::new("server")).render_long_help().to_string();
        for message in
            ["\nLimits:\n", "[env: SESSIONS_LIMIT", "[default: 3]", "[env: SESSIONS_CONFIG", "[default: one per core]"]
        {
            assert!(help.contains(message), "{message}: {help}");
        }
        assert_eq!(help.matches("--threads").count(), 1);
        let (_, threads) = help.split_once("--threads").unwrap();
        let (threads, _) = threads.split_once("--").unwrap();
        assert_eq!(
            threads.matches("[default:").count(),
            1,
            "the number of cores of this machine does not matter: {threads}"
        );
    }

    #[test]
    fn later_flags_override_values_and_extend_lists() {
        let one = flags(&["--config", "a.toml", "--limit", "5", "--log", "warn", "--listen", "127.0.0.1:1"]);
        let both = one.merge(flags(&["--config", "b.toml", "--limit", "6", "--listen", "127.0.0.1:2"]));
        let mut texts: Vec<_> = both.given.iter().map(|setting| setting.texts.join(",")).collect();
        texts.sort();
        assert_eq!(texts, ["127.0.0.1:1,127.0.0.1:2", "6", "warn"]);
        assert_eq!(both.names(), ["--config", "--listen", "--limit", "--log"]);
        assert_eq!(both.clone().merge(Flags::default()).file, Some("b.toml".into()));
        assert_eq!(both.file, Some("b.toml".into()));
    }
}
