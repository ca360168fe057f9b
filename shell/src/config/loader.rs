//! Combines the sources of the configuration into one [`Config`].
//!
//! In rising order of precedence: the defaults, the file, environment variables, flags. An invalid value is an error even
//! where a stronger source overrides it. Otherwise the error would appear only once that source is gone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::mem;
use std::path::PathBuf;

use super::conflicts::{Conflict, check_conflicts};
use super::error::{ConfigError, ConfigErrors, ConfigSource};
use super::files::EnvironmentSecrets;
use super::flags::Flags;
use super::key::Key;
use super::layer::{KeyValue, Layer};
use super::value::InvalidValue;
use super::{Config, environment, file, files};
use crate::auth::Secret;
use crate::store::RedisPassword;

/// The sources of a configuration. It can load them again, for example after the file has changed.
#[derive(Clone, Default)]
pub struct ConfigLoader {
    flags: Flags,
    environment: BTreeMap<String, OsString>,
    file: Option<PathBuf>,
}

/// A configuration, and the source of each value.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values in force.
    pub config: Config,
    /// The same values as text, for each of [`Config::keys`] in their order.
    pub settings: Vec<KeyValue>,
    /// Probable mistakes that do no harm.
    pub warnings: Vec<ConfigError>,
}

impl ConfigLoader {
    /// Takes these flags, these environment variables, and the file that either of them names.
    pub fn new(flags: Flags, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let environment = environment::with_prefix(environment);
        let file = flags.file.clone().or_else(|| environment::file(&environment));
        Self { flags, environment, file }
    }

    /// Takes this file alone.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// The secret that signs tokens, if the environment has one.
    #[must_use]
    pub fn secret(&self) -> Option<Secret> {
        self.environment.get(environment::SECRET).map(|secret| Secret::new(secret.as_encoded_bytes()))
    }

    /// The password of the store that several servers share, if the environment has one.
    #[must_use]
    pub fn redis_password(&self) -> Option<RedisPassword> {
        let password = self.environment.get(environment::REDIS_PASSWORD)?;
        Some(RedisPassword::Given(password.as_encoded_bytes().into()))
    }

    /// Loads all sources. Each call opens the file again.
    ///
    /// # Errors
    /// Every error in every source.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_with(check_conflicts)
    }

    /// Loads all sources, for a server that is to run with them. Also checks the files that they name.
    ///
    /// # Errors
    /// Every error in every source, and in every file: certificate, key, secret, keys of tokens.
    pub fn load_for_server(&self) -> Result<Loaded, ConfigErrors> {
        self.load_with_files(&EnvironmentSecrets::Known { jwt: self.secret(), redis: self.redis_password() })
    }

    /// Loads all sources, for a server that another process will be. Its environment may have the secret of tokens and the
    /// password of the store, so a missing one is no error.
    ///
    /// # Errors
    /// As for [`load_for_server`](Self::load_for_server).
    pub fn load_for_other_server(&self) -> Result<Loaded, ConfigErrors> {
        self.load_with_files(&EnvironmentSecrets::Unknown)
    }

    fn load_with_files(&self, secrets: &EnvironmentSecrets) -> Result<Loaded, ConfigErrors> {
        self.load_with(|config| {
            let mut errors = check_conflicts(config);
            errors.extend(files::check(config, secrets));
            errors
        })
    }

    fn load_with(&self, check_conflicts: impl Fn(&Config) -> Vec<Conflict>) -> Result<Loaded, ConfigErrors> {
        let keys = Config::keys();
        let file = self.file.as_ref().map(|path| file::read(keys, path)).unwrap_or_default();
        let flags = Layer { settings: self.flags.given.clone(), ..Layer::default() };
        let Layer { settings, mut errors, warnings } =
            resolve(keys, [file, environment::read(keys, &self.environment), flags]);
        let texts: Vec<_> = settings.iter().map(|setting| &*setting.texts).collect();
        match Config::read(&texts) {
            Ok(config) => {
                errors.extend(check_conflicts(&config).into_iter().map(|conflict| conflict.into_error(&settings)));
                if errors.is_empty() {
                    return Ok(Loaded { config, settings, warnings });
                }
            }
            Err(invalid_values) => {
                // Conflicts are reported too, unless they involve a key with an invalid value: such a key is at its
                // default here.
                let is_invalid = |name: &str| invalid_values.iter().any(|(key, _)| key.name == name);
                let mut valid = settings.clone();
                for setting in valid.iter_mut().filter(|setting| is_invalid(setting.key.name)) {
                    setting.texts = setting.key.default_texts();
                }
                let texts: Vec<_> = valid.iter().map(|setting| &*setting.texts).collect();
                let conflicts = Config::read(&texts).map(|config| check_conflicts(&config)).unwrap_or_default();
                let conflicts =
                    conflicts.into_iter().filter(|conflict| !conflict.keys.iter().any(|key| is_invalid(key)));
                errors.extend(conflicts.map(|conflict| conflict.into_error(&settings)));
                errors.extend(invalid_values.into_iter().map(|(key, invalid)| {
                    let setting = settings.iter().find(|setting| setting.key == key);
                    setting.map_or(ConfigSource::Default, |setting| setting.source.clone()).invalid_value(key, invalid)
                }));
            }
        }
        // In the order of the file, whichever check found them.
        errors.sort_by(|one, other| one.source.cmp(&other.source));
        Err(ConfigErrors(errors))
    }
}

