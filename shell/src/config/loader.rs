//! Where the configuration comes from, and what comes of it.
//!
//! In rising order of precedence: the defaults, the file, environment variables, flags. A value that is wrong is a
//! problem even where a better source overrides it, so that it does not lie in wait.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::mem;
use std::path::PathBuf;

use super::conflicts::{Conflict, check_conflicts};
use super::error::{ConfigError, ConfigErrors, ConfigSource};
use super::flags::Flags;
use super::key::Key;
use super::layer::{KeyValue, Layer};
use super::value::InvalidValue;
use super::{Config, environment, file};
use crate::auth::Secret;

/// The sources of a configuration. They can be read again, and so can a changed file.
#[derive(Debug, Clone, Default)]
pub struct ConfigLoader {
    flags: Flags,
    environment: BTreeMap<String, OsString>,
    file: Option<PathBuf>,
}

/// A configuration, and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What counts.
    pub config: Config,
    /// The same as text, for each of [`Config::keys`] in their order.
    pub settings: Vec<KeyValue>,
    /// What is probably a mistake, but harms nothing.
    pub warnings: Vec<ConfigError>,
}

impl ConfigLoader {
    /// These flags and these environment variables, and the file that they name, if they do.
    pub fn new(flags: Flags, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let environment = environment::with_prefix(environment);
        let file = flags.file.clone().or_else(|| environment::file(&environment));
        Self { flags, environment, file }
    }

    /// This file, by itself.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// The secret that tokens are signed with, if the environment has one.
    #[must_use]
    pub fn secret(&self) -> Option<Secret> {
        self.environment.get(environment::SECRET).map(|secret| Secret::new(secret.as_encoded_bytes()))
    }

    /// Reads them. The file is opened each time, so that after a change of it this is the way to read it again.
    ///
    /// # Errors
    /// With everything that is wrong in any of them.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_if(check_conflicts)
    }

    fn load_if(&self, agree: impl Fn(&Config) -> Vec<Conflict>) -> Result<Loaded, ConfigErrors> {
        let keys = Config::keys();
        let file = self.file.as_ref().map(|path| file::read(keys, path)).unwrap_or_default();
        let flags = Layer { settings: self.flags.given.clone(), ..Layer::default() };
        let Layer { settings, mut problems, warnings } =
            resolve(keys, [file, environment::read(keys, &self.environment), flags]);
        let texts: Vec<_> = settings.iter().map(|setting| &*setting.texts).collect();
        match Config::read(&texts) {
            Ok(config) => {
                problems.extend(agree(&config).into_iter().map(|disagreement| disagreement.problem(&settings)));
                if problems.is_empty() {
                    return Ok(Loaded { config, settings, warnings });
                }
            }
            Err(refused) => {
                // What does not go together is told as well, as far as it is not about these.
                let mut rest = settings.clone();
                let is_refused = |key: &Key| refused.iter().any(|(other, _)| *other == key);
                for setting in rest.iter_mut().filter(|setting| is_refused(setting.key)) {
                    setting.texts = setting.key.default_texts();
                }
                let texts: Vec<_> = rest.iter().map(|setting| &*setting.texts).collect();
                let disagreements = Config::read(&texts).map(|config| agree(&config)).unwrap_or_default();
                let sound = |one: &Conflict| !refused.iter().any(|(key, _)| one.keys.contains(&key.name));
                problems.extend(disagreements.into_iter().filter(sound).map(|one| one.problem(&settings)));
                problems.extend(refused.into_iter().map(|(key, failure)| {
                    let setting = settings.iter().find(|setting| setting.key == key);
                    setting.map_or(ConfigSource::Default, |setting| setting.origin.clone()).refuses(key, failure)
                }));
            }
        }
        // In the order in which they are found in the file, however they were.
        problems.sort_by(|one, other| one.origin.cmp(&other.origin));
        Err(ConfigErrors(problems))
    }
}

