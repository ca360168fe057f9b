//! What one source of the configuration sets: the file, the environment or the flags.

use std::borrow::Cow;
use std::fmt;

use super::error::{ConfigError, ConfigSource};
use super::key::Key;

/// The value of a key, as text, and its source.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: &'static Key,
    /// The texts as they were written: exactly one, unless the key holds a list. They may hold a secret; show
    /// [`shown`](Self::shown) instead.
    pub texts: Vec<String>,
    /// The source of the value.
    pub source: ConfigSource,
}

impl KeyValue {
    /// The texts as they may be shown.
    pub fn shown(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.texts.iter().map(|text| self.key.shown(text))
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.shown().collect();
        f.debug_struct("KeyValue").field("key", &self.key).field("texts", &texts).field("source", &self.source).finish()
    }
}

/// What one source sets.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) settings: Vec<KeyValue>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigError>,
}
