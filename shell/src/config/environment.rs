//! Reads the environment variables that begin with `SESSIONS_`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{ConfigError, ConfigSource, nearest};
use super::key::Key;
use super::layer::{KeyValue, Layer};

const PREFIX: &str = "SESSIONS_";

/// Names the configuration file.
pub(super) const FILE: &str = "SESSIONS_CONFIG";

/// The secret that signs tokens. It is not a key, so it can neither be set in the file nor be printed.
pub(super) const SECRET: &str = "SESSIONS_JWT_SECRET";

/// The password of the shared store. Not a key either.
pub(super) const REDIS_PASSWORD: &str = "SESSIONS_REDIS_PASSWORD";

/// Known variables that are not keys of the server: the secrets, and the client's variables.
const OTHERS: [&str; 6] = [SECRET, REDIS_PASSWORD, "SESSIONS_URL", "SESSIONS_USER", "SESSIONS_TOKEN", "SESSIONS_CA"];

/// The variables with our prefix. An empty variable counts as not set.
pub(super) fn with_prefix(environment: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, OsString> {
    let named = environment.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()).collect()
}

/// The configuration file that a variable names.
pub(super) fn file(environment: &BTreeMap<String, OsString>) -> Option<PathBuf> {
    environment.get(FILE).map(PathBuf::from)
}

/// What these variables set.
pub(super) fn read(keys: &'static [Key], environment: &BTreeMap<String, OsString>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in environment {
        let source = ConfigSource::Variable(name.clone());
        match (keys.iter().find(|key| key.variable == *name), value.to_str()) {
            (Some(key), Some(text)) => layer.settings.push(KeyValue { key, texts: key.split(text), source }),
            (Some(key), None) => layer.errors.push(ConfigError::for_key(source, key.name, "its value is not UTF-8")),
            (None, _) if name == FILE || OTHERS.contains(&&**name) => {}
            // Only a warning: container platforms set variables of their own that begin with the name of a service.
            (None, _) => {
                let candidates = keys.iter().map(|key| &*key.variable).chain([FILE]);
                let suggestion = nearest(name, candidates).map(str::to_owned);
                let warning = ConfigError::new(source, "unknown variable, ignored");
                layer.warnings.push(ConfigError { suggestion, ..warning });
            }
        }
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn layer(variables: &[(&str, &str)]) -> Layer {
        let environment = variables.iter().map(|&(name, value)| (name.into(), value.into()));
        read(Config::keys(), &with_prefix(environment))
    }

    #[test]
    fn variable_sets_its_key() {
        let layer = layer(&[("SESSIONS_LISTEN", "a:1, b:2"), ("SESSIONS_LIMIT", "5")]);
        let [limit, listen] = &layer.settings[..] else { panic!("{layer:?}") };
        assert_eq!((limit.key.name, &limit.texts[..]), ("limit", &["5".to_owned()][..]));
        assert_eq!((listen.key.name, &listen.texts[..]), ("listen", &["a:1".to_owned(), "b:2".to_owned()][..]));
        assert_eq!(limit.source, ConfigSource::Variable("SESSIONS_LIMIT".into()));
    }

    #[test]
    fn empty_variable_counts_as_not_set() {
        let environment = || [("SESSIONS_LIMIT".into(), "".into()), (FILE.into(), "".into())];
        assert_eq!(read(Config::keys(), &with_prefix(environment())).settings, []);
        assert_eq!(file(&with_prefix(environment())), None);
        assert_eq!(file(&with_prefix([(FILE.into(), "there".into())])), Some("there".into()));
    }

    #[test]
    fn unknown_variable_is_a_warning() {
        let layer = layer(&[
            (FILE, "sessions.toml"),
            (REDIS_PASSWORD, "a password"),
            ("SESSIONS_LIMITS", "5"),
            ("SESSIONS_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("SESSIONS_URL", "ws://localhost"),
            ("SESSIONS_USER", "ada"),
            ("SESSION_LIMIT", "5"),
            ("PATH", "/bin"),
        ]);
        let warnings: Vec<_> = layer.warnings.iter().map(ToString::to_string).collect();
        let message = "unknown variable, ignored";
        assert_eq!(
            warnings,
            [
                format!("SESSIONS_LIMITS: {message}; did you mean SESSIONS_LIMIT?"),
                format!("SESSIONS_PORT_80_TCP_ADDR: {message}"),
            ]
        );
        assert!(layer.settings.is_empty() && layer.errors.is_empty(), "{layer:?}");
    }

    #[cfg(unix)]
    #[test]
    fn value_that_is_not_utf8_is_an_error() {
        use std::os::unix::ffi::OsStringExt as _;
        let environment = [("SESSIONS_DATA".into(), OsString::from_vec(vec![0xff]))];
        let layer = read(Config::keys(), &with_prefix(environment));
        assert_eq!(layer.errors[0].to_string(), "SESSIONS_DATA: its value is not UTF-8");
        assert!(layer.settings.is_empty());
    }
}