/// A setting for each key: of the last source that sets it. What is overridden is checked here, since nobody else reads
/// it.
fn resolve(keys: &'static [Key], layers: impl IntoIterator<Item = Layer>) -> Layer {
    let default = |key: &'static Key| KeyValue { key, texts: key.default_texts(), origin: ConfigSource::Default };
    let mut resolved = Layer { settings: keys.iter().map(default).collect(), ..Layer::default() };
    for Layer { settings, problems, warnings } in layers {
        resolved.problems.extend(problems);
        resolved.warnings.extend(warnings);
        for setting in settings {
            let Some(place) = resolved.settings.iter_mut().find(|other| other.key == setting.key) else { continue };
            let KeyValue { key, texts, origin } = mem::replace(place, setting);
            if origin != ConfigSource::Default {
                let refusals = key.check(&texts).err().unwrap_or_default();
                resolved.problems.extend(refusals.into_iter().map(|failure| origin.clone().refuses(key, failure)));
            }
        }
    }
    resolved
}

impl ConfigSource {
    fn refuses(self, key: &Key, InvalidValue { text, reason }: InvalidValue) -> ConfigError {
        ConfigError::for_key(self, key.name, format!("invalid value '{text}': {reason}"))
    }
}

impl Conflict {
    /// Where the strongest of its keys was given.
    fn problem(self, settings: &[KeyValue]) -> ConfigError {
        let Self { keys, reason } = self;
        let origins = settings.iter().filter(|setting| keys.contains(&setting.key.name)).map(|setting| &setting.origin);
        let origin = origins.max().cloned().unwrap_or(ConfigSource::Default);
        ConfigError { keys: keys.iter().map(|&key| key.into()).collect(), ..ConfigError::new(origin, reason) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::sample::Sample;

    fn layer(keys: &'static [Key], origin: &ConfigSource, given: &[(&str, &str)]) -> Layer {
        let setting = |&(name, text): &(&str, &str)| {
            let key = keys.iter().find(|key| key.name == name).unwrap();
            KeyValue { key, texts: key.split(text), origin: origin.clone() }
        };
        Layer { settings: given.iter().map(setting).collect(), ..Layer::default() }
    }

    fn flags(given: &[(&str, &str)]) -> Flags {
        Flags { file: None, given: layer(Config::keys(), &ConfigSource::Flag("--flag".into()), given).settings }
    }

    fn variables<'a>(given: &'a [(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> + use<'a> {
        given.iter().map(|&(name, value)| (name.into(), value.into()))
    }

    fn file(directory: &Path, text: &str) -> String {
        let path = directory.join("sessions.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn origin(loaded: &Loaded, name: &str) -> ConfigSource {
        loaded.settings.iter().find(|setting| setting.key.name == name).unwrap().origin.clone()
    }

    fn words(problems: ConfigErrors) -> Vec<String> {
        let ConfigErrors(problems) = problems;
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_count_more_than_variables_and_those_more_than_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "limit = 4\nlog = \"warn\"\n\nthreads = 7");
        let environment = [("SESSIONS_CONFIG", &*path), ("SESSIONS_LIMIT", "5"), ("SESSIONS_THREADS", "8")];
        let loaded = ConfigLoader::new(flags(&[("limit", "6")]), variables(&environment)).load().unwrap();
        let Config { limit, threads, log, max_message_bytes, .. } = &loaded.config;
        assert_eq!((limit.slots(), *threads, &**log, &*max_message_bytes.to_string()), (6, 8, "warn", "4096"));

        let line = ConfigSource::Line { path: path.into(), line: 2, column: 1 };
        assert_eq!(origin(&loaded, "limit"), ConfigSource::Flag("--flag".into()));
        assert_eq!(origin(&loaded, "threads"), ConfigSource::Variable("SESSIONS_THREADS".into()));
        assert_eq!(origin(&loaded, "log"), line);
        assert_eq!(origin(&loaded, "max_message_bytes"), ConfigSource::Default);
    }

    #[test]
    fn a_flag_names_the_file_before_a_variable_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "limit = 4");
        let flags = Flags { file: Some(path.into()), given: Vec::new() };
        let missing = [("SESSIONS_CONFIG", "missing.toml")];
        assert_eq!(ConfigLoader::new(flags, variables(&missing)).load().unwrap().config.limit.slots(), 4);
        let problems = words(ConfigLoader::new(Flags::default(), variables(&missing)).load().unwrap_err());
        assert!(problems.len() == 1 && problems[0].starts_with("missing.toml: it cannot be read"), "{problems:?}");
        let empty = [("SESSIONS_CONFIG", "")];
        assert_eq!(ConfigLoader::new(Flags::default(), variables(&empty)).load().unwrap().config.limit.slots(), 3);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "threads = 0\nlimmit = 4\nlimit = 2000\nlog = \"inof\"");
        let environment = [
            ("SESSIONS_CONFIG", &*path),
            ("SESSIONS_PING_INTERVAL", "1ms"),
            ("SESSIONS_LISTEN", "x,y"),
            ("SESSIONS_LIMIT", "-1"),
            ("SESSIONS_THREADS", "2"),
        ];
        let problems = words(ConfigLoader::new(flags(&[("limit", "6")]), variables(&environment)).load().unwrap_err());
        let host = "it must be HOST:PORT, as in 127.0.0.1:3000";
        assert_eq!(
            problems,
            [
                format!("{path}:1:1: threads: invalid value '0': 0 is not from 1 to 256"),
                format!("{path}:2:1: limmit: there is no such key; did you mean limit?"),
                format!(
                    "{path}:3:1: limit: invalid value '2000': a limit of 2000 sessions per user is too many, the most is 1024"
                ),
                format!(
                    "{path}:4:1: log: invalid value 'inof': \"inof\" is no level: it must be error, warn, info, debug, trace, off or TARGET=LEVEL"
                ),
                "SESSIONS_LIMIT: invalid value '-1': expected a whole number from 0 to 1024, or `unlimited`".into(),
                format!("SESSIONS_LISTEN: invalid value 'x': it has no port; {host}"),
                format!("SESSIONS_LISTEN: invalid value 'y': it has no port; {host}"),
                "SESSIONS_PING_INTERVAL: invalid value '1ms': it must be 100ms to 1h".into(),
            ]
        );
    }