/// Without the values of the environment: two of them are secrets.
impl fmt::Debug for ConfigLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flags, environment, file } = self;
        let variables: Vec<_> = environment.keys().collect();
        f.debug_struct("ConfigLoader").field("flags", flags).field("variables", &variables).field("file", file).finish()
    }
}

/// Takes each key's value from the strongest layer that sets it. Checks overridden values, because nothing else reads
/// them.
fn resolve(keys: &'static [Key], layers: impl IntoIterator<Item = Layer>) -> Layer {
    let default = |key: &'static Key| KeyValue { key, texts: key.default_texts(), source: ConfigSource::Default };
    let mut resolved = Layer { settings: keys.iter().map(default).collect(), ..Layer::default() };
    for Layer { settings, errors, warnings } in layers {
        resolved.errors.extend(errors);
        resolved.warnings.extend(warnings);
        for setting in settings {
            let Some(current) = resolved.settings.iter_mut().find(|other| other.key == setting.key) else { continue };
            let KeyValue { key, texts, source } = mem::replace(current, setting);
            if source != ConfigSource::Default {
                let invalid_values = key.check(&texts).err().unwrap_or_default();
                resolved
                    .errors
                    .extend(invalid_values.into_iter().map(|invalid| source.clone().invalid_value(key, invalid)));
            }
        }
    }
    resolved
}

impl ConfigSource {
    fn invalid_value(self, key: &Key, InvalidValue { text, reason }: InvalidValue) -> ConfigError {
        ConfigError::for_key(self, key.name, format!("invalid value '{text}': {reason}"))
    }
}

