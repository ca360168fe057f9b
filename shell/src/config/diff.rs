//! What a configuration that was read again changes.

use std::fmt;

use super::key::{Key, ReloadMode};
use super::loader::Loaded;

/// A key whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedKey {
    /// Which, and when that takes effect.
    pub key: &'static Key,
    /// What it was. The values of a list have commas between them.
    pub old: String,
    /// What it is now.
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
/// A value that is only written otherwise has not, 10000ms for 10s.
#[must_use]
pub fn diff(old: &Loaded, new: &Loaded) -> Vec<ChangedKey> {
    let differing = old.config.differing(&new.config);
    let pairs = old.settings.iter().zip(&new.settings);
    pairs
        .filter(|(old, new)| old.texts != new.texts && differing.contains(&old.key.name))
        .map(|(old, new)| ChangedKey { key: old.key, old: old.texts.join(","), new: new.texts.join(",") })
        .collect()
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
    fn what_has_changed_is_told_with_when_that_takes_effect() {
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
    fn what_is_only_written_otherwise_or_said_elsewhere_has_not_changed() {
        let default = load(&[]);
        let written =
            [("SESSIONS_AUTH_TIMEOUT", "10000ms"), ("SESSIONS_LIMIT", "3"), ("SESSIONS_FORGET_AFTER", "720h")];
        assert_eq!(diff(&default, &load(&written)), []);
    }
}
