//! What a configuration that was read again changes.

use std::fmt;

use super::key::{Applies, Key};
use super::sources::Loaded;

/// A key whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which, and when that takes effect.
    pub key: &'static Key,
    /// What it was. The values of a list have commas between them.
    pub old: String,
    /// What it is now.
    pub new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        let when = match key.applies {
            Applies::AtOnce => "at once",
            Applies::AfterRestart => "after a restart",
        };
        write!(f, "{} was {old:?} and is {new:?} {when}", key.name)
    }
}

/// Every key that has changed, in the order of the table.
///
/// A value that is only written otherwise has not, 10000ms for 10s, and neither has one that stands for something else
/// than before though nobody touched it, as a name to listen on that has got another address.
#[must_use]
pub fn diff(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let differing = old.config.differing(&new.config);
    let pairs = old.settings.iter().zip(&new.settings);
    pairs
        .filter(|(old, new)| old.texts != new.texts && differing.contains(&old.key.name))
        .map(|(old, new)| Change { key: old.key, old: old.texts.join(","), new: new.texts.join(",") })
        .collect()
}