impl Conflict {
    /// The error, located at the strongest source of its keys.
    fn into_error(self, settings: &[KeyValue]) -> ConfigError {
        let Self { keys, reason, source } = self;
        let sources = settings.iter().filter(|setting| keys.contains(&setting.key.name)).map(|setting| &setting.source);
        let source = source.or_else(|| sources.max().cloned()).unwrap_or(ConfigSource::Default);
        ConfigError { keys: keys.iter().map(|&key| key.into()).collect(), ..ConfigError::new(source, reason) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::sample::Sample;

    fn layer(keys: &'static [Key], source: &ConfigSource, given: &[(&str, &str)]) -> Layer {
        let setting = |&(name, text): &(&str, &str)| {
            let key = keys.iter().find(|key| key.name == name).unwrap();
            KeyValue { key, texts: key.split(text), source: source.clone() }
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

    fn source(loaded: &Loaded, name: &str) -> ConfigSource {
        loaded.settings.iter().find(|setting| setting.key.name == name).unwrap().source.clone()
    }

    fn messages(errors: ConfigErrors) -> Vec<String> {
        let ConfigErrors(errors) = errors;
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_override_variables_override_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "limit = 4\nlog = \"warn\"\n\nthreads = 7");
        let environment = [("SESSIONS_CONFIG", &*path), ("SESSIONS_LIMIT", "5"), ("SESSIONS_THREADS", "8")];
        let loaded = ConfigLoader::new(flags(&[("limit", "6")]), variables(&environment)).load().unwrap();
        let Config { limit, threads, log, max_message_bytes, .. } = &loaded.config;
        assert_eq!((limit.slots(), *threads, &**log, *max_message_bytes), (6, 8, "warn", None));

        let line = ConfigSource::Line { path: path.into(), line: 2, column: 1 };
        assert_eq!(source(&loaded, "limit"), ConfigSource::Flag("--flag".into()));
        assert_eq!(source(&loaded, "threads"), ConfigSource::Variable("SESSIONS_THREADS".into()));
        assert_eq!(source(&loaded, "log"), line);
        assert_eq!(source(&loaded, "max_message_bytes"), ConfigSource::Default);
    }

    #[test]
    fn config_flag_overrides_config_variable() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "limit = 4");
        let flags = Flags { file: Some(path.into()), given: Vec::new() };
        let missing = [("SESSIONS_CONFIG", "missing.toml")];
        assert_eq!(ConfigLoader::new(flags, variables(&missing)).load().unwrap().config.limit.slots(), 4);
        let errors = messages(ConfigLoader::new(Flags::default(), variables(&missing)).load().unwrap_err());
        assert!(errors.len() == 1 && errors[0].starts_with("missing.toml: it cannot be read"), "{errors:?}");
        let empty = [("SESSIONS_CONFIG", "")];
        assert_eq!(ConfigLoader::new(Flags::default(), variables(&empty)).load().unwrap().config.limit.slots(), 3);
    }

    #[test]
    fn errors_of_all_sources_come_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "threads = 0\nlimmit = 4\nlimit = 2000\nlog = \"inof\"");
        let environment = [
            ("SESSIONS_CONFIG", &*path),
            ("SESSIONS_PING_INTERVAL", "1ms"),
            ("SESSIONS_LISTEN", "x,y"),
            ("SESSIONS_LIMIT", "-1"),
            ("SESSIONS_THREADS", "2"),
        ];
        let errors = messages(ConfigLoader::new(flags(&[("limit", "6")]), variables(&environment)).load().unwrap_err());
        let host = "it must be HOST:PORT, as in 127.0.0.1:3000";
        assert_eq!(
            errors,
            [
                format!("{path}:1:1: threads: invalid value '0': 0 is not from 1 to 256"),
                format!("{path}:2:1: limmit: unknown key; did you mean limit?"),
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
    fn conflict_is_reported_at_its_strongest_source() {
        let loader = ConfigLoader::new(flags(&[("limit", "6")]), variables(&[("SESSIONS_LOG", "warn")]));
        let check = |config: &Config| {
            assert_eq!(config.limit.slots(), 6);
            let conflict = |keys, reason: &str| Conflict::new(keys, reason);
            vec![conflict(&["log", "limit"], "no"), conflict(&["threads", "log"], "never")]
        };
        let errors = messages(loader.load_with(check).unwrap_err());
        assert_eq!(errors, ["SESSIONS_LOG: threads, log: never", "--flag: log, limit: no"]);
    }

    #[test]
    fn load_reads_a_changed_file_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "limit = 4");
        let loader = ConfigLoader::from_file(&path);
        assert_eq!(loader.load().unwrap().config.limit.slots(), 4);
        file(directory.path(), "limit = 5");
        assert_eq!(loader.load().unwrap().config.limit.slots(), 5);
        file(directory.path(), "limit = 1025");
        assert!(loader.load().is_err());
    }

    #[test]
    fn unknown_variable_is_a_warning() {
        let loaded = ConfigLoader::new(Flags::default(), variables(&[("SESSIONS_LIMITS", "5")])).load().unwrap();
        let [warning] = &loaded.warnings[..] else { panic!("one: {:?}", loaded.warnings) };
        assert!(warning.to_string().starts_with("SESSIONS_LIMITS: "));
    }

    #[test]
    fn stronger_source_replaces_lists_and_unsets_values() {
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
        let errors: Vec<_> = resolved.errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["file:1:1: most: invalid value '11': 11 is not from 1 to 10; or write `unlimited`"]);
    }
}
