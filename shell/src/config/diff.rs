//! The difference between a configuration and the one loaded after it.

use std::fmt;

use super::key::{Key, ReloadMode};
use super::layer::KeyValue;
use super::loader::Loaded;

/// A key whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedKey {
    /// The key. It also knows when the change takes effect.
    pub key: &'static Key,
    /// The old value. Commas separate the values of a list.
    pub old: String,
    /// The new value.
    pub new: String,
}

impl fmt::Display for ChangedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        let when = match key.applies {
            ReloadMode::AtOnce => "at once",
            ReloadMode::AfterRestart => "after a restart",
        };
        write!(f, "{} was {old:?} and is {new:?} {when}", key.name)
    }
}

/// Every key that has changed, in the order of the table.
///
/// A value that is only written differently, such as 10000ms for 10s, has not changed.
#[must_use]
pub fn diff(old: &Loaded, new: &Loaded) -> Vec<ChangedKey> {
    let different = old.config.different_keys(&new.config);
    let pairs = old.settings.iter().zip(&new.settings);
    pairs
        .filter(|(old, new)| old.texts != new.texts && different.contains(&old.key.name))
        .map(|(old, new)| ChangedKey { key: old.key, old: shown(old), new: shown(new) })
        .collect()
}

fn shown(value: &KeyValue) -> String {
    value.shown().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigLoader, Flags};

    fn load(given: &[(&str, &str)]) -> Loaded {
        let environment = given.iter().map(|&(name, value)| (name.into(), value.into()));
        ConfigLoader::new(Flags::default(), environment).load().unwrap()
    }

    #[test]
    fn change_says_when_it_takes_effect() {
        let old = load(&[("SESSIONS_LIMIT", "3"), ("SESSIONS_LOG", "warn"), ("SESSIONS_THREADS", "2")]);
        let new = load(&[
            ("SESSIONS_LIMIT", "4"),
            ("SESSIONS_LOG", "warn"),
            ("SESSIONS_THREADS", "2"),
            ("SESSIONS_LISTEN", "127.0.0.1:1,127.0.0.1:2"),
        ]);
        let changes: Vec<_> = diff(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            changes,
            [
                r#"listen was "localhost:3000" and is "127.0.0.1:1,127.0.0.1:2" after a restart"#,
                r#"limit was "3" and is "4" at once"#,
            ]
        );
        assert_eq!(diff(&old, &old), []);
    }

    #[test]
    fn same_value_in_another_form_has_not_changed() {
        let default = load(&[]);
        let written =
            [("SESSIONS_AUTH_TIMEOUT", "10000ms"), ("SESSIONS_LIMIT", "3"), ("SESSIONS_FORGET_AFTER", "720h")];
        assert_eq!(diff(&default, &load(&written)), []);
    }
}
