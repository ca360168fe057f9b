//! What one source of the configuration sets: the file, the environment or the flags.

use super::error::{ConfigError, ConfigSource};
use super::key::Key;

/// The value of a key, as text, and its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: &'static Key,
    /// The texts as they were written: exactly one, unless the key holds a list.
    pub texts: Vec<String>,
    /// The source of the value.
    pub source: ConfigSource,
}

/// What one source sets.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) settings: Vec<KeyValue>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigError>,
}