    #[test]
    fn keys_that_do_not_go_together_are_told_by_the_strongest_of_them() {
        let sources = ConfigLoader::new(flags(&[("limit", "6")]), variables(&[("SESSIONS_LOG", "warn")]));
        let agree = |config: &Config| {
            assert_eq!(config.limit.slots(), 6);
            let disagreement = |keys, reason: &str| Conflict { keys, reason: reason.into() };
            vec![disagreement(&["log", "limit"], "no"), disagreement(&["threads", "log"], "never")]
        };
        let problems = words(sources.load_if(agree).unwrap_err());
        assert_eq!(problems, ["SESSIONS_LOG: threads, log: never", "--flag: log, limit: no"]);
    }

    #[test]
    fn a_file_that_has_changed_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "limit = 4");
        let sources = ConfigLoader::from_file(&path);
        assert_eq!(sources.load().unwrap().config.limit.slots(), 4);
        file(directory.path(), "limit = 5");
        assert_eq!(sources.load().unwrap().config.limit.slots(), 5);
        file(directory.path(), "limit = 1025");
        assert!(sources.load().is_err());
    }

    #[test]
    fn what_is_probably_a_mistake_is_warned_of() {
        let loaded = ConfigLoader::new(Flags::default(), variables(&[("SESSIONS_LIMITS", "5")])).load().unwrap();
        let [warning] = &loaded.warnings[..] else { panic!("one: {:?}", loaded.warnings) };
        assert!(warning.to_string().starts_with("SESSIONS_LIMITS: "));
    }

    #[test]
    fn a_better_source_replaces_a_list_and_can_unset_a_value() {
        let keys = Sample::keys();
        let below = [("ports", "1,2"), ("origins", "a,b"), ("certificate", "there"), ("most", "11")];
        let above = [("ports", "3"), ("origins", ""), ("certificate", ""), ("most", "unlimited")];
        let file = ConfigSource::Line { path: "file".into(), line: 1, column: 1 };
        let resolved =
            resolve(keys, [layer(keys, &file, &below), layer(keys, &ConfigSource::Flag("--flag".into()), &above)]);
        let texts: Vec<_> = resolved.settings.iter().map(|setting| setting.texts.join(",")).collect();
        assert_eq!(texts, ["3", "", "false", "", "unlimited", "lmdb"]);
        let texts: Vec<_> = resolved.settings.iter().map(|setting| &*setting.texts).collect();
        let sample = Sample::read(&texts).unwrap();
        assert_eq!((sample.ports, sample.origins.len(), sample.certificate), (vec![3], 0, None));
        let problems: Vec<_> = resolved.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, ["file:1:1: most: invalid value '11': 11 is not from 1 to 10; or write `unlimited`"]);
    }
}
